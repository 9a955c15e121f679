"""Who should own what: a plan that is balanced by weight, in every zone, and after any one loss.

The paper leaves placement at "Q/S tokens per node" (Dynamo, section 6.2). A plan here fixes the
owners of every partition such that

- the owners of one partition are distinct members, in zones as different as zones allow;
- every member holds its fair share (shares.py) to the replica, and is first owner of its share;
- two members share about as many partitions as any other two, so that the reads of a lost
  member spread evenly; but nobody shares with more than ``PEER_LIMIT`` others, because each
  further set of owners is one more way in which three lost disks lose data;
- what a member should have taken is spread over the cluster too while it is away, because the
  first fallback of a partition is found among the owners of the next ones along the ring.

It is a pure function of its arguments, in integers: the same members give the same plan
anywhere. It does not know an earlier plan; moving few bytes is the affair of whoever changes one.
"""

from collections.abc import Mapping, Sequence
from operator import add
from typing import TYPE_CHECKING, Final

from kvorum.model.shares import ZoneShare, fair_shares, share_zones

if TYPE_CHECKING:
    from kvorum.model.topology import Member

PEER_LIMIT: Final = 32

_PAIR: Final = 1 << 24  # what it costs two members of average share to meet once
_STRANGERS: Final = 1 << 44
_TAKEN: Final = 1 << 60
_STEP: Final = 1 << 8  # one partition more or less, when owners are put in order
_LAG: Final = 1 << 25  # what one replica of lag behind its share is worth to a member


def plan_placement(
    members: "Sequence[Member]", n: int, partitions: int
) -> tuple[tuple[int, ...], ...]:
    """Return the owners of every partition as member ids, first owner first."""
    assert 1 <= n <= len(members), "a partition cannot have more owners than there are members"
    ordered = sorted(members, key=lambda member: member.id)
    zones = [member.zone for member in ordered]
    planner = _Planner(zones, [member.weight for member in ordered], n, partitions)
    chosen = planner.choose_all()
    ids = [member.id for member in ordered]
    placement = _order_owners(chosen, planner.targets, zones)
    return tuple(tuple(ids[m] for m in owners) for owners in placement)


