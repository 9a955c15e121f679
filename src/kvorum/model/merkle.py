"""Hash trees: what two replicas compare instead of their records.

The ring is cut into 65,536 **leaves** by the top sixteen bits of a key's position, so that every
partition is a run of whole leaves. A leaf is the XOR of the hashes of its records, which makes
it the same whatever the order of writes, and lets a write change it without a look at any other
record: the old entry is taken out and the new one put in. What stands above the leaves is hashed
when somebody asks. All 65,536 leaves are half a mebibyte, hashed in some fifty microseconds, so
keeping upper levels would cost every write more than it saves a comparison. (Dynamo paper,
section 4.7.)

An entry is the hash of the engine key and of the holding without its local head: partition key
and canonical record. Equal sets of records have equal leaves; the hash is no defence against
somebody who crafts records, who could only hide a difference between copies of his own.

A leaf is **stale** when nobody can say what stands in it: after an unclean stop, or where a
damaged record was replaced. A scan counts it anew while writes go on: ``begin_scan``, then
``scanned`` with slice after slice.
"""

import sys
from array import array
from typing import Final

from xxhash import xxh3_64_intdigest

from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.holding import HEAD_BYTES

LEAVES: Final = 1 << 16
LEAF_BYTES: Final = 8
NO_LEAF: Final = -1
NOTHING: Final = bytes(LEAVES * LEAF_BYTES)  # the leaves of an empty store


def leaf_of(key: bytes) -> int:
    """The leaf of a record, by its engine key."""
    return key[1] << 8 | key[2]


def leaf_start(leaf: int) -> bytes:
    """The first engine key of a leaf; of the leaf behind the last one, where records end."""
    return SPACE_HINTS if leaf >= LEAVES else SPACE_RECORDS + leaf.to_bytes(2, "big")


def entry_hash(key: bytes, holding: bytes) -> int:
    """What one record adds to its leaf."""
    return xxh3_64_intdigest(key + holding[HEAD_BYTES:])


