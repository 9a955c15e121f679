"""The context that a client carries from a get to a put, opaque to it.

    u8 format | u8 zero | u16 entries | u16 runs | u16 zero | key digest 12 | clock u64 |
    entries * 16 | runs * 20 | u32 CRC-32 of all before                    (little-endian)

It says what its holder has seen of one key: the set of dots, and the highest hybrid clock,
above which an lww table mints. The digest ties it to its key and the checksum to its bytes, so
that a context from another key, or a mangled one, is refused and can do no harm.
"""

from struct import Struct
from typing import Final
from zlib import crc32

from kvorum.model.hashing import SECOND_HASH_OFFSET, SORT_KEY_OFFSET
from kvorum.model.record import HEAD_BYTES as RECORD_HEAD_BYTES
from kvorum.model.version import ENTRY_BYTES, RUN_BYTES, Seen, is_canonical

FORMAT: Final = 1
HEAD_BYTES: Final = 28
DIGEST_BYTES: Final = 12
CHECKSUM_BYTES: Final = 4
NO_SORT_KEY: Final = b"\0\0\0\0"  # the sum of an empty one
EMPTY_CLOCK: Final = 0
# Of any bytes followed by their own CRC-32, little-endian; of these bytes followed by any other
# four the CRC is another.
CRC_OF_WHOLE: Final = 0x2144DF1C

_head = Struct("<BBHHH12sQ")
_pack_head = _head.pack
_unpack_head = _head.unpack_from
_pack_checksum = Struct("<I").pack
_unpack_checksum = Struct("<I").unpack_from
_unpack_counts = Struct("<HH").unpack_from


class ContextInvalid(ValueError):
    """A context that no node ever gave out, or one of another key; says which."""


def key_digest(engine_key: bytes) -> bytes:
    """Twelve bytes that tell keys apart: the partition key's second hash, the sort key's sum."""
    if len(engine_key) == SORT_KEY_OFFSET:
        return engine_key[SECOND_HASH_OFFSET:] + NO_SORT_KEY
    sort_key_sum = crc32(engine_key[SORT_KEY_OFFSET:])
    return engine_key[SECOND_HASH_OFFSET:SORT_KEY_OFFSET] + _pack_checksum(sort_key_sum)


def context_of_record(engine_key: bytes, record: bytes, clock: int) -> bytes:
    """The context that a get of ``record`` returns: all that the record has seen."""
    entry_count, run_count = _unpack_counts(record, 2)
    end = RECORD_HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    if len(engine_key) == SORT_KEY_OFFSET:
        digest = engine_key[SECOND_HASH_OFFSET:] + NO_SORT_KEY
    else:
        digest = key_digest(engine_key)
    head = _pack_head(FORMAT, 0, entry_count, run_count, 0, digest, clock)
    body = head + record[RECORD_HEAD_BYTES:end]
    return body + _pack_checksum(crc32(body))


def context_of_seen(engine_key: bytes, seen: Seen, clock: int) -> bytes:
    entry_count, run_count, encoded = seen.encode()
    digest = key_digest(engine_key)
    body = _pack_head(FORMAT, 0, entry_count, run_count, 0, digest, clock) + encoded
    return body + _pack_checksum(crc32(body))


def check_context(engine_key: bytes, context: bytes) -> None:
    """Raise ``ContextInvalid`` unless ``context`` was given out for this key and is unchanged."""
    if len(context) < HEAD_BYTES + CHECKSUM_BYTES:
        raise ContextInvalid("the context is cut short; pass on what a get or put returned")
    form, zero, entry_count, run_count, more, digest, _ = _unpack_head(context, 0)
    if form != FORMAT:
        raise ContextInvalid(f"context format {form} is unknown here (known: {FORMAT})")
    end = HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    if (
        len(context) != end + CHECKSUM_BYTES
        or zero
        or more
        or crc32(context[:end]) != _unpack_checksum(context, end)[0]
    ):
        raise ContextInvalid("the context is damaged; pass on what a get or put returned")
    if not is_canonical(context, HEAD_BYTES, entry_count, run_count):
        raise ContextInvalid("the context is damaged; pass on what a get or put returned")
    if digest != key_digest(engine_key):
        raise ContextInvalid("the context belongs to another key or table")


def is_whole(context: bytes) -> bool:
    """True if the context's bytes are those that were given out, by their checksum alone."""
    return crc32(context) == CRC_OF_WHOLE


def context_clock(context: bytes) -> int:
    """The highest hybrid clock that the context's holder has seen."""
    clock: int = _unpack_head(context, 0)[6]
    return clock


def context_seen(context: bytes) -> Seen:
    _, _, entry_count, run_count, _, _, _ = _unpack_head(context, 0)
    return Seen.decode(context, HEAD_BYTES, entry_count, run_count)


def same_seen(context: bytes, record: bytes) -> bool:
    """True if the context has seen exactly what the record has: the usual read-modify-write."""
    if context[2:6] != record[2:6]:
        return False
    seen = context[HEAD_BYTES:-CHECKSUM_BYTES]
    return seen == record[RECORD_HEAD_BYTES : RECORD_HEAD_BYTES + len(seen)]


assert _head.size == HEAD_BYTES
