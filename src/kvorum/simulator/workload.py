"""What clients do: real sessions, driven by virtual time, with a mind for trouble.

Each client is one session of the real client library. It does what the plan says, often several
things at one moment on few keys, holds contexts for long, and uses what it holds: reads, writes
with the context of an old read or of its last put, reads and merges, writes blindly, deletes with
and without a context, overrides ``r``, ``w`` and durability, and lets some puts be retried
elsewhere. Every outcome goes to the checkers.
"""

from random import Random
from typing import TYPE_CHECKING, Any, Final

from kvorum.client.addresses import Address
from kvorum.client.connections import Shell
from kvorum.client.requests import (
    Ask,
    Get,
    Put,
    Request,
    Waiter,
    ask_drop,
    make_delete,
    make_get,
    make_put,
)
from kvorum.client.session import Session
from kvorum.errors import OutcomeUnknown
from kvorum.model.hashing import engine_key
from kvorum.model.quorum import Durability, disk_acks_needed
from kvorum.simulator.key_history import OK, REFUSED, UNKNOWN, Write
from kvorum.simulator.network import Attempt, End, Receiver
from kvorum.simulator.plan import PlannedWork, TablePlan
from kvorum.wire.messages import TableAnswer

if TYPE_CHECKING:
    from kvorum.simulator.world import World

FIRST_CLIENT: Final = 1001
SHELL_START: Final = 1_000_000_000  # a client's steady clock when its world begins


def key_name(number: int, keys: int) -> str:
    """Where there are many keys, three share one partition key and differ in their sort keys."""
    return f"k{number}" if keys < 8 else f"k{number // 3}/s{number % 3}"


class Channel(Receiver):
    """One connection of a client."""

    __slots__ = ("attempt", "client", "end", "number")

    def __init__(self, client: "SimulatedClient", number: int, target: int) -> None:
        self.client = client
        self.number = number
        self.end: End | None = None
        self.attempt: Attempt = client.world.network.connect(client.host, target, self)

    def on_connected(self, end: End) -> None:
        self.end = end
        self.client.step(lambda session: session.on_opened(self.number))

    def on_refused(self, cause: str) -> None:
        self.client.channels.pop(self.number, None)
        self.client.step(lambda session: session.on_closed(self.number, cause, True))

    def on_data(self, data: bytes) -> None:
        self.client.step(lambda session: session.on_received(self.number, data))

    def on_end(self, cause: str) -> None:
        self.client.channels.pop(self.number, None)
        self.client.step(lambda session: session.on_closed(self.number, cause))


class Operation(Waiter):
    """One thing a client does, in one request or two."""

    __slots__ = (
        "client",
        "key",
        "kind",
        "name",
        "random",
        "request",
        "started_at",
        "table",
        "write",
    )

    def __init__(
        self, client: "SimulatedClient", kind: str, table: TablePlan, key: str, dice: int = 0
    ) -> None:
        self.client = client
        self.kind = kind
        self.table = table
        self.key = key
        self.name = f"{table.name}/{key}"
        self.random = Random(dice)
        self.request: Request[Any] | None = None
        self.started_at = client.world.schedule.now
        self.write: Write | None = None

    def settled(self) -> None:
        self.client.done.append(self)


class TableDropped(Waiter):
    """Tells the checkers when every node has confirmed the drop of a table."""

    __slots__ = ("client", "drop", "table")

    def __init__(self, client: "SimulatedClient", table: TablePlan, drop: Ask[TableAnswer]) -> None:
        self.client = client
        self.table = table
        self.drop = drop

    def settled(self) -> None:
        world = self.client.world
        world.count("table drops" if self.drop.error is None else "table drops that failed")
        answer = self.drop.result
        if answer is not None and not answer.unreached:
            world.schedule.tell(f"{self.table.name} is dropped everywhere")
            world.checks.dropped_at[self.table.name] = world.schedule.now


