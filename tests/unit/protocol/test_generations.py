"""Under which generation a store may say what it holds: entering, adopting, setting aside."""

from struct import pack

import pytest

from kvorum.client.store import Found, Stored
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.protocol.generations import (
    ADOPTION_PATIENCE,
    CONFIRM_PATIENCE,
    FIRST,
    NOT_READY,
    make_generation,
)
from kvorum.storage.engine import EngineFailed
from kvorum.wire.aside_messages import AsideAnswer, AsideQuery, CopyAside
from kvorum.wire.link import LATER, NOT_TAKEN, OK, OP_PUT, STALE_GENERATION
from kvorum.wire.link import NOT_READY as PEER_NOT_READY
from kvorum.wire.reaping_messages import GenerationQuery, GenerationState, GenerationStates
from tests.support.recording import OneNode, Refusal, Unknown
from tests.support.records import dot, record_of_dots

FIFTH = make_generation(5, 2)
SIXTH = make_generation(6, 3)
RECORD = record_of_dots([dot(1, 1)], [dot(1, 1)])
HOLDING = pack_holding(NO_OWN, b"alice", RECORD)


def partition(one: OneNode) -> int:
    return one.ring.partition_of_engine_key(one.key())


def given(one: OneNode, generation: int) -> int:
    """A coordinator sends a record, read under ``generation``; what it is answered."""
    replica = one.node.replica
    replica.begin()
    return replica.on_put(one.key(), HOLDING, 1, generation)


def enter(one: OneNode, generation: int = FIFTH, dropped: int = FIRST) -> None:
    one.node.on_control(2, GenerationState(partition(one), generation, dropped))


def test_a_record_read_under_an_older_generation_is_refused_with_the_higher_one() -> None:
    one = OneNode()
    enter(one)
    one.node.generations.note_drop(partition(one), FIFTH)
    assert given(one, FIRST) == STALE_GENERATION
    assert one.node.replica.payload == pack("<QQ", FIFTH, FIFTH)
    assert one.store.get(one.key()) is None
    assert one.env.counters.stale_generations == 1
    assert given(one, FIFTH) == OK


def test_a_record_read_under_a_higher_one_is_put_off_and_the_holders_are_asked() -> None:
    one = OneNode()
    assert given(one, FIFTH) == LATER
    assert given(one, FIFTH) == LATER  # Not asked again at once.
    query = GenerationQuery(partition(one))
    assert sorted(one.env.sent, key=lambda sent: sent[0]) == [(2, query), (3, query)]
    enter(one)
    assert given(one, FIFTH) == OK


def test_reads_are_judged_like_writes() -> None:
    one = OneNode()
    enter(one)
    replica = one.node.replica
    assert replica.on_get(one.key(), 1, FIRST, False) == STALE_GENERATION
    assert replica.on_get(one.key(), 1, SIXTH, False) == LATER
    assert replica.on_get(one.key(), 1, FIFTH, False) == OK


def test_a_generation_is_entered_once_and_survives_a_restart() -> None:
    one = OneNode()
    enter(one)
    enter(one)
    enter(one, make_generation(4, 3))
    assert one.node.generations.entries == 1
    one.sync()
    one.restart(clean=False)
    assert one.node.generations.of(one.key()) == FIFTH
    assert one.node.generations.states() == GenerationStates([(partition(one), FIFTH, FIRST)])


def test_entering_stands_in_the_log_before_what_is_taken_under_it() -> None:
    one = OneNode()
    enter(one)
    entered_at = one.store.position
    assert given(one, FIFTH) == OK
    assert entered_at < one.store.position


def test_nothing_is_learned_while_nothing_can_be_written() -> None:
    one = OneNode()
    assert one.disk is not None
    one.disk.free_bytes = 0
    one.store.put(b"\0x", b"x")
    assert not one.store.end_turn()
    enter(one)
    assert one.node.generations.of(one.key()) == FIRST
    one.disk.free_bytes = 1 << 30
    assert one.store.end_turn()
    enter(one)
    assert one.node.generations.of(one.key()) == FIFTH


def test_equal_numbers_of_two_raisers_are_not_the_same_generation() -> None:
    one = OneNode()
    enter(one, make_generation(5, 2))
    enter(one, make_generation(5, 3))
    assert one.node.generations.of(one.key()) == make_generation(5, 3)
    enter(one, make_generation(5, 2))
    assert one.node.generations.of(one.key()) == make_generation(5, 3)


# A store that is new.


