"""Puts by their ids, so that a put that arrives again is not written again.

A put's id is its client and the client's counter. A coordinator remembers every id until the
client settles it (each request carries the lowest counter still open) or the retry window has
passed twice; it accepts an id only within one window, so it remembers longer than it accepts.
(Architecture, dots are never reused, rule 5.)

Cost follows what is open: a client that settles as it goes is remembered by a handful of puts.
"""

from typing import Final

from kvorum.wire.link import Asker

SWEEP_STEPS: Final = 1000  # clients and puts looked at in one sweep


SETTLED: Final = Asker()  # what is recalled of a put that its client is through with


class _Client:
    __slots__ = ("added_at", "lowest", "puts")

    def __init__(self) -> None:
        self.added_at = 0  # when the latest of its puts was
        self.lowest = 0  # counters below are settled
        self.puts: dict[int, tuple[int, Asker]] = {}  # counter -> added at, put; oldest first


class Ledger:
    """The puts that may still be asked for again.

    A client that has settled all that it put here may have gone to another node. What it has
    settled is known until its latest put here is too old to be taken for a new one.
    """

    __slots__ = ("_clients", "_round", "count", "puts_max", "window")

    def __init__(self, window: int, puts_max: int) -> None:
        self.window = window  # microseconds
        self.puts_max = puts_max
        self.count = 0
        self._clients: dict[bytes, _Client] = {}
        self._round: list[bytes] = []  # clients that the sweep has yet to come by

    @property
    def full(self) -> bool:
        return self.count >= self.puts_max

    def find(self, client: bytes, counter: int) -> Asker | None:
        known = self._clients.get(client)
        if known is None:
            return None
        found = known.puts.get(counter)
        return None if found is None else found[1]

    def add(self, client: bytes, counter: int, put: Asker, now: int) -> None:
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client()
        known.puts[counter] = (now, put)
        known.added_at = now
        self.count += 1

    def recall(self, client: bytes, counter: int, lowest_open: int) -> Asker | None:
        """What is remembered under this id: the put, ``SETTLED``, or nothing.

        Forgets the client's puts below ``lowest_open`` on the way.
        """
        known = self._clients.get(client)
        if known is None:
            return None
        puts = known.puts
        if lowest_open > known.lowest:
            known.lowest = lowest_open
            # Insertion order is all but counter order; what is out of order goes with its age.
            while puts:
                oldest = next(iter(puts))
                if oldest >= lowest_open:
                    break
                del puts[oldest]
                self.count -= 1
        found = puts.get(counter)
        if found is not None:
            return found[1]
        return SETTLED if counter < known.lowest else None

    def sweep(self, now: int) -> None:
        """Forget what is older than two windows. A bounded slice, some times a second.

        Client by client and not in one queue of all puts: there a single client that stays
        silent would keep everything that came after its last put.
        """
        limit = now - 2 * self.window
        if not self._round:
            self._round = list(self._clients)
        steps = 0
        while self._round and steps < SWEEP_STEPS:
            client = self._round[-1]
            known = self._clients[client]
            puts = known.puts
            steps += 1
            while puts and steps < SWEEP_STEPS:
                counter = next(iter(puts))
                if puts[counter][0] > limit:
                    break
                del puts[counter]
                self.count -= 1
                steps += 1
            if puts and steps >= SWEEP_STEPS:
                return  # Some may be left; the next sweep goes on with this client.
            if not puts and known.added_at <= limit:
                del self._clients[client]
            self._round.pop()
