"""``kvorum status``: what each node says of itself, and what that means for the partitions."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from kvorum.cli.options import Json, Nodes
from kvorum.cli.output import Output, duration_text, size_text
from kvorum.cli.settings import DEFAULT_NODES, connect_to
from kvorum.counters import MEANINGS
from kvorum.errors import KvorumError
from kvorum.model.topology import Topology
from kvorum.wire.messages import StatusAnswer

Statuses = dict[str, StatusAnswer | KvorumError]


def status(
    counters: Annotated[
        bool, typer.Option("--counters", help="Show what each node has counted since its start.")
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
    coverage = coverage_of(topology, statuses)
    if as_json:
        out.json(_document(topology, statuses, coverage))
        return
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
    for name, answer in statuses.items():
        for problem in problems_of(answer):
            out.note(f"{name}: {problem}")
    if counters:
        _show_counters(out, statuses)


def coverage_of(topology: Topology, statuses: Statuses) -> list[int]:
    """How many partitions have 0, 1, ... n owners that answer and take writes."""
    up = {
        member.id: None
        for member in topology.members
        if isinstance(answer := statuses[member.name], StatusAnswer) and answer.writable
    }
    counts = [0] * (topology.n + 1)
    for entry in topology.partitions:
        counts[sum(owner in up for owner in entry.owners)] += 1
    return counts


def _coverage_text(topology: Topology, coverage: list[int]) -> str:
    parts = []
    for owners in range(topology.n, -1, -1):
        if coverage[owners]:
            whole = "all" if owners == topology.n else str(owners)
            parts.append(f"{coverage[owners]} with {whole} of {topology.n} owners up")
    return ", ".join(parts)


def problems_of(answer: StatusAnswer | KvorumError) -> list[str]:
    """What a person should know of a node, a sentence each."""
    if isinstance(answer, KvorumError):
        return [str(answer)]
    found = []
    if not answer.writable:
        found.append(f"takes no writes: {answer.unwritable_reason}")
    found += [f"is not connected to {peer.name}" for peer in answer.peers if not peer.connected]
    found += [
        f"gets no answers from {peer.name}"
        for peer in answer.peers
        if peer.connected and peer.silent
    ]
    if answer.counters.get("quarantined"):
        found.append(f"has found {answer.counters['quarantined']} damaged records")
    return found


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


def _document(topology: Topology, statuses: Statuses, coverage: list[int]) -> dict[str, object]:
    return {
        "cluster": topology.cluster_id.hex(),
        "topology_epoch": topology.epoch,
        "n": topology.n,
        "partitions": len(topology.partitions),
        "partitions_by_owners_up": coverage,
        "nodes": {
            member.name: {
                "id": member.id,
                "address": member.address,
                "zone": member.zone,
                **_node_document(statuses[member.name]),
            }
            for member in topology.members
        },
    }


def _node_document(answer: StatusAnswer | KvorumError) -> dict[str, object]:
    if isinstance(answer, KvorumError):
        return {"answers": False, "error": str(answer)}
    values = msgspec.structs.asdict(answer)
    del values["request"], values["member"], values["name"]
    values["cluster_id"] = answer.cluster_id.hex()
    values["store_id"] = answer.store_id.hex()
    values["peers"] = [msgspec.structs.asdict(peer) for peer in answer.peers]
    return {"answers": True, "problems": problems_of(answer), **values}
