"""Merging and updating records: what stays, what goes, what a reader is shown."""

import pytest

from kvorum.model.record import (
    PUT_ID_BYTES,
    check_record,
    first_record,
    lww_record,
    pack_value,
    split_values,
)
from kvorum.model.siblings import (
    alive,
    context_after_put,
    encode_shown,
    merge,
    needs_showing,
    seen_of,
    shown_values,
    update,
    update_lww,
)
from kvorum.model.version import Seen
from tests.support.records import dot, dots_of, record_of_dots, seen_of_dots, value

BOOK, PEN = value(dot(1, 1), b"book"), value(dot(2, 1), b"pen")
BOTH = merge(first_record(BOOK), first_record(PEN))


def test_concurrent_writes_become_siblings() -> None:
    assert split_values(BOTH) == [BOOK, PEN]
    assert merge(first_record(PEN), first_record(BOOK)) == BOTH


def test_a_put_that_has_seen_the_siblings_replaces_them() -> None:
    merged = update(BOTH, seen_of(BOTH), value(dot(1, 2), b"book and pen"))
    assert split_values(merged) == [value(dot(1, 2), b"book and pen")]
    assert merge(merged, BOTH) == merge(BOTH, merged) == merged, "and they do not come back"


def test_a_put_without_context_is_a_sibling_of_all() -> None:
    assert len(alive(update(BOTH, None, value(dot(3, 1))))) == 3
    assert alive(update(None, None, BOOK)) == {dot(1, 1): BOOK}


def test_a_put_removes_only_what_its_context_covers() -> None:
    updated = update(BOTH, seen_of_dots([dot(2, 1)]), value(dot(1, 2)))
    assert list(alive(updated)) == [dot(1, 1), dot(1, 2)]


def test_a_context_newer_than_the_record_keeps_late_values_out() -> None:
    seen = seen_of_dots([dot(1, 1), dot(2, 1)])
    record = update(None, seen, value(dot(3, 1), b"both"))
    assert merge(record, BOTH) == record


def test_an_lww_record_keeps_the_winner_by_clock_and_then_by_dot() -> None:
    early, late = value(dot(9, 1), clock=1), value(dot(1, 1), clock=2)
    assert update_lww(None, early) == lww_record(early)
    assert update_lww(lww_record(early), late) == lww_record(late)
    assert update_lww(lww_record(late), early) == lww_record(late)
    assert merge(lww_record(early), lww_record(late)) == lww_record(late)
    assert merge(lww_record(late), lww_record(early)) == lww_record(late)
    tied = value(dot(2, 1), clock=2)
    assert merge(lww_record(late), lww_record(tied)) == lww_record(tied)


def test_a_record_that_changed_tables_by_hand_still_merges_one_way() -> None:
    lww = lww_record(value(dot(3, 1), clock=5))
    assert merge(lww, BOTH) == merge(BOTH, lww) == lww


def test_after_a_put_the_writer_may_claim_its_own_dot_and_what_is_superseded() -> None:
    mine = seen_of_dots([dot(2, 1)])
    record = update(BOTH, mine, value(dot(1, 2)))
    after = context_after_put(record, dot(1, 2))
    assert dots_of(after) == {dot(2, 1), dot(1, 2)}, "not (1, 1), which nobody showed it"


def test_a_value_is_shown_until_it_expires() -> None:
    record = first_record(value(dot(1, 1), b"secret", expiry=100, content_type=b"text/plain"))
    assert needs_showing(record)
    assert [(one.data, one.tombstone) for one in shown_values(record, 99)] == [(b"secret", False)]
    assert encode_shown(record, 99) == record
    assert [(one.data, one.tombstone) for one in shown_values(record, 100)] == [(b"", True)]
    shown = encode_shown(record, 100)
    check_record(shown)
    assert b"secret" not in shown
    assert shown_values(shown, 0)[0].tombstone


def test_an_expired_lww_value_is_shown_as_deleted() -> None:
    record = lww_record(value(dot(1, 1), b"secret", expiry=100))
    check_record(encode_shown(record, 100))
    assert shown_values(encode_shown(record, 100), 0)[0].data == b""
    assert merge(record, record) == record, "but stays what it is in the store"


def test_a_tombstone_is_shown_as_it_is() -> None:
    record = first_record(value(dot(1, 1), b"", tombstone=True, content_type=b"text/plain"))
    assert shown_values(record, 0)[0].tombstone
    assert encode_shown(record, 0) == record
    assert not needs_showing(record)


def test_two_values_under_one_put_id_are_shown_as_one() -> None:
    """Rule 5: a put sent again at another coordinator is minted twice, but is one write."""
    put_id = b"a client" + b"\1" * 8
    record = merge(
        first_record(value(dot(1, 1), b"book", put_id=put_id)),
        first_record(value(dot(2, 1), b"book", put_id=put_id)),
    )
    assert needs_showing(record)
    assert [one.data for one in shown_values(record, 0)] == [b"book"]
    shown = encode_shown(record, 0)
    check_record(shown)
    assert len(split_values(shown)) == 1
    assert dots_of(seen_of(shown)) == {dot(1, 1), dot(2, 1)}, "the context covers both"
    written = update(record, seen_of(shown), value(dot(1, 2), b"pen"))
    assert [one.data for one in shown_values(written, 0)] == [b"pen"]


def test_values_without_a_put_id_are_each_shown() -> None:
    nobody = b"\0" * PUT_ID_BYTES
    record = merge(
        first_record(pack_value(dot(1, 1), 1, 0, nobody, False, b"", b"a")),
        first_record(pack_value(dot(2, 1), 1, 0, nobody, False, b"", b"a")),
    )
    assert len(shown_values(record, 0)) == 2


@pytest.mark.parametrize("other", [BOTH, record_of_dots([], [])])
def test_an_empty_record_takes_nothing_away(other: bytes) -> None:
    empty = record_of_dots([], [])
    assert merge(empty, other) == merge(other, empty) == other
    assert seen_of(empty).runs == Seen().runs
