"""Frames out of a byte stream, however it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.wire.framing import (
    HANDSHAKE_BYTES_MAX,
    LENGTH_BYTES,
    FrameInvalid,
    FrameReader,
    frame,
)

LARGE = 1 << 20


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert frame(b"\x20abc") == b"\4\0\0\0\x20abc"


@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.just(b"x" * 70_000)), max_size=6),
    st.lists(st.integers(1, 90_000), min_size=1, max_size=12),
)
def test_payloads_come_out_whole_and_in_order_whatever_the_chunks(
    payloads: list[bytes], sizes: list[int]
) -> None:
    stream = b"".join(frame(payload) for payload in payloads)
    reader = FrameReader(LARGE)
    out: list[bytes] = []
    position = 0
    while position < len(stream):
        size = sizes[len(out) % len(sizes)]
        sizes = [*sizes[1:], sizes[0]]
        out += reader.feed(stream[position : position + size])
        position += size
    assert out == payloads


def test_payloads_come_out_byte_by_byte() -> None:
    reader = FrameReader()
    stream = frame(b"one") + frame(b"2") + frame(b"three")
    out = [payload for byte in stream for payload in reader.feed(bytes((byte,)))]
    assert out == [b"one", b"2", b"three"]


def test_what_follows_a_large_frame_in_the_same_chunk_is_not_lost() -> None:
    reader = FrameReader(LARGE)
    large = frame(b"x" * 100_000)
    assert reader.feed(frame(b"first") + large[:30]) == [b"first"]
    assert reader.feed(large[30:90_000]) == []
    assert reader.feed(large[90_000:] + frame(b"next") + frame(b"half")[:5]) == [
        b"x" * 100_000,
        b"next",
    ]
    assert reader.feed(frame(b"half")[5:]) == [b"half"]


def test_an_empty_chunk_changes_nothing() -> None:
    reader = FrameReader()
    assert reader.feed(b"") == []
    assert reader.feed(frame(b"a")[:3]) == []
    assert reader.feed(b"") == []
    assert reader.feed(frame(b"a")[3:]) == [b"a"]


def test_before_the_handshake_only_small_frames_pass() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"h" * HANDSHAKE_BYTES_MAX)) == [b"h" * HANDSHAKE_BYTES_MAX]
    with pytest.raises(FrameInvalid, match="announces 16385 bytes; 1 to 16384 are allowed"):
        reader.feed(frame(b"h" * (HANDSHAKE_BYTES_MAX + 1)))
    reader = FrameReader()
    reader.payload_bytes_max = LARGE
    assert len(reader.feed(frame(b"h" * LARGE))) == 1


@pytest.mark.parametrize("length", [0, LARGE + 1, 0xFFFFFFFF])
def test_a_length_of_nought_or_beyond_the_limit_is_refused_at_once(length: int) -> None:
    reader = FrameReader(LARGE)
    with pytest.raises(FrameInvalid, match=f"announces {length} bytes"):
        reader.feed(length.to_bytes(LENGTH_BYTES, "little"))
