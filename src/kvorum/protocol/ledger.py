"""Puts by their ids, so that a put that arrives again is not written again.

A put's id is its client and the client's counter. A coordinator remembers every id until the
client settles it (each request carries the lowest counter still open) or the retry window has
passed twice; it accepts an id only within one window, so it remembers longer than it accepts.
(Architecture, dots are never reused, rule 5.)

Cost follows what is open: a client that settles as it goes is remembered by a handful of puts.
"""

from collections import deque

from kvorum.wire.link import Asker

FORGET_BATCH = 1000  # entries looked at in one sweep


class _Client:
    __slots__ = ("lowest", "puts")

    def __init__(self) -> None:
        self.lowest = 0  # counters below are settled
        self.puts: dict[int, Asker] = {}


class Ledger:
    """The puts that may still be asked for again."""

    __slots__ = ("_clients", "_order", "count", "puts_max", "window")

    def __init__(self, window: int, puts_max: int) -> None:
        self.window = window  # microseconds
        self.puts_max = puts_max
        self.count = 0
        self._clients: dict[bytes, _Client] = {}
        self._order: deque[tuple[int, bytes, int]] = deque()  # added at, client, counter

    @property
    def full(self) -> bool:
        return self.count >= self.puts_max

    def find(self, client: bytes, counter: int) -> Asker | None:
        known = self._clients.get(client)
        return None if known is None else known.puts.get(counter)

    def is_settled(self, client: bytes, counter: int) -> bool:
        """True if the client itself has said that it is through with this put."""
        known = self._clients.get(client)
        return known is not None and counter < known.lowest

    def add(self, client: bytes, counter: int, put: Asker, now: int) -> None:
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client()
        known.puts[counter] = put
        self.count += 1
        self._order.append((now, client, counter))

    def settle(self, client: bytes, lowest_open: int) -> None:
        """Forget the client's puts below ``lowest_open``."""
        known = self._clients.get(client)
        if known is None or lowest_open <= known.lowest:
            return
        known.lowest = lowest_open
        puts = known.puts
        # Insertion order is all but counter order; what is out of order is found by the sweep.
        while puts:
            counter = next(iter(puts))
            if counter >= lowest_open:
                return
            del puts[counter]
            self.count -= 1

    def sweep(self, now: int) -> None:
        """Forget what is older than two windows. A bounded slice, some times a second."""
        order = self._order
        limit = now - 2 * self.window
        for _ in range(FORGET_BATCH):
            if not order:
                return
            added_at, client, counter = order[0]
            known = self._clients.get(client)
            if known is not None and counter in known.puts:
                if added_at > limit:
                    return
                del known.puts[counter]
                self.count -= 1
            order.popleft()
            if known is not None and not known.puts and added_at <= limit:
                del self._clients[client]
