"""The ring: who owns the partition of a key, answered at once.

An immutable view of one topology document. What every request asks stands ready in lists;
fallbacks, asked for when an owner is silent, are walked when they are first wanted and kept.
(Dynamo paper, sections 4.2, 4.3 and 6.2.)
"""

from typing import Final

from kvorum.model.hashing import partition_range, partition_shift
from kvorum.model.placement import walk_fallbacks
from kvorum.model.topology import Member, Topology

LISTED_FALLBACKS: Final = 3  # how many fallbacks may hold hints for a partition


class Ring:
    """Owners and fallbacks of every partition under one topology, which never changes."""

    __slots__ = (
        "_fallbacks",
        "_listed",
        "_members",
        "_owners",
        "_zones",
        "cluster_id",
        "epoch",
        "hash_key",
        "member_ids",
        "n",
        "partitions",
        "shift",
        "topology",
    )

    def __init__(self, topology: Topology, listed_fallbacks: int = LISTED_FALLBACKS) -> None:
        self.topology = topology
        self.cluster_id = topology.cluster_id
        self.hash_key = topology.hash_key
        self.epoch = topology.epoch
        self.n = topology.n
        self.partitions = len(topology.partitions)
        self.shift = partition_shift(self.partitions)
        members = sorted(topology.members, key=lambda member: member.id)
        self.member_ids = tuple(member.id for member in members)
        self._members = {member.id: member for member in members}
        self._zones = {member.id: member.zone for member in members}
        self._owners = [entry.owners for entry in topology.partitions]
        self._fallbacks: dict[int, tuple[int, ...]] = {}
        self._listed = listed_fallbacks

    def partition_of(self, position: bytes) -> int:
        """Return the partition of a ring position."""
        return (position[0] << 8 | position[1]) >> self.shift

    def partition_of_engine_key(self, key: bytes) -> int:
        return (key[1] << 8 | key[2]) >> self.shift

    def owners_of_engine_key(self, key: bytes) -> tuple[int, ...]:
        """Return the counting owners of a record, first owner first."""
        return self._owners[(key[1] << 8 | key[2]) >> self.shift]

    def owners(self, partition: int) -> tuple[int, ...]:
        """Return the counting owners of a partition, first owner first."""
        return self._owners[partition]

    def next_owners(self, partition: int) -> tuple[int, ...]:
        """Return who will own the partition when its move is done; empty while it stays."""
        return self.topology.partitions[partition].next_owners

    def partition_epoch(self, partition: int) -> int:
        """Return the topology epoch that last changed the partition's entry."""
        return self.topology.partitions[partition].epoch

    def is_owner(self, member: int, partition: int) -> bool:
        return member in self._owners[partition]

    def fallbacks(self, partition: int) -> tuple[int, ...]:
        """Return the listed fallbacks: who may stand in for an owner, in this order."""
        found = self._fallbacks.get(partition)
        if found is None:
            found = tuple(walk_fallbacks(self._owners, self._zones, partition, self._listed))
            self._fallbacks[partition] = found
        return found

    def preference_list(self, partition: int) -> tuple[int, ...]:
        """Return the owners, then the listed fallbacks."""
        return self._owners[partition] + self.fallbacks(partition)

    def partition_range(self, partition: int) -> tuple[bytes, bytes]:
        """Return the engine keys of a partition's records as (first included, end excluded)."""
        return partition_range(partition, self.shift)

    def partitions_of(self, member: int) -> list[int]:
        """Return the partitions that a member owns, in the order of the ring."""
        return [p for p, owners in enumerate(self._owners) if member in owners]

    def member(self, member: int) -> Member | None:
        return self._members.get(member)

    def member_named(self, name: str) -> Member | None:
        for member in self.topology.members:
            if member.name == name:
                return member
        return None
