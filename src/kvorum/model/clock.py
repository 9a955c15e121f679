"""The hybrid clock: times that follow the wall clock where they can and never go backwards.

One integer, microseconds since the Unix epoch: ``max(wall, last + 1)``. It orders the writes
of last-write-wins tables and the versions of table settings; causality is never judged by it.
(Kulkarni et al., "Logical physical clocks", 2014, with both parts folded into one number.)

A successor must never lose to a write that was acknowledged before a crash. So a node only
issues clocks below a *lease*, an upper bound that is on disk before it is used, and starts
again above the last lease it finds there.

Not here: reading any clock. The wall time is handed in by the driver, once per turn.
"""

from collections.abc import Sequence
from typing import Final

LEASE_SPAN: Final = 10_000_000  # how far ahead a lease reaches; far more than a sync takes
MAX_CLOCK: Final = (1 << 64) - 1  # a clock is stored in eight bytes


class HybridClock:
    """One node's hybrid clock, from start to stop.

    Invariant: every ``tick`` is higher than each earlier tick and each witnessed clock.
    """

    __slots__ = ("last", "lease", "lease_span", "max_clock_skew")

    def __init__(self, floor: int, max_clock_skew: int, lease_span: int = LEASE_SPAN) -> None:
        """Begin above ``floor``: the lease on disk, or the last clock a clean stop wrote."""
        self.last = floor
        self.lease = floor  # nothing may be issued until a new lease is on disk
        self.lease_span = lease_span
        self.max_clock_skew = max_clock_skew

    def tick(self, wall: int) -> int:
        """Return a new clock for an event that happens now."""
        clock = self.last + 1
        if wall > clock:
            clock = wall
        self.last = clock
        return clock

    def tick_above(self, wall: int, floor: int) -> int:
        """Return a new clock that is also above ``floor``: a context's, or the own record's."""
        if floor > self.last:
            self.last = floor
        return self.tick(wall)

    def witness(self, clock: int) -> None:
        """Take note of a clock that was met in a record; later ticks are above it."""
        if clock > self.last:
            self.last = clock

    def is_ahead(self, clock: int, wall: int) -> bool:
        """Tell whether a clock from outside lies too far in the future to be let in."""
        return clock > wall + self.max_clock_skew

    def is_covered(self, wall: int) -> bool:
        """Tell whether the next tick would stay within the lease that is on disk."""
        return wall <= self.lease and self.last < self.lease

    def needs_lease(self, wall: int) -> int:
        """Return the lease to write now, or 0 while more than half of the last one is left."""
        ahead = self.last if self.last > wall else wall
        if self.lease - ahead > self.lease_span // 2:
            return 0
        return ahead + self.lease_span

    def extend_lease(self, lease: int) -> None:
        """Note that ``lease`` is on disk now."""
        if lease > self.lease:
            self.lease = lease


def median_offset(offsets: Sequence[int]) -> int:
    """Return by how much the peers' clocks are ahead of ours, judged by their median.

    With an even number of peers the median is an interval, and we give ourselves the benefit
    of the doubt: the point of it that is nearest to our own clock. Nobody to ask gives 0.
    """
    if not offsets:
        return 0
    ordered = sorted(offsets)
    low = ordered[(len(ordered) - 1) // 2]
    high = ordered[len(ordered) // 2]
    if low > 0:
        return low
    if high < 0:
        return high
    return 0


def off_by(offsets: Sequence[int]) -> int:
    """Return how far our clock is from the median of its peers, in microseconds, unsigned."""
    return abs(median_offset(offsets))


def is_off(offsets: Sequence[int], max_clock_skew: int) -> bool:
    """Tell whether our clock may no longer judge: no last-write-wins put, no expiry."""
    return off_by(offsets) > max_clock_skew
