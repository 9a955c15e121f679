"""The command tree of ``kvorum``, and the one place where errors end as exit codes."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import kvorum
from kvorum.cli import outcome
from kvorum.cli.aside import aside
from kvorum.cli.bench import bench
from kvorum.cli.demo import demo
from kvorum.cli.explain import explain
from kvorum.cli.initialise import init
from kvorum.cli.serve import serve
from kvorum.cli.simulate import simulate
from kvorum.cli.status import status
from kvorum.cli.tables import tables
from kvorum.cli.talk import delete, get, put
from kvorum.cli.trace import trace
from kvorum.cli.up import up
from kvorum.errors import KvorumError

app = typer.Typer(
    name="kvorum",
    help=(
        "An always-writable, replicated key-value store.\n\n"
        "Exit codes: 0 ok, 1 refused, 2 usage or settings, 3 not found, 4 outcome unknown, "
        "5 siblings where one value was wanted, 6 port or directory in use, 130 interrupted."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CLUSTERS = "Clusters"
TALKING = "Talking to a cluster"

app.command(rich_help_panel=CLUSTERS)(up)
app.command(rich_help_panel=CLUSTERS)(demo)
app.command(rich_help_panel=CLUSTERS)(init)
app.command(rich_help_panel=CLUSTERS)(serve)
app.command(rich_help_panel=CLUSTERS)(simulate)
app.command(rich_help_panel=TALKING)(get)
app.command(rich_help_panel=TALKING)(put)
app.command(rich_help_panel=TALKING)(delete)
app.add_typer(tables, name="table", rich_help_panel=TALKING)
app.command(rich_help_panel=TALKING)(status)
app.command(rich_help_panel=TALKING)(explain)
app.add_typer(aside, name="aside", rich_help_panel=TALKING)
app.add_typer(trace, name="trace", rich_help_panel=TALKING)
app.command(rich_help_panel=TALKING)(bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kvorum {kvorum.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of ``kvorum`` itself."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app(list(arguments), prog_name="kvorum")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else outcome.REFUSED
    except KvorumError as error:
        return outcome.report(error, "--json" in arguments)
    except KeyboardInterrupt:
        return outcome.INTERRUPTED
    return outcome.OK


def main() -> None:
    sys.exit(run(sys.argv[1:]))
