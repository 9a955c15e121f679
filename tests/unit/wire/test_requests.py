"""Requests of clients and their answers, byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from kvorum.wire import kinds, requests
from kvorum.wire.framing import LENGTH_BYTES, FrameReader
from kvorum.wire.requests import (
    ACK_BYTES,
    FAILURE_HEAD_BYTES,
    FORWARDED,
    FOUND,
    GET_HEAD_BYTES,
    GET_OK_HEAD_BYTES,
    LEVEL_DISK,
    PUT_HEAD_BYTES,
    PUT_OK_HEAD_BYTES,
    QUORUM_NOT_MET,
    TOMBSTONE,
    get_frame,
    get_ok_frame,
    pack_ack,
    put_frame,
    put_ok_frame,
    refused_frame,
    renumbered,
    unknown_frame,
    unpack_ack,
    unpack_get,
    unpack_get_ok,
    unpack_put,
    unpack_put_ok,
    unpack_request_number,
)

u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
ids = st.binary(min_size=8, max_size=8)
short = st.binary(max_size=30)


def payload_of(framed: bytes) -> bytes:
    (payload,) = FrameReader(1 << 20).feed(framed)
    return payload


@given(
    st.tuples(u32, u8, ids, short, short, short, st.binary(max_size=200), short, ids),
    st.tuples(u64, u64, u64, u8, u8, u8, u64),
)
def test_a_put_is_read_as_it_was_packed(
    bodies: tuple[int, int, bytes, bytes, bytes, bytes, bytes, bytes, bytes],
    settings: tuple[int, int, int, int, int, int, int],
) -> None:
    request, flags, table, partition_key, sort_key, context, value, content_type, client = bodies
    counter, first_sent, lowest_open, w, durability, sloppy, ttl = settings
    payload = payload_of(put_frame(*bodies, *settings))
    assert unpack_put(payload, 0) == (
        kinds.PUT, flags, len(partition_key), request, w, durability, sloppy, len(content_type),
        len(sort_key), 0, len(context), table, client, counter, first_sent, lowest_open, ttl,
    )  # fmt: skip
    assert payload[PUT_HEAD_BYTES:] == partition_key + sort_key + context + content_type + value
    assert unpack_request_number(payload, requests.REQUEST_NUMBER_OFFSET) == (request,)


@given(u32, u8, ids, short, short, u8, u8)
def test_a_get_is_read_as_it_was_packed(
    request: int, flags: int, table: bytes, partition_key: bytes, sort_key: bytes, r: int,
    sloppy: int,
) -> None:  # fmt: skip
    payload = payload_of(get_frame(request, flags, table, partition_key, sort_key, r, sloppy))
    assert unpack_get(payload, 0) == (
        kinds.GET, flags, len(partition_key), request, r, sloppy, len(sort_key), table,
    )  # fmt: skip
    assert payload[GET_HEAD_BYTES:] == partition_key + sort_key


def test_a_put_s_answer_names_each_ack() -> None:
    acks = pack_ack(1, LEVEL_DISK, 0) + pack_ack(65_535, 1, 1)
    payload = payload_of(put_ok_frame(7, 1, 2, acks, b"context"))
    assert unpack_put_ok(payload, 0) == (kinds.PUT_OK, 0, 2, 7, 1, 2, 7)
    assert unpack_ack(payload, PUT_OK_HEAD_BYTES) == (1, LEVEL_DISK, 0)
    assert unpack_ack(payload, PUT_OK_HEAD_BYTES + ACK_BYTES) == (65_535, 1, 1)
    assert payload[PUT_OK_HEAD_BYTES + 2 * ACK_BYTES :] == b"context"


def test_a_get_s_answer_carries_replicas_context_and_values() -> None:
    payload = payload_of(get_ok_frame(7, FOUND, 3, b"\1\0\3\0", b"context", 2, b"two values"))
    assert unpack_get_ok(payload, 0) == (kinds.GET_OK, FOUND, 2, 7, 3, 2, 7)
    assert payload[GET_OK_HEAD_BYTES:] == b"\1\0\3\0" + b"context" + b"two values"


def test_a_failure_says_why() -> None:
    refused = payload_of(refused_frame(7, QUORUM_NOT_MET, "zu wenige Knoten für w=2"))
    assert requests.unpack_failure(refused, 0) == (kinds.REFUSED, QUORUM_NOT_MET, 0, 7)
    assert refused[FAILURE_HEAD_BYTES:].decode() == "zu wenige Knoten für w=2"
    unknown = payload_of(unknown_frame(8, "1 of 2 acks"))
    assert requests.unpack_failure(unknown, 0) == (kinds.UNKNOWN, 0, 0, 8)
    assert unknown[FAILURE_HEAD_BYTES:] == b"1 of 2 acks"


def test_a_relayed_request_differs_in_its_number_and_flag_alone() -> None:
    framed = get_frame(7, 0, b"a table!", b"alice", b"", 0, 255)
    relayed = renumbered(payload_of(framed), 0xFFFFFFFF, FORWARDED)
    assert relayed == get_frame(0xFFFFFFFF, FORWARDED, b"a table!", b"alice", b"", 0, 255)
    flagged = renumbered(payload_of(framed)[:1] + b"\1" + payload_of(framed)[2:], 1, FORWARDED)
    assert flagged[LENGTH_BYTES + 1] == TOMBSTONE | FORWARDED
    assert renumbered(payload_of(framed), 7, 0) == framed
