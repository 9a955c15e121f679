"""One get after the other: whom it asks, when it is answered, and who is mended by it."""

from struct import pack

import pytest

from kvorum.client.store import Found
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.record import lww_record
from kvorum.model.siblings import encode
from kvorum.protocol.generations import make_generation
from kvorum.storage.commit import drain
from kvorum.wire.link import (
    ELSEWHERE,
    FAILED_HERE,
    LATER,
    OK,
    OP_GET,
    OP_PUT,
    STALE_GENERATION,
    UNWRITABLE,
)
from kvorum.wire.messages import TableCreate
from kvorum.wire.requests import QUORUM_NOT_MET
from tests.support.fault_points import HitsAt
from tests.support.recording import Answer, OneNode, Refusal, a_record
from tests.support.records import dot, seen_of_dots, value
from tests.support.wired import Cluster

NONE = 0
DEADLINE = 5_000_000
OLD = encode(seen_of_dots([dot(1, 1)]), {dot(1, 1): value(dot(1, 1))})
NEW = encode(seen_of_dots([dot(1, 1), dot(1, 2)]), {dot(1, 2): value(dot(1, 2))})
BESIDE = encode(seen_of_dots([dot(1, 1), dot(2, 1)]), {dot(2, 1): value(dot(2, 1))})


def connected() -> OneNode:
    return OneNode().connect()


def found(one: OneNode) -> Found:
    outcome = one.client.outcome()
    assert isinstance(outcome, Found)
    return outcome


def refused(one: OneNode) -> str:
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert outcome.code == QUORUM_NOT_MET
    return outcome.text


def holding(one: OneNode, value_bytes: bytes = b"book") -> bytes:
    """Put a value here and on one peer; the record."""
    one.put(value=value_bytes, durability=NONE, w=1)
    one.client.take()
    for member in one.others:
        large = len(value_bytes) > one.config.large_bytes
        one.answers(member, OK, large=large)
    return record_of(one.store.get(one.key()) or b"")


def damage(one: OneNode) -> None:
    """What the engine holds of the key fails its checksum."""
    assert drain(one.store.buffer)
    one.engine.records[one.key()] = b"garbage that is long enough"
    assert one.store.get(one.key()) == b""


def test_the_own_copy_and_one_other_answer_a_get() -> None:
    one = connected()
    record = holding(one)
    one.get(r=2)
    asked = [member for member in one.others if one.asked(member)]
    assert len(asked) == 1, "no more than r wants"
    (entry,) = one.asked(asked[0])
    assert (entry.op, entry.key) == (OP_GET, one.key())
    one.answers(asked[0], a_record(record))
    answer = found(one)
    assert answer.values == (b"book",)
    assert sorted(answer.replicas) == [1, asked[0]]
    assert answer.known
    assert answer.coordinator == 1
    assert one.client.in_flight == 0
    assert one.env.counters.gets_ok == 1
    assert one.env.counters.read_repairs == one.env.counters.own_repairs == 0


def test_r_1_is_answered_from_here() -> None:
    one = connected()
    holding(one)
    one.get(r=1)
    assert found(one).replicas == (1,)


def test_a_key_that_nobody_has_is_not_found_and_has_an_empty_context() -> None:
    one = connected()
    one.get(r=3)
    one.answers(2, OK)
    one.answers(3, OK)
    answer = found(one)
    assert not answer.known
    assert answer.values == ()
    assert sorted(answer.replicas) == [1, 2, 3]
    one.put(context=answer.context, w=1, durability=NONE)
    assert one.env.counters.puts_ok == 1, "the context of nothing is a context"


def test_the_better_record_wins_and_whoever_has_less_is_sent_it() -> None:
    one = connected()
    record = holding(one)
    one.put(value=b"lamp", durability=NONE, w=1)
    for member in one.others:
        one.answers(member, OK)
    one.client.take()
    one.get(r=3)
    one.answers(2, a_record(record))
    one.answers(3, OK)
    assert len(found(one).values) == 2
    for member in (2, 3):
        (entry,) = one.asked(member)
        assert entry.op == OP_PUT
        assert record_of(entry.body) == record_of(one.store.get(one.key()) or b"")
    one.answers(2, OK)
    one.answers(3, UNWRITABLE)
    assert one.env.counters.read_repairs == 2
    assert one.env.counters.siblings_seen == 1
    assert one.client.take() == []