def test_a_new_store_takes_and_serves_nothing_before_it_has_adopted() -> None:
    one = OneNode(adopts=False).connect()
    assert one.node.generations.of(one.key()) == NOT_READY
    assert given(one, FIRST) == PEER_NOT_READY
    assert one.node.replica.on_get(one.key(), 1, FIRST, False) == PEER_NOT_READY
    one.put(flags=2)  # Forwarded, so not to be forwarded again.
    refusal = one.client.outcome()
    assert isinstance(refusal, Refusal)
    assert one.store.get(one.key()) is None


def test_it_adopts_the_highest_that_the_other_owners_know() -> None:
    one = OneNode(adopts=False)
    one.node.on_control(2, GenerationStates([(partition(one), FIFTH, FIRST)]))
    assert one.node.generations.of(one.key()) == NOT_READY
    one.node.on_control(3, GenerationStates([(partition(one), SIXTH, FIFTH)]))
    assert one.node.generations.of(one.key()) == SIXTH
    assert one.node.generations.dropped[partition(one)] == FIFTH
    assert one.store.get(b"\0unadopted") == bytes(1)
    one.sync()
    one.restart(clean=False)
    assert one.node.generations.known(partition(one)) == SIXTH
    assert one.node.generations.unadopted == {}


def test_an_owner_that_stays_silent_is_waited_for_only_so_long() -> None:
    one = OneNode(adopts=False)
    one.node.on_control(2, GenerationStates([(partition(one), FIFTH, FIRST)]))
    one.advance(ADOPTION_PATIENCE - 1)
    assert one.node.generations.of(one.key()) == NOT_READY
    one.advance(1)
    assert one.node.generations.of(one.key()) == FIFTH


def test_a_listed_fallback_is_asked_where_no_owner_answers() -> None:
    one = OneNode(count=4, adopts=False)
    found = next(p for p in range(one.ring.partitions) if one.ring.is_owner(1, p))
    (fallback,) = one.ring.fallbacks(found)
    one.node.on_control(fallback, GenerationStates([(found, FIFTH, FIRST)]))
    one.advance(2 * ADOPTION_PATIENCE)
    assert one.node.generations.current[found] == FIFTH


def test_an_only_owner_waits_for_what_the_listed_fallbacks_know() -> None:
    """Found by seed 3000309: it took writes under the first one, and set them aside after."""
    one = OneNode(count=4, n=1, adopts=False)
    found = next(p for p in range(one.ring.partitions) if one.ring.is_owner(1, p))
    first, *others = one.ring.fallbacks(found)
    for stranger in {2, 3, 4} - {first, *others}:
        one.node.on_control(stranger, GenerationStates([]))
    assert one.node.generations.current[found] == NOT_READY
    one.node.on_control(first, GenerationStates([(found, FIFTH, FIFTH)]))
    for other in others:
        assert one.node.generations.current[found] == NOT_READY
        one.node.on_control(other, GenerationStates([]))
    assert one.node.generations.current[found] == FIFTH
    assert one.node.generations.dropped[found] == FIFTH


def test_an_only_owner_whose_fallbacks_stay_silent_serves_after_a_second() -> None:
    one = OneNode(count=5, n=1, adopts=False)
    found = next(p for p in range(one.ring.partitions) if one.ring.is_owner(1, p))
    (stranger, *_) = {2, 3, 4, 5} - {*one.ring.fallbacks(found)}
    one.node.on_control(stranger, GenerationStates([]))
    one.advance(ADOPTION_PATIENCE - 1)
    assert one.node.generations.current[found] == NOT_READY
    one.advance(1)
    assert one.node.generations.current[found] == FIRST


def test_new_owners_that_know_of_nothing_begin_with_the_first() -> None:
    one = OneNode(adopts=False)
    for member in (2, 3):
        one.node.on_control(member, GenerationStates([], b"\xff"))
    assert one.node.generations.of(one.key()) == FIRST


def test_a_node_that_has_adopted_nothing_says_so_and_again_after_a_restart() -> None:
    one = OneNode(adopts=False)
    assert one.node.generations.states().unadopted == b"\xff"
    assert one.node.on_control(2, GenerationQuery(0)) == GenerationState(0, FIRST, FIRST, False)
    one.sync()
    one.restart(clean=False)
    assert one.node.generations.states().unadopted == b"\xff"


def test_a_lone_node_needs_nobodys_word() -> None:
    one = OneNode(count=1, n=1, adopts=False)
    assert one.node.generations.of(one.key()) == FIRST


