"""Copies that were set aside: kept whole, told page by page, and forgotten only when told to."""

import pytest

from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.hint import Hint
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.record import Value, first_record, record_digest, split_values
from kvorum.protocol.aside import PAGE_BYTES_MAX, SPACE_ASIDE, Aside
from kvorum.storage.engine import EngineFailed
from kvorum.wire.aside_messages import (
    ASIDE_PAGE_MAX,
    AsideAnswer,
    AsideDiscard,
    AsideDiscarded,
    AsideQuery,
    CopyAside,
)
from kvorum.wire.messages import ControlRefused
from kvorum.wire.requests import BAD_REQUEST, OVERLOADED
from tests.support.recording import OneNode
from tests.support.records import dot, value


def holding(name: bytes, store: int = 8, data: bytes = b"book") -> bytes:
    return pack_holding(NO_OWN, name, first_record(value(dot(store, 1), data)))


def values_of(record: bytes) -> list[bytes]:
    return sorted(Value(each).data for each in split_values(record))


class Keeping:
    """A node that has set aside what its partition held."""

    def __init__(self) -> None:
        self.one = OneNode()

    @property
    def aside(self) -> Aside:
        return self.one.node.generations.aside

    def take(self, *names: bytes, data: bytes = b"book") -> "Keeping":
        self.aside.take([(self.one.key(name), holding(name, data=data)) for name in names])
        return self

    def page(self, start: bytes = b"", limit: int = ASIDE_PAGE_MAX) -> list[CopyAside]:
        self.one.question(AsideQuery(5, start, limit))
        answer = self.one.client.message()
        assert isinstance(answer, AsideAnswer)
        assert answer.request == 5
        return answer.copies

    def pages(self, limit: int) -> list[list[CopyAside]]:
        pages = []
        start = b""
        while page := self.page(start, limit):
            pages.append(page)
            start = page[-1].key + b"\0"
        return pages

    def discard(self, *copies: tuple[bytes, bytes]) -> int:
        self.one.question(AsideDiscard(6, list(copies)))
        answer = self.one.client.message()
        assert isinstance(answer, AsideDiscarded)
        assert answer.request == 6
        return answer.count

    def refusal(self, question: AsideQuery | AsideDiscard) -> tuple[int, str]:
        self.one.question(question)
        answer = self.one.client.message()
        assert isinstance(answer, ControlRefused)
        return answer.code, answer.text


def named(copy: CopyAside) -> tuple[bytes, bytes]:
    return copy.key, record_digest(copy.record)


def test_all_copies_are_told_once_in_pages() -> None:
    keeping = Keeping().take(*[b"k%d" % number for number in range(10)])
    pages = keeping.pages(limit=4)
    assert [len(page) for page in pages] == [4, 4, 2]
    copies = [copy for page in pages for copy in page]
    assert {copy.partition_key for copy in copies} == {b"k%d" % number for number in range(10)}
    assert all(values_of(copy.record) == [b"book"] for copy in copies)
    assert keeping.page(copies[4].key, limit=1) == [copies[4]]


def test_a_page_ends_when_it_has_bytes_enough() -> None:
    size = PAGE_BYTES_MAX // 3 + 1
    keeping = Keeping().take(*[b"k%d" % number for number in range(7)], data=b"x" * size)
    assert [len(page) for page in keeping.pages(limit=7)] == [3, 3, 1]
    large = Keeping().take(b"one", b"two", data=b"x" * 3 * PAGE_BYTES_MAX)
    assert [len(page) for page in large.pages(limit=7)] == [1, 1]


def test_a_hint_says_for_whom_it_was_kept() -> None:
    keeping = Keeping().take(b"own")
    hint = Hint(2, 1, 7, (2, 3), holding(b"hinted"))
    position = SPACE_HINTS + keeping.one.key(b"hinted")[1:]
    keeping.aside.take([(position, hint.encode())])
    own, kept = keeping.page()
    assert (own.key[:1], own.hint_for) == (SPACE_RECORDS, [])
    assert (kept.key, kept.partition_key, kept.hint_for) == (position, b"hinted", [2, 3])
    assert keeping.discard(named(kept)) == 1
    assert keeping.page() == [own]


def test_a_key_that_is_set_aside_twice_keeps_what_both_copies_held() -> None:
    keeping = Keeping()
    key = keeping.one.key(b"k")
    hinted = SPACE_HINTS + key[1:]
    first, second = holding(b"k", 8, b"book"), holding(b"k", 9, b"pen")
    for held, owner in ((first, 2), (second, 3)):
        keeping.aside.take([(key, held), (hinted, Hint(1, 1, 7, (owner,), held).encode())])
    own, kept = keeping.page()
    assert values_of(own.record) == values_of(kept.record) == [b"book", b"pen"]
    assert kept.hint_for == [2, 3]
    assert keeping.aside.count == 2


def test_of_two_copies_under_one_hash_the_later_one_is_kept() -> None:
    keeping = Keeping()
    key = keeping.one.key(b"k")
    keeping.aside.take([(key, holding(b"k"))])
    keeping.aside.take([(key, holding(b"other"))])
    (copy,) = keeping.page()
    assert copy.partition_key == b"other"


def test_what_is_discarded_is_gone_for_good_and_the_rest_stays() -> None:
    keeping = Keeping().take(b"one", b"two")
    one, two = keeping.page()
    assert keeping.discard(named(one), (two.key, b"of another one"), (b"", b"")) == 1
    assert keeping.discard(named(one)) == 0
    keeping.one.sync()
    keeping.one.restart(clean=False)
    assert keeping.aside.count == 1
    assert keeping.page() == [two]


def test_nothing_of_it_is_served() -> None:
    keeping = Keeping().take(b"alice")
    assert keeping.one.node.inspection.local_read(1, keeping.one.key(b"alice")).record is None
    assert keeping.one.store.get(SPACE_ASIDE + keeping.one.key(b"alice"))


@pytest.mark.parametrize("limit", [0, ASIDE_PAGE_MAX + 1])
def test_a_page_beyond_the_bound_is_refused(limit: int) -> None:
    code, text = Keeping().refusal(AsideQuery(5, b"", limit))
    assert code == BAD_REQUEST
    assert "must lie between 1 and 256" in text


def test_too_many_are_not_discarded_at_once() -> None:
    keeping = Keeping().take(b"k")
    (copy,) = keeping.page()
    code, _ = keeping.refusal(AsideDiscard(6, [named(copy)] * (ASIDE_PAGE_MAX + 1)))
    assert code == BAD_REQUEST
    assert keeping.page() == [copy]


def test_a_disk_that_takes_nothing_discards_nothing() -> None:
    keeping = Keeping().take(b"k")
    (copy,) = keeping.page()
    keeping.one.sync()
    assert keeping.one.disk is not None
    keeping.one.disk.free_bytes = 0
    keeping.one.store.put(b"\x00anything", b"at all")
    assert not keeping.one.store.end_turn()
    code, _ = keeping.refusal(AsideDiscard(6, [named(copy)]))
    assert code == OVERLOADED
    assert keeping.aside.count == 1


def test_an_engine_that_cannot_read_is_said_so() -> None:
    keeping = Keeping().take(b"k")

    def fails(*given: object) -> list[tuple[bytes, bytes]]:
        raise EngineFailed("a bad disk")

    keeping.one.store.scan = fails  # type: ignore[method-assign]
    code, text = keeping.refusal(AsideQuery(5, b"", 1))
    assert (code, "a bad disk" in text) == (OVERLOADED, True)