def test_the_own_copy_is_mended_by_what_others_answer() -> None:
    one = connected()
    one.get(r=2)
    (member,) = [member for member in one.others if one.asked(member)]
    one.answers(member, a_record(NEW))
    assert found(one).known
    assert record_of(one.store.get(one.key()) or b"") == NEW
    assert one.env.counters.own_repairs == 1


def test_concurrent_records_are_merged_for_the_client_and_sent_to_all() -> None:
    one = connected()
    one.get(r=3)
    one.answers(2, a_record(NEW))
    one.answers(3, a_record(BESIDE))
    answer = found(one)
    assert len(answer.values) == 2
    merged = record_of(one.store.get(one.key()) or b"")
    for member in (2, 3):
        assert [record_of(each.body) for each in one.asked(member)] == [merged]


@pytest.mark.parametrize("first", [OLD, NEW], ids=["first", "last"])
def test_an_older_record_changes_nothing_whenever_it_comes(first: bytes) -> None:
    one = connected()
    one.get(r=3)
    one.answers(2, a_record(first))
    one.answers(3, a_record(OLD if first is NEW else NEW))
    assert len(found(one).values) == 1
    assert record_of(one.store.get(one.key()) or b"") == NEW


def late(one: OneNode) -> int:
    """A get of two that was answered by the member asked as a hedge; who still owes its answer."""
    one.get(r=2)
    (slow,) = [member for member in one.others if one.asked(member)]
    one.advance(50_000)
    assert one.env.counters.hedged_gets == 1
    fast = 5 - slow
    one.answers(fast, a_record(NEW))
    assert found(one).known
    return slow


def test_a_slow_owner_is_hedged_and_mended_when_it_answers_less_after_all() -> None:
    one = connected()
    slow = late(one)
    one.answers(slow, a_record(OLD))
    assert [record_of(each.body) for each in one.asked(slow)] == [NEW]
    assert one.client.take() == []


def test_a_late_answer_that_says_the_same_mends_nobody() -> None:
    one = connected()
    slow = late(one)
    repairs = one.env.counters.own_repairs
    one.answers(slow, a_record(NEW))
    assert one.asked(slow) == []
    assert one.env.counters.own_repairs == repairs


def test_a_late_answer_that_says_more_mends_the_own_copy() -> None:
    one = connected()
    slow = late(one)
    one.answers(slow, a_record(BESIDE))
    held = record_of(one.store.get(one.key()) or b"")
    assert held[6] == 2, "two siblings"
    assert [record_of(each.body) for each in one.asked(slow)] == [held]


def test_slowness_and_silence_after_the_answer_ask_nobody() -> None:
    one = connected()
    slow = late(one)
    one.advance(2_000_000)
    assert one.env.counters.hedged_gets == 1
    assert one.env.counters.silences >= 1
    assert "peer_silent" in one.env.events
    one.disconnect(slow)
    assert one.client.take() == []


def test_silence_asks_the_next_owner_and_slowness_has_nobody_left_to_ask() -> None:
    one = connected()
    one.get(r=3)
    one.advance(2_000_000)
    assert one.env.counters.hedged_gets == 0
    assert len(one.asked(2)) == len(one.asked(3)) == 1
    one.advance(DEADLINE)
    assert refused(one) == "too few of the key's owners answered in time: 1 of r=3 did"
    assert one.env.counters.gets_refused == 1
    assert one.client.in_flight == 0


def test_an_expired_get_still_takes_what_comes_late() -> None:
    one = connected()
    one.get(r=3)
    one.answers(2, a_record(NEW))
    one.advance(DEADLINE + 10_000)
    refused(one)
    assert record_of(one.store.get(one.key()) or b"") == NEW, "what was found heals"
    one.answers(3, a_record(OLD))
    assert [record_of(each.body) for each in one.asked(3)] == [NEW]


def test_a_lost_owner_is_replaced_by_the_next() -> None:
    one = connected()
    holding(one)
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.disconnect(first)
    other = 5 - first
    one.answers(other, OK)
    assert found(one).known


def test_a_get_of_all_is_refused_at_once_when_one_owner_is_away() -> None:
    """It used to wait for the others first, and then for its deadline."""
    one = OneNode().connect(2)
    one.get(r=3)
    assert refused(one) == "too few of the key's owners can answer: 1 of r=3 did"


