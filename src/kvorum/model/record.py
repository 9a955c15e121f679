"""One key's record, as replicas store and send it: encoded, and judged where it lies.

A record is what has been seen of a key and the values still alive, each under its dot:

    u8 format | u8 flags | u16 entries | u16 runs | u16 values      (8 bytes, little-endian)
    entries * 16    the version vector: actor, counter              (sorted)
    runs * 20       dots beyond the vector: actor, first, last      (sorted)
    values * (56 + content type + bytes)                            (sorted by dot)

and a value is

    dot 16 | clock u64 | expiry u64 | client 8 | put counter u64 | u32 length | u8 flags |
    u8 content type length | u16 zero | content type | bytes

The clock is the hybrid clock's microseconds, the expiry absolute microseconds or 0; client and
put counter are the id of the put that wrote it. The encoding is canonical: equal records are
equal bytes, on every node, so replicas compare bytes first and vectors at their offsets after.
Objects are made only on the slow path (``siblings.py``).

An ``lww`` record has an empty set of dots and one value, the winner by (clock, dot).
"""

from hashlib import blake2b
from struct import Struct
from typing import Final

from kvorum.model.version import (
    ACTOR_BYTES,
    DOT_BYTES,
    ENTRY_BYTES,
    RUN_BYTES,
    Seen,
    descends,
    find_entry,
    is_canonical,
)

FORMAT: Final = 1
LWW: Final = 1  # record flag: one winner by clock
EXPIRES: Final = 2  # record flag: some value has an expiry
HAS_TOMBSTONE: Final = 4  # record flag: some value is a tombstone
TOMBSTONE: Final = 1  # value flag

HEAD_BYTES: Final = 8
VALUE_HEAD_BYTES: Final = 56
PUT_ID_BYTES: Final = 16  # client (8) and counter (u64)
DIGEST_BYTES: Final = 16
VALUES_MAX: Final = 0xFFFF
CONTENT_TYPE_BYTES_MAX: Final = 255

_head = Struct("<BBHHH")
_pack_head = _head.pack
_unpack_head = _head.unpack_from
_value_head = Struct("<16sQQ16sIBBH")
_pack_value = _value_head.pack
_unpack_value = _value_head.unpack_from
_unpack_order = Struct("<16sQ").unpack_from
_unpack_clock = Struct("<16xQ").unpack_from
_unpack_lengths = Struct("<48xIBB").unpack_from
_unpack_expiry_lengths = Struct("<24xQ16xIBB").unpack_from
unpack_value_lengths: Final = _unpack_lengths  # a value's length, flags, content type's length


class RecordInvalid(ValueError):
    """Bytes that claim to be a record and are none."""


def head_of(record: bytes) -> tuple[int, int, int, int, int]:
    """(format, flags, entries, runs, values)."""
    head: tuple[int, int, int, int, int] = _unpack_head(record, 0)
    return head


def glance(record: bytes) -> tuple[int, int, int, int]:
    """(flags, number of values, where they begin, the first one's clock or 0)."""
    _, flags, entry_count, run_count, value_count = _unpack_head(record, 0)
    position = HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    return flags, value_count, position, _unpack_clock(record, position)[0] if value_count else 0


def values_offset(record: bytes) -> int:
    """Where the values begin; what stands before is the record's head and its set of dots."""
    head = _unpack_head(record, 0)
    return HEAD_BYTES + ENTRY_BYTES * int(head[2]) + RUN_BYTES * int(head[3])


def pack_value(
    dot: bytes, clock: int, expiry: int, put_id: bytes, tombstone: bool,
    content_type: bytes, value: bytes,
) -> bytes:  # fmt: skip
    """One value of a record, encoded."""
    head = _pack_value(
        dot, clock, expiry, put_id, len(value), TOMBSTONE if tombstone else 0, len(content_type), 0
    )
    return head + content_type + value


def value_end(record: bytes, offset: int) -> int:
    """Where the value that begins at ``offset`` ends."""
    length, _, type_length = _unpack_lengths(record, offset)
    return offset + VALUE_HEAD_BYTES + int(length) + int(type_length)


def split_values(record: bytes) -> list[bytes]:
    """The record's values, each encoded as it stands in the record."""
    values: list[bytes] = []
    position = values_offset(record)
    for _ in range(_unpack_head(record, 0)[4]):
        end = value_end(record, position)
        values.append(record[position:end])
        position = end
    return values


def record_digest(record: bytes) -> bytes:
    """What names this very version of a record where replicas compare without sending it."""
    return blake2b(record, digest_size=DIGEST_BYTES).digest()


def highest_clock(record: bytes) -> int:
    """The highest hybrid clock of the values alive."""
    _, _, entry_count, run_count, value_count = _unpack_head(record, 0)
    position = HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    highest = 0
    if value_count == 1:
        return int(_unpack_order(record, position)[1])
    for _ in range(value_count):
        clock = int(_unpack_order(record, position)[1])
        if clock > highest:
            highest = clock
        position = value_end(record, position)
    return highest


