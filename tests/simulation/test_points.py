"""Fault points in a simulated world: some are live, and only while clients work."""

from kvorum.faults import POINTS
from kvorum.simulator.draw import draw_plan
from kvorum.simulator.plan import Plan
from kvorum.simulator.run import Result, Run

CRASH = "put.before_replicate"


def plan_with(seed: int, *points: str) -> Plan:
    plan = draw_plan(seed)
    plan.points = points
    return plan


def told(seed: int, *points: str) -> Result:
    result = Run(plan_with(seed, *points), keep_trace=True).result()
    assert result.failures == []
    return result


def test_a_quarter_of_all_points_is_live_in_a_seed() -> None:
    live = sum(len(draw_plan(seed).points) for seed in range(400))
    assert 0.2 < live / (400 * len(POINTS)) < 0.3


def test_a_point_that_is_not_live_is_never_hit() -> None:
    result = told(5, "repair.drop", "replica.answer_later")
    assert set(result.points) <= {"repair.drop", "replica.answer_later"}
    assert result.points["replica.answer_later"] > 1
    assert not told(5).points


def test_a_node_that_dies_at_a_point_comes_back_and_no_more_die_after_the_heal() -> None:
    result = told(3, CRASH)
    lines = result.text.splitlines()
    hits = [index for index, line in enumerate(lines) if f"fault point {CRASH}" in line]
    assert len(hits) == result.points[CRASH] > 0
    assert "is killed" in lines[hits[0] + 1]
    healed = next(index for index, line in enumerate(lines) if "everything is healed" in line)
    assert max(hits) < healed