class Trees:
    """The leaves of all records of one store.

    Invariant: a leaf that is not stale is the XOR of ``entry_hash`` over the records that can be
    read in it, in the state after the last ``change``.
    """

    __slots__ = (
        "_bytes", "_scan_leaf", "_scan_spoiled", "_scan_sum", "_scanned_to", "leaves", "stale",
        "stale_count",
    )  # fmt: skip

    def __init__(self) -> None:
        self.leaves = array("Q", NOTHING)
        self._bytes = memoryview(self.leaves).cast("B")
        self.stale = bytearray(LEAVES)  # by leaf; 1: nobody knows what stands in it
        self.stale_count = 0
        self._scan_leaf = NO_LEAF  # counted in part: its records below ``_scanned_to``
        self._scanned_to = b""
        self._scan_sum = 0
        self._scan_spoiled = False  # a record in it was damaged meanwhile; the sum is void

    def change(self, key: bytes, held: bytes | None, holding: bytes | None) -> None:
        """``held`` is replaced by ``holding``; None: there was, or will be, no record.

        A damaged record is ``b""``. Nobody knows whether its leaf still has it.
        """
        leaf = key[1] << 8 | key[2]
        delta = 0
        if held:
            delta = xxh3_64_intdigest(key + held[HEAD_BYTES:])
        elif held is not None:
            self.spoil(leaf)
        if holding is not None:
            delta ^= xxh3_64_intdigest(key + holding[HEAD_BYTES:])
        self.leaves[leaf] ^= delta
        if leaf == self._scan_leaf and key < self._scanned_to:
            self._scan_sum ^= delta

    def replace(self, key: bytes, held: bytes, holding: bytes) -> None:
        """``change`` of one undamaged record into another, which is nearly every write."""
        leaf = key[1] << 8 | key[2]
        delta = xxh3_64_intdigest(key + held[HEAD_BYTES:]) ^ xxh3_64_intdigest(
            key + holding[HEAD_BYTES:]
        )
        self.leaves[leaf] ^= delta
        if leaf == self._scan_leaf and key < self._scanned_to:
            self._scan_sum ^= delta

    def spoil(self, leaf: int) -> None:
        """Nobody knows what stands in this leaf: it must be counted anew."""
        if not self.stale[leaf]:
            self.stale[leaf] = 1
            self.stale_count += 1
        if leaf == self._scan_leaf:
            self._scan_spoiled = True

    def spoil_all(self) -> None:
        self.stale = bytearray(b"\1") * LEAVES
        self.stale_count = LEAVES
        self._scan_leaf = NO_LEAF

    def first_stale(self, first: int, end: int = LEAVES) -> int:
        """The first stale leaf of a run, or ``NO_LEAF``."""
        return self.stale.find(1, first, end)

    # Counting anew.

    def begin_scan(self, leaf: int) -> None:
        """Count from the beginning of ``leaf``; a scan under way is given up."""
        self._scan_leaf = leaf
        self._scanned_to = leaf_start(leaf)
        self._scan_sum = 0
        self._scan_spoiled = False

    def scanned(self, rows: list[tuple[bytes, bytes]], end: bytes) -> int:
        """``rows`` are all records from where the scan stands to ``end``, excluded.

        They must have been read in this very step. Every leaf that ends there is settled; returns
        how many of these were wrong without being stale, which should never happen.
        """
        wrong = 0
        for key, holding in rows:
            leaf = key[1] << 8 | key[2]
            if self._scan_leaf < leaf:
                wrong += self._settle_to(leaf)
            self._scan_sum ^= xxh3_64_intdigest(key + holding[HEAD_BYTES:])
        last = LEAVES if end >= SPACE_HINTS else leaf_of(end + b"\0\0")
        if self._scan_leaf < last:
            wrong += self._settle_to(last)
        self._scanned_to = end
        return wrong

    def _settle_to(self, leaf: int) -> int:
        """The leaf under scan is counted, and there is no record between it and ``leaf``."""
        wrong = self._settle()
        first = self._scan_leaf
        if (
            bytes(self._bytes[first * LEAF_BYTES : leaf * LEAF_BYTES])
            == NOTHING[: (leaf - first) * LEAF_BYTES]
        ):
            # The common case of many empty leaves, without a look at each of them.
            if self.stale_count:
                self.stale_count -= self.stale.count(1, first, leaf)
                self.stale[first:leaf] = bytes(leaf - first)
            self._scan_leaf = leaf
            return wrong
        while self._scan_leaf < leaf:
            wrong += self._settle()
        return wrong

    def _settle(self) -> int:
        """The leaf under scan is counted; go on to the next one."""
        leaf = self._scan_leaf
        counted = self._scan_sum
        spoiled = self._scan_spoiled
        self._scan_leaf = leaf + 1
        self._scan_sum = 0
        self._scan_spoiled = False
        if spoiled:
            return 0
        was_stale = self.stale[leaf]
        if was_stale:
            self.stale[leaf] = 0
            self.stale_count -= 1
        if self.leaves[leaf] == counted:
            return 0
        self.leaves[leaf] = counted
        return 0 if was_stale else 1

    # Comparing.

    def hash_of(self, first: int, end: int) -> int:
        """One hash over a run of leaves."""
        return xxh3_64_intdigest(self.encoded(first, end))

    def digest(self, spans: list[tuple[int, int]]) -> int:
        """One hash over runs of leaves; over equal runs it is equal wherever leaves are."""
        if len(spans) == 1:
            return self.hash_of(*spans[0])
        return xxh3_64_intdigest(b"".join([self.encoded(first, end) for first, end in spans]))

    def encoded(self, first: int, end: int) -> bytes | memoryview:
        """A run of leaves as it is hashed and sent: eight bytes each, little-endian."""
        if sys.byteorder == "little":
            return self._bytes[first * LEAF_BYTES : end * LEAF_BYTES]
        swapped = self.leaves[first:end]
        swapped.byteswap()
        return swapped.tobytes()

    def load(self, encoded: bytes) -> None:
        """Take over what ``encoded`` gave for all leaves; none is stale then."""
        assert len(encoded) == LEAVES * LEAF_BYTES
        loaded = array("Q", encoded)
        if sys.byteorder != "little":
            loaded.byteswap()
        self.leaves[:] = loaded
        self.stale = bytearray(LEAVES)
        self.stale_count = 0
        self._scan_leaf = NO_LEAF


def spans_of(partitions: list[int], shift: int) -> list[tuple[int, int]]:
    """The leaves of some partitions, in order, as few runs as possible."""
    spans: list[tuple[int, int]] = []
    for partition in partitions:
        first, end = partition << shift, (partition + 1) << shift
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((first, end))
    return spans
