"""A replica towards coordinators: what it takes, what it refuses, and what it answers to reads."""

import pytest

from kvorum.model.holding import NO_OWN, own_dot, pack_holding, record_of, with_own
from kvorum.model.record import lww_record, record_digest
from kvorum.model.siblings import encode
from kvorum.model.version import make_dot
from kvorum.storage.commit import drain
from kvorum.wire.link import (
    ELSEWHERE,
    FAILED_HERE,
    MALFORMED,
    NOT_TAKEN,
    OK,
    RECORD,
    UNWRITABLE,
)
from kvorum.wire.messages import TableCreate, TableDrop
from tests.support.recording import OneNode
from tests.support.records import dot, seen_of_dots, value

ALICE = b"alice"
OLD = encode(seen_of_dots([dot(1, 1)]), {dot(1, 1): value(dot(1, 1))})
NEW = encode(seen_of_dots([dot(1, 1), dot(1, 2)]), {dot(1, 2): value(dot(1, 2))})
BESIDE = encode(seen_of_dots([dot(1, 1), dot(2, 1)]), {dot(2, 1): value(dot(2, 1))})


def sent(record: bytes, partition_key: bytes = ALICE) -> bytes:
    return pack_holding(NO_OWN, partition_key, record)


def given(one: OneNode, holding: bytes, key: bytes | None = None) -> int:
    one.node.replica.begin()
    return one.node.replica.on_put(key or one.key(), holding, 1, 0)


def read(one: OneNode, large: bool = False) -> int:
    return one.node.replica.on_get(one.key(), 1, 0, large)


def held(one: OneNode) -> bytes:
    return record_of(one.store.get(one.key()) or b"")


@pytest.mark.parametrize(
    ("records", "kept", "merges"),
    [((OLD,), OLD, 0), ((OLD, NEW), NEW, 0), ((NEW, OLD), NEW, 0), ((NEW, NEW), NEW, 0)],
    ids=["first", "newer", "older", "same"],
)
def test_the_better_record_is_kept_as_it_came(
    records: tuple[bytes, ...], kept: bytes, merges: int
) -> None:
    one = OneNode()
    for record in records:
        assert given(one, sent(record)) == OK
        assert one.node.replica.position() == one.store.position
    assert held(one) == kept
    assert one.env.counters.replica_puts == len(records)
    assert one.env.counters.replica_merges == merges


def test_a_round_is_to_look_at_a_record_that_somebody_has_as_it_was_before_the_last() -> None:
    """Found by seed 1000001597: whoever was not told what it dropped never would be."""
    one = OneNode()
    lean = encode(seen_of_dots([dot(2, 1)]), {dot(2, 1): value(dot(2, 1))})
    given(one, sent(lean))
    one.node.generations.note_reaped(one.key(), record_digest(BESIDE))
    assert not one.node.holdings.noted

    assert given(one, sent(BESIDE)) == OK

    assert held(one) == lean
    partition = one.ring.partition_of_engine_key(one.key())
    assert one.node.holdings.overgrown == {partition: {one.key(): None}}


def test_concurrent_records_are_merged() -> None:
    one = OneNode()
    given(one, sent(NEW))
    assert given(one, sent(BESIDE)) == OK
    assert held(one)[6] == 2
    assert one.env.counters.replica_merges == 1


def test_the_own_actor_stays_with_the_holding() -> None:
    one = OneNode().connect()
    one.put(w=1, durability=0)
    own = own_dot(one.store.get(one.key()) or b"")
    assert own != NO_OWN
    given(one, sent(OLD))
    both = encode(
        seen_of_dots([own, dot(1, 1), dot(1, 2)]), {dot(1, 2): value(dot(1, 2))}
    )  # fmt: skip
    given(one, sent(both))
    assert held(one) == both
    assert own_dot(one.store.get(one.key()) or b"") == own


def test_a_later_write_of_our_own_ends_the_incarnation() -> None:
    one = OneNode().connect()
    one.put(w=1, durability=0)
    own = own_dot(one.store.get(one.key()) or b"")
    store_id = one.store.store_id
    later = make_dot(own[:12], 2)
    given(one, sent(encode(seen_of_dots([own, later]), {later: value(later)})))
    assert one.store.store_id != store_id
    assert one.env.events[-1] == "incarnation_ended"


