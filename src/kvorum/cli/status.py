"""``kvorum status``: what each node says of itself, and what that means for the partitions."""

from typing import Annotated

import typer
from rich.text import Text

from kvorum.admin.repairs import hints_owed
from kvorum.admin.status import Statuses, coverage_of, problems_of, status_document
from kvorum.cli.options import Json, Nodes
from kvorum.cli.output import Output, duration_text, size_text
from kvorum.cli.settings import DEFAULT_NODES, connect_to
from kvorum.counters import MEANINGS
from kvorum.errors import KvorumError
from kvorum.model.topology import Topology
from kvorum.wire.messages import UNEQUAL, StatusAnswer


def status(
    counters: Annotated[
        bool, typer.Option("--counters", help="Show what each node has counted since its start.")
    ] = False,
    members: Annotated[
        bool, typer.Option("--members", help="Show what each node believes of each other one.")
    ] = False,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Show the nodes of the cluster, its partitions and versions.

    A node that does not answer is shown with the reason; the exit code is 0 if any answers.
    """
    out = Output(as_json)
    with connect_to(nodes) as client:
        statuses = client.statuses()
        topology = client.topology
    if as_json:
        out.json(status_document(topology, statuses))
        return
    coverage = coverage_of(topology, statuses)
    out.table(
        [
            "node", "address", "state", "up for", ">partitions", "engine", ">in flight",
            ">overlay", ">clock off", "version",
        ],
        [_row(topology, index, statuses[member.name])
         for index, member in enumerate(topology.members)],
    )  # fmt: skip
    out.line(
        f"cluster {topology.cluster_id.hex()}, topology epoch {topology.epoch}, n={topology.n}; "
        f"{len(topology.partitions)} partitions: " + _coverage_text(topology, coverage)
    )
    _show_hints(out, statuses)
    for name, answer in statuses.items():
        for problem in problems_of(answer):
            out.note(f"{name}: {problem}")
    if members:
        _show_members(out, statuses)
    if counters:
        _show_counters(out, statuses)


def _coverage_text(topology: Topology, coverage: list[int]) -> str:
    parts = []
    for owners in range(topology.n, -1, -1):
        if coverage[owners]:
            whole = "all" if owners == topology.n else str(owners)
            parts.append(f"{coverage[owners]} with {whole} of {topology.n} owners up")
    return ", ".join(parts)


def _row(topology: Topology, index: int, answer: StatusAnswer | KvorumError) -> list[str | Text]:
    member = topology.members[index]
    if isinstance(answer, KvorumError):
        return [member.name, member.address, Text("no answer", style="bold red"), *[""] * 7]
    state = Text("up", style="green")
    if not answer.writable:
        state = Text("takes no writes", style="bold red")
    elif problems_of(answer):
        state = Text("up, see below", style="yellow")
    return [
        member.name,
        member.address,
        state,
        duration_text(answer.uptime),
        str(answer.partitions_owned),
        answer.engine + (" (volatile)" if answer.volatile else ""),
        str(answer.in_flight),
        size_text(answer.overlay_bytes),
        f"{answer.clock_offset / 1000:.1f} ms",
        answer.software.removeprefix("kvorum "),
    ]


def _show_hints(out: Output, statuses: Statuses) -> None:
    """Who keeps what for whom; nothing at all where nobody does."""
    rows: list[list[str | Text]] = [
        [one.keeper, one.owner, str(one.hints), size_text(one.size), duration_text(one.waiting)]
        for one in hints_owed(statuses)
    ]
    if rows:
        out.table(["node", "keeps for", ">hints", ">size", ">oldest"], rows)


def _show_members(out: Output, statuses: Statuses) -> None:
    out.table(
        [
            "node", "of", "believes", ">for", ">incarnation", "connected", ">answers in",
            ">equal for",
        ],
        [
            [
                name,
                peer.name,
                peer.belief,
                duration_text(peer.believed_for),
                str(peer.incarnation),
                "yes" if peer.connected else "no",
                f"{peer.latency_mean / 1000:.1f} ms" if peer.connected else "",
                _equality_text(peer.equal_for),
            ]
            for name, answer in statuses.items()
            if isinstance(answer, StatusAnswer)
            for peer in answer.peers
        ],
    )  # fmt: skip


def _equality_text(equal_for: int) -> str:
    if equal_for == UNEQUAL:
        return "not"
    return duration_text(equal_for) if equal_for >= 0 else "unknown"


def _show_counters(out: Output, statuses: Statuses) -> None:
    answers = {name: one for name, one in statuses.items() if isinstance(one, StatusAnswer)}
    names = dict.fromkeys(name for one in answers.values() for name in one.counters)
    out.table(
        ["counter", *[f">{name}" for name in answers], "meaning"],
        [
            [
                counter,
                *[str(one.counters.get(counter, "")) for one in answers.values()],
                MEANINGS.get(counter, ""),
            ]
            for counter in names
        ],
    )