def check_record(record: bytes) -> None:
    """Raise ``RecordInvalid`` unless ``record`` is whole and canonically encoded.

    For bytes from outside this process; records of our own making are not checked again.
    """
    if len(record) < HEAD_BYTES:
        raise RecordInvalid(f"a record has at least {HEAD_BYTES} bytes, not {len(record)}")
    form, flags, entry_count, run_count, value_count = _unpack_head(record, 0)
    if form != FORMAT:
        raise RecordInvalid(f"record format {form} is unknown here (known: {FORMAT})")
    position = HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    if position > len(record):
        raise RecordInvalid("a record's set of dots is cut short")
    if not is_canonical(record, HEAD_BYTES, entry_count, run_count):
        raise RecordInvalid("a record's set of dots is not canonical")
    if flags & LWW and (entry_count or run_count or value_count != 1):
        raise RecordInvalid("an lww record has one value and no set of dots")
    derived = flags & LWW
    seen = Seen.decode(record, HEAD_BYTES, entry_count, run_count)
    last = b""
    for _ in range(value_count):
        if position + VALUE_HEAD_BYTES > len(record):
            raise RecordInvalid("a record's value is cut short")
        dot, _, expiry, _, length, value_flags, type_length, zero = _unpack_value(record, position)
        position += VALUE_HEAD_BYTES + length + type_length
        if position > len(record):
            raise RecordInvalid("a record's value is cut short")
        if dot <= last or zero or value_flags & ~TOMBSTONE:
            raise RecordInvalid("a record's values are not canonical")
        if not flags & LWW and not seen.covers(dot):
            raise RecordInvalid("a record has a value that it has not seen")
        if value_flags & TOMBSTONE:
            derived |= HAS_TOMBSTONE
        if expiry:
            derived |= EXPIRES
        last = dot
    if position != len(record):
        raise RecordInvalid(f"{len(record) - position} bytes follow a record's last value")
    if derived != flags:
        raise RecordInvalid("a record's flags do not fit its values")


def check_layout(data: bytes, offset: int) -> None:
    """Raise ``RecordInvalid`` unless a record's lengths add up from ``offset`` to the end.

    The cheap part of ``check_record``, for every record that comes from a peer: what passes can
    be read without stepping outside it.
    """
    size = len(data)
    if size < offset + HEAD_BYTES + VALUE_HEAD_BYTES:
        raise RecordInvalid("a record is cut short")
    form, flags, entry_count, run_count, value_count = _unpack_head(data, offset)
    position = offset + HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    if form == FORMAT and value_count == 1 and size >= position + VALUE_HEAD_BYTES:
        length, _, type_length = _unpack_lengths(data, position)
        if position + VALUE_HEAD_BYTES + length + type_length == size:
            return
    if form != FORMAT:
        raise RecordInvalid(f"record format {form} is unknown here (known: {FORMAT})")
    if not value_count or (flags & LWW and (entry_count or run_count or value_count != 1)):
        raise RecordInvalid("a record's counts do not fit its kind")
    for _ in range(value_count):
        if position + VALUE_HEAD_BYTES > size:
            raise RecordInvalid("a record's value is cut short")
        length, _, type_length = _unpack_lengths(data, position)
        position += VALUE_HEAD_BYTES + length + type_length
    if position != size:
        raise RecordInvalid("a record's values do not end where it ends")


def supersedes(newer: bytes, older: bytes) -> bool:
    """True if keeping ``newer`` alone loses nothing that ``older`` says.

    For siblings: its set of dots holds all of the other's. For lww: it wins, or is the same.
    """
    return supersedes_at(newer, 0, older, 0)


def supersedes_at(newer: bytes, newer_offset: int, older: bytes, older_offset: int) -> bool:
    """``supersedes`` for records that stand within larger bytes, and end where these end."""
    _, flags, newer_entries, newer_runs, _ = _unpack_head(newer, newer_offset)
    _, older_flags, older_entries, older_runs, _ = _unpack_head(older, older_offset)
    if (flags | older_flags) & LWW:
        return order_of(newer[newer_offset:]) >= order_of(older[older_offset:])
    position = newer_offset + HEAD_BYTES
    older_position = older_offset + HEAD_BYTES
    if newer_entries == older_entries and not newer_runs and not older_runs:
        # The same actors on both sides, by far the most common case: counters decide.
        end = position + ENTRY_BYTES * newer_entries
        while position < end:
            entry = newer[position : position + ENTRY_BYTES]
            older_entry = older[older_position : older_position + ENTRY_BYTES]
            if entry != older_entry and (
                entry < older_entry or entry[:ACTOR_BYTES] != older_entry[:ACTOR_BYTES]
            ):
                # Sets of equal size whose actors differ never descend from each other.
                return False
            position += ENTRY_BYTES
            older_position += ENTRY_BYTES
        return True
    return descends(
        newer, position, newer_entries, newer_runs,
        older, older_position, older_entries, older_runs,
    )  # fmt: skip


