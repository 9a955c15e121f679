"""A get where owners are behind: what they hold is merged in, and counts only as a last resort."""

from struct import pack

import pytest

from kvorum.client.store import Found
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.record import first_record
from kvorum.model.siblings import encode, merge
from kvorum.protocol.generations import FIRST, make_generation
from kvorum.wire.link import (
    FAILED_HERE,
    NOTHING_BEHIND,
    OK,
    OP_GET,
    OP_PUT,
    RECORD,
    RECORD_BEHIND,
    STALE_GENERATION,
    Asker,
)
from tests.support.recording import Answer, OneNode, Refusal, a_record
from tests.support.records import dot, seen_of_dots, value

DEADLINE = 5_000_000
SECOND = make_generation(2, 2)
OLD = first_record(value(dot(7, 1), b"old"))
NEW = encode(seen_of_dots([dot(7, 1), dot(7, 2)]), {dot(7, 2): value(dot(7, 2), b"new")})
BESIDE = first_record(value(dot(8, 1), b"beside"))
STALE: Answer = (STALE_GENERATION, pack("<QQ", SECOND, FIRST))


def behind(record: bytes) -> Answer:
    """The answer of an owner that may lack what it has acknowledged."""
    return (RECORD_BEHIND, record) if record else NOTHING_BEHIND


class Story:
    """Member 1 coordinates; b and c are the other owners, in the order in which it asks them."""

    def __init__(self, own: bytes = b"", owes: bool = False, count: int = 3) -> None:
        self.one = OneNode(count=count)
        self.key = self.one.owned_key()
        self.one.connect()
        self.b, self.c = (m for m in self.one.owners_of(self.key) if m != 1)
        if own:
            self.one.store.put(self.one.key(self.key), pack_holding(NO_OWN, self.key, own))
        if owes:
            self.one.node.catch_up.owe_all()

    def get(self, r: int) -> "Story":
        self.one.get(key=self.key, r=r)
        if not self.asks(self.b) and self.asks(self.c):
            self.b, self.c = self.c, self.b
        return self

    def asks(self, member: int) -> bool:
        return any(entry.op == OP_GET for entry in self.one.asked(member))

    def mended(self, member: int) -> list[bytes]:
        return [record_of(each.body) for each in self.one.asked(member) if each.op == OP_PUT]

    def asker(self, member: int) -> Asker:
        """Whoever waits for the member's answer."""
        self.one.end_turn()
        (asker,) = self.one.env.links[member].in_flight[-1].askers
        return asker

    @property
    def waits(self) -> bool:
        return self.one.client.payloads == []

    def found(self) -> tuple[Found, set[int]]:
        outcome = self.one.client.outcome()
        assert isinstance(outcome, Found)
        assert self.one.env.counters.gets_that_may_miss == outcome.may_miss_acknowledged
        return outcome, {*outcome.replicas}


# The own copy is behind.


def test_an_own_copy_that_is_behind_does_not_count_and_another_owner_is_asked() -> None:
    story = Story(OLD, owes=True).get(r=1)
    assert story.waits
    assert story.asks(story.b)
    assert not story.asks(story.c)
    story.one.answers(story.b, a_record(NEW))
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {story.b}, False)
    assert record_of(story.one.store.get(story.one.key(story.key)) or b"") == NEW, "mended"


def test_what_it_holds_is_merged_in_all_the_same() -> None:
    story = Story(NEW, owes=True).get(r=2)
    story.one.answers(story.b, OK)
    assert story.waits
    story.one.answers(story.c, a_record(BESIDE))
    found, read = story.found()
    assert sorted(found.values) == [b"beside", b"new"]
    assert read == {story.b, story.c}
    assert not found.may_miss_acknowledged
    assert story.mended(story.b) == story.mended(story.c) != []


def test_a_node_that_owes_nothing_counts_again() -> None:
    story = Story(NEW, owes=True)
    for member in story.one.others:
        story.one.node.catch_up.settle(member, list(range(story.one.ring.partitions)))
    story.get(r=1)
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {1}, False)


