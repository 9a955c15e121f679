"""How many replicas each member should hold, before anything is said about which.

Each member gets a share by its weight, as far as two rules let it: no member holds a partition
twice, and the owners of a partition stand in zones as different as can be. The second rule is
kept level by level: no zone holds two owners of a partition while another zone that has a
member to spare holds none, none holds three while another holds one, and so on.

Integers throughout, so that every machine computes the same plan.
"""

from collections.abc import Callable, Sequence
from typing import Final

UNIT: Final = 1 << 32  # one replica, in the fixed-point numbers of this module


class ZoneShare:
    """One zone of the cluster and what it is to hold.

    Of each partition it holds ``low`` owners, or ``low + 1`` if it is one of those that bear
    the remainder (then ``high`` is ``low + 1``).
    """

    __slots__ = ("high", "low", "members", "replicas", "zone")

    def __init__(self, zone: str, members: list[int], low: int, high: int) -> None:
        self.zone = zone
        self.members = members  # indices
        self.low = low
        self.high = high
        self.replicas = 0


def share_zones(zones: Sequence[str], n: int) -> tuple[list[ZoneShare], int]:
    """Return the zones in order of name, and how many of each partition bear the remainder."""
    by_zone: dict[str, list[int]] = {}
    for index, zone in enumerate(zones):
        by_zone.setdefault(zone, []).append(index)
    level = 0
    while level < n and sum(min(level + 1, len(each)) for each in by_zone.values()) <= n:
        level += 1
    shares = [
        ZoneShare(zone, by_zone[zone], min(level, len(by_zone[zone])), 0)
        for zone in sorted(by_zone)
    ]
    for share in shares:
        share.high = min(level + 1, len(share.members))
    remainder = n - sum(share.low for share in shares)
    if remainder == 0:
        for share in shares:
            share.high = share.low
    return shares, remainder


def fair_shares(
    zones: Sequence[str], weights: Sequence[int], n: int, partitions: int
) -> tuple[list[ZoneShare], list[int]]:
    """Return the zones with the replicas each is to hold, and those of each member.

    The shares are the fairest that the rules allow: as long as a member's share per weight
    could rise at the cost of one that has more, it has.
    """
    shares, _ = share_zones(zones, n)
    total = n * partitions * UNIT

    def held(level: int) -> list[int]:
        """What each zone holds when every member holds ``level`` per unit of weight."""
        filled = []
        for share in shares:
            wish = sum(min(partitions * UNIT, level * weights[m]) for m in share.members)
            wish = max(wish, share.low * partitions * UNIT)
            filled.append(min(wish, share.high * partitions * UNIT))
        return filled

    by_zone = held(_lowest(lambda level: sum(held(level)) >= total, partitions * UNIT))
    whole = _round_to(by_zone, n * partitions, [share.high * partitions for share in shares])
    targets = [0] * len(zones)
    for share, replicas in zip(shares, whole, strict=True):
        share.replicas = replicas
        _share_within(share, weights, partitions, targets)
    return shares, targets


def _share_within(
    share: ZoneShare, weights: Sequence[int], partitions: int, targets: list[int]
) -> None:
    cap = partitions * UNIT

    def wishes(level: int) -> list[int]:
        return [min(cap, level * weights[m]) for m in share.members]

    level = _lowest(lambda level: sum(wishes(level)) >= share.replicas * UNIT, cap)
    caps = [partitions] * len(share.members)
    for member, target in zip(
        share.members, _round_to(wishes(level), share.replicas, caps), strict=True
    ):
        targets[member] = target


def _lowest(enough: Callable[[int], bool], high: int) -> int:
    """Return the lowest level up to ``high`` that is enough; ``high`` always is."""
    low = 0
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _round_to(wishes: Sequence[int], total: int, caps: Sequence[int]) -> list[int]:
    """Round fixed-point wishes to whole replicas that add up to ``total``, largest rest first.

    The wishes exceed ``total`` by less than one replica, so rounding down never leaves too many.
    """
    whole = [wish // UNIT for wish in wishes]
    missing = total - sum(whole)
    order = sorted(range(len(wishes)), key=lambda i: (-(wishes[i] % UNIT), i))
    while missing > 0:
        for i in order:
            if missing > 0 and whole[i] < caps[i]:
                whole[i] += 1
                missing -= 1
    return whole
