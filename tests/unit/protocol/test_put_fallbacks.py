"""A put whose owners do not answer: fallbacks stand in, and each counts once if it may at all."""

import pytest

from kvorum.client.store import Stored
from kvorum.model.holding import record_of
from kvorum.wire.link import (
    HINT_BYTES,
    LATER,
    NOT_READY,
    NOT_TAKEN,
    OK,
    OP_HINT,
    OP_PUT,
    OVERLOADED,
    UNWRITABLE,
    unpack_hint,
)
from kvorum.wire.requests import OVERLOADED as REFUSED_OVERLOADED
from kvorum.wire.requests import QUORUM_NOT_MET
from tests.support.recording import OneNode, Refusal, Unknown

NONE, ONE = 0, 1


class Story:
    """Member 1 coordinates; b and c are the other owners, d and e the fallbacks in their order."""

    def __init__(self, *absent: str) -> None:
        self.one = OneNode(count=5)
        self.key = self.one.owned_key()
        self.b, self.c = (m for m in self.one.owners_of(self.key) if m != 1)
        self.d, self.e = self.one.fallbacks_of(self.key)
        gone = [getattr(self, name) for name in absent]
        present = [member for member in self.one.others if member not in gone]
        if present:
            self.one.connect(*present)

    def put(self, w: int = 2, durability: int = NONE, sloppy: int = 1) -> None:
        self.one.put(key=self.key, w=w, durability=durability, sloppy=sloppy)

    def silence(self, member: int) -> None:
        """The member's adaptive timeout passes."""
        link = self.one.env.links[member]
        self.one.end_turn()
        timeout = link.latency.timeout
        for batch in link.in_flight:
            batch.sent_at -= timeout
        link.sweep(self.one.env.now)

    def hint_for(self, member: int) -> int:
        """To whom the one hint is owed that the member has been asked to keep."""
        (entry,) = self.one.asked(member)
        assert entry.op == OP_HINT
        assert record_of(entry.body[HINT_BYTES:]) == record_of(
            self.one.store.get(self.one.key(self.key)) or b""
        )
        return int(unpack_hint(entry.body, 0)[0])

    def stored(self) -> dict[int, bool]:
        outcome = self.one.client.outcome()
        assert isinstance(outcome, Stored)
        return {ack.member: ack.fallback for ack in outcome.acks}


def test_nobody_stands_in_as_long_as_all_owners_answer() -> None:
    story = Story()
    story.put(w=3)
    story.one.answers(story.b, OK)
    story.one.answers(story.c, OK)
    assert story.stored() == {1: False, story.b: False, story.c: False}
    assert story.one.asked(story.d) == story.one.asked(story.e) == []


def test_an_owner_that_is_not_connected_is_stood_in_for_at_once() -> None:
    story = Story("c")
    story.put(w=3)
    assert story.hint_for(story.d) == story.c
    assert story.one.asked(story.e) == []
    story.one.answers(story.b, OK)
    story.one.answers(story.d, OK)
    assert story.stored() == {1: False, story.b: False, story.d: True}
    assert story.one.env.counters.hints_sent == 1


def test_an_owner_that_goes_silent_is_stood_in_for_and_counts_if_it_answers_after_all() -> None:
    story = Story()
    story.put(w=3)
    story.silence(story.c)
    assert story.hint_for(story.d) == story.c
    story.one.answers(story.c, OK)
    story.one.answers(story.b, OK)
    assert story.stored() == {1: False, story.b: False, story.c: False}


def test_a_silent_fallback_is_replaced_in_its_turn_for_the_same_owner() -> None:
    story = Story("c")
    story.put(w=3)
    story.silence(story.d)
    assert story.hint_for(story.e) == story.c
    story.one.answers(story.e, OK)
    story.one.answers(story.b, OK)
    assert story.stored() == {1: False, story.b: False, story.e: True}


