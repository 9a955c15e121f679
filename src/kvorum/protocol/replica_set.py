"""The owners and listed fallbacks of a partition as one node sees them: bits, links, disks.

Coordinators keep every fact about them in bit masks over their places in the preference list,
owners first. What these masks are asked of is the same for all keys with the same preference
list, so it is worked out once for each and shared by all requests: there are no more of these
than partitions.
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
    """Another owner of the keys in question, or a listed fallback, and how to reach it."""

    __slots__ = ("bit", "large_link", "link", "member")

    def __init__(self, member: int, bit: int, link: Link, large_link: Link) -> None:
        self.member = member
        self.bit = bit
        self.link = link
        self.large_link = large_link

    @property
    def believed_alive(self) -> bool:
        return self.link.alive

    @property
    def rank(self) -> int:
        """How long it may take to answer, for sorting: microseconds, and far more if silent."""
        link = self.link
        if not link.connected:
            return link.latency.mean + GONE_RANK
        return link.latency.mean + SILENT_RANK if link.silent else link.latency.mean


class ReplicaSet:
    """One preference list. Bit i of a mask is its i-th member, first the owners."""

    __slots__ = (
        "_acks", "_env", "_names", "bits", "by_member", "copies", "epoch", "fallback_mask",
        "fallbacks", "listed", "me", "my_bit", "n", "others", "owner_mask", "owners", "standing_in",
        "stands_in", "volatile",
    )  # fmt: skip

    def __init__(
        self, env: Environment, copies: Copies, me: int, owners: tuple[int, ...], epoch: int,
        listed: tuple[int, ...] = (), hinted: Copies | None = None, stands_in: bool = False,
    ) -> None:  # fmt: skip
        """``listed`` are the fallbacks; ``hinted`` what we keep for owners, if we are one."""
        self.copies = copies  # our own
        self.owners = owners
        self.n = len(owners)
        self.listed = listed
        self.epoch = epoch
        self.me = me
        self.my_bit = 0  # of our copy as the coordinator of a request; 0: we have none
        self.bits: dict[int, int] = {}
        self.others: list[Owner] = []  # owners
        self.fallbacks: list[Owner] = []  # in the order in which they stand in
        self.by_member: dict[int, Owner] = {}  # both
        self.owner_mask = (1 << len(owners)) - 1
        self.fallback_mask = (1 << len(owners) + len(listed)) - 1 & ~self.owner_mask
        self.volatile = 0  # who keeps nothing on a disk
        # The same list as a fallback sees it that coordinates in an owner's stead; None for others.
        self.standing_in: ReplicaSet | None = None
        self.stands_in = stands_in
        self._env = env
        self._acks: dict[int, bytes] = {}
        self._names: dict[int, bytes] = {}
        for place, member in enumerate(owners + listed):
            bit = 1 << place
            self.bits[member] = bit
            is_owner = place < len(owners)
            if member == me:
                if is_owner or stands_in:
                    self.my_bit = bit
                elif hinted is not None:
                    self.standing_in = ReplicaSet(
                        env, hinted, me, owners, epoch, listed, stands_in=True
                    )
                continue
            other = Owner(member, bit, env.links[member], env.large_links[member])
            self.by_member[member] = other
            if is_owner:
                self.others.append(other)
            else:
                self.fallbacks.append(other)

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
            if owner.link.alive:
                mask |= owner.bit
        return mask

    def able_with_fallbacks(self) -> int:
        """``able``, and for each owner that is not the fallback that would stand in for it."""
        mask = self.able()
        missing = len(self.owners) - mask.bit_count()
        for fallback in self.fallbacks:
            if missing > 0 and self.takes_hints(fallback):
                mask |= fallback.bit
                missing -= 1
        return mask

    def takes_hints(self, fallback: Owner) -> bool:
        return fallback.believed_alive and fallback.link.hints_refused_until <= self._env.now

    @property
    def hints_refused(self) -> bool:
        """Whether some fallback that is alive has said that it has no room for hints."""
        now = self._env.now
        return any(
            fallback.link.connected and fallback.link.hints_refused_until > now
            for fallback in self.fallbacks
        )

    def route(self, sloppy: bool) -> list[int]:
        """Whom a node without a copy should try, the best last.

        Owners that are believed alive, the fastest first; where fallbacks may stand in, the
        listed ones in their order; and owners in which there is little hope.
        """
        ranked = self.ranked()
        alive = [owner.member for owner in ranked if owner.believed_alive]
        gone = [owner.member for owner in ranked if not owner.believed_alive]
        if sloppy:
            gone += [one.member for one in reversed(self.fallbacks) if one.believed_alive]
        return gone + alive

    def leads(self) -> bool:
        """Whether this fallback is the first of those believed alive, owners included."""
        if any(owner.believed_alive for owner in self.others):
            return False
        place = self.bits[self.me]
        return not any(one.bit < place and one.believed_alive for one in self.fallbacks)

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
                parts.append(pack_ack(owner, durable, 1 if bit & self.fallback_mask else 0))
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
        if self.standing_in is not None:
            self.standing_in.set_volatile(members)


class ReplicaSets:
    """The replica set of every partition, made when first asked for."""

    __slots__ = (
        "_copies", "_env", "_hinted", "_known", "_me", "_members", "_ring", "_shift",
        "by_partition",
    )  # fmt: skip

    def __init__(
        self, env: Environment, copies: Copies, hinted: Copies, ring: Ring, me: int,
        i_am_volatile: bool,
    ) -> None:  # fmt: skip
        self._env = env
        self._copies = copies
        self._hinted = hinted
        self._ring = ring
        self._me = me
        self._shift = ring.shift
        self.by_partition: list[ReplicaSet | None] = [None] * ring.partitions
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...], int], ReplicaSet] = {}
        self._members: dict[int, bool] = {me: i_am_volatile}

    def of(self, engine_key: bytes) -> ReplicaSet:
        partition = (engine_key[1] << 8 | engine_key[2]) >> self._shift
        found = self.by_partition[partition]
        return found if found is not None else self._make(partition)

    def _make(self, partition: int) -> ReplicaSet:
        owners = self._ring.owners(partition)
        epoch = self._ring.partition_epoch(partition)
        listed = self._ring.fallbacks(partition)
        replicas = self._known.get((owners, listed, epoch))
        if replicas is None:
            replicas = ReplicaSet(
                self._env, self._copies, self._me, owners, epoch, listed, self._hinted
            )
            replicas.set_volatile(self._members)
            self._known[(owners, listed, epoch)] = replicas
        self.by_partition[partition] = replicas
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
