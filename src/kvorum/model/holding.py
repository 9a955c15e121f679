"""What a store keeps under an engine key: a record, its partition key, and our own actor for it.

    u8 format | u8 zero | u16 partition key length | own store id 8 | own stamp u32 |
    own counter u32 | partition key | record                 (little-endian but for the actor)

The *own actor* is the one field that is local: set by the first mint of this store for this
key, never sent (on its way between nodes it is sixteen zero bytes), not hashed, and lost with
the record. A node mints only under its own actor, or under a new one: an actor that is merely
seen in a vector is never continued, since whoever dropped a copy and got it back would then
hand out a dot twice (architecture, dots are never reused, rule 3). The counter is the last one
minted, which an lww record cannot tell.
"""

from struct import Struct
from typing import Final

from kvorum.model.record import FORMAT as RECORD_FORMAT
from kvorum.model.record import (
    HAS_TOMBSTONE,
    LWW,
    VALUE_HEAD_BYTES,
    RecordInvalid,
    check_layout,
    unpack_value_lengths,
)
from kvorum.model.record import HEAD_BYTES as RECORD_HEAD_BYTES
from kvorum.model.version import ACTOR_BYTES, DOT_BYTES, ENTRY_BYTES, NO_ACTOR, make_dot

FORMAT: Final = 1
HEAD_BYTES: Final = 20
OWN_DOT_OFFSET: Final = 4
NO_OWN: Final = NO_ACTOR + b"\0\0\0\0"
NO_RUN: Final = b"\0\0"  # in the head of a record
ONE_VALUE: Final = b"\1\0"
NO_RUN_ONE_VALUE: Final = NO_RUN + ONE_VALUE
NO_COUNTER: Final = b"\0\0\0\0"
STORE_ID_BYTES: Final = 8
EXTENDED_BYTES_MAX: Final = 4_096  # of a vector; longer ones take the long way, which counts them
VECTOR_OFFSET: Final = HEAD_BYTES + RECORD_HEAD_BYTES  # and the length of the partition key
NOT_PLAIN: Final = LWW | HAS_TOMBSTONE
RECORD_STARTS: Final = [bytes((RECORD_FORMAT, flags)) for flags in range(8)]

_head = Struct("<BBH16s")
_pack_head = _head.pack
_pack_short_head = Struct("<BBH").pack  # without the own dot
_unpack_key_length = Struct("<H").unpack_from
_unpack_key_length_and_own = Struct("<H16s").unpack_from
# Of a record's head flags, entries, and the counts of runs and values.
_unpack_shape = Struct("<xBH4s").unpack_from


def pack_holding(own: bytes, partition_key: bytes, record: bytes) -> bytes:
    """A holding; ``own`` is the last dot minted here for the key, or ``NO_OWN``."""
    return _pack_head(FORMAT, 0, len(partition_key), own) + partition_key + record


def kept_and_sent(own: bytes, key_length: int, rest: bytes) -> tuple[bytes, bytes]:
    """A holding of ``rest``, partition key and record together: as it is kept, as it travels."""
    head = _pack_short_head(FORMAT, 0, key_length)
    return b"".join((head, own, rest)), b"".join((head, NO_OWN, rest))


def own_dot(holding: bytes) -> bytes:
    """The last dot that this store minted for the key: its actor and counter; or ``NO_OWN``."""
    return holding[4:HEAD_BYTES]


def with_own(holding: bytes, own: bytes) -> bytes:
    return holding[:4] + own + holding[HEAD_BYTES:]


def record_offset(holding: bytes) -> int:
    return HEAD_BYTES + int(_unpack_key_length(holding, 2)[0])


def record_of(holding: bytes) -> bytes:
    return holding[HEAD_BYTES + int(_unpack_key_length(holding, 2)[0]) :]


def partition_key_of(holding: bytes) -> bytes:
    return holding[HEAD_BYTES : HEAD_BYTES + int(_unpack_key_length(holding, 2)[0])]


def checked_record_offset(holding: bytes) -> int:
    """Where the record begins in a holding that has come from elsewhere.

    Raises ``RecordInvalid`` unless its lengths add up, so that it can be read safely.
    """
    if len(holding) < HEAD_BYTES:
        raise RecordInvalid("a holding is cut short")
    if holding[0] != FORMAT:
        raise RecordInvalid(f"holding format {holding[0]} is unknown here (known: {FORMAT})")
    offset = HEAD_BYTES + int(_unpack_key_length(holding, 2)[0])
    check_layout(holding, offset)
    return offset