class _Planner:
    """Chooses the owners of one partition after the other, by index, and never goes back.

    Every zone and every member has a quota. Whoever has as much left as there are partitions
    left must be taken; whoever has nothing left cannot be. Both can always be obeyed, so the
    quotas come out exactly; what is free beyond that goes by cost.
    """

    def __init__(
        self, zones: Sequence[str], weights: Sequence[int], n: int, partitions: int
    ) -> None:
        self.partitions = partitions
        self.zones, self.targets = fair_shares(zones, weights, n, partitions)
        self.zone_of = zones
        _, self.remainder = share_zones(zones, n)
        self.left = list(self.targets)
        self.extras_left = [z.replicas - z.low * partitions for z in self.zones]
        self.extras = list(self.extras_left)
        size = len(zones)
        mean = max(1, n * partitions // size)
        # Two large members must meet more often than two small ones, so each meeting of theirs
        # costs less.
        self.meeting = [
            [_PAIR * mean * mean // max(1, a * b) for b in self.targets] for a in self.targets
        ]
        self.met = _strangers(zones, self.zones)  # what the next meeting of each pair costs

    def choose_all(self) -> list[list[int]]:
        return [self._choose(partition) for partition in range(self.partitions)]

    def _choose(self, partition: int) -> list[int]:
        remaining = self.partitions - partition
        bearing = self._bearing_zones(partition, remaining)
        chosen: list[int] = []
        cost = [0] * len(self.left)
        # Zones take turns at going first, so that none always finds the choice made already.
        count = len(self.zones)
        for turn in range(count):
            index = (partition + turn) % count
            zone = self.zones[index]
            wanted = zone.low + (1 if index in bearing else 0)
            self._choose_in_zone(zone, wanted, partition, remaining, cost, chosen)
        for member in chosen:
            self.left[member] -= 1
        return chosen

    def _bearing_zones(self, partition: int, remaining: int) -> dict[int, None]:
        """Return the zones that bear the remainder for this partition."""
        order = []
        for index, left in enumerate(self.extras_left):
            if left > 0:
                lag = left * self.partitions - self.extras[index] * remaining
                urgent = 0 if left == remaining else 1
                order.append((urgent, -lag, _mix(partition, index), index))
        order.sort()
        bearing = {entry[3]: None for entry in order[: self.remainder]}
        for index in bearing:
            self.extras_left[index] -= 1
        return bearing

    def _choose_in_zone(
        self,
        zone: ZoneShare,
        wanted: int,
        partition: int,
        remaining: int,
        cost: list[int],
        chosen: list[int],
    ) -> None:
        """Add ``wanted`` members of a zone to ``chosen``; ``cost`` is kept up to date."""
        urgent = [m for m in zone.members if self.left[m] == remaining]
        for _ in range(wanted):
            best = urgent.pop() if urgent else self._cheapest(zone, partition, remaining, cost)
            cost[best] += _TAKEN
            for other in chosen:
                self._meet(best, other)
            cost[:] = map(add, cost, self.met[best])
            chosen.append(best)

    def _cheapest(self, zone: ZoneShare, partition: int, remaining: int, cost: list[int]) -> int:
        best = -1
        best_cost = 0
        for member in zone.members:
            left = self.left[member]
            if left == 0:
                continue
            # How far the member is behind its share of the partitions gone by.
            lag = left - self.targets[member] * remaining // self.partitions
            price = cost[member] - lag * _LAG + _mix(partition, member)
            if best < 0 or price < best_cost:
                best = member
                best_cost = price
        return best

    def _meet(self, one: int, other: int) -> None:
        self.met[one][other] += self.meeting[one][other]
        self.met[other][one] += self.meeting[one][other]


def _strangers(zones: Sequence[str], shares: Sequence[ZoneShare]) -> list[list[int]]:
    """Return a table that keeps members apart that shall have no partition in common.

    All members stand in a circle, every zone spread evenly around it, and only those within
    half of ``PEER_LIMIT`` places of each other share partitions. Neighbours of neighbours are
    mostly neighbours too, so any number of owners can be found among them.
    """
    size = len(zones)
    place = [0] * size
    for share in shares:
        for rank, member in enumerate(share.members):
            place[member] = rank * size * size // len(share.members)
    circle = size * size
    reach = PEER_LIMIT * size // 2
    table = [[0] * size for _ in range(size)]
    for one in range(size):
        for other in range(size):
            distance = abs(place[one] - place[other])
            if min(distance, circle - distance) > reach:
                table[one][other] = _STRANGERS
    return table


def _order_owners(
    chosen: list[list[int]], targets: list[int], zone_of: Sequence[str]
) -> list[list[int]]:
    """Order the owners of each partition, so that first places and stand-ins are spread evenly.

    The first of a partition's owners is usually the first fallback of the partition before.
    """
    size = len(targets)
    mean = sum(targets) // size + 1
    worth = [mean * _STEP // max(1, target) for target in targets]
    firsts = [0] * size
    stood_in = [[0] * size for _ in range(size)]  # lost owner -> stand-in -> partitions
    ordered: list[list[int]] = []
    before = chosen[-1]
    for partition, owners in enumerate(chosen):
        able = _able_to_stand_in(owners, before, zone_of)
        prices = []
        for member in owners:
            price = firsts[member]
            if member in able:
                for lost in before:
                    price += stood_in[lost][member]
            prices.append((price * worth[member], _mix(member, partition), member))
        prices.sort()
        order = [entry[2] for entry in prices]
        firsts[order[0]] += 1
        for member in order:
            if member in able:
                for lost in before:
                    stood_in[lost][member] += 1
                break
        ordered.append(order)
        before = owners
    _level_firsts(ordered, firsts, targets)
    return ordered


def _able_to_stand_in(owners: list[int], before: list[int], zone_of: Sequence[str]) -> list[int]:
    """Return which owners of a partition the walk would take for the partition before it."""
    strangers = [member for member in owners if member not in before]
    taken = [zone_of[member] for member in before]
    fewest = min([taken.count(zone_of[member]) for member in strangers], default=0)
    return [member for member in strangers if taken.count(zone_of[member]) == fewest]


def _level_firsts(ordered: list[list[int]], firsts: list[int], targets: list[int]) -> None:
    """Pass first places on, from members with too many along chains to those with room."""
    n = len(ordered[0])
    quotas = [target // n for target in targets]
    heads: list[list[int]] = [[] for _ in targets]  # the partitions each member is first in
    for partition, order in enumerate(ordered):
        heads[order[0]].append(partition)
    # First nobody keeps more than one above its quota, which can always be had; then nobody is
    # left below it while a chain leads there from one above.
    for surplus in (1, 0):
        for start in range(len(targets)):
            while firsts[start] > quotas[start] + surplus:
                wanted = [quota + surplus for quota in quotas]
                chain = _chain_down(start, ordered, heads, firsts, wanted)
                if not chain:
                    break
                for partition, giver, taker in chain:
                    order = ordered[partition]
                    at = order.index(taker)
                    order[0], order[at] = taker, giver
                    heads[giver].remove(partition)
                    heads[taker].append(partition)
                firsts[start] -= 1
                firsts[chain[0][2]] += 1


def _chain_down(
    start: int,
    ordered: list[list[int]],
    heads: list[list[int]],
    firsts: list[int],
    wanted: list[int],
) -> list[tuple[int, int, int]]:
    """Find the shortest chain of gifts from ``start`` to a member with room, last gift first."""
    gift_to: dict[int, tuple[int, int, int]] = {start: (-1, -1, -1)}
    queue = [start]
    for giver in queue:  # It grows as the search goes on.
        for partition in heads[giver]:
            for taker in ordered[partition]:
                if taker in gift_to:
                    continue
                gift_to[taker] = (partition, giver, taker)
                if firsts[taker] < wanted[taker]:
                    chain = []
                    while taker != start:
                        chain.append(gift_to[taker])
                        taker = gift_to[taker][1]
                    return chain
                queue.append(taker)
    return []


def walk_fallbacks(
    owners: Sequence[Sequence[int]], zone_of: Mapping[int, str], partition: int, limit: int
) -> list[int]:
    """Return up to ``limit`` fallbacks of a partition, the first to stand in first.

    The walk goes along the ring and takes the owners of the next partitions as it meets them,
    first those in zones with the fewest nodes of the list so far. (Dynamo paper, section 4.3.)
    """
    taken = dict.fromkeys(owners[partition])
    in_zone: dict[str, int] = dict.fromkeys(zone_of.values(), 0)
    free = dict(in_zone)  # members of each zone that are not in the list yet
    for member, zone in zone_of.items():
        if member in taken:
            in_zone[zone] += 1
        else:
            free[zone] += 1
    fallbacks: list[int] = []
    count = len(owners)
    while len(fallbacks) < limit and len(taken) < len(zone_of):
        least = min(in_zone[zone] for zone in in_zone if free[zone])
        found = 0
        for step in range(1, count):
            for member in owners[(partition + step) % count]:
                zone = zone_of[member]
                if member not in taken and in_zone[zone] == least:
                    found = member
                    break
            if found:
                break
        if not found:  # Nobody of these zones owns anything: the lowest id goes first.
            found = min(
                member
                for member, zone in zone_of.items()
                if member not in taken and in_zone[zone] == least
            )
        taken[found] = None
        fallbacks.append(found)
        in_zone[zone_of[found]] += 1
        free[zone_of[found]] -= 1
    return fallbacks


def _mix(a: int, b: int) -> int:
    """Return a number below 2**16 that looks random, to break ties without a pattern."""
    x = (a * 0x9E3779B1 + b * 0x85EBCA6B + 0x27D4EB2F) & 0xFFFFFFFF
    x = ((x ^ x >> 15) * 0x2C1B3C6D) & 0xFFFFFFFF
    return (x ^ x >> 13) >> 8 & 0xFFFF
