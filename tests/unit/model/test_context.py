"""The context that a client carries: for its key only, and only unchanged."""

from zlib import crc32

import pytest

from kvorum.model.context import (
    ContextInvalid,
    check_context,
    context_clock,
    context_of_record,
    context_of_seen,
    context_seen,
    is_whole,
    key_digest,
    same_seen,
)
from kvorum.model.hashing import engine_key
from kvorum.model.record import lww_record
from kvorum.model.version import Seen
from tests.support.records import HASH_KEY, TABLE_ID, dot, record_of_dots, seen_of_dots, value

KEY = engine_key(HASH_KEY, TABLE_ID, b"alice", b"cart")
SEEN = [dot(1, 1), dot(1, 2), dot(2, 1), dot(3, 5)]
RECORD = record_of_dots(SEEN, [dot(2, 1)])
CONTEXT = context_of_record(KEY, RECORD, 77)


def summed(body: bytes) -> bytes:
    """``body`` with a checksum that fits, as a forger would send it."""
    return body + crc32(body).to_bytes(4, "little")


def test_the_context_of_a_get_says_all_that_the_record_has_seen() -> None:
    check_context(KEY, CONTEXT)
    assert context_seen(CONTEXT).runs == seen_of_dots(SEEN).runs
    assert context_clock(CONTEXT) == 77
    assert context_of_seen(KEY, seen_of_dots(SEEN), 77) == CONTEXT


def test_a_context_knows_whether_a_record_has_seen_just_the_same() -> None:
    assert same_seen(CONTEXT, RECORD)
    assert same_seen(CONTEXT, record_of_dots(SEEN, [dot(1, 2), dot(3, 5)]))
    assert not same_seen(CONTEXT, record_of_dots([*SEEN, dot(1, 3)], []))
    assert not same_seen(CONTEXT, record_of_dots([*SEEN, dot(4, 1)], []))
    assert not same_seen(CONTEXT, record_of_dots([*SEEN, dot(3, 7)], []))


def test_an_lww_context_is_its_clock() -> None:
    context = context_of_record(KEY, lww_record(value(dot(1, 1), clock=5)), 5)
    check_context(KEY, context)
    assert context_seen(context).runs == {}
    assert context_clock(context) == 5


@pytest.mark.parametrize("length", range(len(CONTEXT)))
def test_a_context_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ContextInvalid, match=r"cut short|damaged"):
        check_context(KEY, CONTEXT[:length])


@pytest.mark.parametrize("position", range(len(CONTEXT)))
def test_a_context_with_one_byte_changed_is_refused(position: int) -> None:
    for change in (1, 0x80, 0xFF):
        mangled = bytearray(CONTEXT)
        mangled[position] ^= change
        with pytest.raises(ContextInvalid):
            check_context(KEY, bytes(mangled))


@pytest.mark.parametrize("extra", [b"\0", b"\0\0\0\0"])
def test_bytes_behind_a_context_are_refused(extra: bytes) -> None:
    with pytest.raises(ContextInvalid, match="damaged"):
        check_context(KEY, CONTEXT + extra)


@pytest.mark.parametrize(
    "other",
    [
        engine_key(HASH_KEY, TABLE_ID, b"alice", b"card"),
        engine_key(HASH_KEY, TABLE_ID, b"alice", b""),
        engine_key(HASH_KEY, TABLE_ID, b"bob", b"cart"),
        engine_key(HASH_KEY, b"another!", b"alice", b"cart"),
        engine_key(b"another cluster.", TABLE_ID, b"alice", b"cart"),
    ],
)
def test_the_context_of_another_key_is_refused(other: bytes) -> None:
    assert key_digest(other) != key_digest(KEY)
    with pytest.raises(ContextInvalid, match="another key or table"):
        check_context(other, CONTEXT)


@pytest.mark.parametrize(
    "forged",
    [
        summed(b"\x02" + CONTEXT[1:-4]),
        summed(CONTEXT[:1] + b"\1" + CONTEXT[2:-4]),
        summed(CONTEXT[:6] + b"\1\0" + CONTEXT[8:-4]),
        summed(CONTEXT[:28] + CONTEXT[44:60] + CONTEXT[28:44] + CONTEXT[60:-4]),
        summed(context_of_seen(KEY, seen_of_dots([dot(1, 1)]), 0)[:-8] + b"\0\0\0\0"),
    ],
    ids=["newer format", "second byte", "seventh byte", "not sorted", "counter 0"],
)
def test_a_context_that_no_node_gave_out_is_refused_whatever_its_checksum(forged: bytes) -> None:
    with pytest.raises(ContextInvalid):
        check_context(KEY, forged)


def test_the_empty_context_is_one_too() -> None:
    check_context(KEY, context_of_seen(KEY, Seen(), 0))


def test_a_context_is_whole_while_its_checksum_fits() -> None:
    assert is_whole(CONTEXT)
    assert not is_whole(CONTEXT[:-1])
    assert not is_whole(CONTEXT[:28] + b"\7" + CONTEXT[29:])
    assert not is_whole(b"")