def test_a_get_is_refused_as_soon_as_too_few_can_answer() -> None:
    one = connected()
    one.get(r=3)
    one.answers(2, OK)
    assert one.client.take() == []
    one.answers(3, (FAILED_HERE, b"the copy here is damaged"))
    assert "too few of the key's owners can answer: 2 of r=3 did" in refused(one)


def test_an_own_copy_that_is_damaged_does_not_count_and_is_healed() -> None:
    one = connected()
    record = holding(one)
    damage(one)
    one.get(r=2)
    one.answers(2, a_record(record))
    assert one.client.take() == [], "the own copy has failed, so another must answer"
    one.answers(3, a_record(record))
    assert sorted(found(one).replicas) == [2, 3]
    assert record_of(one.store.get(one.key()) or b"") == record


def test_a_damaged_copy_elsewhere_is_sent_what_others_hold() -> None:
    one = connected()
    record = holding(one)
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.answers(first, (FAILED_HERE, b"damaged"))
    one.answers(5 - first, a_record(record))
    found(one)
    assert [record_of(each.body) for each in one.asked(first)] == [record]


@pytest.mark.parametrize("anything", [True, False])
def test_a_damaged_copy_that_is_told_late_is_sent_what_was_found(anything: bool) -> None:
    one = connected()
    if anything:
        slow = late(one)
    else:
        one.get(r=2)
        (slow,) = [member for member in one.others if one.asked(member)]
        one.advance(50_000)
        one.answers(5 - slow, OK)
        assert not found(one).known
    one.answers(slow, (FAILED_HERE, b"damaged"))
    assert len(one.asked(slow)) == anything


def test_a_large_record_is_fetched_over_the_large_connection() -> None:
    one = connected()
    record = holding(one, b"x" * 100_000)
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.answers(first, ELSEWHERE)
    (entry,) = one.asked(first, large=True)
    assert entry.op == OP_GET
    one.answers(first, a_record(record), large=True)
    assert found(one).value == b"x" * 100_000


def test_without_a_large_connection_another_owner_is_asked() -> None:
    one = connected()
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.env.large_links[first].close()
    one.answers(first, ELSEWHERE)
    one.answers(5 - first, a_record(NEW))
    assert found(one).known


def test_a_large_record_is_mended_over_the_large_connection() -> None:
    one = connected()
    holding(one, b"x" * 100_000)
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.answers(first, OK)
    found(one)
    assert len(one.asked(first, large=True)) == 1


@pytest.mark.parametrize("garbage", [b"\1", b"\2" + NEW[1:], NEW + b"\0", NEW[:-1]], ids=range(4))
def test_an_answer_that_is_no_record_counts_as_none(garbage: bytes) -> None:
    one = connected()
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.answers(first, a_record(garbage))
    assert one.client.take() == []
    one.answers(5 - first, a_record(NEW))
    assert found(one).known


def test_a_get_whose_client_has_gone_still_mends() -> None:
    one = connected()
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.client.closed = True
    one.answers(first, a_record(NEW))
    assert record_of(one.store.get(one.key()) or b"") == NEW
    one.get(r=3, client=one.client)
    one.advance(DEADLINE + 10_000)
    assert one.client.in_flight == 0
    assert one.client.take() == []


def test_nothing_is_mended_here_while_nothing_can_be_written() -> None:
    one = connected()
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.store.buffer.failed = "the engine has failed"
    one.answers(first, a_record(NEW))
    assert found(one).known
    assert one.store.get(one.key()) is None


def test_a_copy_under_another_partition_key_is_damaged_too() -> None:
    """Two keys under one hash of 192 bits: beyond belief, so something is broken."""
    one = connected()
    one.put(key=b"bob", w=1, durability=NONE)
    one.store.put(one.key(), one.store.get(one.key(b"bob")) or b"")
    one.client.take()
    one.get(r=1)
    assert one.client.take() == []
    for member in one.others:
        # The put of the other key and, for whom it was asked, the get go out in one batch.
        one.accepts(member)
    assert not found(one).known


