"""What this node may have missed, and from whom it has yet to hear.

After an unclean stop, or with a new disk, a node may lack writes that it has acknowledged. It
takes writes at once and counts for ``w``; for ``r`` it counts, partition by partition, only when
it has exchanged with *every* other owner, since any one of them may hold the only copy that had
reached a disk. Until then its answers to gets say that they are **behind**.

Beside that stands a durable **complete mark** per partition: this store has once held all of it.
The mark goes with the data, and survives an unclean stop, after which only catching up is owed.
In a new cluster nobody has it, and all owners get it as soon as they have met. What is owed at a
clean stop is told to the next start (``tree_scan.py`` keeps it with the leaves).
"""

from typing import Final

import msgspec

from kvorum.model.ring import Ring
from kvorum.protocol.environment import Environment
from kvorum.storage.store import Store

KEY_COMPLETE: Final = b"\x00complete"  # meta key: bit map of the partitions held completely
MASK_BYTES: Final = 2  # of one partition's mask; more where it has more than sixteen owners


class Parting(msgspec.Struct, array_like=True):
    """What a node leaves to its next start, if it has stopped cleanly."""

    leaves: bytes = b""  # of the hash trees; empty: not all were known
    owed: bytes = b""  # to be caught up with; empty: everything
    noted: list[bytes] = msgspec.field(default_factory=list)  # engine keys, for reaping


def encode_parting(leaves: bytes, owed: bytes, noted: list[bytes]) -> bytes:
    return msgspec.msgpack.encode(Parting(leaves, owed, noted))


def decode_parting(encoded: bytes) -> Parting:
    try:
        return msgspec.msgpack.decode(encoded, type=Parting)
    except msgspec.DecodeError:
        return Parting()  # There is none, or not of a kind that is understood here.


class CatchUp:
    """The partitions of one node that are behind, and whom each of them still waits for."""

    __slots__ = (
        "_complete", "_env", "_mask_bytes", "_masks", "_me", "_ring", "_store", "behind", "count",
    )  # fmt: skip

    def __init__(self, env: Environment, store: Store, ring: Ring, me: int, owed: bytes) -> None:
        """``owed`` is what the last clean stop has left, or empty."""
        self._env = env
        self._store = store
        self._ring = ring
        self._me = me
        self.behind = bytearray(ring.partitions)  # by partition; looked at for every get
        self.count = 0
        self._masks = [0] * ring.partitions  # places of the owners that it waits for
        size = self._mask_bytes = max(MASK_BYTES, ring.n + 7 >> 3)
        self._complete = bytearray(store.get(KEY_COMPLETE) or bytes(ring.partitions + 7 >> 3))
        if len(owed) == size * ring.partitions:
            for partition in range(ring.partitions):
                place = size * partition
                self._owe(partition, int.from_bytes(owed[place : place + size], "little"))
        else:
            self.owe_all()

    def owe_all(self) -> None:
        """Something may be missing anywhere."""
        for partition in range(self._ring.partitions):
            owners = self._ring.owners(partition)
            if self._me in owners:
                everyone = (1 << len(owners)) - 1
                self._owe(partition, everyone & ~(1 << owners.index(self._me)))

    def _owe(self, partition: int, mask: int) -> None:
        self._masks[partition] = mask
        self.count += bool(mask) - self.behind[partition]
        self.behind[partition] = bool(mask)
        if not mask and self._me in self._ring.owners(partition):
            self._mark(partition)

    def forget_marks(self) -> None:
        """This disk is not the one that has earned them."""
        self._complete = bytearray(len(self._complete))
        self.keep()
        self.owe_all()

    def forget(self, partition: int) -> None:
        """This partition's copy has been set aside: nothing is held of it."""
        self._complete[partition >> 3] &= ~(1 << (partition & 7))
        self.keep()
        owners = self._ring.owners(partition)
        if self._me in owners:
            self._owe(partition, (1 << len(owners)) - 1 & ~(1 << owners.index(self._me)))

    def owes(self, partition: int) -> bool:
        """Whether this node may lack something that was acknowledged there."""
        return bool(self.behind[partition])

    def waits_for(self, member: int) -> bool:
        """Whether any partition has yet to be exchanged with this member."""
        return bool(self.count) and any(
            self._waits(partition, member) for partition in self._behind_ones()
        )

    def _behind_ones(self) -> list[int]:
        found: list[int] = []
        partition = self.behind.find(1)
        while partition >= 0:
            found.append(partition)
            partition = self.behind.find(1, partition + 1)
        return found

    def _waits(self, partition: int, member: int) -> bool:
        owners = self._ring.owners(partition)
        return member in owners and bool(self._masks[partition] >> owners.index(member) & 1)

    def settle(self, member: int, partitions: list[int]) -> int:
        """These were exchanged with ``member``; return how many have thereby caught up."""
        done = 0
        for partition in partitions:
            if self._waits(partition, member):
                place = self._ring.owners(partition).index(member)
                self._owe(partition, self._masks[partition] & ~(1 << place))
                done += not self.behind[partition]
        if done:
            self._env.counters.caught_up += done
            self.keep()
        return done

    def keep(self) -> None:
        """Write the complete marks, if there is anything new in them and a disk to take it."""
        marks = bytes(self._complete)
        if self._store.writable and marks != (self._store.get(KEY_COMPLETE) or bytes(len(marks))):
            self._store.put(KEY_COMPLETE, marks)

    def _mark(self, partition: int) -> None:
        self._complete[partition >> 3] |= 1 << (partition & 7)

    @property
    def complete_count(self) -> int:
        return int.from_bytes(self._complete, "little").bit_count()

    def encoded(self) -> bytes:
        """What is owed, for the next start after a clean stop."""
        return b"".join([mask.to_bytes(self._mask_bytes, "little") for mask in self._masks])
