"""Results as JSON lines, each with the commit and the machine it was measured on."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = Path(__file__).parent / "results"


def append(benchmark: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Add ``rows`` to the results of ``benchmark``; the file they went to."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{benchmark}.jsonl"
    origin = {
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    with file.open("a") as lines:
        for row in rows:
            lines.write(json.dumps(row | origin) + "\n")
    return file


def show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    """One figure as a table; its name stands above it."""
    columns = [name for name in rows[0] if name != "figure"]
    table = Table(title=title)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)


@cache
def commit() -> str:
    """The commit that is measured, with a plus behind it if files differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.c")
    return (name or "unknown") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def machine() -> dict[str, Any]:
    """What of the machine bears on a measurement."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
