"""One seed from its plan to its judgement, and many seeds with their totals.

A run has six parts: the cluster starts and makes its tables; clients work while faults happen;
everything is healed; all replicas become equal by themselves, without a client; every key is read
through several nodes, with all owners; and the end is judged.
``python -m kvorum simulate --seed N --trace`` replays one.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kvorum.client.requests import Get, Request, Waiter, ask_create, ask_drop
from kvorum.errors import UnknownTable
from kvorum.faults import POINTS
from kvorum.simulator.beliefs import judge_beliefs
from kvorum.simulator.draw import draw_plan
from kvorum.simulator.faults import strike
from kvorum.simulator.plan import SECOND, Plan, TablePlan
from kvorum.simulator.trace import Trace
from kvorum.simulator.workload import Operation, SimulatedClient
from kvorum.simulator.world import Convicted, World

MEETING: Final = SECOND  # in which the nodes of a new cluster find each other
SETTLE: Final = 2 * SECOND  # from the heal, and the last answer, to the first final read
HOME_PATIENCE: Final = 30_000_000  # after which no hint may be left
QUIET: Final = 30 * SECOND  # in which replicas become equal though nobody reads
PATIENCE: Final = 60 * SECOND  # in which every request of a healed world has long ended
READ_ROUNDS: Final = 2
READ_TRIES: Final = 8
READS_AT_ONCE: Final = 8


@dataclass(slots=True)
class Result:
    """What came of one seed."""

    seed: int
    failures: list[str]
    digest: str
    operations: int
    faults: dict[str, int]
    points: dict[str, int]  # fault points hit
    counts: dict[str, int]
    counters: dict[str, int]
    virtual_microseconds: int
    events: int
    inside: bool
    outside_promise: int
    plan: str
    text: str = ""


@dataclass(slots=True)
class Totals:
    """What came of many."""

    seeds: int = 0
    inside: int = 0  # seeds whose faults leave every promise standing
    operations: int = 0
    events: int = 0
    virtual_microseconds: int = 0
    outside_promise: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.inside += result.inside
        self.operations += result.operations
        self.events += result.events
        self.virtual_microseconds += result.virtual_microseconds
        self.outside_promise += result.outside_promise
        for total, part in (
            (self.faults, result.faults),
            (self.points, result.points),
            (self.counts, result.counts),
            (self.counters, result.counters),
        ):
            for name, count in part.items():
                total[name] = total.get(name, 0) + count
        if result.failures:
            self.failed.append(result)

    @property
    def points_never_hit(self) -> list[str]:
        return [name for name in POINTS if name not in self.points]

    @property
    def fault_count(self) -> int:
        return sum(self.faults.values())

    @property
    def virtual_hours(self) -> float:
        return self.virtual_microseconds / 3_600_000_000


class _Answered(Waiter):
    """Notes that a request is done."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def settled(self) -> None:
        self.done = True


class FinalRead(Operation):
    """A read of the end: of all owners, through one member, until it succeeds."""

    __slots__ = ()


