"""The sorted keys of a dict, brought up to date only when somebody scans.

Overlays and the memory engine are plain dicts, because a put must cost no more than a dict
store. A dict keeps its keys in the order in which they came, so whatever was added since the
last scan stands at its end and is merged into the sorted list then. Keys leave only through
the methods here, which is what keeps the two in step.
"""

from bisect import bisect_left, insort
from itertools import islice

FEW = 64  # so many keys are inserted one by one; more are appended and sorted as two runs


class KeyOrder:
    """A dict's keys in order. The dict may be written to by anyone, but keys leave it here."""

    __slots__ = ("_records", "_sorted")

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self._records = records
        self._sorted: list[bytes] = []

    def keys(self) -> list[bytes]:
        """Return all keys in order: the live list, to be read at once and not kept."""
        fresh = len(self._records) - len(self._sorted)
        if fresh > FEW:
            self._sorted.extend(islice(reversed(self._records), fresh))
            self._sorted.sort()
        elif fresh:
            for key in islice(reversed(self._records), fresh):
                insort(self._sorted, key)
        return self._sorted

    def between(self, lo: bytes, hi: bytes, limit: int) -> list[bytes]:
        """Return up to ``limit`` keys with ``lo <= key < hi``, in order."""
        ordered = self.keys()
        first = bisect_left(ordered, lo)
        last = bisect_left(ordered, hi, first)
        return ordered[first : min(last, first + limit)]

    def remove(self, keys: list[bytes]) -> None:
        """Take these keys out of the dict, whether or not they are in it."""
        ordered = self.keys()
        records = self._records
        gone = [key for key in keys if records.pop(key, None) is not None]
        if len(gone) > FEW:
            self._sorted = [key for key in ordered if key in records]
            return
        for key in gone:
            del ordered[bisect_left(ordered, key)]

    def remove_between(self, lo: bytes, hi: bytes) -> int:
        """Take every key with ``lo <= key < hi`` out of the dict; return how many there were."""
        ordered = self.keys()
        first = bisect_left(ordered, lo)
        last = bisect_left(ordered, hi, first)
        for key in ordered[first:last]:
            del self._records[key]
        del ordered[first:last]
        return max(0, last - first)