def test_a_member_that_holds_nothing_of_a_partition_has_no_generation_for_it() -> None:
    one = OneNode(count=8, adopts=False)
    for member in one.others:
        one.node.on_control(member, GenerationStates([]))
    for each in range(one.ring.partitions):
        listed = 1 in one.ring.preference_list(each)
        assert (one.node.generations.current[each] == FIRST) == listed
        assert (one.node.generations.owned[each] == FIRST) == one.ring.is_owner(1, each)


def test_whoever_is_listed_only_as_a_fallback_takes_no_record_as_an_owner() -> None:
    one = OneNode(count=4)
    for number in range(100):
        key = one.key(b"%d" % number)
        if not one.ring.is_owner(1, one.ring.partition_of_engine_key(key)):
            one.node.replica.begin()
            assert one.node.replica.on_put(key, HOLDING, 1, FIRST) == NOT_TAKEN
            return
    raise AssertionError("every partition has all four members as owners")


# A store that was not asked before a drop.


def test_a_copy_that_missed_a_reap_is_set_aside_and_never_served() -> None:
    one = OneNode()
    assert given(one, FIRST) == OK
    enter(one, SIXTH, dropped=FIFTH)
    assert one.node.generations.of(one.key()) == NOT_READY
    assert given(one, SIXTH) == PEER_NOT_READY
    assert one.node.generations.state_of(partition(one)).adopted is False
    one.advance(10_000)
    assert one.node.generations.of(one.key()) == SIXTH
    assert one.store.get(one.key()) is None
    assert one.store.get(b"\x04" + one.key()) == HOLDING
    assert one.node.generations.aside.count == 1
    assert one.env.counters.records_set_aside == 1
    assert one.env.counters.partitions_set_aside == 1
    assert one.env.events == ["copy_set_aside"]
    assert one.node.holdings.trees.leaves[one.key()[1] << 8 | one.key()[2]] == 0
    one.sync()
    one.restart(clean=False)
    assert one.node.generations.aside.count == 1


def test_hints_are_set_aside_with_their_partition() -> None:
    one = OneNode(count=4)
    name = one.owned_key(owned=False)
    key = one.key(name)
    partition_of_it = one.ring.partition_of_engine_key(key)
    held = pack_holding(NO_OWN, name, RECORD)
    assert one.node.hints.take(key, one.owners_of(name)[0], 1, 0, held) == OK
    one.node.on_control(2, GenerationState(partition_of_it, SIXTH, FIFTH))
    one.advance(20_000)
    assert one.node.generations.of(key) == SIXTH
    assert one.node.hints.count == 0
    (copy,) = aside_at(one)
    assert (copy.partition_key, copy.hint_for) == (name, [one.owners_of(name)[0]])


def aside_at(one: OneNode) -> list[CopyAside]:
    one.client.take()
    one.question(AsideQuery(1, b"", 9))
    answer = one.client.message()
    assert isinstance(answer, AsideAnswer)
    return answer.copies


@pytest.mark.parametrize("trouble", ["a full disk", "an engine that fails"])
def test_a_copy_is_set_aside_when_the_trouble_is_over(trouble: str) -> None:
    one = OneNode()
    assert given(one, FIRST) == OK
    one.sync()
    enter(one, SIXTH, dropped=FIFTH)
    with pytest.MonkeyPatch.context() as patch:
        if trouble == "a full disk":
            assert one.disk is not None
            patch.setattr(one.disk, "free_bytes", 0)
            one.store.put(b"\0x", b"x")
            assert not one.store.end_turn()
            patch.setattr(one, "end_turn", lambda: one)  # Nothing of it reaches the log.
        else:

            def fails(*given: object) -> list[tuple[bytes, bytes]]:
                raise EngineFailed("a bad disk")

            patch.setattr(one.store, "scan", fails)
        one.advance(20_000)
        assert one.node.generations.of(one.key()) == NOT_READY
        assert one.store.get(one.key()) == HOLDING
    one.end_turn()
    one.advance(20_000)
    assert one.node.generations.of(one.key()) == SIXTH
    assert [copy.key for copy in aside_at(one)] == [one.key()]


def test_an_unfinished_round_sets_nobody_aside() -> None:
    one = OneNode()
    assert given(one, FIRST) == OK
    enter(one, SIXTH, dropped=FIRST)
    assert one.store.get(one.key()) == HOLDING


def test_a_damaged_record_does_not_stay_behind_when_its_partition_is_set_aside() -> None:
    one = OneNode()
    other = next(
        key
        for key in (one.key(b"%d" % number) for number in range(1000))
        if one.ring.partition_of_engine_key(key) == partition(one) and key != one.key()
    )
    for key in (one.key(), other):
        one.store.put(key, HOLDING)
    one.sync()
    assert one.store.buffer.freeze()
    one.sync()
    one.engine.commit([], [], [(key, b"xxxx" + HOLDING) for key in (one.key(),)])
    one.store.buffer.retire()
    assert one.store.get(one.key()) == b""
    enter(one, SIXTH, dropped=FIFTH)
    one.advance(20_000)
    assert one.store.get(one.key()) is None


