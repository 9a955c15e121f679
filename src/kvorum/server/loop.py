"""One turn: read all that has arrived, step the node, write the log, flush each connection once.

Whatever arrives first opens a turn: the clocks are read, and its end is put behind everything
else that is readable at this moment. What is read is only put down; the end of the turn steps
through all of it. So batches of messages, one write to the log, and one write per connection
are consequences of the turn, not features. (Stepping between the reads costs more: after each
system call the processor has forgotten which way the interpreter branches.)

If the disk refuses the turn's write, what was answered to members may not leave, since it claims
what the log does not hold: those connections are cut instead, and what was asked on them is
asked again. Everything else goes on: this node's own puts count on the other owners, new ones
are refused with the reason, and reads are answered. The write is tried again with every turn.
"""

from asyncio import AbstractEventLoop, TimerHandle
from typing import TYPE_CHECKING

from kvorum.counters import OperationCounts, bucket_of
from kvorum.server.environment import ServerEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvorum.protocol.node import Node
    from kvorum.server.committer import Committer
    from kvorum.server.connection import Connection
    from kvorum.server.listener import Accepted
    from kvorum.server.peers import OutgoingPeers


class Turns:
    """Drives one node on an event loop."""

    def __init__(self, loop: AbstractEventLoop, env: ServerEnvironment) -> None:
        self.loop = loop
        self.env = env
        self.under_way = False
        self.arrived: list[tuple[Connection, bytes]] = []
        self.put_off: list[Connection] = []  # until all that has arrived is stepped through
        self.dirty: list[Connection] = []
        self.batch_clients: dict[Accepted, None] = {}  # accepted data connections, for marks
        self.node: Node
        self.peers: OutgoingPeers
        self.committer: Committer | None = None  # None on a node that keeps nothing on a disk
        self._alarm: TimerHandle | None = None
        self._alarm_at = -1
        self._last_refusal = ""
        self._refused_position = -1
        # How late alarms rang, in the buckets of counters.py: how long what arrives may wait.
        self.lags = OperationCounts().durations
        self.on_stop_wanted: Callable[[], None] = _nothing

    def begin(self) -> None:
        """Open a turn, unless one is under way."""
        if not self.under_way:
            self.under_way = True
            self.env.read_clocks()
            self.loop.call_soon(self._end)

    def _end(self) -> None:
        env = self.env
        node = self.node
        arrived = self.arrived
        self.arrived = []
        for connection, data in arrived:
            if not connection.closed:
                connection.step(data)
        deadline = node.next_deadline()
        if 0 <= deadline <= env.now:
            node.advance()
        while self.put_off:
            put_off = self.put_off
            self.put_off = []
            for connection in put_off:
                connection.go_on()
        store = node.store
        if not store.end_turn():
            self._on_refused_write()
        while env.dirty or self.dirty:
            self._flush()
        self.under_way = False
        if self.put_off:
            self.begin()  # Something was answered while the turn ended.
        if self.committer is not None:
            self.committer.wake()
        self._arm()
        if env.stop_reason:
            self.on_stop_wanted()

    def _flush(self) -> None:
        now = self.env.now
        links = self.env.dirty
        if links:
            dirty_links = links[:]
            links.clear()
            for link in dirty_links:
                frames = link.take(now)
                if frames:
                    self.peers.write(link, frames)
        connections = self.dirty
        self.dirty = []
        for connection in connections:
            connection.flush()

    def _on_refused_write(self) -> None:
        """The log has not taken what was written: nobody may be told that it has."""
        env = self.env
        env.counters.log_refusals += 1
        store = self.node.store
        refusal = store.refusal
        if refusal != self._last_refusal:
            self._last_refusal = refusal
            env.report("log_refused", reason=refusal)
        if store.position == self._refused_position:
            return  # Only what was refused before; nothing was written since, nor answered so.
        self._refused_position = store.position
        self.node.on_log_refused()
        for connection in self.dirty[:]:
            if connection.speaks_for_the_log:
                connection.abort()

    def _arm(self) -> None:
        deadline = self.node.next_deadline()
        if deadline < 0 or (self._alarm is not None and 0 <= self._alarm_at <= deadline):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        delay = max(deadline - self.env.now, 0) / 1_000_000
        self._alarm = self.loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        due = self._alarm_at
        self._alarm = None
        self._alarm_at = -1
        self.begin()
        self.lags[bucket_of(max(self.env.now - due, 0))] += 1

    def on_disk_news(self) -> None:
        """The committer has moved a position, or something has failed."""
        self.begin()
        env = self.env
        node = self.node
        store = node.store
        refusal = store.refusal
        if refusal != self._last_refusal:
            self._last_refusal = refusal
            if refusal:
                env.report("store_failed" if store.failed else "engine_full", reason=refusal)
        for key in store.buffer.take_quarantined():
            env.report("quarantined", engine_key=key.hex())
        durable = store.durable_position
        for connection in self.batch_clients:
            connection.mark(durable)
        node.on_durable()

    def call_soon(self, job: object) -> None:
        """Run a committer's job on the loop; from any thread."""
        self.loop.call_soon_threadsafe(job)  # type: ignore[arg-type]

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()


def _nothing() -> None:
    """Nobody waits for this node's wish to stop yet."""