class Run:
    """One seed."""

    def __init__(self, plan: Plan, keep_trace: bool = False, until: str = "") -> None:
        self.plan = plan
        self.trace = Trace(keep_trace)
        self.trace.add(0, f"seed {plan.seed}: {plan.describe()}")
        self.world = World(plan, self.trace, until)
        self._outside = 0

    def result(self) -> Result:
        """Run it all."""
        world = self.world
        try:
            self._live()
        except Convicted:
            pass
        except Exception:
            world.fail(f"exception: {traceback.format_exc()}")
        world.stop()
        return Result(
            self.plan.seed, world.failures, self.trace.digest, world.operations, world.faults,
            world.points, world.counts, world.counters, world.schedule.now, world.schedule.events,
            self.plan.inside, self._outside, self.plan.describe(), self.trace.text(),
        )  # fmt: skip

    def _live(self) -> None:
        world = self.world
        world.start()
        world.schedule.run_until(MEETING)
        self._make_tables()
        clients = [world.add_client() for _ in range(self.plan.clients)]
        begin = world.schedule.now
        world.points_open = True
        for work in self.plan.work:
            client = clients[(work.client - 1) % len(clients)]
            world.schedule.at(begin + work.at, client.work, work)
        for fault in self.plan.faults:
            world.schedule.at(begin + fault.at, strike, world, fault)
        world.schedule.run_until(begin + self.plan.duration)
        self.finish()

    def finish(self) -> None:
        """Heal everything, let all become equal, read it, and judge."""
        world = self.world
        world.heal()
        healed_at = world.schedule.now
        limit = world.schedule.now + PATIENCE
        world.schedule.run_until(limit, lambda: not world.busy and world.writable)
        for client in world.clients:
            for operation in client.pending:
                world.fail(f"endless: {client.name} waits for {operation.kind} {operation.name}")
        # A put that its client has long given up may still stand in a path that was slow.
        world.schedule.run_until(world.network.all_arrived_at + SETTLE)
        self._wait_for_equality()
        reader = world.add_client()
        world.schedule.run_until(world.schedule.now + SECOND // 2)  # In which it connects.
        for table in self.plan.tables:
            if table.doomed:
                self._drop_for_good(reader, table)
        # Hints go home by themselves, before anybody reads.
        limit = world.schedule.now + HOME_PATIENCE
        world.schedule.run_until(limit, lambda: not world.hints_held)
        world.checks.judge_hints()
        self._read_everything(reader)
        judge_beliefs(world, healed_at)
        self._outside = world.checks.judge_end()

    def _wait_for_equality(self) -> None:
        """No client asks anything any more, and all replicas become equal by themselves."""
        world = self.world
        for client in world.clients:
            client.step(lambda session: session.close())
        begin = world.schedule.now
        missing = world.checks.unequal()
        while missing and world.schedule.now < begin + QUIET:
            world.schedule.run_until(world.schedule.now + SECOND)
            missing = world.checks.unequal()
        for text in missing:
            world.fail(f"unhealed: {text}, {QUIET // SECOND} s after everything was healed")

    def _make_tables(self) -> None:
        world = self.world
        maker = world.add_client()
        for table in self.plan.tables[1:]:
            for _ in range(READ_TRIES):
                if self.ask(maker, self.creation(table)):
                    break
            else:
                world.fail(f"unavailable: the table {table.name} could not be made")
        world.clients.remove(maker)
        maker.step(lambda session: session.close())

    def _drop_for_good(self, client: SimulatedClient, table: TablePlan) -> None:
        """Now that everything is healed the drop must succeed, unless it has already."""
        world = self.world
        for _ in range(READ_TRIES):
            drop = ask_drop(table.name, None)
            if self.ask(client, drop) or isinstance(drop.error, UnknownTable):  # type: ignore[arg-type]
                world.schedule.run_until(world.schedule.now + SETTLE)
                world.checks.judge_drop(table.name)
                return
        world.fail(f"unavailable: the table {table.name} could not be dropped")

    def creation(self, table: TablePlan) -> Request[object]:
        return ask_create(
            table.name, table.r, table.w, "lww" if table.lww else "siblings",
            table.durability.name.lower(), table.sloppy, table.ttl_seconds or None, None, None,
        )  # type: ignore[return-value]  # fmt: skip

    def ask(self, client: SimulatedClient, request: Request[object]) -> bool:
        answered = _Answered()
        request.waiter = answered
        client.step(lambda session: session.submit(request))
        schedule = self.world.schedule
        schedule.run_until(schedule.now + PATIENCE, lambda: answered.done)
        if request.error is not None:
            schedule.tell(f"{client.name}: {request.error}")
            schedule.run_until(schedule.now + SECOND // 2)
        return answered.done and request.error is None

    # The end.

    def _read_everything(self, reader: SimulatedClient) -> None:
        world = self.world
        names: dict[str, TablePlan] = {}
        for write in world.history.writes.values():
            if not write.table.doomed:
                names[write.name] = write.table
        members = list(world.machines)
        for turn in range(READ_ROUNDS):
            wanted = list(names.items())
            for tries in range(READ_TRIES):
                wanted = self._read(reader, wanted, members[(turn + tries) % len(members)])
                if not wanted:
                    break
                world.schedule.run_until(world.schedule.now + SECOND // 2)
            for name, _ in wanted:
                if world.checks.is_rotten(name):
                    continue
                world.fail(f"unavailable: {name} cannot be read though everything is healed")
            world.schedule.run_until(world.schedule.now + SECOND // 2)

    def _read(
        self, reader: SimulatedClient, wanted: list[tuple[str, TablePlan]], target: int
    ) -> list[tuple[str, TablePlan]]:
        """Read keys with all their owners through one member; what failed."""
        world = self.world
        failed: list[tuple[str, TablePlan]] = []
        for first in range(0, len(wanted), READS_AT_ONCE):
            reads: list[FinalRead] = []
            for name, table in wanted[first : first + READS_AT_ONCE]:
                read = FinalRead(reader, "final", table, name.partition("/")[2])
                reads.append(read)
                reader.step(lambda session, read=read: reader.get(read, self.plan.n, target))
            world.schedule.run_until(world.schedule.now + PATIENCE, lambda: not reader.pending)
            for read in reads:
                request = read.request
                if isinstance(request, Get) and request.done and request.error is None:
                    continue
                if (
                    request is not None
                    and isinstance(request.error, UnknownTable)
                    and world.may_forget_tables
                ):
                    world.checks.lost_tables[read.table.name] = None
                    continue
                failed.append((read.name, read.table))
        return failed


def run_plan(plan: Plan, keep_trace: bool = False, until: str = "") -> Result:
    """Run one plan, or only ``until`` a checker has convicted.

    The same plan gives the same result, trace and all.
    """
    return Run(plan, keep_trace, until).result()


def run_seed(seed: int, keep_trace: bool = False) -> Result:
    """Run the plan that a seed draws."""
    return run_plan(draw_plan(seed), keep_trace)


def run_seeds(seeds: range, processes: int) -> Iterator[Result]:
    """Run seeds, several processes at once, in whatever order they end."""
    if processes <= 1:
        yield from map(run_seed, seeds)
        return
    # Who interrupts means us: workers that were killed by it would each print a traceback.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    pool = multiprocessing.get_context("fork").Pool(processes, signal.signal, quiet)
    try:
        yield from pool.imap_unordered(run_seed, seeds, chunksize=4)
    finally:
        pool.terminate()
        pool.join()