def test_a_put_that_is_refused_as_stale_is_read_again_and_sent_again() -> None:
    one = OneNode().connect()
    one.put(w=2, durability=0)
    one.answers(2, (STALE_GENERATION, pack("<QQ", FIFTH, FIRST)))
    (entry,) = one.asked(2)
    assert entry.op == OP_PUT
    assert one.node.generations.of(one.key()) == FIFTH
    one.accepts(2)
    stored = one.client.outcome()
    assert isinstance(stored, Stored)
    assert [ack.member for ack in stored.acks] == [1, 2]


def test_a_get_that_is_refused_as_stale_begins_again() -> None:
    one = OneNode().connect()
    assert given(one, FIRST) == OK
    one.get(r=3)
    one.answers(2, (STALE_GENERATION, pack("<QQ", FIFTH, FIRST)))
    one.answers(3, OK)  # To what was asked before: it counts for nothing.
    assert one.client.take() == []
    one.answers(2, OK)
    one.answers(3, OK)
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert found.deleted
    assert sorted(found.replicas) == [1, 2, 3]


# After an unclean stop.


def test_after_an_unclean_stop_another_holder_is_heard_before_anything_is_served() -> None:
    """Found by seed 920006: a rolled-back node took a put, and set it aside a moment later."""
    one = OneNode().connect()
    one.sync()
    one._adopts = False
    one.restart(clean=False)
    assert one.node.generations.of(one.key()) == NOT_READY
    one.node.on_control(2, GenerationStates([], b"\xff"))  # Knows nothing itself.
    assert one.node.generations.of(one.key()) == NOT_READY
    one.node.on_control(2, GenerationStates([]))
    assert one.node.generations.of(one.key()) == FIRST


def test_where_nobody_speaks_it_goes_on_after_a_second() -> None:
    one = OneNode().connect()
    one.sync()
    one._adopts = False
    one.restart(clean=False)
    one.advance(CONFIRM_PATIENCE - 1)
    assert one.node.generations.of(one.key()) == NOT_READY
    one.advance(1)
    assert one.node.generations.of(one.key()) == FIRST


def test_a_put_whose_write_was_set_aside_meanwhile_is_not_answered_ok() -> None:
    """Found by seed 920006: what was sent in its place lacked it, and was counted for it."""
    one = OneNode().connect()
    one.put(w=3, durability=0)
    one.node.holdings.forget(one.key(), one.store.get(one.key()))
    one.node.replica.begin()
    assert given(one, FIRST) == OK
    stale = (STALE_GENERATION, pack("<QQ", FIFTH, FIRST))
    one.answers(2, stale)
    one.answers(3, stale)
    assert one.asked(2) == []
    assert isinstance(one.client.outcome(), Unknown)


def test_a_partition_that_was_set_aside_does_not_count_for_reads() -> None:
    one = OneNode()
    catch_up = one.node.catch_up
    for member in one.others:
        catch_up.settle(member, list(range(one.ring.partitions)))
    assert not catch_up.owes(partition(one))
    enter(one, SIXTH, dropped=FIFTH)
    one.advance(20_000)
    assert one.node.generations.of(one.key()) == SIXTH
    assert catch_up.owes(partition(one))
    others = [each for each in range(one.ring.partitions) if each != partition(one)]
    assert not any(catch_up.owes(each) for each in others)


def test_a_store_that_has_lost_something_counts_for_no_read_until_it_has_caught_up() -> None:
    one = OneNode()
    catch_up = one.node.catch_up
    for member in one.others:
        catch_up.settle(member, list(range(one.ring.partitions)))
    one.node.minter.end_incarnation_soon("a replica sent a later write of this store's own")
    assert all(catch_up.owes(each) for each in range(one.ring.partitions))
    assert catch_up.complete_count == 0


def test_a_new_store_id_for_want_of_an_answer_costs_no_catching_up() -> None:
    one = OneNode()
    for member in one.others:
        one.node.catch_up.settle(member, list(range(one.ring.partitions)))
    one.node.minter.confirmed = False
    one.node.minter._draw_unconfirmed()
    assert one.env.counters.incarnations_ended == 1
    assert not any(one.node.catch_up.owes(each) for each in range(one.ring.partitions))
