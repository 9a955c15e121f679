"""``kvorum simulate``: run whole clusters on virtual time, under faults, and judge promises."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kvorum.cli.options import Json
from kvorum.cli.outcome import CommandFailed
from kvorum.cli.output import Output
from kvorum.errors import SettingsInvalid
from kvorum.faults import POINTS
from kvorum.simulator.draw import draw_plan
from kvorum.simulator.plan import Plan
from kvorum.simulator.planfile import PlanInvalid, read_plan, write_plan
from kvorum.simulator.run import Result, Totals, run_plan, run_seeds
from kvorum.simulator.shrink import Shrinker

FAILURES_SHOWN = 20


def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 100,
    first: Annotated[
        int, typer.Option("--from", min=0, metavar="SEED", help="The first of them.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Run this one seed instead, and say how it went.")
    ] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Run the plan in this file instead."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="With --seed or --plan: print everything that happens.")
    ] = False,
    shrink: Annotated[
        bool,
        typer.Option(
            "--shrink",
            help="With --seed or --plan: if it fails, look for the smallest plan that still does.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="With --seed or --plan: write the plan to this file."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Go on for so long, however many seeds that makes."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=0, help="Processes at once; 0: one for each core.")
    ] = 0,
    require_points: Annotated[
        bool,
        typer.Option("--require-points", help="Fail if a fault point of the code is never hit."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run simulated clusters with faults and clients, and check that every promise is kept.

    A seed settles everything: the cluster, its load, each fault and every delay. A seed that
    fails is printed with the command that replays it; its trace is the same on every machine.
    A plan is what a seed draws, written out as TOML: every fault and every operation, to be made
    smaller, changed by hand and kept. Interrupted, it says what came of the seeds run until then.
    """
    out = Output(as_json)
    if seed is not None or plan_file is not None:
        plan = draw_plan(seed or 0) if plan_file is None else _read(plan_file)
        _run_one(out, plan, trace, shrink, output)
        return
    if shrink or output is not None or trace:
        raise SettingsInvalid("--trace, --shrink and --output are for one seed or one plan")
    count = seeds if minutes is None else 1 << 30
    totals = _run_many(out, range(first, first + count), processes, minutes)
    _judge_many(totals, require_points)


def _judge_many(totals: Totals, require_points: bool) -> None:
    if totals.failed:
        raise CommandFailed(f"{len(totals.failed)} of {totals.seeds} seeds failed")
    if require_points and totals.points_never_hit:
        raise CommandFailed(f"never hit: {', '.join(totals.points_never_hit)}")


def _read(file: Path) -> Plan:
    try:
        return read_plan(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{file} cannot be read: {error}") from error
    except PlanInvalid as error:
        raise PlanInvalid(f"{file}: {error}") from error


def _run_one(out: Output, plan: Plan, trace: bool, shrink: bool, output: Path | None) -> None:
    result = run_plan(plan, keep_trace=trace and not shrink)
    if shrink and result.failures:
        shrinker = Shrinker(plan, result, out.note)
        shrinker.shrink()
        plan = shrinker.plan
        result = run_plan(plan, keep_trace=trace)
        if output is None and not out.as_json:
            out.line(write_plan(plan, result.failures[0].splitlines()))
    elif shrink:
        out.note("nothing to shrink: it does not fail")
    if output is not None:
        comments = result.failures[0].splitlines() if result.failures else ["It holds."]
        output.write_text(write_plan(plan, comments), encoding="utf-8")
        out.note(f"the plan is in {output}; run it: kvorum simulate --plan {output}")
    _show_one(out, result, trace)


def _run_many(out: Output, seeds: range, processes: int, minutes: float | None) -> Totals:
    """Run the seeds and show what came of them, also if that is interrupted."""
    totals = Totals()
    begun = time.monotonic()
    try:
        _add_up(out, totals, seeds, processes, minutes)
    except KeyboardInterrupt:
        out.note("interrupted; until then:")
        _show_many(out, totals, time.monotonic() - begun)
        raise
    _show_many(out, totals, time.monotonic() - begun)
    return totals


def _add_up(
    out: Output, totals: Totals, seeds: range, processes: int, minutes: float | None
) -> None:
    end = time.monotonic() + minutes * 60 if minutes is not None else None
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=out.console, disable=not out.on_terminal, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("seeds", total=len(seeds) if end is None else None)
        for result in run_seeds(seeds, processes or len(os.sched_getaffinity(0))):
            totals.add(result)
            if result.failures and len(totals.failed) <= FAILURES_SHOWN:
                _show_failure(out, result)
            failed = f", {len(totals.failed)} failed" if totals.failed else ""
            bar.update(task, advance=1, description=f"seeds{failed}")
            if end is not None and time.monotonic() > end:
                break


def _show_failure(out: Output, result: Result) -> None:
    for failure in result.failures:
        out.note(f"seed {result.seed}: {failure}")
    out.note(f"replay it: kvorum simulate --seed {result.seed} --trace")
    out.note(f"make it small: kvorum simulate --seed {result.seed} --shrink")


def _show_one(out: Output, result: Result, trace: bool) -> None:
    if out.as_json:
        out.json(_document(result))
    else:
        if trace:
            out.line(result.text)
        out.line(f"seed {result.seed}: {result.plan}")
        out.line(
            f"{result.operations} operations, {sum(result.faults.values())} faults, "
            f"{result.virtual_microseconds / 1e6:.1f} virtual seconds, trace hash {result.digest}"
        )
        for failure in result.failures:
            out.line(failure)
    if result.failures:
        raise CommandFailed(f"seed {result.seed} failed")


def _document(result: Result) -> dict[str, Any]:
    return {
        "seed": result.seed,
        "plan": result.plan,
        "failures": result.failures,
        "trace_hash": result.digest,
        "operations": result.operations,
        "outcomes": result.counts,
        "faults": result.faults,
        "fault_points": result.points,
        "counters": result.counters,
        "virtual_seconds": result.virtual_microseconds / 1e6,
        "inside_the_promise": result.inside,
        "lost_outside_the_promise": result.outside_promise,
    }


def _show_many(out: Output, totals: Totals, seconds: float) -> None:
    if out.as_json:
        out.json(
            {
                "seeds": totals.seeds,
                "inside_the_promise": totals.inside,
                "failed": [_document(result) for result in totals.failed],
                "operations": totals.operations,
                "outcomes": totals.counts,
                "faults": totals.faults,
                "fault_points": totals.points,
                "fault_points_never_hit": totals.points_never_hit,
                "counters": totals.counters,
                "virtual_hours": totals.virtual_hours,
                "lost_outside_the_promise": totals.outside_promise,
                "seconds": seconds,
            }
        )
        return
    out.table(
        ("fault", ">times"),
        [(kind, f"{count}") for kind, count in sorted(totals.faults.items())],
    )
    out.table(
        ("fault point", ">hits"),
        [(name, f"{totals.points.get(name, 0)}") for name in sorted(POINTS)],
    )
    out.table(
        ("outcome", ">times"),
        [(what, f"{count}") for what, count in sorted(totals.counts.items())],
    )
    out.line(
        f"{totals.seeds} seeds ({totals.inside} of them with faults that leave every promise "
        f"standing), {totals.operations} operations, {totals.fault_count} faults, "
        f"{totals.virtual_hours:.2f} virtual hours in {seconds:.0f} s"
    )
    out.line(
        f"{totals.outside_promise} writes lost outside the promise; promised writes lost, and "
        f"other failures: {len(totals.failed)} seeds"
    )
    if totals.points_never_hit:
        out.line(f"fault points never hit: {', '.join(totals.points_never_hit)}")
