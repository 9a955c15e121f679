"""``kvorum bench``: put a load on a cluster, and say what it carried and how fast it answered."""

import multiprocessing
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, Final

import typer
from hdrh.histogram import HdrHistogram
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kvorum.cli.load import Load, Measured, generate, new_histogram
from kvorum.cli.load import Progress as Report
from kvorum.cli.options import Durability, Json, Nodes, TableName
from kvorum.cli.outcome import CommandFailed
from kvorum.cli.output import Output
from kvorum.cli.settings import DEFAULT_NODES, connect_to
from kvorum.client.addresses import parse_addresses
from kvorum.client.blocking import Client
from kvorum.errors import SettingsInvalid

TABLE: Final = "bench"
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
DISTRIBUTIONS: Final = ("zipfian", "uniform")


def bench(
    keys: Annotated[int, typer.Option(min=1, help="How many different keys.")] = 10_000,
    value_bytes: Annotated[int, typer.Option(min=0, help="The size of every value.")] = 100,
    read_share: Annotated[
        float, typer.Option(min=0, max=1, help="How many of the requests are gets, 0 to 1.")
    ] = 0.5,
    distribution: Annotated[
        str, typer.Option(metavar="zipfian|uniform", help="How keys are drawn.")
    ] = "zipfian",
    connections: Annotated[
        int, typer.Option(min=1, help="Clients of each process; each connects to every node.")
    ] = 4,
    pipeline: Annotated[
        int, typer.Option(min=1, help="Requests that each client keeps under way.")
    ] = 16,
    processes: Annotated[int, typer.Option(min=1, help="Processes that make the load.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 10.0,
    table: TableName = TABLE,
    durability: Durability = None,
    keep: Annotated[
        bool, typer.Option("--keep", help=f"Keep the table {TABLE} and its records afterwards.")
    ] = False,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Measure throughput and latency under a load of gets and puts.

    All keys are put once before anything is measured. The load generator is Python too and takes
    CPU of its own, which it tells: near 100 % of a core per process, add --processes.
    """
    out = Output(as_json)
    if distribution not in DISTRIBUTIONS:
        raise SettingsInvalid(f"--distribution {distribution}: must be zipfian or uniform")
    slots = processes * connections * pipeline
    if slots > keys:
        raise SettingsInvalid(f"{slots} requests at a time need as many --keys, not {keys}")
    with connect_to(nodes) as client:
        made = all(one.name != table for one in client.tables())
        if made:
            client.create_table(table, durability=durability.value if durability else None)
        addresses = [str(address) for address in parse_addresses(nodes)]
        load = Load(
            addresses, table, keys, value_bytes, read_share, distribution, connections, pipeline,
            processes, seconds,
        )  # fmt: skip
        try:
            show(out, load, run_load(out, load), _durability_of(client, table))
        finally:
            if made and not keep:
                client.drop_table(table)


def _durability_of(client: Client, table: str) -> str:
    return next(one.durability for one in client.tables() if one.name == table)


def run_load(out: Output, load: Load) -> list[Measured]:
    """Run the processes of the generator, with live progress, and gather what they measured."""
    context = multiprocessing.get_context("spawn")
    started: list[tuple[BaseProcess, Connection]] = []
    try:
        for number in range(load.processes):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=generate, args=(load, number, theirs), daemon=True
            )
            process.start()
            theirs.close()
            started.append((process, ours))
        return _Watch(out, load).follow([pipe for _, pipe in started])
    finally:
        for process, pipe in started:
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


class _Watch:
    """Follows the processes from start to end, and shows how far they are."""

    def __init__(self, out: Output, load: Load) -> None:
        self.load = load
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=out.console,
            disable=not out.on_terminal,
            transient=True,
        )
        self.ready: list[Connection] = []
        self.begun = 0.0
        self.operations = 0
        self.errors = 0

    def follow(self, pipes: list[Connection]) -> list[Measured]:
        results: list[Measured] = []
        open_pipes = list(pipes)
        with self.bar:
            task = self.bar.add_task("loading keys", total=self.load.keys, rate="")
            while open_pipes:
                for pipe in wait(open_pipes):
                    assert isinstance(pipe, Connection)
                    told = self.receive(pipe)
                    if isinstance(told, Measured):
                        results.append(told)
                        open_pipes.remove(pipe)
                    elif isinstance(told, Report):
                        self.take(told, pipe, task)
                if len(self.ready) == len(pipes):
                    self.begin(task)
        return results

    def receive(self, pipe: Connection) -> Any:
        try:
            told = pipe.recv()
        except EOFError:
            raise CommandFailed("a process of the load generator died") from None
        if isinstance(told, str):
            raise CommandFailed(told)
        return told

    def begin(self, task: Any) -> None:
        for pipe in self.ready:
            pipe.send("go")
        self.ready = []
        self.begun = time.monotonic()
        self.operations = 0
        self.bar.reset(task, total=self.load.seconds, description="measuring")

    def take(self, told: Report, pipe: Connection, task: Any) -> None:
        if told.phase == "run" and not self.begun:
            self.ready.append(pipe)
            return
        self.operations += told.operations
        self.errors += told.errors
        if not self.begun:
            self.bar.update(task, completed=self.operations)
            return
        elapsed = time.monotonic() - self.begun
        rate = f"{self.operations / max(elapsed, 0.001):,.0f} operations/s"
        if self.errors:
            rate += f", {self.errors} errors"
        self.bar.update(task, completed=min(elapsed, self.load.seconds), rate=rate)


def show(out: Output, load: Load, results: list[Measured], durability: str) -> None:
    gets, puts = new_histogram(), new_histogram()
    errors: dict[str, int] = {}
    for result in results:
        gets.decode_and_add(result.gets)
        puts.decode_and_add(result.puts)
        for name, count in result.errors.items():
            errors[name] = errors.get(name, 0) + count
    seconds = max(result.seconds for result in results)
    cpu = sum(result.cpu_seconds for result in results) / seconds / load.processes
    rows = [("gets", gets), ("puts", puts)]
    if out.as_json:
        out.json(
            {
                "load": {**load._asdict(), "durability": durability},
                "seconds": seconds,
                "operations_per_second": _total(gets, puts) / seconds,
                **{name: _document(histogram, seconds) for name, histogram in rows},
                "errors": errors,
                "not_found": sum(result.not_found for result in results),
                "siblings": sum(result.siblings for result in results),
                "generator_cpu_share": cpu,
            }
        )
        return
    out.table(
        ["", ">operations", ">per second", *[f">p{_number(p)} ms" for p in PERCENTILES], ">max ms"],
        [[name, *_row(histogram, seconds)] for name, histogram in rows],
    )
    out.line(
        f"{_total(gets, puts) / seconds:,.0f} operations/s over {seconds:.1f} s, durability "
        f"{durability}; errors: {_errors_text(errors)}; the generator used {cpu:.0%} of a core "
        "per process"
    )


def _total(gets: HdrHistogram, puts: HdrHistogram) -> int:
    return int(gets.get_total_count() + puts.get_total_count())


def _row(histogram: HdrHistogram, seconds: float) -> list[str]:
    count = histogram.get_total_count()
    if not count:
        return ["0", "0", *[""] * (len(PERCENTILES) + 1)]
    latencies = [histogram.get_value_at_percentile(p) for p in PERCENTILES]
    latencies.append(histogram.get_max_value())
    return [
        f"{count:,}",
        f"{count / seconds:,.0f}",
        *[f"{latency / 1000:.2f}" for latency in latencies],
    ]


def _document(histogram: HdrHistogram, seconds: float) -> dict[str, float]:
    count = histogram.get_total_count()
    return {
        "operations": count,
        "per_second": count / seconds,
        **{
            f"p{_number(p)}_us": histogram.get_value_at_percentile(p) if count else 0
            for p in PERCENTILES
        },
        "max_us": histogram.get_max_value() if count else 0,
    }


def _number(percentile: float) -> str:
    return f"{percentile:g}"


def _errors_text(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(errors.items())) or "none"