@pytest.mark.parametrize("own", [b"", OLD], ids=["nothing", "something"])
def test_alone_it_answers_with_what_it_has_and_says_that_it_may_miss_something(own: bytes) -> None:
    story = Story(own, owes=True)
    story.one.disconnect(story.b)
    story.one.disconnect(story.c)
    story.get(r=1)
    found, read = story.found()
    assert found.known == bool(own)
    assert found.may_miss_acknowledged
    assert read == {1}


def test_it_is_counted_only_once_nobody_else_is_left_to_be_waited_for() -> None:
    story = Story(OLD, owes=True).get(r=2)
    story.one.answers(story.b, a_record(NEW))
    assert story.waits
    story.one.disconnect(story.c)
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {1, story.b}, True)


def test_a_get_of_all_waits_for_the_others_and_then_says_so() -> None:
    story = Story(OLD, owes=True).get(r=3)
    story.one.answers(story.b, a_record(OLD))
    assert story.waits
    story.one.answers(story.c, a_record(OLD))
    found, read = story.found()
    assert found.may_miss_acknowledged
    assert read == {1, story.b, story.c}


def test_at_the_deadline_it_is_better_than_no_answer() -> None:
    story = Story(OLD, owes=True).get(r=2)
    story.one.answers(story.b, a_record(NEW))
    story.one.advance(DEADLINE - 10_000)
    assert story.waits
    story.one.advance(20_000)
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {1, story.b}, True)


def test_with_too_few_answers_of_any_kind_it_is_refused() -> None:
    story = Story(OLD, owes=True).get(r=3)
    story.one.answers(story.b, a_record(OLD))
    story.one.disconnect(story.c)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert "1 of r=3 did" in outcome.text
    assert story.one.env.counters.gets_that_may_miss == 0


def test_a_get_that_begins_again_under_a_new_generation_is_behind_still() -> None:
    story = Story(OLD, owes=True).get(r=1)
    story.one.answers(story.b, STALE)
    assert story.waits
    assert story.asks(story.b) or story.asks(story.c)


# Another owner's is.


def test_an_owner_that_is_behind_does_not_count_and_the_next_one_is_asked() -> None:
    story = Story(OLD).get(r=2)
    assert not story.asks(story.c)
    story.one.answers(story.b, behind(OLD))
    assert story.waits
    assert story.asks(story.c)
    story.one.answers(story.c, a_record(NEW))
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {1, story.c}, False)
    assert story.mended(story.b) == [NEW]


def test_what_an_owner_that_is_behind_holds_is_merged_in() -> None:
    story = Story(OLD).get(r=2)
    story.one.answers(story.b, behind(BESIDE))
    story.one.answers(story.c, a_record(NEW))
    found, _ = story.found()
    assert sorted(found.values) == [b"beside", b"new"]
    merged = merge(BESIDE, NEW)
    assert story.mended(story.b) == story.mended(story.c) == [merged]
    assert record_of(story.one.store.get(story.one.key(story.key)) or b"") == merged


def test_one_that_has_lost_all_of_it_is_sent_what_is_found() -> None:
    story = Story(NEW).get(r=2)
    story.one.answers(story.b, behind(b""))
    story.one.answers(story.c, a_record(NEW))
    assert story.found()[1] == {1, story.c}
    assert story.mended(story.b) == [NEW]
    assert story.mended(story.c) == []


def test_one_that_holds_nothing_of_what_nobody_holds_is_sent_nothing() -> None:
    story = Story().get(r=2)
    story.one.answers(story.b, behind(b""))
    story.one.answers(story.c, OK)
    assert not story.found()[0].known
    assert story.mended(story.b) == []


def test_when_all_are_behind_they_are_counted_and_the_answer_says_so() -> None:
    story = Story(OLD, owes=True).get(r=3)
    story.one.answers(story.b, behind(BESIDE))
    assert story.waits
    story.one.answers(story.c, behind(NEW))
    found, read = story.found()
    assert sorted(found.values) == [b"beside", b"new"]
    assert found.may_miss_acknowledged
    assert read == {1, story.b, story.c}


