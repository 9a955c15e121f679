"""Members and topologies for tests, made in one line."""

from collections.abc import Sequence

from kvorum.model.quorum import Durability
from kvorum.model.topology import ENTROPY_BYTES, Member, Topology, make_topology

ENTROPY = bytes(range(ENTROPY_BYTES))


def some_members(
    count: int, zones: Sequence[str] = ("",), weights: Sequence[int] = (1,)
) -> tuple[Member, ...]:
    """Return members 1..count named a, b, ..., over the zones and weights in turn."""
    return tuple(
        Member(
            id=index + 1,
            name=chr(ord("a") + index) if index < 26 else f"m{index + 1}",
            host="127.0.0.1",
            port=7401 + index,
            zone=zones[index % len(zones)],
            weight=weights[index % len(weights)],
        )
        for index in range(count)
    )


def some_topology(
    count: int = 3, n: int = 3, partitions: int = 8, zones: Sequence[str] = ("",)
) -> Topology:
    """Return a topology of ``count`` members that is the same in every run."""
    return make_topology(
        some_members(count, zones), n, partitions, ENTROPY, default_durability=Durability.ONE
    )
