"""Two commits side by side: build both, run the macro benchmark in turn, show the ratios.

Each commit gets a checkout and an environment of its own and is measured with its own code, nodes
and load generator alike. Rounds alternate, so that whatever else the machine does meets both.
What is compared is CPU time per operation; beside it stands each commit's ratio to the limit in C
that ran in the same round, which a change of the machine's speed leaves as it is.
"""

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.macro import LIMIT
from benchmarks.results import ROOT

COST: Final = "server_cpu_us_per_op"
EXTRAS: Final = "demo,dev"  # what the macro benchmark needs is among these

Name = tuple[str, str, str]  # nodes, shape, load


class ComparisonFailed(Exception):
    """A commit cannot be checked out, built or measured; the text says which, and why."""


class Comparison(NamedTuple):
    """What to measure of both commits."""

    old: str
    new: str
    rounds: int = 5
    seconds: float = 2.0
    keys: int = 100_000
    only: tuple[str, ...] = ()


def run(comparison: Comparison, console: Console) -> list[dict[str, Any]]:
    """Build, measure in turn, and print; one row for each measurement that both have."""
    found: list[dict[Name, list[dict[str, Any]]]] = [{}, {}]  # of the old commit, of the new one
    with TemporaryDirectory(prefix="kvorum-compare-") as temporary:
        folder = Path(temporary)
        with (
            _built(comparison.old, folder / "old", console) as old,
            _built(comparison.new, folder / "new", console) as new,
        ):
            for number in range(1, comparison.rounds + 1):
                # Whoever goes first meets a warmer or cooler machine: take turns at that too.
                turns = [(found[0], old), (found[1], new)]
                for samples, checkout in turns if number % 2 else turns[::-1]:
                    console.log(f"round {number} of {comparison.rounds}: {checkout.name}")
                    for row in _measured(checkout, comparison, folder / "results"):
                        name = (row["nodes"], row["shape"], row["load"])
                        samples.setdefault(name, []).append(row)
    rows = _rows(*found)
    _show(rows, comparison, console)
    return rows


@contextmanager
def _built(commit: str, checkout: Path, console: Console) -> Iterator[Path]:
    """A checkout of ``commit`` with its own environment, removed afterwards."""
    console.log(f"building {commit}")
    _call(["git", "worktree", "add", "--detach", "--force", str(checkout), commit], ROOT, commit)
    try:
        _call(["scripts/setup", ".venv", EXTRAS], checkout, commit)
        yield checkout
    finally:
        shutil.rmtree(checkout, ignore_errors=True)
        _call(["git", "worktree", "prune"], ROOT, commit)


def _call(command: list[str], folder: Path, commit: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ComparisonFailed(f"{commit}: {' '.join(command)} failed: {said}")


def _measured(checkout: Path, comparison: Comparison, results: Path) -> list[dict[str, Any]]:
    """One round of one commit, as that commit's own benchmark reports it."""
    shutil.rmtree(results, ignore_errors=True)
    words = [part for word in comparison.only for part in ("--only", word)]
    command = [
        str(checkout / ".venv" / "bin" / "python"), "-m", "benchmarks", "macro", "--rounds", "1",
        "--seconds", str(comparison.seconds), "--keys", str(comparison.keys),
        "--results", str(results), *words,
    ]  # fmt: skip
    _call(command, checkout, checkout.name)
    return [json.loads(line) for line in (results / "macro.jsonl").read_text().splitlines()]


def _rows(
    old: dict[Name, list[dict[str, Any]]], new: dict[Name, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in old:
        if name[0] == LIMIT or name not in new:
            continue
        costs = [statistics.median(row[COST] for row in each[name]) for each in (old, new)]
        limits = [statistics.median(row["ratio"] for row in each[name]) for each in (old, new)]
        rows.append(
            {
                "nodes": name[0], "shape": name[1], "load": name[2],
                "old_us_per_op": round(costs[0], 2), "new_us_per_op": round(costs[1], 2),
                "new_to_old": round(costs[1] / costs[0], 3),
                "old_to_limit": round(limits[0], 2), "new_to_limit": round(limits[1], 2),
                "limits_ratio": round(limits[1] / limits[0], 3),
            }
        )  # fmt: skip
    return rows


def _show(rows: list[dict[str, Any]], comparison: Comparison, console: Console) -> None:
    title = f"CPU of three nodes per operation: {comparison.new} beside {comparison.old}"
    table = Table(title=title)
    for word in ("load", "shape", "nodes"):
        table.add_column(word)
    for word in ("old µs/op", "new µs/op", "new/old", "old to C", "new to C", "new/old by C"):
        table.add_column(word, justify="right")
    for row in rows:
        table.add_row(
            row["load"], row["shape"], row["nodes"],
            f"{row['old_us_per_op']:.2f}", f"{row['new_us_per_op']:.2f}",
            f"{row['new_to_old']:.2f}", f"{row['old_to_limit']:.2f}",
            f"{row['new_to_limit']:.2f}", f"{row['limits_ratio']:.2f}",
        )  # fmt: skip
    console.print(table)


def main(comparison: Comparison) -> int:
    """Run it for a person; the exit code."""
    console = Console()
    try:
        run(comparison, console)
    except ComparisonFailed as failure:
        Console(file=sys.stderr).print(f"compare: {failure}")
        return 1
    return 0
