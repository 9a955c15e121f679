"""What failure detection costs, how fast it is, and how often it is wrong: from simulation alone.

Membership without stores and clients (``gossip_world.py``), on virtual time, so the figures do not
depend on the machine but for the CPU time. A crash is either silent, as of a machine that loses
power, or of a process only, whose connections end.
"""

import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from benchmarks.gossip_world import SECOND, GossipNode, GossipWorld
from benchmarks.results import append, show
from kvorum.model.members import State

WARM: Final = 20 * SECOND  # in which the first words of all members get around
CRASH_PATIENCE: Final = 60 * SECOND
BETWEEN_CRASHES: Final = 10 * SECOND
RUMOUR_PATIENCE: Final = 60 * SECOND
STEP: Final = SECOND // 50  # between two looks at who knows


class Plan(NamedTuple):
    """What is run, for each number of nodes."""

    counts: tuple[int, ...] = (10, 100, 1000)
    losses_percent: tuple[int, ...] = (0, 1, 5, 20)
    node_hours: float = 10.0  # for each number and loss
    crashes: int = 10  # of each kind, for each number
    rumours: int = 10
    seed: int = 1


def percentile(values: list[int], percent: int) -> float:
    """In seconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / SECOND


def measure_quiet(count: int, loss_percent: int, node_hours: float, seed: int) -> dict[str, Any]:
    """Nobody crashes: whatever is suspected is suspected falsely."""
    world = GossipWorld(count, seed, loss_percent * 10)
    world.run(WARM)
    names = ("suspicions", "deaths_declared", "refutations", "probes", "probes_failed")
    before = {name: world.total(name) for name in names}
    bytes_before = world.bytes_sent
    seconds = max(1, int(node_hours * 3600 / count))
    cpu = time.process_time()
    world.run(seconds * SECOND)
    cpu = time.process_time() - cpu
    found = {name: world.total(name) - before[name] for name in names}
    hours = seconds * count / 3600
    return {
        "figure": "quiet", "nodes": count, "loss_percent": loss_percent, "node_hours": hours,
        "false_suspicions_per_node_hour": found["suspicions"] / hours,
        "false_deaths_per_node_hour": found["deaths_declared"] / hours,
        "refutations_per_node_hour": found["refutations"] / hours,
        "bytes_per_node_second": (world.bytes_sent - bytes_before) / count / seconds,
        "cpu_us_per_node_second": cpu * 1_000_000 / count / seconds,
    }  # fmt: skip


def measure_crashes(count: int, crashes: int, silently: bool, seed: int) -> dict[str, Any]:
    """From the crash of a node until each other one believes it dead."""
    world = GossipWorld(count, seed)
    world.run(WARM)
    random = world.schedule.random_for("crashes")
    suspected: list[int] = []
    known: list[int] = []
    by_all: list[int] = []
    for _ in range(crashes):
        member = random.randrange(1, count + 1)
        times = _crash(world, member, silently)
        suspected.append(min(times["member_suspect"].values()))
        known += times["member_dead"].values()
        by_all.append(max(times["member_dead"].values()))
        world.start(member)
        world.run(BETWEEN_CRASHES + random.randrange(SECOND))
        assert world.all_believe(member, State.ALIVE)
    return {
        "figure": "crash", "nodes": count, "silent": silently, "crashes": crashes,
        "suspected_p50_seconds": percentile(suspected, 50),
        "known_p50_seconds": percentile(known, 50),
        "known_p99_seconds": percentile(known, 99),
        "known_to_all_p50_seconds": percentile(by_all, 50),
    }  # fmt: skip


def _crash(world: GossipWorld, member: int, silently: bool) -> dict[str, dict[int, int]]:
    """Who comes to believe what of the member, and how long after its crash."""
    began = world.schedule.now
    times: dict[str, dict[int, int]] = {"member_suspect": {}, "member_dead": {}}

    def watch(node: GossipNode, event: str, detail: dict[str, Any]) -> None:
        if detail.get("member") == member and event in times:
            times[event].setdefault(node.me, world.schedule.now - began)

    world.watch = watch
    world.crash(member, silently)
    end = began + CRASH_PATIENCE
    while len(times["member_dead"]) < world.count - 1:
        assert world.schedule.now < end, f"{member} is not believed dead by all"
        world.run(STEP)
    world.watch = None
    return times


def measure_rumours(count: int, rumours: int, seed: int) -> dict[str, Any]:
    """From a node's having something to say until all others have heard it."""
    world = GossipWorld(count, seed)
    world.run(WARM)
    random = world.schedule.random_for("rumours")
    times: list[int] = []
    for _ in range(rumours):
        world.run(random.randrange(SECOND))
        teller = world.nodes[random.randrange(1, count + 1)]
        began = world.schedule.now
        incarnation = teller.raise_incarnation()
        while not world.all_heard(teller.me, incarnation):
            assert world.schedule.now < began + RUMOUR_PATIENCE, "a rumour has died out"
            world.run(STEP)
        times.append(world.schedule.now - began)
    return {
        "figure": "rumour", "nodes": count, "rumours": rumours,
        "known_to_all_p50_seconds": percentile(times, 50),
        "known_to_all_p99_seconds": percentile(times, 99),
    }  # fmt: skip


def run(plan: Plan, console: Console, results: Path) -> list[dict[str, Any]]:
    """Measure all of it, print it, keep it."""
    rows: list[dict[str, Any]] = []
    for count in plan.counts:
        for loss in plan.losses_percent:
            rows.append(measure_quiet(count, loss, plan.node_hours, plan.seed))
        for silently in (True, False):
            rows.append(measure_crashes(count, plan.crashes, silently, plan.seed))
        rows.append(measure_rumours(count, plan.rumours, plan.seed))
    for figure in ("quiet", "crash", "rumour"):
        show(figure, [row for row in rows if row["figure"] == figure], console)
    append("gossip", rows, results)
    return rows
