"""The owners of a partition as one node sees them: bits, links, and who has no disk.

Coordinators keep every fact about owners in bit masks over their places in the preference list.
What these masks are asked of is the same for all keys with the same owners, so it is worked out
once per set of owners and shared by all requests: there are no more of these than partitions.
"""

from typing import Final

from kvorum.model.ring import Ring
from kvorum.protocol.environment import Environment
from kvorum.protocol.ports import Copies
from kvorum.wire.link import Link
from kvorum.wire.requests import LEVEL_DISK, LEVEL_MEMORY, LEVEL_OS, pack_ack

SILENT_RANK: Final = 1 << 40  # ranks a silent peer behind all that answer
GONE_RANK: Final = 1 << 41
CACHED_MAX: Final = 4096  # encoded answers kept for one set of owners


class Owner:
    """Another owner of the keys in question, and how to reach it."""

    __slots__ = ("bit", "large_link", "link", "member")

    def __init__(self, member: int, bit: int, link: Link, large_link: Link) -> None:
        self.member = member
        self.bit = bit
        self.link = link
        self.large_link = large_link

    @property
    def rank(self) -> int:
        """How long it may take to answer, for sorting: microseconds, and far more if silent."""
        link = self.link
        if not link.connected:
            return link.latency.mean + GONE_RANK
        return link.latency.mean + SILENT_RANK if link.silent else link.latency.mean


class ReplicaSet:
    """One set of owners. Bit i of a mask is the i-th owner."""

    __slots__ = (
        "_acks", "_names", "bits", "by_member", "copies", "epoch", "me", "my_bit", "others",
        "owners", "volatile",
    )  # fmt: skip

    def __init__(
        self, env: Environment, copies: Copies, me: int, owners: tuple[int, ...], epoch: int
    ) -> None:
        self.copies = copies  # our own
        self.owners = owners
        self.epoch = epoch
        self.me = me
        self.my_bit = 0  # 0: this node is no owner
        self.bits: dict[int, int] = {}
        self.others: list[Owner] = []
        self.by_member: dict[int, Owner] = {}  # the same
        self.volatile = 0  # owners that keep nothing on a disk
        self._acks: dict[int, bytes] = {}
        self._names: dict[int, bytes] = {}
        for place, owner in enumerate(owners):
            bit = 1 << place
            self.bits[owner] = bit
            if owner == me:
                self.my_bit = bit
            else:
                other = Owner(owner, bit, env.links[owner], env.large_links[owner])
                self.others.append(other)
                self.by_member[owner] = other

    def ranked(self) -> list[Owner]:
        """The other owners, the one believed fastest last: they are taken from the end."""
        others = self.others
        if len(others) == 2:
            first, second = others
            one, two = first.link, second.link
            if one.connected and two.connected and not one.silent and not two.silent:
                if one.latency.mean <= two.latency.mean:
                    return [second, first]
                return [first, second]
        return sorted(others, key=_rank_of, reverse=True)

    def able(self) -> int:
        """The owners believed alive: ourselves, and whoever is connected and not mute.

        Silence beyond the adaptive timeout is not enough: on a busy machine it comes and goes,
        and a put that waits for it is better than one that is refused.
        """
        mask = self.my_bit
        for owner in self.others:
            link = owner.link
            if link.connected and not link.mute:
                mask |= owner.bit
        return mask

    def acks(self, acked: int, on_disk: int, level: int) -> bytes:
        """Who holds a write and how durably, as it stands in the answer to a put.

        ``level`` is that of acks without a durability mark.
        """
        cached = acked << 32 | on_disk << 2 | level
        encoded = self._acks.get(cached)
        if encoded is not None:
            return encoded
        parts: list[bytes] = []
        for owner, bit in self.bits.items():
            if acked & bit:
                if on_disk & bit:
                    durable = LEVEL_DISK
                elif self.volatile & bit:
                    durable = LEVEL_MEMORY
                else:
                    durable = level
                parts.append(pack_ack(owner, durable, 0))
        encoded = b"".join(parts)
        if len(self._acks) < CACHED_MAX:
            self._acks[cached] = encoded
        return encoded

    def names(self, answered: int) -> bytes:
        """Which replicas a get was answered from, as it stands in its answer."""
        encoded = self._names.get(answered)
        if encoded is not None:
            return encoded
        parts = [owner.to_bytes(2, "little") for owner, bit in self.bits.items() if answered & bit]
        encoded = b"".join(parts)
        if len(self._names) < CACHED_MAX:
            self._names[answered] = encoded
        return encoded

    def set_volatile(self, members: dict[int, bool]) -> None:
        """Learn who keeps nothing on a disk."""
        volatile = 0
        for owner, bit in self.bits.items():
            if members.get(owner, False):
                volatile |= bit
        self.volatile = volatile
        self._acks.clear()


class ReplicaSets:
    """The replica set of every partition, made when first asked for."""

    __slots__ = (
        "_by_partition", "_copies", "_env", "_known", "_me", "_members", "_ring", "_shift",
    )  # fmt: skip

    def __init__(
        self, env: Environment, copies: Copies, ring: Ring, me: int, i_am_volatile: bool
    ) -> None:
        self._env = env
        self._copies = copies
        self._ring = ring
        self._me = me
        self._shift = ring.shift
        self._by_partition: list[ReplicaSet | None] = [None] * ring.partitions
        self._known: dict[tuple[tuple[int, ...], int], ReplicaSet] = {}
        self._members: dict[int, bool] = {me: i_am_volatile}

    def of(self, engine_key: bytes) -> ReplicaSet:
        partition = (engine_key[1] << 8 | engine_key[2]) >> self._shift
        found = self._by_partition[partition]
        return found if found is not None else self._make(partition)

    def _make(self, partition: int) -> ReplicaSet:
        owners = self._ring.owners(partition)
        epoch = self._ring.partition_epoch(partition)
        replicas = self._known.get((owners, epoch))
        if replicas is None:
            replicas = ReplicaSet(self._env, self._copies, self._me, owners, epoch)
            replicas.set_volatile(self._members)
            self._known[(owners, epoch)] = replicas
        self._by_partition[partition] = replicas
        return replicas

    def learn_volatile(self, member: int, volatile: bool) -> None:
        """A member has said whether it keeps anything on a disk."""
        if self._members.get(member, False) == volatile:
            return
        self._members[member] = volatile
        for replicas in self._known.values():
            replicas.set_volatile(self._members)


def _rank_of(owner: Owner) -> int:
    return owner.rank


assert LEVEL_OS == 1
