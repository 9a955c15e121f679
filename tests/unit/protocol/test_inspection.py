"""What people ask about a key: each owner's own copy, and who does not answer."""

import pytest

from kvorum.model.holding import own_dot, record_of
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.protocol.tables import SPACE_TABLES
from kvorum.storage.commit import drain
from kvorum.wire.messages import (
    LOCAL_KEYS_MAX,
    ControlRefused,
    ExplainAnswer,
    ExplainQuery,
    LocalQuery,
    LocalRead,
    LocalRecord,
)
from kvorum.wire.requests import BAD_REQUEST
from tests.support.recording import OneNode
from tests.support.wired import Cluster

QUERY = ExplainQuery(7, DEFAULT_TABLE_ID, b"alice", b"")


def explained(one: OneNode) -> ExplainAnswer:
    answer = one.client.message()
    assert isinstance(answer, ExplainAnswer)
    assert answer.request == 7
    return answer


def test_three_nodes_say_what_each_of_them_holds() -> None:
    cluster = Cluster()
    cluster.lose(1, 3)
    cluster[1].put(durability=0)
    cluster.settle()
    cluster[1].client.take()
    cluster.join(1, 3)
    cluster[1].sync()
    cluster[1].question(QUERY)
    cluster.settle()
    answer = explained(cluster[1])
    key = cluster[1].key()
    assert answer.position == key[1:17]
    assert [each.member for each in answer.replicas] == answer.owners
    copies = {each.member: each for each in answer.replicas}
    held = cluster[1].store.get(key) or b""
    assert copies[1] == LocalRecord(0, 1, record_of(held), False, True, own_dot(held))
    assert copies[2].record == record_of(held)
    assert copies[2].own_dot == b""
    assert copies[3].record is None


def test_owners_that_do_not_answer_are_named_after_a_second() -> None:
    one = OneNode()
    one.env.unreachable[3] = None
    one.question(QUERY)
    assert one.client.take() == []
    ((target, read),) = one.env.sent
    assert (target, type(read)) == (2, LocalRead)
    one.advance(1_000_000)
    texts = {each.member: each.text for each in explained(one).replicas}
    assert texts == {1: "", 2: "no answer within 1 s", 3: "not connected"}
    assert isinstance(read, LocalRead)
    one.node.on_control(2, LocalRecord(read.request, 2, None))
    assert one.client.take() == [], "an answer after the second finds nobody"


def test_only_who_was_asked_may_answer_and_once() -> None:
    one = OneNode()
    one.question(QUERY)
    for member in (1, 2, 2, 9):
        one.node.on_control(2, LocalRecord(1, member, None))
    assert one.client.take() == []
    one.node.on_control(3, LocalRecord(1, 3, b"record", on_disk=True))
    assert {each.member: each.record for each in explained(one).replicas}[3] == b"record"
    one.advance(1_000_000)
    assert one.client.take() == []


def test_a_node_alone_answers_at_once() -> None:
    one = OneNode(count=1, n=1)
    one.question(QUERY)
    assert explained(one).owners == [1]


def test_a_client_that_has_gone_is_told_nothing() -> None:
    one = OneNode()
    one.question(QUERY)
    one.client.closed = True
    one.advance(1_000_000)
    assert one.client.take() == []


def test_a_damaged_copy_is_named_as_such() -> None:
    one = OneNode().connect()
    one.put(durability=0, w=1)
    drain(one.store.buffer)
    one.engine.records[one.key()] = b"garbage that is long enough"
    assert one.node.on_control(2, LocalRead(3, one.key())) == LocalRecord(
        3, 1, None, quarantined=True
    )


def test_what_is_no_records_key_leads_to_nothing() -> None:
    one = OneNode()
    one.store.put(SPACE_TABLES + bytes(40), b"no holding")
    read = LocalRead(3, SPACE_TABLES + bytes(40))
    assert one.node.on_control(2, read) == LocalRecord(3, 1, None)


def test_a_table_id_of_another_length_is_refused() -> None:
    one = OneNode()
    one.question(ExplainQuery(7, b"too long to be an id", b"alice", b""))
    answer = one.client.message()
    assert isinstance(answer, ControlRefused)
    assert answer.code == BAD_REQUEST


def test_a_volatile_node_holds_nothing_on_a_disk() -> None:
    one = OneNode(durable=False).connect()
    one.put(durability=0, w=1)
    answer = one.node.on_control(2, LocalRead(3, one.key()))
    assert isinstance(answer, LocalRecord)
    assert not answer.on_disk
    assert answer.own_dot


@pytest.mark.parametrize(
    "query",
    [
        LocalQuery(3, b"short", [(b"alice", b"")]),
        LocalQuery(3, DEFAULT_TABLE_ID, [(b"alice", b"")] * (LOCAL_KEYS_MAX + 1)),
    ],
    ids=["no table id", "too many keys"],
)
def test_a_local_read_beyond_its_bounds_is_refused(query: LocalQuery) -> None:
    one = OneNode()
    one.question(query)
    answer = one.client.message()
    assert isinstance(answer, ControlRefused)
    assert (answer.request, answer.code) == (3, BAD_REQUEST)
