"""One run of a simulated node: the real node, store and links, driven in turns.

A turn sets the clocks, takes in what has arrived, lets the node do what is due, and ends: one
log write, then each connection's output at once. When the log write is refused, connections
that have something to say to members in its name are dropped instead (see ``server/loop.py``).
Syncs take virtual time and end in a turn of their own, in which durability marks go out; frozen
overlays move into the engine between turns. A process can be killed at any point, also in the
middle of the end of a turn.

A turn takes no virtual time unless the plan says what work costs. Then the messages that it has
taken in and the background work that it has done put off its end: until then nothing of it is
in the log or on its way, and what arrives, a finished sync too, waits for the next turn.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvorum.config import NodeConfig
from kvorum.counters import Counters
from kvorum.protocol.environment import LATENCIES_KEPT, ClientPort, Environment
from kvorum.protocol.node import Node
from kvorum.simulator.connections import (
    Accepted,
    Connection,
    ControlOut,
    DataOut,
    ForwardOut,
    LargeOut,
    Outgoing,
)
from kvorum.simulator.network import End, Listener
from kvorum.storage.buffer import Frozen
from kvorum.storage.commit import Commit
from kvorum.storage.engine import EngineFull
from kvorum.storage.log import SyncTicket
from kvorum.storage.store import Store
from kvorum.wire.link import Link
from kvorum.wire.message import Message

if TYPE_CHECKING:
    from kvorum.simulator.machine import Machine

MOVE_DELAY: Final = 200  # between two slices on their way into the engine
FULL_PAUSE: Final = 100_000

ALIVE: Final = 0
DIES_BEFORE_LOG: Final = 1
DIES_AFTER_LOG: Final = 2
DIES_HALF_FLUSHED: Final = 3


class ProcessDied(Exception):
    """Raised out of a turn when the process is killed in the middle of it."""


class SimulatedEnvironment(Environment):
    """The world as one simulated process sees it."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        machine = process.machine
        self.now = process.steady()
        self.wall = machine.wall()
        self.random = machine.random
        self.counters = Counters()
        self.faults = machine.faults
        self.large_bytes = process.config.large_bytes
        self.latencies = deque(maxlen=LATENCIES_KEPT)
        self.links: dict[int, Link] = {}
        self.large_links: dict[int, Link] = {}
        config = process.config
        for member in machine.world.ring.member_ids:
            if member != machine.member:
                for links in (self.links, self.large_links):
                    links[member] = Link(
                        member, process.dirty, config.batch_bytes_max, config.peer_queue_bytes_max
                    )

    def entropy(self, size: int) -> bytes:
        return self._process.machine.draw(size)

    def send(self, target: int, message: Message) -> bool:
        connection = self._process.outgoing.get((target, ControlOut.role))
        if not isinstance(connection, ControlOut) or not connection.ready:
            return False
        connection.send(message)
        return True

    def forward(self, target: int) -> ClientPort | None:
        process = self._process
        connection = process.outgoing.get((target, ForwardOut.role))
        if connection is None:
            process.outgoing[target, ForwardOut.role] = ForwardOut(process, target)
            return None
        assert isinstance(connection, ForwardOut)
        return connection.port if connection.ready else None

    def drop_peer(self, target: int) -> None:
        self._process.peers_to_drop[target] = None

    def report(self, event: str, **detail: Any) -> None:
        machine = self._process.machine
        if machine.world.story is not None:
            machine.world.story.reported(machine.name, event, detail)
        self._process.machine.tell(f"{event} {detail}" if detail else event)

    def stop(self, reason: str) -> None:
        self._process.complain(f"the node stopped itself: {reason}")