def test_values_that_have_expired_are_shown_as_deleted_unless_the_clock_is_off() -> None:
    one = connected()
    one.put(w=1, durability=NONE, ttl=1_000_000)
    one.advance(1_000_001)
    one.client.take()
    one.get(r=1)
    assert found(one).deleted
    one.node.requests.clock_is_off = True
    one.get(r=1)
    assert found(one).values == (b"book",)


def test_last_write_wins_answers_say_so() -> None:
    one = connected()
    record = lww_record(value(dot(1, 1), b"book", clock=5))
    one.question(TableCreate(1, "clocked", resolution="lww", durability="none"))
    table = one.node.tables.registry.by_name("clocked")
    assert table is not None
    one.get(r=2, table=table.id)
    (first,) = [member for member in one.others if one.asked(member)]
    one.client.take()
    one.answers(first, a_record(record))
    (payload,) = one.client.take()
    assert payload[1] & 2, "the flag of a table that keeps one winner"


def test_three_nodes_agree_after_one_get_of_all() -> None:
    cluster = Cluster()
    cluster[1].put(value=b"book", durability=NONE)
    cluster.settle()
    cluster.lose(1, 3)
    cluster[1].put(value=b"lamp", durability=NONE)
    cluster.settle()
    assert sorted(cluster.values(3)) == [b"book"]
    cluster.join(1, 3)
    cluster[2].get(r=3)
    cluster.settle()
    assert sorted(cluster.values(3)) == [b"book", b"lamp"]


def repaired() -> OneNode:
    """A get has found member 2 behind, and has sent it what it lacks."""
    one = OneNode().connect()
    one.node.replica.begin()
    assert one.node.replica.on_put(one.key(), pack_holding(NO_OWN, b"alice", NEW), 1, 0) == OK
    one.get(r=3)
    one.answers(2, OK)
    one.answers(3, a_record(NEW))
    one.client.take()
    (repair,) = one.asked(2)
    assert (repair.op, repair.generation) == (OP_PUT, 0)
    return one


def test_a_repair_that_is_refused_as_stale_is_read_again_and_sent_again() -> None:
    one = repaired()
    higher = make_generation(5, 2)
    one.answers(2, (STALE_GENERATION, pack("<QQ", higher, 0)))
    (repair,) = one.asked(2)
    assert (repair.op, repair.generation) == (OP_PUT, higher)
    assert one.node.generations.of(one.key()) == higher
    one.answers(2, OK)
    assert one.asked(2) == []


def test_a_repair_of_what_was_reaped_meanwhile_is_not_sent_again() -> None:
    one = repaired()
    one.node.holdings.forget(one.key(), one.store.get(one.key()))
    one.answers(2, (STALE_GENERATION, pack("<QQ", make_generation(5, 2), 0)))
    assert one.asked(2) == []


@pytest.mark.parametrize("answer", [UNWRITABLE, LATER, a_record(NEW), OK], ids=str)
def test_whatever_else_a_repair_is_answered_it_is_over(answer: Answer) -> None:
    one = repaired()
    one.answers(2, answer)
    one.advance(50_000)
    assert one.asked(2) == []
    assert one.client.take() == []


def test_an_owner_that_cannot_answer_now_is_asked_again() -> None:
    one = connected()
    one.get(r=2)
    (first,) = [member for member in one.others if one.asked(member)]
    one.answers(first, LATER)
    assert one.client.take() == []
    one.advance(10_000)
    assert [entry.op for entry in one.asked(first)] == [OP_GET]
    assert one.asked(5 - first) == []
    one.answers(first, a_record(NEW))
    assert found(one).known


def test_an_owner_that_cannot_answer_now_is_let_be_once_the_get_is_answered() -> None:
    one = connected()
    slow = late(one)
    one.answers(slow, LATER)
    one.advance(10_000)
    assert one.asked(slow) == []


def test_a_new_generation_that_is_told_after_the_answer_asks_nobody_anew() -> None:
    one = connected()
    slow = late(one)
    one.answers(slow, (STALE_GENERATION, pack("<QQ", make_generation(2, 2), 0)))
    assert one.asked(slow) == one.asked(5 - slow) == []
    assert one.client.take() == []


def test_one_owner_more_may_be_asked_from_the_start() -> None:
    one = connected()
    one.env.faults = HitsAt("get.hedge_at_once")
    one.get(r=2)
    assert all(len(one.asked(member)) == 1 for member in one.others)