def test_they_are_counted_as_soon_as_too_few_others_can_be_left() -> None:
    story = Story(OLD, owes=True).get(r=2)
    story.one.answers(story.b, behind(NEW))
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {1, story.b}, True)
    story.one.answers(story.c, a_record(BESIDE))
    merged = merge(BESIDE, NEW)
    assert record_of(story.one.store.get(story.one.key(story.key)) or b"") == merged, "late"


def test_one_that_is_behind_makes_up_for_one_that_fails() -> None:
    story = Story(OLD).get(r=2)
    story.one.answers(story.b, behind(NEW))
    assert story.waits
    story.one.answers(story.c, (FAILED_HERE, b"damaged"))
    found, read = story.found()
    assert (found.values, read, found.may_miss_acknowledged) == ((b"new",), {1, story.b}, True)
    assert story.mended(story.c) == [NEW]


def test_one_that_tells_it_late_is_mended_if_it_has_less() -> None:
    for held, mended in ((OLD, [NEW]), (NEW, []), (b"", [NEW])):
        story = Story(NEW).get(r=2)
        story.one.advance(50_000)  # The other one is asked as well.
        story.one.answers(story.c, a_record(NEW))
        assert story.found()[1] == {1, story.c}
        story.one.answers(story.b, behind(held))
        assert story.mended(story.b) == mended
        assert story.one.client.take() == []


def test_what_is_no_record_counts_as_none_at_all() -> None:
    story = Story(OLD).get(r=2)
    story.one.answers(story.b, behind(NEW[:-1]))
    story.one.disconnect(story.c)
    assert isinstance(story.one.client.outcome(), Refusal)


@pytest.mark.parametrize("status", [RECORD, RECORD_BEHIND], ids=["record", "behind"])
def test_what_was_read_before_a_reap_round_proves_nothing(status: int) -> None:
    story = Story(b"", owes=True).get(r=2)
    story.one.end_turn()
    story.one.answers(story.b, STALE)
    story.one.answers(story.c, (status, BESIDE))  # Of FIRST, to what was asked before.
    story.one.answers(story.b, OK)
    assert story.waits
    story.one.answers(story.c, OK)
    found, read = story.found()
    assert not found.known
    assert read == {story.b, story.c}


def test_what_was_read_after_it_is_merged_in() -> None:
    story = Story(b"", owes=True).get(r=2)
    story.one.answers(story.b, STALE)
    story.asker(story.b).on_record(story.b, SECOND, BESIDE)
    assert story.waits
    story.asker(story.c).on_behind(story.c, SECOND, NEW)
    found, read = story.found()
    assert sorted(found.values) == [b"beside", b"new"]
    assert found.may_miss_acknowledged
    assert read == {1, story.b, story.c}


def test_told_of_the_same_generation_twice_it_begins_again_once() -> None:
    story = Story(OLD).get(r=3)
    story.one.answers(story.b, STALE)
    asked = [len(story.one.asked(member)) for member in (story.b, story.c)]
    story.one.answers(story.c, STALE)
    assert [len(story.one.asked(member)) for member in (story.b, story.c)] == [1, 1]
    assert asked == [1, 2]


# Fallbacks.


def test_a_fallback_is_asked_only_where_those_behind_are_too_few() -> None:
    story = Story(OLD, count=5)
    d, e = story.one.fallbacks_of(story.key)
    story.one.disconnect(story.c)
    story.get(r=2)
    story.one.answers(story.b, behind(NEW))
    found, read = story.found()
    assert found.may_miss_acknowledged
    assert not found.fallback_read
    assert read == {1, story.b}
    assert not story.asks(d)
    story.one.accepts(story.b)
    story.get(r=3)
    assert story.asks(d)
    assert not story.asks(e)
    story.one.answers(story.b, behind(NEW))
    assert story.waits
    assert story.asks(e)
    story.one.answers(d, OK)
    story.one.answers(e, OK)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Found)
    assert {*outcome.replicas} == {1, d, e}
    assert outcome.fallback_read
    assert not outcome.may_miss_acknowledged
