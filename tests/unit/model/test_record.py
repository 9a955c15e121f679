"""One key's record, read and judged where it lies."""

import pytest

from kvorum.model.record import (
    EXPIRES,
    HAS_TOMBSTONE,
    LWW,
    RecordInvalid,
    Value,
    assemble,
    check_layout,
    check_record,
    entry_counter,
    first_record,
    head_of,
    highest_clock,
    holds_value,
    lww_record,
    next_record,
    order_of,
    pack_value,
    split_values,
    supersedes,
)
from kvorum.model.siblings import encode, update
from kvorum.model.version import Seen, make_dot
from tests.support.records import actor, dot, record_of_dots, seen_of_dots, value

NEW = value(dot(1, 1), b"book")


def record_of(dots: list[bytes], *values: bytes) -> bytes:
    return encode(seen_of_dots(dots), {each[:16]: each for each in values})


def test_a_value_is_taken_apart_as_it_was_packed() -> None:
    packed = pack_value(dot(1, 2), 3, 4, b"client 8" + b"\7" * 8, True, b"text/plain", b"gone")
    taken = Value(packed)
    assert (taken.dot, taken.clock, taken.expiry) == (dot(1, 2), 3, 4)
    assert (taken.put_id, taken.tombstone) == (b"client 8" + b"\7" * 8, True)
    assert (taken.content_type, taken.data) == (b"text/plain", b"gone")


def test_a_record_of_a_first_write_is_that_of_the_slow_path() -> None:
    assert first_record(NEW) == update(None, None, NEW)
    assert first_record(NEW)[4:8] == b"\0\0\x01\0"


def test_the_next_write_replaces_all_in_place() -> None:
    record = record_of([dot(1, 1), dot(2, 1)], value(dot(1, 1)), value(dot(2, 1)))
    new = value(dot(1, 2), b"one value", tombstone=True, expiry=9)
    everything = seen_of_dots([dot(1, 1), dot(2, 1)])
    assert next_record(record, new) == update(record, everything, new)


@pytest.mark.parametrize(
    "record",
    [
        record_of([dot(1, 1), dot(1, 3)], value(dot(1, 3))),
        record_of([dot(2, 1)], value(dot(2, 1))),
        lww_record(NEW),
    ],
    ids=["a gap", "an actor that is new here", "lww"],
)
def test_there_is_no_shortcut_past(record: bytes) -> None:
    assert next_record(record, value(dot(1, 4))) is None


def test_flags_follow_from_the_values() -> None:
    assert head_of(first_record(NEW))[1] == 0
    assert head_of(first_record(value(dot(1, 1), expiry=1 << 63)))[1] == EXPIRES
    assert head_of(first_record(value(dot(1, 1), tombstone=True)))[1] == HAS_TOMBSTONE
    assert head_of(lww_record(value(dot(1, 1), tombstone=True)))[1] == HAS_TOMBSTONE | LWW
    both = [value(dot(1, 1), tombstone=True), value(dot(2, 1), expiry=1)]
    assert head_of(record_of([dot(1, 1), dot(2, 1)], *both))[1] == EXPIRES | HAS_TOMBSTONE


def test_the_highest_clock_is_that_of_the_values_alive() -> None:
    values = [value(dot(1, 1), clock=7), value(dot(2, 1), clock=9), value(dot(3, 1), clock=8)]
    assert highest_clock(record_of([dot(1, 1), dot(2, 1), dot(3, 1)], *values)) == 9
    assert highest_clock(encode(Seen(), {})) == 0


def test_an_actor_s_highest_counter_is_found_also_beyond_a_gap() -> None:
    vector = record_of_dots([dot(1, 1), dot(1, 2), dot(2, 1)], [])
    assert [entry_counter(vector, actor(store)) for store in (1, 2, 3)] == [2, 1, 0]
    gaps = record_of_dots([dot(1, 1), dot(1, 2), dot(2, 4), dot(2, 6)], [])
    assert [entry_counter(gaps, actor(store)) for store in (1, 2, 3)] == [2, 6, 0]


def test_values_are_split_as_they_stand() -> None:
    values = [value(dot(1, 1), b"a" * 300, content_type=b"x/y"), value(dot(2, 1), b"")]
    assert split_values(record_of([dot(1, 1), dot(2, 1)], *values)) == values


@pytest.mark.parametrize(
    ("newer", "older", "expected"),
    [
        ([dot(1, 2), dot(1, 1)], [dot(1, 1)], True),
        ([dot(1, 1)], [dot(1, 1)], True),
        ([dot(1, 1)], [dot(1, 1), dot(1, 2)], False),
        ([dot(1, 1)], [dot(2, 1)], False),
        ([dot(1, 1), dot(2, 1)], [dot(2, 1)], True),
        ([dot(1, 1), dot(1, 3)], [dot(1, 3)], True),
    ],
)
def test_a_record_supersedes_what_it_has_seen_all_of(
    newer: list[bytes], older: list[bytes], expected: bool
) -> None:
    assert supersedes(record_of_dots(newer, []), record_of_dots(older, [])) is expected


def test_an_lww_record_supersedes_by_clock_and_then_by_dot() -> None:
    low, high = lww_record(value(dot(2, 1), clock=1)), lww_record(value(dot(1, 1), clock=2))
    assert (supersedes(high, low), supersedes(low, high), supersedes(low, low)) == (1, 0, 1)
    tied = lww_record(value(dot(3, 1), clock=2))
    assert (supersedes(tied, high), supersedes(high, tied)) == (True, False)


