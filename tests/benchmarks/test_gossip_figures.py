"""The figures of failure detection, in little: they come out, and none is beyond all reason."""

import json
from pathlib import Path

from rich.console import Console

from benchmarks.gossip import Plan, run

SUSPECTED_MAX = 5.0  # seconds
KNOWN_MAX = 15.0


def test_the_gossip_benchmark_gives_figures_within_reason(tmp_path: Path):
    plan = Plan(counts=(10, 40), losses_percent=(0, 20), node_hours=0.1, crashes=2, rumours=2)

    rows = run(plan, Console(quiet=True), tmp_path)

    kept = [json.loads(line) for line in (tmp_path / "gossip.jsonl").read_text().splitlines()]
    assert [row["figure"] for row in kept] == [row["figure"] for row in rows]
    quiet = [row for row in rows if row["figure"] == "quiet"]
    lossless = [row for row in quiet if row["loss_percent"] == 0]
    assert [row["false_suspicions_per_node_hour"] for row in lossless] == [0, 0]
    assert [row["false_deaths_per_node_hour"] for row in lossless] == [0, 0]
    small, large = (row["bytes_per_node_second"] for row in lossless)
    assert large < 2 * small, "the load of a node does not grow with the cluster"
    for row in rows:
        if row["figure"] == "crash":
            assert row["suspected_p50_seconds"] < SUSPECTED_MAX
            assert row["known_p99_seconds"] < KNOWN_MAX
        if row["figure"] == "rumour":
            assert row["known_to_all_p99_seconds"] < KNOWN_MAX