class SimulatedClient(Shell):
    """One user of the cluster."""

    def __init__(self, world: "World", host: int) -> None:
        self.world = world
        self.host = host
        self.name = f"client{host - FIRST_CLIENT + 1}"
        self.random = world.schedule.random_for(f"client/{host}")
        self.channels: dict[int, Channel] = {}
        self.done: list[Operation] = []
        self.pending: dict[Operation, None] = {}
        self.held: dict[str, bytes] = {}  # key -> the context held
        self.now = SHELL_START
        self._written = 0
        self._wakes_at = -1
        topology = world.ring.topology
        addresses = [Address(member.host, member.port) for member in topology.members]
        self._members = {(one.host, one.port): one.id for one in topology.members}
        self.random.shuffle(addresses)
        self.session = Session(
            self, addresses[: self.random.randint(1, len(addresses))], self.random.randbytes(8),
            request_timeout=world.plan.client_timeout,
        )  # fmt: skip

    # What a session asks of the world.

    def open(self, channel: int, address: Address) -> None:
        target = self._members[address.host, address.port]
        self.channels[channel] = Channel(self, channel, target)

    def send(self, channel: int, frame: bytes) -> None:
        found = self.channels.get(channel)
        if found is not None and found.end is not None:
            if self.world.story is not None:
                self.world.story.sent(found.end, frame)
            found.end.send(frame)

    def close(self, channel: int) -> None:
        found = self.channels.pop(channel, None)
        if found is not None:
            found.attempt.given_up = True
            if found.end is not None:
                found.end.close()

    def step(self, job: Any) -> None:
        """Let the session do one thing, then see to what came of it."""
        self.now = SHELL_START + self.world.schedule.now
        job(self.session)
        while self.done:
            done, self.done = self.done, []
            for operation in done:
                self._conclude(operation)
        deadline = self.session.next_deadline()
        if deadline >= 0:
            due = deadline - SHELL_START
            if self._wakes_at < 0 or due < self._wakes_at:
                self._wakes_at = max(due, self.world.schedule.now)
                self.world.schedule.at(self._wakes_at, self._advance, self._wakes_at)

    def _advance(self, due: int) -> None:
        if self._wakes_at == due:
            self._wakes_at = -1
            self.step(lambda session: session.advance())

    # What the user does.

    def work(self, work: PlannedWork) -> None:
        """Do one thing of the plan, now."""
        plan = self.world.plan
        table = next(table for table in plan.tables if table.name == work.table)
        if work.kind == "drop":
            self.drop_table(table)
            return
        key = key_name(work.key % plan.keys, plan.keys)
        operation = Operation(self, work.kind, table, key, work.dice)
        self.step(lambda session: self._do(operation))

    def _do(self, operation: Operation) -> None:
        self.world.operations += 1
        self.world.count(f"operation {operation.kind}")
        if operation.kind in ("get", "update", "reread"):
            self.get(operation, None)
        else:
            self._put(operation, self.held.get(operation.name), b"")

    def get(self, operation: Operation, r: int | None, target: int = 0) -> None:
        if operation.kind == "reread" and operation.random.random() < 0.5:
            r = operation.random.randint(1, self.world.plan.n)
        key, _, sort_key = operation.key.partition("/")
        # The reads of the end are of the owners themselves.
        sloppy = False if operation.kind == "final" else None
        request = make_get(operation.table.name, key, sort_key, r, sloppy)
        request.target = target
        self._submit(operation, request)

    def _submit(self, operation: Operation, request: Get | Put) -> None:
        operation.started_at = self.world.schedule.now
        operation.request = request
        request.waiter = operation
        self.pending[operation] = None
        self.session.submit(request)
        write = operation.write
        if isinstance(request, Put) and write is not None:
            # The session has given it its id; nothing has left before this moment ends.
            write.put_id = request.put_id
            write.text = f"{self.name} {operation.kind} {request.counter} of {operation.name}"
            self.world.history.sent(write)

    def _put(self, operation: Operation, context: bytes | None, value: bytes) -> None:
        plan = self.world.plan
        random = operation.random
        w: int | None = None
        durability: str | None = None
        if random.random() < 0.1:
            w = random.randint(1, plan.n)
        if random.random() < 0.1:
            durability = random.choice(("one", "quorum", "all"))
        self._written += 1
        if operation.kind == "blind":
            context = None
        if not value:
            value = self._value(random)
        self.write(operation, context, value, w, durability, random.random() < 0.2)

    def write(
        self, operation: Operation, context: bytes | None, value: bytes, w: int | None,
        durability: str | None, retry: bool, target: int = 0,
    ) -> None:  # fmt: skip
        """Put, or delete: with a context (``delete``), or after the node has read (``remove``)."""
        table = operation.table
        kind = operation.kind
        deletes = kind in ("delete", "remove")
        if kind == "remove":
            context = None
        key, _, sort_key = operation.key.partition("/")
        if deletes:
            put = make_delete(table.name, key, context, sort_key, w, durability, None, retry)
        else:
            put = make_put(
                table.name, key, value, context, sort_key, None, w, durability, None, "", retry
            )
        put.target = target
        level = Durability[durability.upper()] if durability else table.durability
        needed = min(w or table.w, self.world.plan.n)
        operation.write = Write(
            b"", self.name, operation.name, table, put.value, deletes, put.context,
            deletes and context is None, needed, disk_acks_needed(int(level), needed),
            table.sloppy, self.world.schedule.now,
        )  # fmt: skip
        self._submit(operation, put)

    def drop_table(self, table: TablePlan) -> None:
        """Drop a table and everything in it, now."""
        drop = ask_drop(table.name, None)
        self.world.checks.drop_begun[table.name] = None
        drop.waiter = TableDropped(self, table, drop)
        self.step(lambda session: session.submit(drop))

    def _value(self, random: Random) -> bytes:
        size = self.world.plan.value_bytes
        tail = b"." * random.randrange(size + 1)
        return f"{self.name}-{self._written}".encode() + tail

    def _conclude(self, operation: Operation) -> None:
        request = operation.request
        assert request is not None
        del self.pending[operation]
        if isinstance(request, Put):
            self._conclude_put(operation, request)
            return
        error = request.error
        if error is not None:
            self.world.count(f"get {type(error).__name__}")
            self.world.checks.judge_error(operation.name, error)
            self.world.schedule.tell(f"{self.name} {operation.kind} {operation.name}: {error}")
            return
        found = request.outcome()
        self.world.count("get ok")
        key = self._engine_key(request)
        shown = b", ".join(one.value or b"-" for one in found.siblings)[:80].decode()
        self.world.schedule.tell(f"{self.name} {operation.kind} {operation.name}: [{shown}]")
        self.world.checks.judge_get(
            key, operation.table, operation.name, operation.started_at, found
        )
        self.held[operation.name] = found.context
        if operation.kind == "update":
            operation.kind = "merge"
            self._put(operation, found.context, self._value(operation.random))

    def _engine_key(self, request: Request[Any]) -> bytes:
        assert isinstance(request, Get | Put)
        return engine_key(
            self.world.ring.hash_key, request.table_id, request.partition_key, request.sort_key
        )

    def _conclude_put(self, operation: Operation, put: Put) -> None:
        write = operation.write
        assert write is not None
        world = self.world
        error = put.error
        if error is None:
            write.outcome = OK
            write.acked_at = world.schedule.now
            stored = put.outcome()
            world.checks.judge_put(write, stored)
            self.held[operation.name] = stored.context
        elif isinstance(error, OutcomeUnknown):
            write.outcome = UNKNOWN
            world.checks.judge_error(write.text, error)
        else:
            world.checks.judge_error(write.text, error)
            write.outcome = REFUSED
            if write.mints:
                world.fail(f"refused appears: {write.text} was written, and refused: {error}")
        world.count(f"put {write.outcome}")
        world.schedule.tell(f"{self.name} {write.text}: {write.outcome} {error or ''}")
