"""Plans as files: written, read, replayed, kept; and what leaving an entry out does not change."""

from dataclasses import replace
from pathlib import Path

import pytest

from kvorum.model.quorum import Durability
from kvorum.simulator.draw import INSIDE, OUTSIDE, draw_plan
from kvorum.simulator.faults import FAULTS
from kvorum.simulator.plan import SECOND, Plan, PlannedFault, PlannedWork, TablePlan
from kvorum.simulator.planfile import PlanInvalid, read_plan, write_plan
from kvorum.simulator.run import Run, run_plan

KEPT = sorted((Path(__file__).parent / "plans").glob("*.toml"))
MILLISECOND = 1_000


def small_plan(**changes: object) -> Plan:
    """Three nodes, one client that reads and writes, and nothing else."""
    plan = Plan(
        seed=7, members=3, n=3, partitions=8, clients=1, duration=4 * SECOND, jitter=1_000,
        tables=(TablePlan("default", 2, 2, Durability.ONE),), client_timeout=2 * SECOND,
        work=tuple(
            PlannedWork(at, 1, ("put", "update")[at // 100_000 % 2], "default", 0, at)
            for at in range(0, 3 * SECOND, 100 * MILLISECOND)
        ),
    )  # fmt: skip
    return replace(plan, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_a_plan_that_failed_once_holds(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# "), "the first line says what it found"
    assert run_plan(read_plan(text)).failures == []


def test_plans_are_kept() -> None:
    assert KEPT


@pytest.mark.parametrize("seed", range(0, 300, 7))
def test_a_plan_is_read_as_it_was_written(seed: int) -> None:
    plan = draw_plan(seed)
    assert read_plan(write_plan(plan, ["as drawn"])) == plan


def test_a_plan_from_a_file_is_the_same_run() -> None:
    plan = draw_plan(11)
    assert run_plan(read_plan(write_plan(plan, []))).digest == run_plan(plan).digest


TEXT = write_plan(small_plan(faults=(PlannedFault(1, "kill", 2),)), [])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('kind = "kill"', 'kind = "cut"', "no fault is called cut"),
        ('kind = "put"', 'kind = "sing"', "no client can sing in default"),
        ("members = 3", 'members = "three"', "Expected `int`"),
        ("members = 3", "members = 2", "n must be between 1 and the members"),
        ("w = 2", "w = 4", "r and w of default"),
        ('durability = "one"', 'durability = "some"', "SOME"),
        ("seed = 7", "sed = 7", "nothing is called 'sed'"),
        ("node = 2", "knot = 2", "nothing is called 'knot'"),
        ("seed = 7", "seed = ", "Invalid value"),
        ("seed = 7\n", "", "seed"),
        ("clients = 1", "clients = 0", "somebody must do the work"),
        ("seed = 7", 'seed = 7\npoints = ["nowhere.at_all"]', "no fault point is called"),
        ('name = "default"', 'name = "other"', "the first table"),
        ("seed = 7", "seed = 7\nconfig = {large_bytes = 0}", "large_bytes must be above 0"),
        ("seed = 7", "seed = 7\nkeys = 0", "must be above 0"),
        ("seed = 7", "seed = 7\nunit_cost = -1", "must not be below 0"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_a_reason(
    old: str, new: str, reason: str
) -> None:
    assert old in TEXT
    with pytest.raises(PlanInvalid, match=reason):
        read_plan(TEXT.replace(old, new))


def test_seeds_draw_every_fault_and_clusters_of_all_sizes() -> None:
    plans = [draw_plan(seed) for seed in range(400)]
    assert {plan.members for plan in plans} == set(range(1, 10))
    assert {fault.kind for plan in plans for fault in plan.faults} == set(FAULTS)
    assert {fault.kind for plan in plans if plan.inside for fault in plan.faults} == set(INSIDE)
    assert sorted((*INSIDE, *OUTSIDE)) == sorted(FAULTS)
    assert {table.sloppy for plan in plans for table in plan.tables} == {True, False}
    assert {table.durability for plan in plans for table in plan.tables} == set(Durability)
    assert len({plan.config.max_clock_skew_ms for plan in plans}) == 3
    assert sum(plan.inside for plan in plans) > 200


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_does_its_harm_and_the_end_is_good(kind: str) -> None:
    amount = {"clock_skew": 100_000, "clock_step": -100_000, "clock_far_off": SECOND * 3600}
    fault = PlannedFault(
        1_500 * MILLISECOND, kind, 2, 3, 500 * MILLISECOND, amount.get(kind, 2), dice=9
    )
    members = 4 if kind == "ring_of_paths" else 3
    # A small overlay: damage in an engine needs records there.
    result = run_plan(small_plan(members=members, faults=(fault,), freeze_bytes=200))
    assert result.failures == []
    assert result.faults == {kind: 1}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_can_strike_a_lone_volatile_node(kind: str) -> None:
    """Found by seed 310594: an engine that is a dict was told to be full."""
    fault = PlannedFault(SECOND, kind, 2, 2, SECOND, 1, dice=3)
    tables = (
        TablePlan("default", 1, 1, Durability.NONE),
        TablePlan("doomed", 1, 1, Durability.NONE),
    )
    plan = small_plan(members=1, n=1, volatile=(1,), tables=tables, faults=(fault,), inside=False)
    work = (
        *plan.work,
        PlannedWork(1, 1, "put", "doomed"),
        PlannedWork(SECOND, 1, "drop", "doomed"),
    )
    assert run_plan(replace(plan, work=work)).failures == []


def writes_of(plan: Plan) -> dict[int, tuple[str, int, int]]:
    """What each put of the plan came to ask for, by its moment."""
    run = Run(plan)
    assert run.result().failures == []
    return {
        write.sent_at: (write.name, write.w, write.disk_needed)
        for write in run.world.history.writes.values()
    }


def test_what_an_entry_does_is_the_same_when_others_are_left_out() -> None:
    """Each has dice of its own; else a smaller plan would be another one."""
    work = tuple(PlannedWork(at * 10_000, 1, "put", "default", at % 5, at) for at in range(200))
    plan = small_plan(keys=8, work=work)
    whole = writes_of(plan)
    part = writes_of(replace(plan, work=work[::3]))
    assert len(part) == 67
    assert all(whole[moment] == asked for moment, asked in part.items())
    assert len({w for _, w, _ in whole.values()}) == 3, "some override w"


def test_a_fault_more_changes_nothing_before_it() -> None:
    fault = PlannedFault(2 * SECOND, "power_loss", 2, duration=SECOND)
    calm = run_plan(small_plan(), keep_trace=True).text.splitlines()
    struck = run_plan(small_plan(faults=(fault,)), keep_trace=True).text.splitlines()
    begin = next(index for index, line in enumerate(struck) if "loses power" in line)
    assert begin > 100
    assert struck[1:begin] == calm[1:begin]
