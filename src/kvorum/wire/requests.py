"""Requests of clients and their answers: hand-packed, fixed-width heads, little-endian.

A put (a delete is a put of a tombstone), a get, and four answers. Tables are named by id, keys
by their bytes. Zero in ``w`` or ``r``, and ``DEFAULT`` in the other settings, mean the table's
own. Every put carries its id, (client, counter), the time of its first sending on the
coordinator's clock, and the lowest counter that its client still has open; so a coordinator
knows a put that it has seen before, and when it may forget it.

A node that is no owner forwards a request by relaying the very same frame with another request
number and ``FORWARDED`` set.
"""

from struct import Struct
from typing import Final

from kvorum.wire.framing import pack_length
from kvorum.wire.kinds import GET, GET_OK, PUT, PUT_OK, REFUSED, UNKNOWN

TOMBSTONE: Final = 1  # put flag: this is a delete
FORWARDED: Final = 2  # put and get flag: relayed by another node; never relayed again
READ_FIRST: Final = 4  # put flag: no context is given; read and cover what is there
DEFAULT: Final = 255  # durability and sloppy: as the table says

FOUND: Final = 1  # get answer flag: the key has a record, alive or deleted
LWW: Final = 2  # get answer flag: the table keeps one winner
MAY_MISS: Final = 4  # get answer flag: may miss acknowledged writes (a catching-up owner counted)
FALLBACK_READ: Final = 8  # get answer flag: a fallback was read in an owner's stead

# Codes of a refusal; errors.py has the exception of each.
BAD_REQUEST: Final = 1
UNKNOWN_TABLE: Final = 2
BAD_CONTEXT: Final = 3
TOO_LARGE: Final = 4
TOO_MANY_SIBLINGS: Final = 5
OVERLOADED: Final = 6
QUORUM_NOT_MET: Final = 7
NOT_OWNER: Final = 8  # to a forwarder whose topology differs; clients never see it

# How durable one replica's copy is.
LEVEL_MEMORY: Final = 0
LEVEL_OS: Final = 1
LEVEL_DISK: Final = 2

# kind, flags, partition key length, request, w, durability, sloppy, content type length,
# sort key length, zero, context length, table, client, counter, first sent, lowest open, ttl.
_put = Struct("<BBHIBBBBHHI8s8sQQQQ")
_pack_put = _put.pack
unpack_put = _put.unpack_from
PUT_HEAD_BYTES: Final = _put.size

# kind, flags, partition key length, request, r, sloppy, sort key length, table.
_get = Struct("<BBHIBBH8s")
_pack_get = _get.pack
unpack_get = _get.unpack_from
GET_HEAD_BYTES: Final = _get.size

# kind, flags, number of acks, request, coordinator, w, context length; then acks, context.
_put_ok = Struct("<BBHIHHI")
_pack_put_ok = Struct("<IBBHIHHI").pack  # with the frame's length before it
unpack_put_ok = _put_ok.unpack_from
PUT_OK_HEAD_BYTES: Final = _put_ok.size

# One ack: member, level, 1 if it is a fallback's.
_ack = Struct("<HBB")
pack_ack = _ack.pack
unpack_ack = _ack.unpack_from
ACK_BYTES: Final = _ack.size

# kind, flags, number of values, request, coordinator, number of replicas, context length; then
# replicas (u16 each), context, values as in a record.
_get_ok = Struct("<BBHIHHI")
_pack_get_ok = Struct("<IBBHIHHI").pack  # with the frame's length before it
unpack_get_ok = _get_ok.unpack_from
GET_OK_HEAD_BYTES: Final = _get_ok.size

# kind, code, zero, request; then text.
_failure = Struct("<BBHI")
_pack_failure = _failure.pack
unpack_failure = _failure.unpack_from
FAILURE_HEAD_BYTES: Final = _failure.size

_request_number = Struct("<I")
unpack_request_number = _request_number.unpack_from
REQUEST_NUMBER_OFFSET: Final = 4  # in every request and answer


def put_frame(
    request: int, flags: int, table: bytes, partition_key: bytes, sort_key: bytes,
    context: bytes, value: bytes, content_type: bytes, client: bytes, counter: int,
    first_sent: int, lowest_open: int, w: int, durability: int, sloppy: int, ttl: int,
) -> bytes:  # fmt: skip
    """A put or delete, framed. ``first_sent`` and ``ttl`` in microseconds."""
    length = (
        PUT_HEAD_BYTES + len(partition_key) + len(sort_key) + len(context) + len(content_type)
        + len(value)
    )  # fmt: skip
    head = _pack_put(
        PUT, flags, len(partition_key), request, w, durability, sloppy, len(content_type),
        len(sort_key), 0, len(context), table, client, counter, first_sent, lowest_open, ttl,
    )  # fmt: skip
    return b"".join(
        (pack_length(length), head, partition_key, sort_key, context, content_type, value)
    )


def get_frame(
    request: int, flags: int, table: bytes, partition_key: bytes, sort_key: bytes, r: int,
    sloppy: int,
) -> bytes:  # fmt: skip
    head = _pack_get(GET, flags, len(partition_key), request, r, sloppy, len(sort_key), table)
    return b"".join(
        (
            pack_length(GET_HEAD_BYTES + len(partition_key) + len(sort_key)),
            head,
            partition_key,
            sort_key,
        )
    )


def put_ok_frame(request: int, coordinator: int, w: int, acks: bytes, context: bytes) -> bytes:
    ack_bytes = len(acks)
    context_bytes = len(context)
    head = _pack_put_ok(
        PUT_OK_HEAD_BYTES + ack_bytes + context_bytes, PUT_OK, 0, ack_bytes // ACK_BYTES, request,
        coordinator, w, context_bytes,
    )  # fmt: skip
    return b"".join((head, acks, context))


def get_ok_frame(
    request: int, flags: int, coordinator: int, replicas: bytes, context: bytes,
    value_count: int, values: bytes,
) -> bytes:  # fmt: skip
    """``replicas`` are u16 each; ``values`` are encoded as they stand in a record."""
    replica_bytes = len(replicas)
    context_bytes = len(context)
    head = _pack_get_ok(
        GET_OK_HEAD_BYTES + replica_bytes + context_bytes + len(values), GET_OK, flags,
        value_count, request, coordinator, replica_bytes >> 1, context_bytes,
    )  # fmt: skip
    return b"".join((head, replicas, context, values))


def refused_frame(request: int, code: int, text: str) -> bytes:
    body = text.encode()
    head = _pack_failure(REFUSED, code, 0, request)
    return pack_length(FAILURE_HEAD_BYTES + len(body)) + head + body


def unknown_frame(request: int, text: str) -> bytes:
    body = text.encode()
    head = _pack_failure(UNKNOWN, 0, 0, request)
    return pack_length(FAILURE_HEAD_BYTES + len(body)) + head + body


def renumbered(payload: bytes, request: int, flags: int) -> bytes:
    """The same request or answer under another number, framed; ``flags`` are set beside its own."""
    return b"".join(
        (
            pack_length(len(payload)),
            payload[:1],
            bytes((payload[1] | flags,)),
            payload[2:4],
            _request_number.pack(request),
            payload[8:],
        )
    )


assert PUT_HEAD_BYTES == 68
assert GET_HEAD_BYTES == 20
assert PUT_OK_HEAD_BYTES == 16
