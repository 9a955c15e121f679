"""Ids for puts that come over HTTP, and when a coordinator may forget them.

A coordinator remembers every id that may still be asked for again (``protocol/ledger.py``). Whoever
brings an id may always ask again, so nothing is said to be settled. For all others the door
counts under a client id of its own, shared by all its connections, and says with every put which
is the lowest that is still open. An id whose outcome stayed unknown was told to its caller, who
may ask again: then the door goes on under another client id, and the old one is never settled.
"""

from collections.abc import Callable
from typing import Final

from kvorum.server.http_headers import PutId

CLIENT_ID_BYTES: Final = 8


class Series:
    """The ids given out under one client id."""

    __slots__ = ("client", "last", "open")

    def __init__(self, client: bytes) -> None:
        self.client = client
        self.last = 0
        self.open: dict[int, None] = {}  # counters, in their order


class PutIds:
    """Gives out ids. Each is settled, or told to be in doubt, exactly once."""

    __slots__ = ("_entropy", "_series")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._series = Series(entropy(CLIENT_ID_BYTES))

    def issue(self, now: int) -> tuple[PutId, Series]:
        """An id that no put had before, first sent now."""
        series = self._series
        series.last = counter = series.last + 1
        series.open[counter] = None
        return PutId(series.client, counter, now), series

    @staticmethod
    def lowest_open(series: Series) -> int:
        for counter in series.open:
            return counter
        return series.last + 1

    def settle(self, put_id: PutId, series: Series) -> None:
        """Its outcome is known: nobody will ask for it again."""
        series.open.pop(put_id.counter, None)

    def doubt(self, series: Series) -> None:
        """Its outcome is unknown; it stays open."""
        if series is self._series:
            self._series = Series(self._entropy(CLIENT_ID_BYTES))
