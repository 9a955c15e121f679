"""Three nodes on one core under a stated load, beside the same work in C in the same run.

What counts is CPU time per operation, over all three nodes, and its ratio to the limit's: it
depends far less on what else the machine does than operations per second do. All clusters run
side by side and are loaded in turn, round after round; medians are reported. A ratio is that of
two measurements in one round, a few seconds apart, since a shared machine changes between rounds.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.clusters import Cluster, kvorum_cluster, limit_cluster
from benchmarks.load import TABLE_DURABILITY, Load, Step
from benchmarks.results import append, commit, machine

SHAPES: Final = ((1, 1), (64, 1), (256, 1), (16, 16))
LOADS: Final = {"put": 100, "get": 0, "mix": 50}
LIMIT: Final = "limit"
# Durability as it stands in a put: none, as a volatile node can promise no disk; and one, the
# default of every table.
DURABILITIES: Final = {LIMIT: TABLE_DURABILITY, "memory": 0, "lmdb": 1}
VALUE_BYTES: Final = 100

GATE: Final = ("memory", "256x1", "mix")
GATE_RATIO_MAX: Final = 4.5

SETTLE_SECONDS: Final = 5.0
METRICS: Final = (
    "server_cpu_us_per_op", "ops_per_second", "p50_us", "p99_us", "p999_us",
    "server_utilisation", "load_utilisation",
)  # fmt: skip


class Plan(NamedTuple):
    """What to measure, and how long."""

    seconds: float = 2.0
    warm_seconds: float = 0.5
    rounds: int = 3
    keys: int = 100_000
    only: tuple[str, ...] = ()  # words that must all stand in a measurement's name

    def chosen(self) -> list[tuple[str, str, str]]:
        """(nodes, shape, load) of everything to measure, the limit's beside each of kvorum's."""
        wanted = [
            (nodes, f"{connections}x{depth}", load)
            for connections, depth in SHAPES
            for load in LOADS
            for nodes in DURABILITIES
            if nodes != LIMIT
        ]
        wanted = [name for name in wanted if all(word in name for word in self.only)]
        beside = dict.fromkeys((LIMIT, shape, load) for _, shape, load in wanted)
        return sorted([*beside, *wanted], key=lambda name: (name[1:], name[0] != LIMIT))


def measure(plan: Plan, console: Console) -> list[dict[str, Any]]:
    """Run the plan; one row of medians for each measurement, in the order of the plan."""
    chosen = plan.chosen()
    samples: dict[tuple[str, str, str], list[dict[str, Any]]] = {name: [] for name in chosen}
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvorum-bench-")))
        targets = {
            nodes: stack.enter_context(_loaded(nodes, cores[0], cores[-1], folder, plan.keys))
            for nodes in dict.fromkeys(name[0] for name in chosen)
        }
        for round_number in range(1, plan.rounds + 1):
            for name in chosen:
                console.log(f"round {round_number} of {plan.rounds}: {' '.join(name)}")
                nodes, shape, load = name
                connections, depth = map(int, shape.split("x"))
                step = Step(connections, depth, LOADS[load], plan.warm_seconds, plan.seconds)
                cluster, generator = targets[nodes]
                samples[name].append(generator.run(step))
                settle(cluster.pids)
    return rows_of(samples)


@contextmanager
def _loaded(
    nodes: str, core: int, load_core: int, folder: Path, keys: int
) -> Iterator[tuple[Cluster, Load]]:
    """A cluster that holds every key, with its load generator."""
    own = folder / nodes
    own.mkdir()
    started = limit_cluster(core) if nodes == LIMIT else kvorum_cluster(nodes, core, own)
    with (
        started as cluster,
        Load(cluster, load_core, keys, VALUE_BYTES, DURABILITIES[nodes]) as load,
    ):
        load.fill()
        settle(cluster.pids)
        yield cluster, load


def settle(pids: list[int]) -> None:
    """Wait until the nodes are idle, so that what they do later is charged to nobody else."""
    processes = [psutil.Process(pid) for pid in pids]
    deadline = time.monotonic() + SETTLE_SECONDS
    busy = 1.0
    while busy > 0.1 and time.monotonic() < deadline:
        before = cpu_seconds(processes)
        time.sleep(0.1)
        busy = (cpu_seconds(processes) - before) / 0.1


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def rows_of(samples: dict[tuple[str, str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row of medians for each measurement, beside the limit's of the same shape and load."""
    rows: list[dict[str, Any]] = []
    for (nodes, shape, load), found in samples.items():
        row: dict[str, Any] = {"nodes": nodes, "shape": shape, "load": load, "rounds": len(found)}
        row["operations"] = sum(sample["operations"] for sample in found)
        for metric in METRICS:
            row[metric] = round(statistics.median(sample[metric] for sample in found), 3)
        ratios = [
            sample["server_cpu_us_per_op"] / beside["server_cpu_us_per_op"]
            for sample, beside in zip(found, samples[LIMIT, shape, load], strict=True)
        ]
        row["ratio"] = round(statistics.median(ratios), 3)
        row["ratio_lowest"] = round(min(ratios), 3)
        row["ratio_highest"] = round(max(ratios), 3)
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title="Three nodes on one core; CPU of all three per operation")
    for title in ("load", "shape", "nodes"):
        table.add_column(title)
    for title in ("CPU µs/op", "ratio to C", "ops/s", "p50 ms", "p99 ms", "busy"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["load"],
            row["shape"],
            row["nodes"],
            f"{row['server_cpu_us_per_op']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['ops_per_second']:,.0f}",
            f"{row['p50_us'] / 1000:.2f}",
            f"{row['p99_us'] / 1000:.2f}",
            f"{row['server_utilisation']:.0%}",
            end_section=row is rows[-1] or row["nodes"] == list(DURABILITIES)[-1],
        )
    console.print(table)


def gate(rows: list[dict[str, Any]], console: Console) -> bool:
    """Print whether the promised ratio holds; True if it does or was not measured."""
    for row in rows:
        if (row["nodes"], row["shape"], row["load"]) == GATE:
            holds = bool(row["ratio"] <= GATE_RATIO_MAX)
            verdict = "holds" if holds else "BROKEN"
            console.print(
                f"gate {' '.join(GATE)}: {row['ratio']:.2f} times the CPU of the same work in C "
                f"({row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f} in {row['rounds']} "
                f"rounds), at most {GATE_RATIO_MAX}: {verdict}"
            )
            return holds
    return True


def run(plan: Plan, console: Console, results: Path | None) -> bool:
    """Measure, print, keep; False if the gate is broken."""
    console.print(f"kvorum {commit()} on {machine()['processor']}, {machine()['python']}")
    rows = measure(plan, console)
    show(rows, console)
    if results is not None:
        append("macro", rows, results)
    return gate(rows, console)
