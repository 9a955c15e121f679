"""Each benchmark for about a second, so that none rots. Their figures are looked at by people."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import compare, http, macro, micro
from benchmarks.cases import Case
from benchmarks.clusters import limit_cluster
from benchmarks.load import Load, Step
from benchmarks.results import ROOT, machine
from tests.support.requirements import requires

KEYS = 2000


@pytest.mark.parametrize("case", micro.CASES, ids=lambda case: f"{case.component}, {case.name}")
def test_micro_benchmarks_give_a_figure(case: Case):
    row = micro.measure(case, 0.01)

    assert row["ns_per_call"] > 0


def test_the_micro_benchmark_keeps_json_lines(tmp_path: Path):
    micro.run(0.01, ("model", "context"), Console(quiet=True), tmp_path)

    rows = [json.loads(line) for line in (tmp_path / "micro.jsonl").read_text().splitlines()]
    assert {row["component"] for row in rows} == {"model"}
    assert all(row["commit"] and row["machine"] == machine() for row in rows)


@pytest.mark.parametrize("shape", ["1x1", "64x1", "256x1", "16x16"])
def test_the_limit_answers_every_put_and_get_as_promised(shape: str):
    """The load generator checks each value that it gets, and that there are no siblings."""
    core = min(os.sched_getaffinity(0))
    connections, depth = map(int, shape.split("x"))
    with limit_cluster(core) as cluster, Load(cluster, core, KEYS, 100, 255) as load:
        filled = load.fill()
        mixed = load.run(Step(connections, depth, 50, 0.05, 0.2))
        read = load.run(Step(connections, depth, 0, 0.0, 0.2))

    assert filled["operations"] == filled["puts"] == KEYS
    assert mixed["puts"] > 0
    assert read["operations"] > 0
    assert read["puts"] == 0
    assert mixed["server_cpu_us_per_op"] > 0


@pytest.mark.parametrize("engine", ["memory", "lmdb"])
def test_the_macro_benchmark_measures_kvorum_beside_the_limit(engine: str, tmp_path: Path):
    plan = macro.Plan(
        seconds=0.5, warm_seconds=0.1, rounds=1, keys=KEYS, only=(engine, "256x1", "mix")
    )
    console = Console(quiet=True)

    macro.run(plan, console, tmp_path)

    rows = [json.loads(line) for line in (tmp_path / "macro.jsonl").read_text().splitlines()]
    assert [row["nodes"] for row in rows] == ["limit", engine]
    assert rows[1]["ratio"] > 0
    assert rows[1]["operations"] > 0


def test_two_commits_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch):
    """Without building them: both are what is here, so neither may come out far ahead."""

    @contextmanager
    def here(commit: str, checkout: Path, console: Console) -> Iterator[Path]:
        yield ROOT

    monkeypatch.setattr(compare, "_built", here)
    only = ("memory", "256x1", "mix")
    comparison = compare.Comparison("old", "new", rounds=1, seconds=0.3, keys=KEYS, only=only)

    (row,) = compare.run(comparison, Console(quiet=True))

    assert (row["nodes"], row["shape"], row["load"]) == only
    assert row["new_to_old"] == pytest.approx(row["new_us_per_op"] / row["old_us_per_op"], abs=0.01)


def test_a_commit_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]):
    assert compare.main(compare.Comparison("no-such-commit", "HEAD")) == 1
    assert "no-such-commit" in capsys.readouterr().err


@requires("wrk")
def test_http_is_measured_beside_the_native_protocol(tmp_path: Path):
    http.run(
        http.Plan(seconds=1.0, rounds=1, keys=KEYS, idle_seconds=0.5), Console(quiet=True), tmp_path
    )

    rows = [json.loads(line) for line in (tmp_path / "http.jsonl").read_text().splitlines()]
    measured = [(row["nodes"], row["load"], row["door"]) for row in rows]
    of_each = [("get", "native"), ("get", "http"), ("put", "native"), ("put", "http")]
    of_each.append(("idle", "http"))
    assert measured == [(nodes, *each) for nodes in (3, 1) for each in of_each]
    assert all(row["operations"] > 0 for row in rows if row["load"] != "idle")
    assert all(row["share"] < 0.2 for row in rows if row["load"] == "idle")
