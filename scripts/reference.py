"""Write the pages of the reference made from the code: commands, settings, counters, points.

``python -m scripts.reference`` writes them; a test sees to it that they are fresh.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from kvorum import config, counters, faults
from kvorum.admin import metrics
from kvorum.cli.main import app

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE: Final = "<!-- Made by scripts/reference.py; do not edit. -->\n"

EXIT_CODES: Final = """\
## Exit codes

| Code | Meaning |
| --- | --- |
| 0 | ok |
| 1 | refused: nothing was written; or the command failed, and says why |
| 2 | usage or settings |
| 3 | not found |
| 4 | outcome unknown: the write may or may not have been made |
| 5 | several siblings where one value was wanted |
| 6 | port or directory in use |
| 70 | a node found its own state to be wrong and ended at once; please report its log |
| 130 | interrupted |

Errors go to standard error, as one JSON document where `--json` was given. Ctrl-C and SIGTERM are
how `kvorum up` and `kvorum serve` are stopped, so they exit with 0 when all went well.

## Output

On a terminal, results are tables and colours. In a pipe a table is one line a row, its cells
separated by tabs, the names of the columns first. `--json` prints one JSON document. Bytes are
`{"text": ...}` in JSON where they are UTF-8, else `{"base64": ...}`.
"""


SETTINGS_HEAD: Final = """\
# Settings of a node

A node takes its settings from the TOML file given with `--config FILE`, and over them from
environment variables: `KVORUM_` and the name in capitals, as in `KVORUM_REQUEST_TIMEOUT_MS=2000`.
Nothing needs to be set. A wrong or unknown setting is refused at the start, with the file or
variable, the name and the reason (exit code 2). Sizes are bytes, durations milliseconds.

| Setting | Default | Meaning |
| --- | ---: | --- |
"""

SETTINGS_TAIL: Final = """\
What belongs to a table (`r`, `w`, durability, ...) is set with `kvorum table`; what belongs to the
cluster (members, `n`, partitions) stands in the topology file that `kvorum init` writes. Which
nodes the other commands talk to is set by `--nodes` or `KVORUM_NODES`.
"""


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    return {
        "cli.md": cli_page(),
        "settings.md": settings_page(),
        "counters.md": counters_page(),
        "metrics.md": metrics_page(),
        "fault-points.md": points_page(),
    }


def cli_page() -> str:
    root: Any = typer.main.get_command(app)
    parts = [MADE, "# Command line\n", _first_paragraph(root.help) + "\n"]
    for path, command in _commands("kvorum", root):
        parts.append(f"## {path}\n")
        parts.append(f"```text\n{_usage(path, command)}\n```\n")
        parts.append(command.help.strip() + "\n")
        parts += list(_parameters(command))
    parts.append(EXIT_CODES)
    return "\n".join(parts)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from _commands(f"{path} {name}", below)
        else:
            yield f"{path} {name}", below


def _first_paragraph(text: str) -> str:
    return text.strip().partition("\n\n")[0]


def _usage(path: str, command: Any) -> str:
    arguments = [
        parameter.metavar if parameter.required else f"[{parameter.metavar}]"
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    return " ".join([path, *arguments, "[OPTIONS]"])


def _parameters(command: Any) -> Iterator[str]:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            shown = f"`{parameter.metavar}`"
        else:
            names = [*parameter.opts, *parameter.secondary_opts]
            shown = ", ".join(f"`{name}`" for name in names)
        help_text = parameter.help or ""
        if parameter.envvar:
            help_text += f" Also from `{parameter.envvar}`."
        rows.append(f"| {shown} | {help_text} | {_default(parameter)} |")
    if rows:
        yield "\n".join(["| | | Default |", "| --- | --- | --- |", *rows]) + "\n"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or default in ("", (), []):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def settings_page() -> str:
    rows = [
        f"| `{field.name}` | {field.default:_} | {config.MEANINGS[field.name]} |"
        for field in msgspec.structs.fields(config.NodeConfig)
    ]
    return f"{MADE}\n{SETTINGS_HEAD}" + "\n".join(rows) + f"\n\n{SETTINGS_TAIL}"


METRICS_HEAD: Final = """\
# Metrics

What `GET /metrics` on a node's administration port (`kvorum serve --admin`) answers, for Prometheus
and whatever reads its formats. Everything is counted from the node's start on, and each node counts
what it does itself: sums over all nodes are those of the cluster. A request is counted where it is
coordinated; one that a node only forwards is in `kvorum_forwarded_total` there.

Beside these there are `process_*` (CPU, memory, open files) and `python_gc_*`, as the Python client
of Prometheus has them. [How to monitor a cluster](../how-to/monitor.md) says what to look at.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
"""


def metrics_page() -> str:
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} "
        f"| {one.meaning} |"
        for one in metrics.describe()
    ]
    return f"{MADE}\n{METRICS_HEAD}" + "\n".join(rows) + "\n"


def counters_page() -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in counters.MEANINGS.items()]
    return "\n".join(
        [
            MADE,
            "# Counters\n",
            "What each node counts from its start on; `kvorum status --counters` shows them, and",
            "`kvorum status --json` has them under each node.\n",
            "| Counter | Counts |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def points_page() -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in faults.POINTS.items()]
    return "\n".join(
        [
            MADE,
            "# Fault points\n",
            "Places in the code that the simulator can make fail (`kvorum simulate`). A node that",
            "serves never fails at one.\n",
            "| Point | What happens there |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
