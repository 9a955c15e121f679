"""``kvorum init``: write the first topology of a cluster, and show how good its placement is."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from kvorum.cli.options import DurabilityChoice, Json
from kvorum.cli.output import Output
from kvorum.errors import SettingsInvalid
from kvorum.model.placement_report import PlacementReport, judge_placement
from kvorum.model.topology import (
    DEFAULT_N,
    DEFAULT_PARTITIONS,
    ENTROPY_BYTES,
    Topology,
    durability_from_text,
    encode_topology,
    make_topology,
    member_from_text,
)

USUAL_QUORUM: Final = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What a new cluster's documents say apart from its members."""

    n: int | None
    partitions: int
    r: int
    w: int
    durability: str


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The topology file to write.")],
    node: Annotated[
        list[str],
        typer.Option(
            "--node",
            metavar="NAME=HOST:PORT[,zone=Z][,weight=N]",
            help="A member; give it once for each.",
        ),
    ],
    n: Annotated[
        int | None, typer.Option(help="Copies of every record; 3, or all members if fewer.")
    ] = None,
    partitions: Annotated[
        int, typer.Option(help="Equal parts of the ring, a power of two, fixed for ever.")
    ] = DEFAULT_PARTITIONS,
    r: Annotated[int, typer.Option("--r", help="r of the default table.")] = USUAL_QUORUM,
    w: Annotated[int, typer.Option("--w", help="w of the default table.")] = USUAL_QUORUM,
    durability: Annotated[
        DurabilityChoice, typer.Option(help="How many acks of the default table are on disk.")
    ] = DurabilityChoice.one,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    as_json: Json = False,
) -> None:
    """Write the topology of a new cluster: its members, and who owns which partitions.

    Every node of the cluster is started with a copy of this file. A new file is a new cluster:
    data directories of another one are refused.
    """
    if r < 1 or w < 1:
        raise SettingsInvalid("--r and --w must be at least 1")
    topology = new_topology(node, Shape(n, partitions, r, w, durability.value))
    try:
        with file.open("wb" if force else "xb") as stream:
            stream.write(encode_topology(topology))
    except FileExistsError:
        raise SettingsInvalid(
            f"{file} exists; a new topology makes a new cluster. Overwrite it with --force"
        ) from None
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}") from None
    out = Output(as_json)
    placement = [entry.owners for entry in topology.partitions]
    show(out, file, topology, judge_placement(topology.members, placement, topology.n))


def new_topology(nodes: list[str], shape: Shape) -> Topology:
    """The first epoch of a cluster of members given as ``NAME=HOST:PORT...``."""
    members = tuple(member_from_text(text, index) for index, text in enumerate(nodes, 1))
    return make_topology(
        members,
        min(DEFAULT_N, len(members)) if shape.n is None else shape.n,
        shape.partitions,
        os.urandom(ENTROPY_BYTES),
        shape.r,
        shape.w,
        durability_from_text(shape.durability),
    )


def show(out: Output, file: Path, topology: Topology, report: PlacementReport) -> None:
    if out.as_json:
        members = [msgspec.structs.asdict(member) for member in topology.members]
        out.json(
            {
                "file": str(file),
                "cluster": topology.cluster_id.hex(),
                "n": topology.n,
                "partitions": len(topology.partitions),
                "members": members,
                "placement": msgspec.to_builtins(report),
            }
        )
        return
    out.table(
        ["node", "address", "zone", ">weight", ">partitions", ">first owner of"],
        [
            [
                share.name,
                member.address,
                member.zone,
                str(share.weight),
                str(share.replicas),
                str(share.firsts),
            ]
            for member, share in zip(
                sorted(topology.members, key=lambda member: member.id), report.shares, strict=True
            )
        ],
    )
    out.line(
        f"{file}: cluster {topology.cluster_id.hex()}, n={topology.n}, "
        f"{len(topology.partitions)} partitions; balance {report.efficiency:.2f}, after the loss "
        f"of any one node {report.after_loss:.2f}"
    )
    if report.zone_violations:
        out.note(f"{report.zone_violations} partitions have owners in fewer zones than there are")