def order_of(record: bytes) -> tuple[int, bytes]:
    """(clock, dot) of an lww record's value: the higher one wins."""
    if not record[1] & LWW:
        # A table's resolution is fixed at creation, so this is a value that changed tables by
        # hand; any deterministic order will do.
        return (highest_clock(record), record)
    dot, clock = _unpack_order(record, HEAD_BYTES)
    return (int(clock), dot)


def first_record(value: bytes) -> bytes:
    """The record of a key that had none: ``value`` (encoded, its dot's counter 1)."""
    return b"".join((_pack_head(FORMAT, _flags_of(value), 1, 0, 1), value[:DOT_BYTES], value))


def next_record(record: bytes, value: bytes) -> bytes | None:
    """``record`` with everything in it replaced by ``value``, its actor's next write here.

    For a put whose context has seen all that is here. None where there is no shortcut: a gap
    among the dots seen, or an actor that mints here for the first time.
    """
    _, _, entry_count, run_count, _ = _unpack_head(record, 0)
    if run_count:
        return None
    position = find_entry(record, HEAD_BYTES, entry_count, value[:ACTOR_BYTES])
    if position < 0:
        return None
    return b"".join(
        (
            _pack_head(FORMAT, _flags_of(value), entry_count, 0, 1),
            record[HEAD_BYTES:position],
            value[:DOT_BYTES],
            record[position + DOT_BYTES : HEAD_BYTES + ENTRY_BYTES * entry_count],
            value,
        )
    )


def lww_record(value: bytes) -> bytes:
    """The record of an lww key whose winner is ``value``."""
    return _pack_head(FORMAT, _flags_of(value) | LWW, 0, 0, 1) + value


def entry_counter(record: bytes, actor: bytes) -> int:
    """The highest counter of ``actor`` that the record has seen, also beyond a gap; 0 if none."""
    _, _, entry_count, run_count, _ = _unpack_head(record, 0)
    if run_count:
        runs = Seen.decode(record, HEAD_BYTES, entry_count, run_count).runs.get(actor)
        return 0 if runs is None else runs[-1][1]
    position = find_entry(record, HEAD_BYTES, entry_count, actor)
    if position < 0:
        return 0
    return int.from_bytes(record[position + ACTOR_BYTES : position + DOT_BYTES], "big")


def assemble(
    flags: int, entry_count: int, run_count: int, seen: bytes, values: list[bytes]
) -> bytes:
    """A record of its parts; ``values`` encoded and sorted, ``flags`` only ``LWW`` or 0."""
    for value in values:
        flags |= _flags_of(value)
    head = _pack_head(FORMAT, flags, entry_count, run_count, len(values))
    return b"".join([head, seen, *values])


def holds_value(data: bytes, offset: int, wall: int) -> bool:
    """Whether the record from ``offset`` on has a value alive: no tombstone, and not expired."""
    _, _, entry_count, run_count, value_count = _unpack_head(data, offset)
    position = offset + HEAD_BYTES + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    for _ in range(value_count):
        expiry, length, flags, type_length = _unpack_expiry_lengths(data, position)
        if not flags & TOMBSTONE and (not expiry or expiry > wall):
            return True
        position += VALUE_HEAD_BYTES + length + type_length
    return False


def _flags_of(value: bytes) -> int:
    # Byte 52 of a value is its flags, bytes 24 to 32 its expiry.
    flags = HAS_TOMBSTONE if value[52] & TOMBSTONE else 0
    if value[24:32] != b"\0\0\0\0\0\0\0\0":
        flags |= EXPIRES
    return flags


class Value:
    """One value of a record, taken apart."""

    __slots__ = ("clock", "content_type", "data", "dot", "expiry", "put_id", "tombstone")

    def __init__(self, encoded: bytes) -> None:
        dot, clock, expiry, put_id, length, flags, type_length, _ = _unpack_value(encoded, 0)
        self.dot: bytes = dot
        self.clock: int = clock  # hybrid clock, microseconds
        self.expiry: int = expiry  # absolute, microseconds; 0: never
        self.put_id: bytes = put_id  # client and counter
        self.tombstone = bool(flags & TOMBSTONE)
        end = VALUE_HEAD_BYTES + type_length
        self.content_type: bytes = encoded[VALUE_HEAD_BYTES:end]
        self.data: bytes = encoded[end : end + length]


assert _value_head.size == VALUE_HEAD_BYTES
assert _head.size == HEAD_BYTES
