"""A get that is short of owners: it asks fallbacks if it may, and says so."""

from kvorum.client.store import Found
from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.record import first_record
from kvorum.storage.commit import drain
from kvorum.wire.link import FAILED_HERE, OK, OP_GET
from kvorum.wire.requests import FORWARDED
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


# At a fallback, where the get has come because no owner could be reached.


class AtFallback:
    """Member 1 of five is the first fallback of a key, and coordinates."""

    def __init__(self, hint: bool = False) -> None:
        self.one = OneNode(count=5)
        self.key = next(
            key
            for key in (b"%d" % number for number in range(1000))
            if self.one.fallbacks_of(key)[0] == 1
        )
        self.owners = self.one.owners_of(self.key)
        if hint:
            holding = pack_holding(NO_OWN, self.key, BOOK)
            assert self.one.node.hints.take(self.one.key(self.key), 2, 1, 0, holding) == OK

    def get(self, r: int = 1, sloppy: int = 1) -> None:
        self.one.get(key=self.key, r=r, sloppy=sloppy, flags=FORWARDED)


def test_a_fallback_that_keeps_nothing_answers_that_there_is_nothing() -> None:
    story = AtFallback()
    story.get()
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Found)
    assert not outcome.known
    assert outcome.fallback_read
    assert outcome.replicas == (1,)


def test_it_refuses_where_even_all_fallbacks_are_too_few() -> None:
    story = AtFallback(hint=True)
    story.get(r=2)
    outcome = story.one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert "1 of r=2 did" in outcome.text
    assert story.one.store.get(story.one.key(story.key)) is None, "it has no copy to be mended"


def test_its_own_hint_does_not_count_if_it_is_damaged() -> None:
    story = AtFallback(hint=True)
    one = story.one
    assert drain(one.store.buffer)
    (hint,) = [key for key in one.engine.records if key[:1] == SPACE_HINTS]
    one.engine.records[hint] = b"garbage that is long enough"
    one.connect(one.fallbacks_of(story.key)[1])
    story.get()
    assert one.client.take() == []
    one.answers(one.fallbacks_of(story.key)[1], a_record(BOOK))
    outcome = one.client.outcome()
    assert isinstance(outcome, Found)
    assert outcome.replicas == (one.fallbacks_of(story.key)[1],)


def test_what_others_know_late_is_not_mended_at_a_fallback() -> None:
    story = AtFallback()
    one = story.one
    one.connect(*story.owners)
    story.get(r=2)
    for owner in story.owners:
        if one.asked(owner):
            one.answers(owner, a_record(BOOK))
    assert isinstance(one.client.outcome(), Found)
    assert one.store.get(one.key(story.key)) is None
    assert one.env.counters.own_repairs == 0
