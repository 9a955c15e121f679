"""One component at a time: nanoseconds per call, the median of several runs.

For finding out what a change to one component costs before the macro benchmark can tell. The
loop that calls is part of each figure, some 20 to 40 ns.
"""

import statistics
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import components, coordination
from benchmarks.cases import Case, Repeat
from benchmarks.results import append, commit, machine

DEFAULT_SECONDS: Final = 0.5
RUNS: Final = 7
FIRST_CALLS: Final = 64
CASES: Final = [
    found
    for module in (components, coordination)
    for found in vars(module).values()
    if isinstance(found, Case)
]


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Time ``case`` for about ``seconds``, in runs of equal length."""
    with case.prepare() as repeat:
        calls = FIRST_CALLS
        elapsed = _timed(repeat, calls)
        while elapsed < seconds / RUNS / 4:
            calls *= 2
            elapsed = _timed(repeat, calls)
        calls = max(1, int(calls * seconds / RUNS / elapsed))
        samples = sorted(_timed(repeat, calls) / calls / case.entries for _ in range(RUNS))
    return {
        "component": case.component,
        "case": case.name,
        "ns_per_call": round(statistics.median(samples) * 1e9, 1),
        "ns_fastest": round(samples[0] * 1e9, 1),
        "calls": calls * RUNS * case.entries,
    }


def _timed(repeat: Repeat, calls: int) -> float:
    start = time.perf_counter()
    repeat(calls)
    return time.perf_counter() - start


def run(seconds: float, only: tuple[str, ...], console: Console, results: Path | None) -> None:
    """Measure the cases whose names have every word of ``only``, print them, keep them."""
    rows = [
        measure(case, seconds)
        for case in CASES
        if all(word in f"{case.component} {case.name}" for word in only)
    ]
    console.print(f"kvorum {commit()} on {machine()['processor']}, {machine()['python']}")
    table = Table("component", "case", title="Nanoseconds per call")
    table.add_column("median", justify="right")
    table.add_column("fastest", justify="right")
    for row in rows:
        table.add_row(
            row["component"],
            row["case"],
            f"{row['ns_per_call']:,.0f}",
            f"{row['ns_fastest']:,.0f}",
        )
    console.print(table)
    if results is not None:
        append("micro", rows, results)
