"""What exchange costs while all replicas are equal, and what it costs to find one difference.

Whole nodes of the simulator on virtual time, filled and then left alone: every message of
exchange is counted as it would be on the wire, and what a node spends in exchange itself is its CPU
time. Messages and bytes depend on no machine; of the CPU time the ratios say most.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from benchmarks.results import append, show
from kvorum.config import NodeConfig
from kvorum.model.hashing import engine_key
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.quorum import Durability
from kvorum.model.record import first_record, pack_value
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.version import make_actor, make_dot
from kvorum.protocol.exchange import Exchange
from kvorum.protocol.shipment import Shipment
from kvorum.simulator.plan import Plan as WorldPlan
from kvorum.simulator.plan import TablePlan
from kvorum.simulator.process import Process, SimulatedEnvironment
from kvorum.simulator.trace import Trace
from kvorum.simulator.world import World
from kvorum.wire.codec import encode
from kvorum.wire.exchange_messages import ExchangeMessage
from kvorum.wire.link import ENTRY_BYTES, HEAD_BYTES
from kvorum.wire.message import Message

SECOND: Final = 1_000_000
N: Final = 3
WARM: Final = 20 * SECOND  # in which all find that they are equal
PATIENCE: Final = 60 * SECOND
STEP: Final = SECOND // 20  # between two looks whether a difference is gone
VALUE_BYTES: Final = 100
ROUNDS: Final = 12  # of each pair, that are watched while nothing differs
FRAME_BYTES: Final = 4  # the length before each message
EQUAL: Final = "nothing differs, per pair and round"
DIFFERS: Final = "one record, at one of its owners only"
ACTOR: Final = make_actor(b"benchmar", 1)

Call = Callable[..., Any]


class Shape(NamedTuple):
    """One cluster that is filled and left alone."""

    nodes: int
    partitions: int
    keys: int
    tables: int = 1


class Plan(NamedTuple):
    """What is run. Beside the first shape, each differs in one number only."""

    shapes: tuple[Shape, ...] = (
        Shape(3, 64, 1_000), Shape(3, 64, 10_000), Shape(3, 64, 100_000),
        Shape(3, 64, 1_000, tables=100), Shape(3, 1_024, 1_000), Shape(3, 16_384, 1_000),
        Shape(9, 64, 1_000), Shape(24, 64, 1_000),
    )  # fmt: skip
    interval_ms: int = NodeConfig().exchange_interval_ms
    differences: int = 5


class Meter:
    """Counts what exchange says, and the time that it takes, in all nodes of its world."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.nanoseconds = 0
        self._kept: list[tuple[type, str, Call]] = []

    def begin(self) -> None:
        self.messages = self.bytes = self.nanoseconds = 0

    def __enter__(self) -> "Meter":
        for name in ("on_due", "on_message", "step"):
            self._replace(Exchange, name, self._timed)
        self._replace(Shipment, "send", self._counting_records)
        self._replace(SimulatedEnvironment, "send", self._counting)
        return self

    def __exit__(self, *error: object) -> None:
        for kind, name, honest in self._kept:
            setattr(kind, name, honest)

    def _replace(self, kind: type, name: str, wrapped: Callable[[Call], Call]) -> None:
        honest = getattr(kind, name)
        self._kept.append((kind, name, honest))
        setattr(kind, name, wrapped(honest))

    def _timed(self, honest: Call) -> Call:
        def run(*given: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return honest(*given)
            finally:
                self.nanoseconds += time.thread_time_ns() - began

        return run

    def _counting(self, honest: Call) -> Call:
        def send(env: SimulatedEnvironment, target: int, message: Message) -> Any:
            if isinstance(message, ExchangeMessage):
                self.messages += 1
                self.bytes += FRAME_BYTES + len(encode(message))
            return honest(env, target, message)

        return send

    def _counting_records(self, honest: Call) -> Call:
        """As if each record travelled alone: a batch of one, and its answer."""

        def send(shipment: Shipment, key: bytes, holding: bytes, *given: Any) -> Any:
            self.messages += 2
            heads = 2 * (FRAME_BYTES + HEAD_BYTES)
            self.bytes += heads + ENTRY_BYTES + len(key) + len(holding) + 1
            return honest(shipment, key, holding, *given)

        return send


class Cluster:
    """Nodes that hold the same, and nothing happens to them."""

    def __init__(self, shape: Shape, interval_ms: int) -> None:
        self.shape = shape
        plan = WorldPlan(
            seed=1, members=shape.nodes, n=N, partitions=shape.partitions, steady=True,
            tables=(TablePlan("default", 2, 2, Durability.NONE),),
            volatile=tuple(range(1, shape.nodes + 1)),
            config=NodeConfig(exchange_interval_ms=interval_ms), freeze_bytes=1 << 30,
            limit_bytes=1 << 31,
        )  # fmt: skip
        self.world = World(plan, Trace(False))
        self.world.history.watch = _nobody_judges  # type: ignore[method-assign]
        self.world.start()
        for number in range(shape.keys):
            self.write(number, N)

    def processes(self) -> list[Process]:
        return [one.process for one in self.world.machines.values() if one.process is not None]

    def write(self, number: int, copies: int) -> bytes:
        """One more record, at so many of its owners; its key."""
        table = (number % self.shape.tables).to_bytes(8, "big") if self.shape.tables > 1 else b""
        name = b"key %d" % number
        ring = self.world.ring
        key = engine_key(ring.hash_key, table or DEFAULT_TABLE_ID, name, b"")
        dot = make_dot(ACTOR, 1)
        record = first_record(pack_value(dot, number, 0, dot, False, b"", b"v" * VALUE_BYTES))
        holding = pack_holding(NO_OWN, name, record)
        for owner in ring.owners_of_engine_key(key)[:copies]:
            process = self.world.machines[owner].process
            assert process is not None
            process.node.holdings.write(key, None, holding)
        return key

    def run(self, microseconds: int) -> None:
        self.world.schedule.run_until(self.world.schedule.now + microseconds)

    @property
    def rounds(self) -> int:
        return sum(one.env.counters.exchange_rounds for one in self.processes())

    @property
    def at_rest(self) -> bool:
        """Every pair knows that it is equal."""
        talks = [talk for one in self.processes() for talk in one.node.exchange.talks.values()]
        return all(talk.equal_since >= 0 and talk.narrowing is None for talk in talks)

    def run_until_at_rest(self) -> None:
        end = self.world.schedule.now + PATIENCE
        while not self.at_rest:
            assert self.world.schedule.now < end, "they do not find that they are equal"
            self.run(STEP)

    def holders(self, key: bytes) -> int:
        return sum(one.store.get(key) is not None for one in self.processes())


def _nobody_judges(process: Process) -> None:
    """What is written here comes from no client."""


def measure_equal(cluster: Cluster, meter: Meter, interval_ms: int) -> dict[str, Any]:
    """Nothing differs, for some rounds of every pair."""
    before = cluster.rounds
    meter.begin()
    duration = ROUNDS * interval_ms * 1000
    cluster.run(duration)
    rounds = cluster.rounds - before
    assert cluster.at_rest
    seconds = duration / SECOND * cluster.shape.nodes
    return {
        "figure": EQUAL, **cluster.shape._asdict(), "messages": meter.messages / rounds,
        "bytes": meter.bytes / rounds, "cpu_us": meter.nanoseconds / 1000 / rounds,
        "node_bytes_s": meter.bytes / seconds, "node_cpu_us_s": meter.nanoseconds / 1000 / seconds,
    }  # fmt: skip


def measure_difference(cluster: Cluster, meter: Meter, times: int) -> dict[str, Any]:
    """One record that one of its owners has and the two others lack; until all know it is gone."""
    took: list[int] = []
    meter.begin()
    for number in range(times):
        key = cluster.write(cluster.shape.keys + number, 1)
        began = cluster.world.schedule.now
        while cluster.holders(key) < N:
            assert cluster.world.schedule.now < began + PATIENCE, "a difference stays"
            cluster.run(STEP)
        took.append(cluster.world.schedule.now - began)
        cluster.run_until_at_rest()
    return {
        "figure": DIFFERS, **cluster.shape._asdict(),
        "messages": meter.messages / times, "bytes": meter.bytes / times,
        "cpu_us": meter.nanoseconds / 1000 / times, "seconds": sum(took) / times / SECOND,
    }  # fmt: skip


def measure(shape: Shape, plan: Plan) -> list[dict[str, Any]]:
    with Meter() as meter:
        cluster = Cluster(shape, plan.interval_ms)
        cluster.run(WARM)
        cluster.run_until_at_rest()
        return [
            measure_equal(cluster, meter, plan.interval_ms),
            measure_difference(cluster, meter, plan.differences),
        ]


def run(plan: Plan, console: Console, results: Path) -> list[dict[str, Any]]:
    """Measure all of it, print it, keep it."""
    rows: list[dict[str, Any]] = []
    for shape in plan.shapes:
        rows += measure(shape, plan)
    for figure in (EQUAL, DIFFERS):
        of_figure = [row for row in rows if row["figure"] == figure]
        for row in of_figure:
            for name in ("bytes", "cpu_us"):
                row[f"{name}_ratio"] = row[name] / of_figure[0][name]
        show(figure, of_figure, console)
    append("exchange", rows, results)
    return rows
