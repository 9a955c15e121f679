"""What the nodes of a cluster say of themselves, what that means, and how JSON has it."""

from typing import Final

import msgspec

from kvorum.errors import KvorumError
from kvorum.model.merkle import LEAVES
from kvorum.model.topology import Topology
from kvorum.wire.messages import StatusAnswer

HINTS_OVERDUE: Final = 600_000_000  # microseconds that a hint may wait before people are told
Statuses = dict[str, StatusAnswer | KvorumError]


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
    found += [
        f"keeps the deletes of {partitions} partitions until {name} has answered"
        for name, partitions in answer.reaping_blocked.items()
    ]
    if answer.partitions_not_ready:
        found.append(f"serves nothing yet of {answer.partitions_not_ready} partitions it holds")
    if answer.partitions_behind:
        found.append(
            f"has yet to catch up in {answer.partitions_behind} partitions: it does not count for r"
        )
    if answer.leaves_stale:
        counted = 100 - 100 * answer.leaves_stale // LEAVES
        found.append(f"counts its records anew: {counted} % done")
    if answer.records_aside:
        found.append(f"has set {answer.records_aside} records aside: see kvorum aside list")
    found += [
        f"believes {peer.name} {peer.belief}, for {peer.believed_for // 1_000_000} s"
        for peer in answer.peers
        if peer.belief not in ("", "alive")
    ]
    found += [
        f"keeps {peer.hints} hints for {peer.name}, the oldest for "
        f"{peer.hints_waiting // 60_000_000} min"
        for peer in answer.peers
        if peer.hints_waiting >= HINTS_OVERDUE
    ]
    if answer.counters.get("quarantined"):
        found.append(f"has found {answer.counters['quarantined']} damaged records")
    return found


def beliefs_document(answer: StatusAnswer) -> dict[str, object]:
    """What one node believes of each other member, as gossip has told it."""
    return {
        peer.name: {
            "belief": peer.belief,
            "for_us": peer.believed_for,
            "incarnation": peer.incarnation,
        }
        for peer in answer.peers
    }


def status_document(topology: Topology, statuses: Statuses) -> dict[str, object]:
    """All nodes of a cluster, those that do not answer too."""
    return {
        "cluster": topology.cluster_id.hex(),
        "topology_epoch": topology.epoch,
        "n": topology.n,
        "partitions": len(topology.partitions),
        "partitions_by_owners_up": coverage_of(topology, statuses),
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
    values["operations"] = [msgspec.structs.asdict(one) for one in answer.operations]
    return {"answers": True, "problems": problems_of(answer), **values}
