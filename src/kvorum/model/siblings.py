"""Merging and updating records taken apart: the slow path, and the laws.

``merge`` joins what two replicas hold; it is commutative, associative and idempotent, so
replicas may meet in any order, twice. ``update`` writes one value: it drops the values that the
writer's context has seen and keeps those it has not, as siblings. Both work on encoded records
and give encoded, canonical records; ``record.py`` has the shortcuts for the common cases.

(Dynamo paper, sections 4.4 and 6.3; Almeida, Shoker, Baquero 2018 for the join.)
"""

from kvorum.model.record import (
    EXPIRES,
    HEAD_BYTES,
    LWW,
    PUT_ID_BYTES,
    TOMBSTONE,
    Value,
    assemble,
    head_of,
    lww_record,
    order_of,
    split_values,
    values_offset,
)
from kvorum.model.version import DOT_BYTES, Seen


def seen_of(record: bytes) -> Seen:
    """The set of dots that ``record`` has seen."""
    _, _, entry_count, run_count, _ = head_of(record)
    return Seen.decode(record, HEAD_BYTES, entry_count, run_count)


def encode(seen: Seen, values: dict[bytes, bytes]) -> bytes:
    """A siblings record of what was seen and the encoded values alive, by dot."""
    ordered = [values[dot] for dot in sorted(values)]
    return assemble(0, *seen.encode(), ordered)


def alive(record: bytes) -> dict[bytes, bytes]:
    """The encoded values of ``record`` by their dots."""
    return {value[:DOT_BYTES]: value for value in split_values(record)}


def merge(left: bytes, right: bytes) -> bytes:
    """What both records say: a value stays unless the other side has seen it and let it go."""
    if left == right:
        return left
    if left[1] & LWW or right[1] & LWW:
        return left if order_of(left) >= order_of(right) else right
    left_seen, right_seen = seen_of(left), seen_of(right)
    left_alive, right_alive = alive(left), alive(right)
    values: dict[bytes, bytes] = {}
    for dot, value in left_alive.items():
        if dot in right_alive or not right_seen.covers(dot):
            values[dot] = value
    for dot, value in right_alive.items():
        if dot in left_alive or not left_seen.covers(dot):
            values[dot] = value
    left_seen.merge(right_seen)
    return encode(left_seen, values)


def update(record: bytes | None, context: Seen | None, value: bytes) -> bytes:
    """``record`` after a put of ``value`` (encoded, under its new dot) by one who saw ``context``.

    The context may be older than the record. That is no error: what the writer never saw
    stays, as a sibling of the new value. It may also be newer; then the record learns of dots
    whose values it never held, and will refuse them when they arrive late.
    """
    seen = Seen() if record is None else seen_of(record)
    values = {} if record is None else alive(record)
    if context is not None:
        values = {dot: kept for dot, kept in values.items() if not context.covers(dot)}
        seen.merge(context)
    dot = value[:DOT_BYTES]
    seen.add(dot)
    values[dot] = value
    return encode(seen, values)


def update_lww(record: bytes | None, value: bytes) -> bytes:
    """The winner of what is here and ``value``."""
    candidate = lww_record(value)
    if record is None or order_of(candidate) > order_of(record):
        return candidate
    return record


def knows_of(record: bytes, dot: bytes, clock: int) -> bool:
    """Whether a record has seen the write under ``dot``, or for lww holds what wins over it."""
    if record[1] & LWW:
        return order_of(record) >= (clock, dot)
    return seen_of(record).covers(dot)


def context_after_put(record: bytes, dot: bytes) -> Seen:
    """What a writer whose put made ``record`` under ``dot`` may claim to have seen.

    Its own context, its own dot, and every dot that the record covers and no longer holds
    alive: those are superseded, so nothing unseen is claimed, and contexts stay small. Never
    the siblings still alive here: the writer has not seen them.
    """
    return seen_of(record).without([other for other in alive(record) if other != dot])


def shown_values(record: bytes, now: int) -> list[Value]:
    """The values of ``record`` as a reader shall see them at ``now`` (microseconds).

    A value that has expired is shown as a tombstone. Two values alive under one put id are one
    write that was sent twice, and are shown once; the context covers both.
    """
    shown: dict[bytes, Value] = {}
    for encoded in split_values(record):
        value = Value(encoded)
        if value.expiry and value.expiry <= now:
            value.tombstone = True
            value.data = b""
        known = value.put_id if value.put_id != b"\0" * PUT_ID_BYTES else value.dot
        shown.setdefault(known, value)
    return list(shown.values())


def encode_shown(record: bytes, now: int) -> bytes:
    """``record`` with its values as ``shown_values`` has them, encoded for an answer."""
    values: dict[bytes, bytes] = {}
    shown = {value.dot: value for value in shown_values(record, now)}
    for dot, encoded in alive(record).items():
        value = shown.get(dot)
        if value is None:
            continue
        values[dot] = _as_tombstone(encoded) if 0 < value.expiry <= now else encoded
    _, flags, entry_count, run_count, _ = head_of(record)
    ordered = [values[dot] for dot in sorted(values)]
    seen = record[HEAD_BYTES : values_offset(record)]
    return assemble(flags & LWW, entry_count, run_count, seen, ordered)


def _as_tombstone(encoded: bytes) -> bytes:
    """An encoded value with its bytes and content type gone and the tombstone flag set."""
    return encoded[:48] + b"\0\0\0\0" + bytes((encoded[52] | TOMBSTONE, 0, 0, 0))


def needs_showing(record: bytes) -> bool:
    """False if a reader may be handed the record's values as they are."""
    return bool(record[1] & EXPIRES) or head_of(record)[4] > 1
