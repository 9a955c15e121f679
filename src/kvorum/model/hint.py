"""What a fallback keeps for owners that did not answer: a holding, and to whom it is owed.

    u8 format | u8 w | u8 disks | u8 number of owners | u64 created | owners u16 each, sorted |
    holding                                                              (little-endian)

There is one hint per key, and several puts may be merged in it. It carries the largest ``w`` and
the largest number of disks that any of them asked for, since what was promised to one writer is
not made less by the next; when the first of them came, for its age; and every owner that has not
taken it yet. Its holding is apart from the node's own record of the key, if it ever has one, and
has an own actor of its own (architecture, dots are never reused, rule 3).

``joined`` is commutative, associative and idempotent but for that local field, which is the
left one's: hints may arrive in any order, twice.
"""

from struct import Struct
from typing import Final

from kvorum.model.holding import (
    HEAD_BYTES,
    NO_OWN,
    own_dot,
    record_offset,
    with_own,
)
from kvorum.model.record import supersedes_at
from kvorum.model.siblings import merge

FORMAT: Final = 1
OWNERS_MAX: Final = 255

_head = Struct("<BBBBQ")
_pack_head = _head.pack
_unpack_head = _head.unpack_from
HINT_HEAD_BYTES: Final = _head.size
_owner = Struct("<H")


class OtherKey(ValueError):
    """Two holdings under one engine key are of different keys: one sender is damaged."""


class Hint:
    """One hint, taken apart."""

    __slots__ = ("created", "disks", "holding", "owners", "w")

    def __init__(
        self, w: int, disks: int, created: int, owners: tuple[int, ...], holding: bytes
    ) -> None:
        self.w = w
        self.disks = disks  # acks from a disk that were asked for
        self.created = created  # wall clock, microseconds
        self.owners = owners  # to whom it is owed, ascending
        self.holding = holding

    def encode(self) -> bytes:
        head = _pack_head(FORMAT, self.w, self.disks, len(self.owners), self.created)
        return b"".join([head, *map(_owner.pack, self.owners), self.holding])


def decode_hint(encoded: bytes) -> Hint:
    """A hint of our own store."""
    _, w, disks, count, created = _unpack_head(encoded, 0)
    end = HINT_HEAD_BYTES + 2 * count
    owners = tuple(
        int.from_bytes(encoded[at : at + 2], "little") for at in range(HINT_HEAD_BYTES, end, 2)
    )
    return Hint(w, disks, created, owners, encoded[end:])


def hinted_holding(encoded: bytes) -> bytes:
    """The holding in a hint, without taking the rest apart."""
    return encoded[HINT_HEAD_BYTES + 2 * encoded[3] :]


def joined(held: Hint, received: Hint) -> Hint:
    """What both hints say; the own actor is the one of ``held``. Raises ``OtherKey``."""
    return Hint(
        max(held.w, received.w),
        max(held.disks, received.disks),
        min(held.created, received.created),
        tuple(sorted({*held.owners, *received.owners})),
        joined_holding(held.holding, received.holding),
    )


def joined_holding(held: bytes, received: bytes) -> bytes:
    """What both holdings of one key say, under the own actor of ``held``. Raises ``OtherKey``."""
    offset = record_offset(received)
    if record_offset(held) != offset or held[HEAD_BYTES:offset] != received[HEAD_BYTES:offset]:
        raise OtherKey("two keys under one keyed hash")
    if supersedes_at(held, offset, received, offset):
        return held
    if supersedes_at(received, offset, held, offset):
        own = own_dot(held)
        return received if own == NO_OWN else with_own(received, own)
    return held[:offset] + merge(held[offset:], received[offset:])


assert HINT_HEAD_BYTES == 12
