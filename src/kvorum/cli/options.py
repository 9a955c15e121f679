"""Options that several commands share, declared once."""

from enum import StrEnum
from typing import Annotated

import typer

from kvorum.cli.settings import NODES_VARIABLE

Nodes = Annotated[
    str,
    typer.Option(
        "--nodes",
        "-N",
        envvar=NODES_VARIABLE,
        metavar="HOST:PORT,...",
        help="Nodes of the cluster to talk to; one is enough.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key, as UTF-8.")]
TableName = Annotated[str, typer.Option("--table", "-t", metavar="NAME", help="The table.")]
SortKey = Annotated[
    str, typer.Option("--sort-key", metavar="KEY", help="The sort key below the key, if any.")
]
HexKey = Annotated[bool, typer.Option("--hex-key", help="KEY and --sort-key are hexadecimal.")]
Via = Annotated[
    bool,
    typer.Option("--via", help="Let the nodes of --nodes coordinate, owners of the key or not."),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long an answer may take."),
]
R = Annotated[
    int | None, typer.Option("--r", min=1, help="Answers that a get needs; else the table's.")
]
W = Annotated[
    int | None, typer.Option("--w", min=1, help="Acks that a put needs; else the table's.")
]
Sloppy = Annotated[
    bool | None,
    typer.Option("--sloppy/--strict", help="Whether fallbacks may count; else the table's."),
]


class DurabilityChoice(StrEnum):
    """How many of the acks must be on disk."""

    none = "none"
    one = "one"
    quorum = "quorum"
    all = "all"


class ResolutionChoice(StrEnum):
    """What becomes of concurrent writes."""

    siblings = "siblings"
    lww = "lww"


class EngineChoice(StrEnum):
    """Where a node keeps its data."""

    lmdb = "lmdb"
    memory = "memory"


Durability = Annotated[
    DurabilityChoice | None,
    typer.Option("--durability", help="How many of the acks must be on disk; else the table's."),
]

HttpAddress = Annotated[
    str | None,
    typer.Option(
        "--http",
        metavar="HOST[:PORT]",
        help="Serve the HTTP API there, on port 7480 if none is given.",
    ),
]
AdminAddress = Annotated[
    str | None,
    typer.Option(
        "--admin",
        metavar="HOST[:PORT]",
        help="Serve health, metrics and the admin page there, on port 7490 if none is given.",
    ),
]
HttpPort = Annotated[
    int | None,
    typer.Option(
        "--http-port",
        min=0,
        max=65535,
        help="The first node's port for HTTP; 0: none have one. By default 80 above --port.",
    ),
]
AdminPort = Annotated[
    int | None,
    typer.Option(
        "--admin-port",
        min=0,
        max=65535,
        help="The first node's administration port; 0: none have one. By default 90 above --port.",
    ),
]
