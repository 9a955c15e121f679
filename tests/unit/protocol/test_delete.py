"""Deletes without a context: they read first, and cover what they found."""

import pytest

from kvorum.client.store import Found, Stored
from kvorum.wire.link import OK, OP_GET, OP_PUT
from kvorum.wire.messages import TableCreate, TableDrop
from kvorum.wire.requests import QUORUM_NOT_MET, READ_FIRST, TOMBSTONE, UNKNOWN_TABLE
from tests.support.recording import OneNode, RecordingPort, Refusal
from tests.support.wired import Cluster

NONE = 0
DELETE = TOMBSTONE | READ_FIRST


def outcome(one: OneNode) -> object:
    return one.client.outcome()


def test_a_delete_covers_the_values_that_its_read_finds() -> None:
    cluster = Cluster()
    for member, value in ((1, b"book"), (2, b"lamp")):
        cluster[member].put(value=value, durability=NONE)
        cluster.settle()
        assert isinstance(outcome(cluster[member]), Stored)
    cluster[3].put(value=b"", flags=DELETE, durability=NONE)
    cluster.settle()
    assert isinstance(outcome(cluster[3]), Stored)
    cluster[1].get(r=3)
    cluster.settle()
    found = outcome(cluster[1])
    assert isinstance(found, Found)
    assert found.deleted
    assert len(found.siblings) == 1
    assert cluster[3].client.in_flight == 0


def test_a_delete_of_what_was_never_written_leaves_a_tombstone() -> None:
    cluster = Cluster()
    cluster[1].put(value=b"", flags=DELETE, durability=NONE)
    cluster.settle()
    assert isinstance(outcome(cluster[1]), Stored)
    cluster[1].get()
    cluster.settle()
    found = outcome(cluster[1])
    assert isinstance(found, Found)
    assert found.deleted


def test_a_delete_with_a_context_reads_nothing() -> None:
    one = OneNode().connect()
    one.put(w=1, durability=NONE)
    stored = outcome(one)
    assert isinstance(stored, Stored)
    one.put(value=b"", flags=DELETE, context=stored.context, w=1, durability=NONE)
    assert isinstance(outcome(one), Stored)
    assert [entry.op for entry in one.asked(2)] == [OP_PUT, OP_PUT]


def test_a_delete_whose_read_fails_is_refused_and_has_written_nothing() -> None:
    one = OneNode().connect()
    one.put(value=b"", flags=DELETE)
    assert one.client.in_flight == 1
    one.advance(5_010_000)
    refusal = outcome(one)
    assert isinstance(refusal, Refusal)
    assert refusal.code == QUORUM_NOT_MET
    assert refusal.text.endswith("did; nothing was written")
    assert one.client.in_flight == 0
    assert one.store.get(one.key()) is None
    assert one.env.counters.puts_refused == 1


def asked_for_a_read(one: OneNode) -> int:
    (member,) = [
        member for member in one.others if any(each.op == OP_GET for each in one.asked(member))
    ]
    return member


def test_a_delete_that_arrives_twice_while_it_reads_writes_once() -> None:
    one = OneNode().connect()
    again = RecordingPort()
    one.put(value=b"", flags=DELETE, counter=7, durability=NONE)
    reader = asked_for_a_read(one)
    one.put(value=b"", flags=DELETE, counter=7, durability=NONE, client=again)
    one.answers(reader, OK)
    held = one.store.get(one.key())
    one.end_turn()
    one.answers(reader, OK)
    assert one.store.get(one.key()) == held
    one.accepts(reader)
    assert isinstance(again.outcome(), Stored)
    assert one.client.take() == []
    assert (one.client.in_flight, again.in_flight) == (0, 0)


@pytest.mark.parametrize("dropped", [True, False])
def test_a_delete_of_a_table_that_is_dropped_meanwhile(dropped: bool) -> None:
    one = OneNode().connect()
    one.question(TableCreate(1, "carts", durability="none"))
    table = one.node.tables.registry.by_name("carts")
    assert table is not None
    one.put(value=b"", flags=DELETE, table=table.id, w=1)
    reader = asked_for_a_read(one)
    if dropped:
        one.question(TableDrop(2, "carts"))
    one.answers(reader, OK)
    answer = one.client.outcome()
    if dropped:
        assert isinstance(answer, Refusal)
        assert answer.code == UNKNOWN_TABLE
    else:
        assert isinstance(answer, Stored)
