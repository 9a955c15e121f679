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
    """The puts of one client. Most have one at a time, which needs no dictionary."""

    __slots__ = ("added_at", "earlier", "latest", "lowest", "put")

    def __init__(self) -> None:
        self.latest = 0  # the counter of the put that came last
        self.added_at = 0  # when that was
        self.put: Asker | None = None  # that put, unless it is settled or too old
        self.lowest = 0  # counters below are settled
        self.earlier: dict[int, tuple[int, Asker]] = {}  # counter -> added at, put; oldest first


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
        if known.put is not None and known.latest == counter:
            return known.put
        found = known.earlier.get(counter)
        return None if found is None else found[1]

    def add(self, client: bytes, counter: int, put: Asker, now: int) -> None:
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client()
        elif known.put is not None:
            known.earlier[known.latest] = (known.added_at, known.put)
        known.latest = counter
        known.added_at = now
        known.put = put
        self.count += 1

    def recall(self, client: bytes, counter: int, lowest_open: int) -> Asker | None:
        """What is remembered under this id: the put, ``SETTLED``, or nothing.

        Forgets the client's puts below ``lowest_open`` on the way.
        """
        known = self._clients.get(client)
        if known is None:
            return None
        if lowest_open > known.lowest:
            known.lowest = lowest_open
            if known.latest < lowest_open and known.put is not None:
                known.put = None
                self.count -= 1
            if known.earlier:
                self._settle_earlier(known.earlier, lowest_open)
        if known.latest == counter and known.put is not None:
            return known.put
        if known.earlier:
            found = known.earlier.get(counter)
            if found is not None:
                return found[1]
        return SETTLED if counter < known.lowest else None

    def _settle_earlier(self, puts: dict[int, tuple[int, Asker]], lowest_open: int) -> None:
        # Insertion order is all but counter order; what is out of order goes with its age.
        while puts:
            oldest = next(iter(puts))
            if oldest >= lowest_open:
                break
            del puts[oldest]
            self.count -= 1

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
            puts = known.earlier
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
            if known.added_at <= limit:
                self.count -= known.put is not None
                del self._clients[client]  # What came before its latest is gone already.
            self._round.pop()
