"""A get that is short of owners: it asks fallbacks if it may, and says so."""

from kvorum.client.store import Found
from kvorum.model.holding import record_of
from kvorum.model.record import first_record
from kvorum.wire.link import FAILED_HERE, OK, OP_GET
from tests.support.recording import OneNode, Refusal, a_record
from tests.support.records import dot, value

BOOK = first_record(value(dot(9, 1), b"book"))


class Story:
    """Member 1 coordinates; b and c are the other owners, d and e the fallbacks in their order."""

    def __init__(self, *absent: str) -> None:
        self.one = OneNode(count=5)
        self.key = self.one.owned_key()
        self.b, self.c = (m for m in self.one.owners_of(self.key) if m != 1)
        self.d, self.e = self.one.fallbacks_of(self.key)
        gone = [getattr(self, name) for name in absent]
        self.one.connect(*(member for member in self.one.others if member not in gone))

    def get(self, r: int = 2, sloppy: int = 1) -> None:
        self.one.get(key=self.key, r=r, sloppy=sloppy)

    def found(self) -> Found:
        outcome = self.one.client.outcome()
        assert isinstance(outcome, Found)
        return outcome

    def asks(self, member: int) -> bool:
        return any(entry.op == OP_GET for entry in self.one.asked(member))


def test_a_get_that_finds_its_owners_asks_nobody_else() -> None:
    story = Story("c")
    story.get()
    assert story.asks(story.b)
    story.one.answers(story.b, OK)
    assert not story.found().fallback_read
    assert not story.asks(story.d)


def test_short_of_owners_it_counts_a_fallback_and_says_so() -> None:
    story = Story("b", "c")
    story.get()
    assert story.asks(story.d)
    story.one.answers(story.d, a_record(BOOK))
    found = story.found()
    assert found.values == (b"book",)
    assert found.fallback_read
    assert {*found.replicas} == {1, story.d}
    assert story.one.env.counters.fallback_reads == 1


def test_what_a_fallback_knew_mends_the_owners_and_never_the_fallback() -> None:
    story = Story("b", "c")
    story.get(r=3)
    story.one.answers(story.d, a_record(BOOK))
    story.one.answers(story.e, OK)
    assert story.found().values == (b"book",)
    held = story.one.store.get(story.one.key(story.key))
    assert held is not None
    assert record_of(held) == BOOK
    assert story.one.asked(story.d) == story.one.asked(story.e) == []


def test_an_owner_that_goes_silent_or_is_lost_is_made_up_for() -> None:
    story = Story("c")
    story.get()
    story.one.end_turn()
    for batch in story.one.env.links[story.b].in_flight:
        for asker in batch.askers:
            asker.on_silence(story.b)
    assert story.asks(story.d)
    story.one.disconnect(story.b)
    assert story.asks(story.e)
    story.one.answers(story.e, OK)
    assert story.found().fallback_read


def test_a_fallback_whose_hint_is_damaged_does_not_count() -> None:
    story = Story("b", "c")
    story.get()
    story.one.answers(story.d, (FAILED_HERE, b"damaged"))
    assert story.asks(story.e)
    story.one.answers(story.e, OK)
    assert {*story.found().replicas} == {1, story.e}


def test_a_strict_get_asks_owners_only() -> None:
    story = Story("b", "c")
    story.get(sloppy=0)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert not story.asks(story.d)


def test_a_sloppy_get_is_refused_once_no_fallback_is_left() -> None:
    story = Story("b", "c", "e")
    story.get()
    assert story.one.client.take() == []
    story.one.disconnect(story.d)
    assert isinstance(story.one.client.outcome(), Refusal)