def test_a_fallback_whose_connection_ends_is_replaced_and_asked_again_when_it_is_back() -> None:
    story = Story("c")
    story.put(w=3)
    story.one.end_turn()
    story.one.disconnect(story.d)
    assert story.hint_for(story.e) == story.c
    story.one.connect(story.d)
    assert story.hint_for(story.d) == story.c
    for member in (story.d, story.e):
        story.one.answers(member, OK)
    assert story.stored() == {1: False, story.d: True, story.e: True}


def test_two_owners_are_stood_in_for_by_two_fallbacks() -> None:
    story = Story("b", "c")
    story.put(w=3)
    assert {story.hint_for(story.d), story.hint_for(story.e)} == {story.b, story.c}
    story.one.answers(story.d, OK)
    assert story.one.client.take() == []
    story.one.answers(story.e, OK)
    assert story.stored() == {1: False, story.d: True, story.e: True}


@pytest.mark.parametrize("status", [UNWRITABLE, OVERLOADED, NOT_READY])
def test_an_owner_that_cannot_write_is_stood_in_for(status: int) -> None:
    story = Story()
    story.put(w=3)
    story.one.answers(story.c, (status, b"no"))
    assert story.hint_for(story.d) == story.c


def test_an_owner_that_will_not_have_the_write_is_not() -> None:
    story = Story()
    story.put(w=3)
    story.one.answers(story.c, (NOT_TAKEN, b"the table has been dropped"))
    assert story.one.asked(story.d) == []


def test_an_answered_put_still_sees_to_the_owner_that_missed_it() -> None:
    story = Story()
    story.put(w=2)
    story.one.answers(story.b, OK)
    assert story.stored() == {1: False, story.b: False}
    story.silence(story.c)
    assert story.hint_for(story.d) == story.c
    story.one.answers(story.d, OK)
    assert story.one.client.take() == []


def test_a_silent_owner_is_asked_beside_its_fallback_and_a_mute_one_no_more() -> None:
    story = Story()
    link = story.one.env.links[story.c]
    link.silent = True
    story.put()
    assert [entry.op for entry in story.one.asked(story.c)] == [OP_PUT]
    assert story.hint_for(story.d) == story.c

    link.alive = False
    story.put()
    assert len(story.one.asked(story.c)) == 1
    assert len(story.one.asked(story.d)) == 2


def test_a_mute_owner_is_asked_where_no_fallback_can_be() -> None:
    story = Story("d", "e")
    link = story.one.env.links[story.c]
    link.silent = True
    link.alive = False
    story.put()
    assert len(story.one.asked(story.c)) == 1


def test_the_mark_of_a_fallback_is_as_good_as_an_owners() -> None:
    story = Story("b", "c")
    story.put(w=2, durability=2)
    story.one.answers(story.d, OK)
    story.one.sync()
    assert story.one.client.take() == []
    story.one.marks(story.d)
    assert story.stored() == {1: False, story.d: True}


def test_an_owner_lost_between_ack_and_mark_is_stood_in_for_while_a_disk_is_wanted() -> None:
    story = Story()
    story.put(w=2, durability=3)
    story.one.answers(story.b, OK)
    story.one.disconnect(story.b)
    assert story.hint_for(story.d) == story.b


def test_an_owner_lost_between_ack_and_mark_is_not_if_the_put_is_answered() -> None:
    story = Story()
    story.put(w=2, durability=ONE)
    story.one.answers(story.b, OK)
    story.one.sync()
    story.stored()
    story.one.disconnect(story.b)
    assert story.one.asked(story.d) == []


def test_without_fallbacks_alive_the_put_waits_and_one_that_comes_is_asked() -> None:
    story = Story("d", "e")
    story.put(w=3)
    story.one.answers(story.b, OK)
    story.one.disconnect(story.c)
    assert story.one.client.take() == []
    story.one.connect(story.e)
    assert story.hint_for(story.e) == story.c
    story.one.answers(story.e, OK)
    assert story.stored() == {1: False, story.b: False, story.e: True}


