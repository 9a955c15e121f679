"""A network of connections: bytes in order, late, in pieces, or not at all.

Hosts are numbers: members by their ids, clients above them. Between two hosts run two
``Path``s, one each way, with a delay of their own, and each can be cut by itself. A connection
is two ``End``s. What is sent arrives in order, in chunks that need not be those it was sent in;
while its path is cut it waits, as TCP would keep sending it, and arrives when the path heals.
A connection that is reset loses what is on its way from some point on, in the middle of a frame
as often as not. When a process is killed its connections end behind what it had sent; when its
machine loses power nothing is sent any more, and the other side learns of it only by silence,
or once the machine is back and does not know the connection.
"""

from collections import deque
from random import Random
from typing import Final
from zlib import crc32

from kvorum.simulator.schedule import Schedule

SYN_RETRY: Final = 500_000  # between two attempts of the kernel to connect
SPLIT_PERMILLE: Final = 60  # of all deliveries come in two pieces
TAIL_PERMILLE: Final = 10  # of all deliveries take ten times as long
CLOSED: Final = b""  # in a queue: the sender has closed


class Receiver:
    """Whoever holds an end of a connection, or waits for one."""

    __slots__ = ()

    def on_connected(self, end: "End") -> None:
        raise NotImplementedError

    def on_refused(self, cause: str) -> None:
        """Nobody listens there."""
        raise NotImplementedError

    def on_data(self, data: bytes) -> None:
        raise NotImplementedError

    def on_end(self, cause: str) -> None:
        """The other side closed, or the connection was reset."""
        raise NotImplementedError


class Listener:
    """Whoever takes connections at a host."""

    __slots__ = ()

    def on_accepted(self, end: "End") -> None:
        raise NotImplementedError


class Path:
    """One direction between two hosts."""

    __slots__ = ("base", "cuts", "jitter", "random", "slowness", "steady", "waiting")

    def __init__(self, random: Random, base: int, jitter: int, steady: bool) -> None:
        self.random = random
        self.steady = steady
        self.base = base
        self.jitter = jitter
        self.slowness = 1
        self.cuts = 0  # faults that cut it now
        self.waiting: list[End] = []  # whose bytes a cut holds back

    def delay(self) -> int:
        if self.steady:
            return self.base * self.slowness
        draw = self.random.random()
        delay = self.base + int(draw * draw * self.jitter)
        if draw * 1000 > 1000 - TAIL_PERMILLE:
            delay *= 10
        return delay * self.slowness


class End:
    """One side of a connection; what it sends stands in its queue until it arrives."""

    __slots__ = (
        "closed",
        "host",
        "last",
        "network",
        "number",
        "other",
        "owner",
        "path",
        "queue",
        "scheduled",
    )  # fmt: skip

    other: "End"

    def __init__(self, network: "Network", number: int, host: int, path: Path) -> None:
        self.network = network
        self.number = number
        self.host = host
        self.path = path
        self.owner: Receiver | None = None
        self.closed = False  # we send no more
        self.scheduled = False
        self.last = 0  # when the last of the queue arrives
        self.queue: deque[tuple[int, bytes]] = deque()

    def send(self, data: bytes) -> None:
        if not self.closed and data:
            self._queue(data)

    def close(self) -> None:
        """Send what is queued, then no more; and hear no more."""
        self.owner = None
        if not self.closed:
            self.closed = True
            self._queue(CLOSED)

    def _queue(self, data: bytes) -> None:
        schedule = self.network.schedule
        arrival = schedule.now + self.path.delay()
        if arrival > self.last:
            self.last = arrival
        self.queue.append((self.last, data))
        if not self.scheduled:
            self.scheduled = True
            schedule.at(self.last, self.deliver)

    def deliver(self) -> None:
        """Hand over what has arrived, unless the path is cut."""
        path = self.path
        if path.cuts:
            path.waiting.append(self)  # Stays scheduled: the heal goes on from here.
            return
        self.scheduled = False
        queue = self.queue
        now = self.network.schedule.now
        parts: list[bytes] = []
        ended = False
        while queue and queue[0][0] <= now and not ended:
            data = queue.popleft()[1]
            ended = data == CLOSED
            if not ended:
                parts.append(data)
        data = b"".join(parts)
        if len(data) > 1 and not path.steady and path.random.random() * 1000 < SPLIT_PERMILLE:
            at = path.random.randrange(1, len(data))
            if ended:
                queue.appendleft((now, CLOSED))
                ended = False
            later = now + path.base
            queue.appendleft((later, data[at:]))
            self.last = max(self.last, later)
            data = data[:at]
        if queue:
            self.scheduled = True
            self.network.schedule.at(queue[0][0], self.deliver)
        if data:
            self._hand_over(data)
        if ended:
            self._hand_over_end("closed by the other side")

    def _hand_over(self, data: bytes) -> None:
        other = self.other
        network = self.network
        network.schedule.trace.stamp(
            network.schedule.now,
            f"{self.host}>{other.host} #{self.number} {len(data)} {crc32(data):08x}",
        )
        if other.owner is not None:
            other.owner.on_data(data)
        elif not network.is_down(other.host):
            network.answer_reset(self)

    def _hand_over_end(self, cause: str) -> None:
        other = self.other
        other.closed = True
        self.network.forget(self)
        owner = other.owner
        if owner is not None:
            other.owner = None
            owner.on_end(cause)

    def vanish(self) -> None:
        """The machine lost power: only a part of what is on its way still arrives."""
        self.owner = None
        self.closed = True
        kept = self.path.random.randint(0, len(self.queue))
        while len(self.queue) > kept:
            self.queue.pop()

    def lose_tail(self) -> None:
        """A reset: of what is on its way a part is handed over now, then the end."""
        waiting = b"".join(data for _, data in self.queue)
        self.queue.clear()
        if not self.path.cuts and waiting:
            kept = waiting[: self.path.random.randint(0, len(waiting))]
            if kept:
                self._hand_over(kept)
        self._hand_over_end("reset")


