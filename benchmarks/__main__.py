"""``python -m benchmarks``: run the benchmarks, print them, keep them as JSON lines."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import compare, exchange, gossip, http, macro, micro
from benchmarks.results import RESULTS

app = typer.Typer(help=__doc__, add_completion=False)

Seconds = Annotated[float, typer.Option(help="Length of each measurement.")]
Rounds = Annotated[int, typer.Option(help="How often each is made; medians are reported.")]
Keys = Annotated[int, typer.Option(help="Number of keys, all of them there before the start.")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Only what has this nodes, shape or load: memory, 256x1, mix; repeatable."),
]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 if the gate is broken.")]
Results = Annotated[Path, typer.Option(help="Folder of the JSON lines.")]


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Run the micro benchmarks, then the macro benchmark, as they are by default."""
    if context.invoked_subcommand is None:
        console = Console()
        micro.run(micro.DEFAULT_SECONDS, (), console, RESULTS)
        macro.run(macro.Plan(), console, RESULTS)
        if http.wrk_is_there():
            http.run(http.Plan(), console, RESULTS)


@app.command(name="macro")
def run_macro(
    seconds: Seconds = 2.0,
    warm_seconds: Annotated[float, typer.Option(help="Not counted, before each.")] = 0.5,
    rounds: Rounds = 3,
    keys: Keys = 100_000,
    only: Only = None,
    check: Check = False,
    results: Results = RESULTS,
) -> None:
    """Three nodes under load, beside the same work in C."""
    plan = macro.Plan(seconds, warm_seconds, rounds, keys, tuple(only or ()))
    if not macro.run(plan, Console(), results) and check:
        raise typer.Exit(1)


@app.command(name="http")
def run_http(
    seconds: Seconds = 2.0,
    rounds: Rounds = 5,
    keys: Keys = 100_000,
    idle_seconds: Annotated[
        float, typer.Option(help="How long a hundred idle connections are watched.")
    ] = 30.0,
    check: Check = False,
    results: Results = RESULTS,
) -> None:
    """HTTP beside the native protocol, on the same nodes; needs wrk (make system-packages)."""
    plan = http.Plan(seconds, rounds, keys, idle_seconds)
    if not http.run(plan, Console(), results) and check:
        raise typer.Exit(1)


@app.command(name="micro")
def run_micro(
    seconds: Seconds = micro.DEFAULT_SECONDS,
    only: Annotated[
        list[str] | None, typer.Option(help="Only names that contain this; repeatable.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """One component at a time: nanoseconds per call."""
    micro.run(seconds, tuple(only or ()), Console(), results)


@app.command(name="compare")
def run_compare(
    old: Annotated[str, typer.Argument(help="The commit before.")],
    new: Annotated[str, typer.Argument(help="The commit after.")],
    rounds: Rounds = 5,
    seconds: Seconds = 2.0,
    keys: Keys = 100_000,
    only: Only = None,
) -> None:
    """Build two commits and run the macro benchmark on them in turn."""
    raise typer.Exit(
        compare.main(compare.Comparison(old, new, rounds, seconds, keys, tuple(only or ())))
    )


@app.command(name="gossip")
def run_gossip(
    nodes: Annotated[list[int] | None, typer.Option(help="Only so many nodes; repeatable.")] = None,
    node_hours: Annotated[
        float, typer.Option(help="Virtual time, times nodes, for each number and loss.")
    ] = 10.0,
    crashes: Annotated[int, typer.Option(help="Of each kind, for each number of nodes.")] = 10,
    rumours: Annotated[int, typer.Option(help="For each number of nodes.")] = 10,
    results: Results = RESULTS,
) -> None:
    """Failure detection on virtual time: how fast, how wrong, how dear."""
    plan = gossip.Plan(
        tuple(nodes or gossip.Plan().counts),
        node_hours=node_hours,
        crashes=crashes,
        rumours=rumours,
    )
    gossip.run(plan, Console(), results)


@app.command(name="exchange")
def run_exchange(
    keys: Annotated[
        list[int] | None, typer.Option(help="Three nodes with so many keys only; repeatable.")
    ] = None,
    differences: Annotated[int, typer.Option(help="Of each shape, one after the other.")] = 5,
    results: Results = RESULTS,
) -> None:
    """Exchange on virtual time: what it costs while nothing differs, and to find one difference."""
    shapes = tuple(exchange.Shape(3, 64, count) for count in keys or ())
    plan = exchange.Plan(shapes or exchange.Plan().shapes, differences=differences)
    exchange.run(plan, Console(), results)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