def test_it_is_unknown_as_soon_as_everybody_has_refused() -> None:
    story = Story()
    story.put(w=2)
    for member in (story.b, story.c, story.d, story.e):
        assert story.one.client.take() == []
        story.one.answers(member, (UNWRITABLE, b"full"))
    assert isinstance(story.one.client.outcome(), Unknown)


def test_later_from_a_fallback_means_ask_it_again() -> None:
    story = Story("c")
    story.put(w=3)
    story.one.answers(story.d, LATER)
    story.one.advance(20_000)
    assert story.hint_for(story.d) == story.c
    story.one.disconnect(story.d)
    assert story.hint_for(story.e) == story.c


def test_a_put_that_is_asked_for_again_asks_fallbacks_again() -> None:
    story = Story("c")
    story.one.put(key=story.key, w=3, durability=NONE, counter=7)
    story.one.disconnect(story.d)
    story.one.disconnect(story.e)
    story.one.advance(6_000_000)
    assert isinstance(story.one.client.outcome(), Unknown)
    story.one.connect(story.d)
    story.one.put(key=story.key, w=3, durability=NONE, counter=7)
    assert story.hint_for(story.d) == story.c
    story.one.answers(story.d, OK)
    story.one.accepts(story.b)
    assert story.stored() == {1: False, story.b: False, story.d: True}


# Bounds, and before anything is minted.


def test_a_fallback_without_room_is_passed_over_for_a_while() -> None:
    story = Story("c")
    story.put(w=2)
    story.one.answers(story.d, (OVERLOADED, b"no more hints fit here"))
    assert story.hint_for(story.e) == story.c
    assert story.one.env.counters.hint_refusals_met == 1
    story.put(w=2)
    assert story.one.asked(story.d) == []
    assert len(story.one.asked(story.e)) == 2
    story.one.advance(1_100_000)
    story.put(w=2)
    assert len(story.one.asked(story.d)) == 1


def test_what_needs_a_fallback_without_room_is_overloaded_and_nothing_else_is() -> None:
    story = Story("b", "c", "e")
    story.put(w=2)
    story.one.answers(story.d, (OVERLOADED, b"no more hints fit here"))
    story.one.client.take()
    story.put(w=2)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert outcome.code == REFUSED_OVERLOADED
    assert "no more hints fit on the fallbacks" in outcome.text
    story.put(w=1)
    assert story.stored() == {1: False}


def test_too_few_alive_are_refused_before_anything_is_minted_fallbacks_counted() -> None:
    story = Story("b", "c", "d", "e")
    story.put(w=2)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert outcome.code == QUORUM_NOT_MET
    assert story.one.store.get(story.one.key(story.key)) is None
    story.one.connect(story.e)
    story.put(w=2)
    assert len(story.one.asked(story.e)) == 1


def test_fallbacks_are_neither_asked_nor_counted_where_the_put_is_strict() -> None:
    story = Story("c")
    story.put(w=3, sloppy=0)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert outcome.code == QUORUM_NOT_MET
    story.put(w=2, sloppy=0)
    story.silence(story.b)
    assert story.one.asked(story.d) == story.one.asked(story.e) == []
    story.one.answers(story.b, OK)
    assert story.stored() == {1: False, story.b: False}


def test_the_table_says_what_the_request_leaves_open() -> None:
    story = Story("c")
    story.put(w=3, sloppy=255)
    assert story.hint_for(story.d) == story.c


def test_an_owner_whose_own_log_refuses_is_stood_in_for() -> None:
    story = Story()
    story.put(w=3, durability=ONE)
    assert story.one.disk is not None
    story.one.disk.free_bytes = 0
    assert not story.one.store.end_turn()
    story.one.node.on_log_refused()
    story.one.disk.free_bytes = 1 << 30
    assert story.hint_for(story.d) == 1