def test_the_loser_of_two_clocks_is_counted() -> None:
    one = OneNode()
    given(one, sent(lww_record(value(dot(1, 1), clock=9))))
    given(one, sent(lww_record(value(dot(2, 1), clock=5))))
    assert held(one) == lww_record(value(dot(1, 1), clock=9))
    assert one.env.counters.lww_dropped == 1


REFUSED = [
    (MALFORMED, "cut short", b"short"),
    (MALFORMED, "unknown here", b"\2" + sent(OLD)[1:]),
    (MALFORMED, "own actor", with_own(sent(OLD), dot(3, 1))),
    (MALFORMED, "", sent(OLD)[:-1]),
]


@pytest.mark.parametrize(("status", "text", "holding"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_holding_is_refused(status: int, text: str, holding: bytes) -> None:
    one = OneNode()
    assert given(one, holding) == status
    assert text in one.node.replica.payload.decode()
    assert one.store.get(one.key()) is None
    assert one.env.counters.replica_refusals == 1


def test_what_does_not_belong_here_is_not_taken() -> None:
    one = OneNode(count=4)
    key = next(
        key
        for key in (one.key(b"%d" % number) for number in range(1000))
        if 1 not in one.ring.owners_of_engine_key(key)
    )
    assert given(one, sent(OLD), key) == NOT_TAKEN
    assert b"does not own" in one.node.replica.payload
    assert given(one, sent(OLD), b"\0" + key[1:]) == NOT_TAKEN
    assert b"none of a record" in one.node.replica.payload
    assert one.node.replica.on_get(b"\0" + key[1:], 1, 0, False) == NOT_TAKEN


def test_records_of_a_dropped_table_are_not_taken() -> None:
    one = OneNode()
    one.question(TableCreate(1, "carts"))
    table = one.node.tables.registry.by_name("carts")
    assert table is not None
    one.question(TableDrop(2, "carts"))
    assert given(one, sent(OLD), one.key(table=table.id)) == NOT_TAKEN
    assert b"dropped" in one.node.replica.payload


def test_a_full_store_takes_nothing_and_still_reads() -> None:
    one = OneNode()
    given(one, sent(OLD))
    one.store.buffer.failed = "the engine has failed"
    assert given(one, sent(NEW)) == UNWRITABLE
    assert one.node.replica.payload == b"the engine has failed"
    assert read(one) == RECORD


def test_reads_answer_the_record_or_nothing() -> None:
    one = OneNode()
    assert read(one) == OK
    given(one, sent(OLD))
    assert read(one) == RECORD
    assert one.node.replica.payload == OLD
    assert one.env.counters.replica_gets == 2


def test_a_large_record_is_answered_on_the_large_connection_only() -> None:
    one = OneNode()
    record = encode(
        seen_of_dots([dot(1, 1)]), {dot(1, 1): value(dot(1, 1), b"x" * one.config.large_bytes)}
    )
    given(one, sent(record))
    assert read(one) == ELSEWHERE
    assert one.node.replica.payload == b""
    assert read(one, large=True) == RECORD


def test_a_damaged_copy_has_failed_here_until_a_good_one_comes() -> None:
    one = OneNode()
    given(one, sent(OLD))
    drain(one.store.buffer)
    one.engine.records[one.key()] = b"garbage that is long enough"
    assert read(one) == FAILED_HERE
    assert one.node.replica.read(one.key(), ALICE) == b""
    given(one, sent(NEW))
    assert read(one) == RECORD
    assert one.node.replica.read(one.key(), ALICE) == NEW


def test_another_partition_key_under_the_same_engine_key_is_not_merged() -> None:
    one = OneNode()
    given(one, sent(OLD))
    for other in (b"bobby", b"bob"):
        given(one, sent(NEW, other))
        assert held(one) == OLD
    assert one.env.events == ["key_mismatch", "key_mismatch"]
    assert one.node.replica.read(one.key(), b"bobby") == b""


def test_mending_merges_what_a_get_has_brought() -> None:
    one = OneNode()
    replica = one.node.replica
    replica.keep(one.key(), sent(NEW))
    replica.keep(one.key(), sent(NEW))
    replica.keep(one.key(), sent(BESIDE))
    assert held(one)[6] == 2