def rewritten(
    held: bytes, partition_key: bytes, seen: bytes, flags: int, value: bytes
) -> bytes | None:
    """What a read-modify-write by the key's last own writer makes of ``held``, but for its head.

    The shortcut of nearly every put: ``seen``, the writer's encoded set, is all that the record
    has seen, a plain vector, and the own dot stands in it; so ``value``, under the dot after
    that, replaces everything. ``flags`` are those of a record of ``value`` alone. Returns
    partition key and record; None where that is not so.
    """
    offset = HEAD_BYTES + len(partition_key)
    start = offset + RECORD_HEAD_BYTES
    size = len(seen)
    end = start + size
    counts = held[offset + 2 : offset + 6]
    position = held.find(held[4:HEAD_BYTES], start, end)
    if (
        position < 0
        or (position - start) % ENTRY_BYTES
        or held[start:end] != seen
        or counts != (size // ENTRY_BYTES).to_bytes(4, "little")
        or held[HEAD_BYTES:offset] != partition_key
    ):
        return None
    return b"".join(
        (
            partition_key,
            RECORD_STARTS[flags],
            counts,
            ONE_VALUE,
            held[start:position],
            value[:DOT_BYTES],
            held[position + ENTRY_BYTES : end],
            value,
        )
    )


def extended(
    held: bytes, partition_key: bytes, seen: bytes, flags: int, value: bytes
) -> bytes | None:
    """``rewritten``, by a store that has never written the key: ``value``'s actor is a new one.

    Its dot becomes one more entry of the vector.
    """
    offset = HEAD_BYTES + len(partition_key)
    start = offset + RECORD_HEAD_BYTES
    size = len(seen)
    end = start + size
    if (
        held[start:end] != seen
        or held[offset + 2 : offset + 6] != (size // ENTRY_BYTES).to_bytes(4, "little")
        or held[HEAD_BYTES:offset] != partition_key
        or size > EXTENDED_BYTES_MAX
    ):
        return None
    dot = value[:DOT_BYTES]
    if held.find(dot[:ACTOR_BYTES], start, end) >= 0:
        return None
    position = start
    while position < end and held[position : position + ENTRY_BYTES] < dot:
        position += ENTRY_BYTES
    return b"".join(
        (
            partition_key,
            RECORD_STARTS[flags],
            (size // ENTRY_BYTES + 1).to_bytes(4, "little"),
            ONE_VALUE,
            held[start:position],
            dot,
            held[position:end],
            value,
        )
    )


def plain_successor(held: bytes, received: bytes) -> tuple[bytes, int] | None:
    """What becomes of ``held`` where ``received`` plainly follows on it, and its actors' number.

    As nearly always, that is: the same key and the same actors, or one more, no gap, and one
    value, whose dot has raised its actor's entry and nothing else; and that actor is not our own;
    and neither is a delete. Then it replaces all but the own dot. None: look closely.
    """
    if not received.startswith(held[:OWN_DOT_OFFSET] + NO_OWN):
        return None
    key_length, own = _unpack_key_length_and_own(held, 2)
    start = VECTOR_OFFSET + key_length
    flags, entry_count, beyond = _unpack_shape(held, HEAD_BYTES + key_length)
    end = start + ENTRY_BYTES * entry_count
    dot = received[end : end + DOT_BYTES]
    position = received.find(dot, start, end)
    counter_at = position + ACTOR_BYTES
    after = position + ENTRY_BYTES
    if position < 0:
        return _extended_successor(held, received, start, entry_count)
    if (
        (position - start) % ENTRY_BYTES
        or beyond != NO_RUN_ONE_VALUE
        or flags & NOT_PLAIN
        or received[HEAD_BYTES:counter_at] != held[HEAD_BYTES:counter_at]
        or dot <= held[position:after]
        or (after < end and received[after:end] != held[after:end])
    ):
        return None
    value_at = end + VALUE_HEAD_BYTES
    size = len(received)
    if size < value_at:
        return None
    length, _, type_length = unpack_value_lengths(received, end)
    if value_at + length + type_length != size:
        return None
    if own == NO_OWN:
        return received, entry_count
    if own[:ACTOR_BYTES] == dot[:ACTOR_BYTES]:
        return None
    return held[:HEAD_BYTES] + received[HEAD_BYTES:], entry_count


def _extended_successor(
    held: bytes, received: bytes, start: int, entry_count: int
) -> tuple[bytes, int] | None:
    """``plain_successor``, where the received vector, which begins at ``start``, has one more.

    Records that expire or are deletes take the long way: they may have been reaped already.
    """
    shape_at = start - RECORD_HEAD_BYTES
    end = start + ENTRY_BYTES * entry_count
    value_at = end + ENTRY_BYTES
    dot = received[value_at : value_at + DOT_BYTES]
    actor = dot[:ACTOR_BYTES]
    position = received.find(dot, start, value_at)
    own = held[OWN_DOT_OFFSET:HEAD_BYTES]
    if (
        position < 0
        or (position - start) % ENTRY_BYTES
        or not received.startswith(held[HEAD_BYTES : shape_at + 2], HEAD_BYTES)
        or held[shape_at + 1]
        or received[shape_at + 2] | received[shape_at + 3] << 8 != entry_count + 1
        or not held.startswith(NO_RUN_ONE_VALUE, shape_at + 4)
        or not received.startswith(NO_RUN_ONE_VALUE, shape_at + 4)
        or not held.startswith(received[start:position], start)
        or not held.startswith(received[position + ENTRY_BYTES : value_at], position)
        or (position > start and held[position - ENTRY_BYTES : position - 4] >= actor)
        or (position < end and held[position : position + ACTOR_BYTES] <= actor)
        or dot[ACTOR_BYTES:] == NO_COUNTER
        or len(received) < value_at + VALUE_HEAD_BYTES
        or own[:STORE_ID_BYTES] == dot[:STORE_ID_BYTES]
    ):
        return None
    length, _, type_length = unpack_value_lengths(received, value_at)
    if value_at + VALUE_HEAD_BYTES + length + type_length != len(received):
        return None
    kept = received if own == NO_OWN else held[:HEAD_BYTES] + received[HEAD_BYTES:]
    return kept, entry_count + 1


assert _head.size == HEAD_BYTES
assert make_dot(NO_ACTOR, 0) == NO_OWN
