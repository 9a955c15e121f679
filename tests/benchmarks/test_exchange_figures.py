"""The figures of exchange, in little: what idles costs no more, however much of it there is."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.exchange import DIFFERS, EQUAL, Plan, Shape, run


def test_the_exchange_benchmark_gives_figures_within_reason(tmp_path: Path):
    shapes = (Shape(3, 8, 20), Shape(3, 64, 600), Shape(3, 8, 20, tables=9), Shape(5, 8, 20))

    rows = run(Plan(shapes, differences=1), Console(quiet=True), tmp_path)

    kept = [json.loads(line) for line in (tmp_path / "exchange.jsonl").read_text().splitlines()]
    assert [row["figure"] for row in kept] == [row["figure"] for row in rows]
    equal = [row for row in rows if row["figure"] == EQUAL]
    assert [row["messages"] for row in equal] == [1] * len(shapes), "one digest a pair and round"
    assert [row["bytes_ratio"] for row in equal] == pytest.approx([1] * len(shapes), abs=0.1)
    for row in rows:
        assert row["cpu_us"] > 0
        if row["figure"] == DIFFERS:
            assert 10 < row["messages"] < 200
            assert row["bytes"] < 65_536 * 8, "less than all leaves"
            assert 0 < row["seconds"] < 30