def test_a_siblings_record_among_lww_ones_is_ordered_by_its_highest_clock() -> None:
    record = record_of([dot(1, 1)], value(dot(1, 1), clock=5))
    assert order_of(record) == (5, record)
    assert supersedes(lww_record(value(dot(1, 1), clock=6)), record)
    assert not supersedes(lww_record(value(dot(1, 1), clock=4)), record)


SOUND = record_of([dot(1, 1), dot(2, 3)], value(dot(1, 1), b"abc"), value(dot(2, 3)))
HEAD, ENTRY, RUN = SOUND[:8], SOUND[8:24], SOUND[24:44]
FIRST, SECOND = split_values(SOUND)


def test_the_pieces_that_are_mangled_below_make_a_sound_record() -> None:
    check_record(HEAD + ENTRY + RUN + FIRST + SECOND)
    check_layout(b"before" + SOUND, 6)


@pytest.mark.parametrize(
    ("mangled", "problem"),
    [
        (b"", "at least 8 bytes"),
        (SOUND[:7], "at least 8 bytes"),
        (b"\x02" + SOUND[1:], "format 2 is unknown"),
        (SOUND[:30], "set of dots is cut short"),
        (HEAD + dot(1, 0) + RUN + FIRST + SECOND, "set of dots is not canonical"),
        (HEAD + ENTRY + RUN[:12] + b"\0\0\0\1" * 2 + FIRST + SECOND, "set of dots is not canon"),
        (HEAD + ENTRY + RUN + FIRST + SECOND[:50], "value is cut short"),
        (SOUND[:-1], "value is cut short"),
        (HEAD + ENTRY + RUN + SECOND + FIRST, "values are not canonical"),
        (HEAD + ENTRY + RUN + FIRST + FIRST, "values are not canonical"),
        (HEAD + ENTRY + RUN + FIRST[:54] + b"\1" + FIRST[55:] + SECOND, "values are not canonical"),
        (HEAD + ENTRY + RUN + FIRST[:52] + b"\2" + FIRST[53:] + SECOND, "values are not canonical"),
        (HEAD + ENTRY + RUN + FIRST + value(dot(3, 1)), "has not seen"),
        (SOUND + b"!", "1 bytes follow"),
        (SOUND[:1] + bytes((EXPIRES,)) + SOUND[2:], "flags do not fit"),
        (SOUND[:1] + bytes((HAS_TOMBSTONE,)) + SOUND[2:], "flags do not fit"),
        (SOUND[:1] + b"\x80" + SOUND[2:], "flags do not fit"),
        (SOUND[:1] + bytes((LWW,)) + SOUND[2:], "an lww record has one value"),
        (assemble(LWW, 0, 0, b"", [FIRST, SECOND]), "an lww record has one value"),
        (assemble(LWW, 0, 0, b"", []), "an lww record has one value"),
    ],
)
def test_a_mangled_record_is_refused_with_a_reason(mangled: bytes, problem: str) -> None:
    with pytest.raises(RecordInvalid, match=problem):
        check_record(mangled)


@pytest.mark.parametrize(
    "record",
    [
        encode(Seen(), {}),
        record_of_dots([dot(1, 1)], [dot(1, 4), dot(2, 2)]),
        lww_record(value(dot(1, 1), expiry=3, tombstone=True)),
        record_of([make_dot(b"\xff" * 12, 1)], value(make_dot(b"\xff" * 12, 1), b"x" * 70_000)),
    ],
)
def test_a_sound_record_is_accepted(record: bytes) -> None:
    check_record(record)


@pytest.mark.parametrize(
    ("mangled", "problem"),
    [
        (SOUND[:7], "cut short"),
        (b"\x09" + SOUND[1:], "format 9"),
        (encode(seen_of_dots([dot(1, 1)]), {}), "cut short"),
        (SOUND[:6] + b"\0\0" + SOUND[8:], "counts do not fit"),
        (SOUND[:1] + bytes((LWW,)) + SOUND[2:], "counts do not fit"),
        (SOUND[:60], "cut short"),
        (SOUND[:7] + b"\1" + SOUND[8:], "cut short"),
        (first_record(NEW)[:-1], "do not end where it ends"),
        (first_record(NEW)[:4] + b"\3\0" + first_record(NEW)[6:], "cut short"),
        (SOUND[:-1], "do not end where it ends"),
        (SOUND + b"!", "do not end where it ends"),
        (SOUND[:6] + b"\1\0" + SOUND[8:], "do not end where it ends"),
    ],
)
def test_a_record_whose_lengths_do_not_add_up_has_no_layout(mangled: bytes, problem: str) -> None:
    with pytest.raises(RecordInvalid, match=problem):
        check_layout(b"key" + mangled, 3)


def test_a_record_holds_a_value_unless_all_are_deleted_or_expired() -> None:
    gone = pack_value(dot(1, 1), 1, 0, bytes(16), True, b"", b"")
    ends = pack_value(dot(1, 2), 1, 50, bytes(16), False, b"text", b"value")
    record = record_of([dot(1, 1), dot(1, 2)], gone, ends)
    assert holds_value(b"before" + record, 6, 49)
    assert not holds_value(b"before" + record, 6, 50)
    assert not holds_value(first_record(gone), 0, 49)
    assert holds_value(first_record(NEW), 0, 49)
