"""What the page is told, again and again: short, since a cluster may have a hundred nodes."""

from typing import Any

from kvorum.admin.status import Statuses, beliefs_document, problems_of
from kvorum.counters import DURATION_BOUNDS, MEANINGS
from kvorum.errors import KvorumError
from kvorum.model.topology import Topology
from kvorum.server.environment import Event
from kvorum.wire.messages import StatusAnswer

PROBLEMS_SHOWN = 5


def about_document(name: str, software: str) -> dict[str, Any]:
    """What never changes while a node runs."""
    return {
        "node": name,
        "software": software,
        "counters": MEANINGS,
        "duration_bounds_us": DURATION_BOUNDS,
    }


def topology_document(topology: Topology) -> dict[str, Any]:
    """Members, and who owns each partition, as ids in the order of preference."""
    return {
        "cluster": topology.cluster_id.hex(),
        "epoch": topology.epoch,
        "n": topology.n,
        "members": [
            {
                "id": member.id,
                "name": member.name,
                "address": member.address,
                "zone": member.zone,
            }
            for member in topology.members
        ],
        "partitions": [entry.owners for entry in topology.partitions],
    }


def overview_document(
    topology: Topology, statuses: Statuses, own: StatusAnswer, wall: int
) -> dict[str, Any]:
    """How each node is, by name, and what each has counted. ``wall``: when, in microseconds.

    ``own``: of the node that tells this, for what it believes of the others.
    """
    return {
        "at_us": wall,
        "topology_epoch": topology.epoch,
        "believes": beliefs_document(own),
        "nodes": {name: _node(answer) for name, answer in statuses.items()},
    }


def _node(answer: StatusAnswer | KvorumError) -> dict[str, Any]:
    problems = problems_of(answer)
    if len(problems) > PROBLEMS_SHOWN:
        rest = len(problems) - PROBLEMS_SHOWN
        problems = [*problems[:PROBLEMS_SHOWN], f"and {rest} more like these"]
    if isinstance(answer, KvorumError):
        return {"answers": False, "problems": problems}
    return {
        "answers": True,
        "problems": problems,
        "writable": answer.writable,
        "engine": answer.engine,
        "volatile": answer.volatile,
        "software": answer.software,
        "uptime_us": answer.uptime,
        "start_count": answer.start_count,
        "partitions_owned": answer.partitions_owned,
        "in_flight": answer.in_flight,
        "overlay_bytes": answer.overlay_bytes,
        "queued_bytes": sum(peer.queued_bytes for peer in answer.peers),
        "clock_offset_us": answer.clock_offset,
        "counters": answer.counters,
        "operations": [
            [one.table, one.operation, one.refused, one.unknown, one.durations]
            for one in answer.operations
        ],
    }


def event_document(event: Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "at_us": event.wall,
        "warning": event.warning,
        "name": event.name,
        "detail": {key: _shown(value) for key, value in event.detail.items()},
    }


def _shown(value: object) -> str | int | bool:
    return value if isinstance(value, str | int | bool) else str(value)