class Process(Listener):
    """One run of one node, from the opening of its store to its death or clean stop."""

    def __init__(self, machine: "Machine", store: Store, config: NodeConfig) -> None:
        self.machine = machine
        self.world = machine.world
        self.schedule = machine.world.schedule
        self.config = config
        self.store = store
        self.alive = True
        self.held: dict[bytes, int] = {}  # dot -> log position at which it came in
        self.hints_shed = 0  # as counted when a hint was last seen to go
        self.dies = ALIVE  # where in its next turn it will be killed
        self.accepted: dict[Accepted, None] = {}
        self.outgoing: dict[tuple[int, str], Outgoing] = {}
        self.unsent: list[Connection] = []
        self.dirty: list[Link] = []
        self.peers_to_drop: dict[int, None] = {}
        self.close_after_turn: list[Connection] = []
        self._back_off: dict[tuple[int, str], int] = {}
        self._inbox: list[tuple[Connection, Callable[[bytes], None], bytes]] = []
        self._turn_at = -1
        self._syncing: SyncTicket | None = None
        self._moving = False
        self._refused_position = -1
        self.logged_at = self.schedule.now  # when the log last took all that was written
        self.messages = 0  # taken in so far
        self._in_turn = False  # the time that the turn's work takes is not over
        self._after_turn: list[Callable[[], None]] = []  # what has to wait for that
        self._timer_slack = machine.world.plan.timer_slack
        self._gather = machine.world.plan.gather
        self.began_at = self.schedule.now
        self._started_at = self.schedule.now - machine.random.randrange(1, 1 << 32)
        self.world.history.watch(self)
        self.env = SimulatedEnvironment(self)
        self.node = Node(self.env, store, machine.world.ring, config, machine.member)

    def steady(self) -> int:
        return self.schedule.now - self._started_at

    def moment_of(self, steady: int) -> int:
        """When in the world this process's clock showed ``steady``."""
        return steady + self._started_at

    def complain(self, text: str) -> None:
        """Something happened that never should, whatever the faults."""
        self.world.fail(f"{self.machine.name}: {text}")

    def counted(self, what: str) -> None:
        self.world.count(what)

    def begin(self) -> None:
        """Open for connections, and begin to make our own."""
        self.world.network.listen(self.machine.member, self)
        for member in self.world.ring.member_ids:
            if member != self.machine.member:
                for role in (DataOut.role, LargeOut.role, ControlOut.role):
                    self._dial(member, role)
        self.wake(self.schedule.now)

    # Connections.

    def on_accepted(self, end: End) -> None:
        self.accepted[Accepted(self, end)] = None

    def _dial(self, target: int, role: str) -> None:
        if not self.alive or (target, role) in self.outgoing:
            return
        kinds: dict[str, type[Outgoing]] = {
            DataOut.role: DataOut, LargeOut.role: LargeOut, ControlOut.role: ControlOut,
        }  # fmt: skip
        self.outgoing[target, role] = kinds[role](self, target)

    def connected(self, target: int, role: str) -> None:
        self._back_off.pop((target, role), None)

    def lost(self, connection: Outgoing) -> None:
        """One of our own connections has ended; open another one after a pause."""
        place = (connection.target, connection.role)
        self.outgoing.pop(place, None)
        if connection.role != ForwardOut.role:
            first = self.config.reconnect_first_ms * 1000
            pause = self._back_off.get(place, first)
            self._back_off[place] = min(pause * 2, self.config.reconnect_last_ms * 1000)
            pause = pause // 2 + self.machine.random.randrange(pause // 2 + 1)
            self.schedule.after(pause, self._dial, *place)

    def arrived(self, connection: Connection, job: Callable[[bytes], None], data: bytes) -> None:
        """Something for the next turn."""
        if self.alive:
            self._inbox.append((connection, job, data))
            self.wake(self.schedule.now + self._gather)

    # Turns.

    def wake(self, time: int) -> None:
        if self.alive and (self._turn_at < 0 or time < self._turn_at):
            if time < self.schedule.now:
                time = self.schedule.now
            self._turn_at = time
            self.schedule.at(time, self._turn)

    def _turn(self) -> None:
        if not self.alive or self._in_turn or self._turn_at != self.schedule.now:
            return
        if self.machine.paused:
            self._turn_at = -1
            return
        self.run_turn(None)

    def run_turn(self, result: Callable[[], None] | None) -> None:
        """One turn; ``result`` is what a sync has brought, if that is why."""
        env = self.env
        env.now = self.steady()
        env.wall = self.machine.wall()
        messages, units = self.messages, self.node.background.spent
        try:
            if result is not None:
                result()
            inbox, self._inbox = self._inbox, []
            for connection, job, data in inbox:
                if not connection.ended:
                    job(data)
            deadline = self.node.next_deadline()
            if 0 <= deadline <= env.now:
                self.node.advance()
        except ProcessDied:
            return
        plan = self.world.plan
        cost = (self.messages - messages) * plan.message_cost
        cost += (self.node.background.spent - units) * plan.unit_cost
        if cost:
            self._in_turn = True
            self._turn_at = self.schedule.now
            self.schedule.after(cost, self._work_is_done)
        else:
            self._finish_turn()

    def _work_is_done(self) -> None:
        if not self.alive:
            return
        if self.machine.paused:
            self.machine.when_resumed.append(self._work_is_done)
            return
        self._finish_turn()
        waiting, self._after_turn = self._after_turn, []
        for job in waiting:
            job()

    def _finish_turn(self) -> None:
        self._in_turn = False
        try:
            self._end_turn()
        except ProcessDied:
            return
        self._turn_at = -1
        if self.unsent or self.dirty or self._inbox:
            self.wake(self.schedule.now + self._gather)
        else:
            deadline = self.node.next_deadline()
            if deadline >= 0:
                self.wake(deadline + self._started_at + self._timer_slack)

    def _end_turn(self) -> None:
        if self.dies == DIES_BEFORE_LOG:
            self._die()
        for target in list(self.peers_to_drop):
            for role in (DataOut.role, LargeOut.role, ControlOut.role):
                connection = self.outgoing.get((target, role))
                if connection is not None:
                    connection.drop()
        self.peers_to_drop.clear()
        logged = self.store.end_turn()
        if logged:
            self.logged_at = self.schedule.now
        if logged and not (self.unsent or self.dirty or self.dies or self.close_after_turn):
            if self.store.position > self.store.durable_position:
                self.keep_disk_busy()
            return
        unsent, self.unsent[:] = list(self.unsent), []
        if not logged:
            self.env.counters.log_refusals += 1
            self.counted("turns not logged")
            if self.store.position != self._refused_position:
                self._refused_position = self.store.position
                self.node.on_log_refused()
                for speaker in unsent:
                    if speaker.output and speaker.speaks_for_the_log:
                        speaker.drop()
        elif self.dies == DIES_AFTER_LOG:
            self._die()
        self._take_links(unsent)
        if self.dies == DIES_HALF_FLUSHED:
            del unsent[len(unsent) // 2 :]
        for speaker in unsent:
            speaker.flush()
        if self.dies:
            self._die()
        for finished in self.close_after_turn:
            finished.drop()
        self.close_after_turn.clear()
        self.keep_disk_busy()

    def _take_links(self, unsent: list[Connection]) -> None:
        dirty, self.dirty[:] = list(self.dirty), []
        for link in dirty:
            frames = link.take(self.env.now)
            role = DataOut.role if self.env.links[link.peer] is link else LargeOut.role
            connection = self.outgoing.get((link.peer, role))
            if frames and connection is not None:
                if not connection.output:
                    unsent.append(connection)
                connection.output += frames

    def _die(self) -> None:
        self.machine.kill()
        raise ProcessDied

    # The disk.

    def keep_disk_busy(self) -> None:
        """Begin a sync and a move into the engine, where there is something to do."""
        buffer = self.store.buffer
        if buffer.wants_freeze:
            buffer.freeze()
        ticket = buffer.begin_sync()
        if ticket is not None:
            self._syncing = ticket
            moment = self.machine.disk.moment()
            self.schedule.after(
                self.machine.sync_delay(), self._sync_ends, ticket, self._covering(moment, ticket)
            )
        if buffer.frozen is not None and not self._moving and not buffer.failed:
            frozen = buffer.committable
            if frozen is not None:
                self._moving = True
                commit = Commit(buffer.engine, frozen)
                self.schedule.after(MOVE_DELAY, self._move, commit, frozen)

    def _covering(self, moment: Any, ticket: SyncTicket) -> Callable[[], str]:
        def run() -> str:
            try:
                self.machine.disk.as_of(moment, ticket.run)
            except OSError as failure:
                return str(failure)
            return ""

        return run

    def _sync_ends(self, ticket: SyncTicket, run: Callable[[], str]) -> None:
        if not self.alive or self._syncing is not ticket:
            return
        if self.machine.paused:
            self.machine.when_resumed.append(lambda: self._sync_ends(ticket, run))
            return
        if self._in_turn:
            self._after_turn.append(lambda: self._sync_ends(ticket, run))
            return
        self._syncing = None
        error = run()
        self.run_turn(lambda: self._synced(ticket, error))

    def _synced(self, ticket: SyncTicket, error: str) -> None:
        self.store.buffer.finish_sync(ticket, error)
        if error:
            self.counted("failed syncs")
            return
        self.node.on_durable()
        position = self.store.durable_position
        for connection in self.accepted:
            connection.mark(position)

    def _move(self, commit: Commit, frozen: Frozen) -> None:
        if not self.alive:
            return
        if self._in_turn:
            self._after_turn.append(lambda: self._move(commit, frozen))
            return
        if not commit.done:
            try:
                commit.step()
            except EngineFull:
                self.counted("engine full")
                self.schedule.after(FULL_PAUSE, self._move, commit, frozen)
                return
            self.schedule.after(MOVE_DELAY, self._move, commit, frozen)
            return
        self._moving = False
        self.store.buffer.retire()
        self.counted("overlays moved into the engine")
        self.keep_disk_busy()

    # The end.

    def stop_clean(self) -> bool:
        """Stop as a signal would have it: everything on disk, and a marker that says so."""
        if self._in_turn and not self.dies:
            self._finish_turn()
        ticket = self._syncing
        self._syncing = None
        env = self.env
        env.now = self.steady()
        env.wall = self.machine.wall()
        if ticket is not None:
            error = ""
            try:
                ticket.run()
            except OSError as failure:
                error = str(failure)
            self.store.buffer.finish_sync(ticket, error)
        self.node.leave()
        clean = self.store.close_clean(self.node.clock.last, self.node.parting())
        if clean:
            for connection in self.outgoing.values():
                connection.flush()
        self.leave(power=False)
        return clean

    def leave(self, power: bool) -> None:
        """The process is gone; its connections go as they do when it, or its machine, dies."""
        self.alive = False
        self.world.network.listen(self.machine.member, None)
        connections: list[Connection] = [*self.accepted, *self.outgoing.values()]
        for connection in connections:
            connection.ended = True
            if isinstance(connection, Outgoing):
                connection.attempt.given_up = True
            if connection.end is not None:
                if power:
                    connection.end.vanish()
                else:
                    connection.end.close()
        self.env.counters.quarantined = self.store.buffer.quarantine_count
        self.world.add_counters(self.env.counters)