class Attempt:
    """One attempt to connect, until it succeeds, is refused or is given up."""

    __slots__ = ("caller", "given_up", "host", "target")

    def __init__(self, host: int, target: int, caller: Receiver) -> None:
        self.host = host
        self.target = target
        self.caller = caller
        self.given_up = False


class Network:
    """All hosts, paths and connections of a world."""

    def __init__(self, schedule: Schedule, base: int, jitter: int, steady: bool) -> None:
        self.schedule = schedule
        self._steady = steady
        self._base = base
        self._jitter = jitter
        self._paths: dict[tuple[int, int], Path] = {}
        self._listeners: dict[int, Listener] = {}
        self._down: dict[int, None] = {}  # hosts without power
        self._number = 0
        self.connections: dict[int, tuple[End, End]] = {}

    def path(self, host: int, target: int) -> Path:
        found = self._paths.get((host, target))
        if found is None:
            random = self.schedule.random_for(f"path/{host}/{target}")
            base = self._base if self._steady else self._base + random.randrange(self._base)
            found = self._paths[host, target] = Path(random, base, self._jitter, self._steady)
        return found

    # Hosts.

    def listen(self, host: int, listener: Listener | None) -> None:
        """Take connections at ``host``; with None, refuse them."""
        if listener is None:
            self._listeners.pop(host, None)
        else:
            self._listeners[host] = listener

    def is_down(self, host: int) -> bool:
        return host in self._down

    def power_off(self, host: int) -> None:
        self._down[host] = None
        self._listeners.pop(host, None)

    def power_on(self, host: int) -> None:
        """The host is back and knows no connection of before: whoever still sends is reset."""
        self._down.pop(host, None)
        for ends in list(self.connections.values()):
            for end in ends:
                if end.host == host and end.owner is None and end.other.owner is not None:
                    delay = 100_000 + end.other.path.delay()
                    self.schedule.after(delay, self._reset_half, end.other)

    def _reset_half(self, end: End) -> None:
        if end.owner is not None and end.other.owner is None:
            owner, end.owner = end.owner, None
            end.closed = True
            self.forget(end)
            owner.on_end("reset")

    def answer_reset(self, end: End) -> None:
        """Bytes of ``end`` came to a host that does not know the connection."""
        if end.owner is not None:
            self.schedule.after(end.other.path.delay(), self._reset_half, end)

    # Connections.

    def connect(self, host: int, target: int, caller: Receiver) -> Attempt:
        attempt = Attempt(host, target, caller)
        self.schedule.after(self.path(host, target).delay(), self._knock, attempt)
        return attempt

    def _knock(self, attempt: Attempt) -> None:
        if attempt.given_up:
            return
        host, target = attempt.host, attempt.target
        there, back = self.path(host, target), self.path(target, host)
        if there.cuts or back.cuts or target in self._down or host in self._down:
            self.schedule.after(SYN_RETRY, self._knock, attempt)
            return
        listener = self._listeners.get(target)
        if listener is None:
            self.schedule.after(back.delay(), self._refused, attempt)
            return
        self._number += 1
        ours = End(self, self._number, host, there)
        theirs = End(self, self._number, target, back)
        ours.other, theirs.other = theirs, ours
        self.connections[self._number] = (ours, theirs)
        listener.on_accepted(theirs)
        self.schedule.after(back.delay(), self._established, attempt, ours)

    def _refused(self, attempt: Attempt) -> None:
        if not attempt.given_up:
            attempt.caller.on_refused("connection refused")

    def _established(self, attempt: Attempt, end: End) -> None:
        if attempt.given_up:
            end.close()
        elif end.closed:
            attempt.caller.on_refused("reset")
        else:
            end.owner = attempt.caller
            attempt.caller.on_connected(end)

    def forget(self, end: End) -> None:
        """One direction has ended; forget the connection when both have."""
        if end.closed and end.other.closed:
            self.connections.pop(end.number, None)

    @property
    def all_arrived_at(self) -> int:
        """When the last of what is on its way now arrives: a slow path's bytes outlive its heal."""
        latest = self.schedule.now
        for ends in self.connections.values():
            for end in ends:
                if end.queue:
                    latest = max(latest, end.last)
        return latest

    def reset(self, number: int) -> None:
        """Break one connection from the middle, in both directions."""
        ends = self.connections.get(number)
        if ends is None:
            return
        for end in ends:
            end.closed = True
        for end in ends:
            end.lose_tail()

    # Cuts.

    def cut(self, pairs: list[tuple[int, int]]) -> None:
        for host, target in pairs:
            self.path(host, target).cuts += 1

    def heal(self, pairs: list[tuple[int, int]]) -> None:
        for host, target in pairs:
            path = self.path(host, target)
            path.cuts -= 1
            if not path.cuts:
                waiting, path.waiting = path.waiting, []
                for end in waiting:
                    self.schedule.after(path.delay(), end.deliver)
