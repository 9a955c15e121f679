"""HTTP beside the native protocol: the same nodes, the same core, in one run.

The load is 64 connections with one request in flight on each. The native one comes from the C
load generator, the one of HTTP from wrk, in turn, round after round; medians are reported. A get
reads one of the keys that the load generator has put, a put writes 100 bytes: over HTTP to a key
that was not there, since wrk keeps no contexts, and natively to one that was, with its context.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.clusters import Cluster, kvorum_cluster, pinned
from benchmarks.load import Load, LoadFailed, Step
from benchmarks.macro import cpu_seconds, settle
from benchmarks.results import append, commit, machine

SCRIPT: Final = Path(__file__).parent / "limit" / "http.lua"
CONNECTIONS: Final = 64
VALUE_BYTES: Final = 100
SIZES: Final = (3, 1)  # nodes, all on one core
LOADS: Final = {"get": 0, "put": 100}
IDLE_CONNECTIONS: Final = 100
GATE_RATIO_MIN: Final = 0.5
GATE_IDLE_MAX: Final = 0.01


class Plan(NamedTuple):
    seconds: float = 2.0
    rounds: int = 5
    keys: int = 100_000
    idle_seconds: float = 30.0


def wrk_is_there() -> bool:
    return shutil.which("wrk") is not None


def measure(plan: Plan, console: Console) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cores = sorted(os.sched_getaffinity(0))
    for count in SIZES:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvorum-bench-")))
            cluster = stack.enter_context(kvorum_cluster("memory", cores[0], folder, count, True))
            native = stack.enter_context(Load(cluster, cores[-1], plan.keys, VALUE_BYTES, 0))
            native.fill()
            rows += _compare(plan, cluster, native, cores[-1], console)
            rows.append(_idle(plan, cluster))
    return rows


def _compare(
    plan: Plan, cluster: Cluster, native: Load, core: int, console: Console
) -> list[dict[str, Any]]:
    samples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(1, plan.rounds + 1):
        for load, put_percent in LOADS.items():
            console.log(f"round {number} of {plan.rounds}: {len(cluster.pids)} nodes, {load}")
            settle(cluster.pids)
            step = Step(CONNECTIONS, 1, put_percent, 0.2, plan.seconds)
            samples.setdefault(("native", load), []).append(native.run(step))
            settle(cluster.pids)
            found = _run_wrk(cluster, core, load, plan, number)
            samples.setdefault(("http", load), []).append(found)
    rows = []
    for (door, load), found_ones in samples.items():
        row: dict[str, Any] = {"nodes": len(cluster.pids), "load": load, "door": door}
        row["operations"] = sum(sample["operations"] for sample in found_ones)
        for metric in ("ops_per_second", "server_cpu_us_per_op", "p50_us", "p99_us"):
            row[metric] = round(statistics.median(sample[metric] for sample in found_ones), 3)
        rows.append(row)
    by_name = {(row["door"], row["load"]): row for row in rows}
    for row in rows:
        beside = by_name["native", row["load"]]
        row["ratio"] = round(row["ops_per_second"] / beside["ops_per_second"], 3)
        row["cpu_ratio"] = round(beside["server_cpu_us_per_op"] / row["server_cpu_us_per_op"], 3)
    return rows


def _run_wrk(cluster: Cluster, core: int, load: str, plan: Plan, number: int) -> dict[str, Any]:
    processes = [psutil.Process(pid) for pid in cluster.pids]
    threads = len(cluster.pids)
    connections = CONNECTIONS // threads * threads
    word = str(plan.keys) if load == "get" else f"r{number}-{time.monotonic_ns()}"
    # wrk takes whole seconds; what was asked for is rounded up.
    duration = f"{max(1, round(plan.seconds))}s"
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{duration}", "-s", str(SCRIPT)]
    ports = [str(port) for port in cluster.http_ports]
    before = cpu_seconds(processes)
    with pinned(core):
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{ports[0]}", "--", load, word, *ports],
            capture_output=True,
            text=True,
            check=True,
        )
    used = cpu_seconds(processes) - before
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if result["errors"] or not result["operations"]:
        raise LoadFailed(f"wrk met {result['errors']} errors in {result['operations']} requests")
    result["ops_per_second"] = result["operations"] / result["seconds"]
    result["server_cpu_us_per_op"] = used * 1e6 / result["operations"]
    return result


def _idle(plan: Plan, cluster: Cluster) -> dict[str, Any]:
    """What connections cost that were used once and wait: their share of a core, beside none."""
    processes = [psutil.Process(pid) for pid in cluster.pids]
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    settle(cluster.pids)
    alone = _share(processes, plan.idle_seconds)
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", cluster.http_ports[0]), timeout=5)
            stack.enter_context(connection)
            connection.sendall(request)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        settle(cluster.pids)
        idle = _share(processes, plan.idle_seconds)
    row: dict[str, Any] = {"nodes": len(cluster.pids), "load": "idle", "door": "http"}
    row["share_alone"] = round(alone, 5)
    row["share"] = round(max(idle - alone, 0.0), 5)
    return row


def _share(processes: list[psutil.Process], seconds: float) -> float:
    before = cpu_seconds(processes)
    time.sleep(seconds)
    return (cpu_seconds(processes) - before) / seconds


def show(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"HTTP beside the native protocol, {CONNECTIONS} connections, one core")
    for title in ("nodes", "load", "door"):
        table.add_column(title)
    for title in ("ops/s", "of native", "CPU µs/op", "by CPU", "p50 ms", "p99 ms"):
        table.add_column(title, justify="right")
    for row in rows:
        if row["load"] == "idle":
            continue
        table.add_row(
            str(row["nodes"]),
            row["load"],
            row["door"],
            f"{row['ops_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['server_cpu_us_per_op']:.2f}",
            f"{row['cpu_ratio']:.2f}",
            f"{row['p50_us'] / 1000:.2f}",
            f"{row['p99_us'] / 1000:.2f}",
        )
    console.print(table)


def gate(rows: list[dict[str, Any]], console: Console) -> bool:
    """Print whether the promises hold; True if they do."""
    holds = True
    for row in rows:
        if row["load"] == "idle":
            good = row["share"] <= GATE_IDLE_MAX
            console.print(
                f"gate {row['nodes']} nodes, {IDLE_CONNECTIONS} idle connections: "
                f"{row['share']:.2%} of a core more, at most {GATE_IDLE_MAX:.0%}: "
                f"{'holds' if good else 'BROKEN'}"
            )
        elif row["door"] == "http" and row["nodes"] == SIZES[0]:
            good = row["ratio"] >= GATE_RATIO_MIN
            console.print(
                f"gate {row['nodes']} nodes, {row['load']}: {row['ratio']:.2f} of the native "
                f"throughput, at least {GATE_RATIO_MIN}: {'holds' if good else 'BROKEN'}"
            )
        else:
            continue
        holds = holds and good
    return holds


def run(plan: Plan, console: Console, results: Path | None) -> bool:
    """Measure, print, keep; False if a gate is broken."""
    console.print(f"kvorum {commit()} on {machine()['processor']}, {machine()['python']}")
    rows = measure(plan, console)
    show(rows, console)
    if results is not None:
        append("http", rows, results)
    return gate(rows, console)
