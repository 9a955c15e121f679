"""How good a placement is, in the numbers a person wants to see before it is made real.

Efficiency is the paper's measure (Dynamo, section 6.2): the fair load over the highest load,
each member's load taken relative to its fair share; 1.0 is perfect balance.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from kvorum.model.placement import walk_fallbacks
from kvorum.model.shares import fair_shares, share_zones
from kvorum.model.topology import Member

_FINER: Final = 1 << 10


class MemberShare(msgspec.Struct, frozen=True):
    """What one member holds under a placement, and what it ought to hold."""

    id: int
    name: str
    zone: str
    weight: int
    replicas: int
    fair: float  # replicas it should hold, by weight and as zones allow
    firsts: int  # partitions it is the first owner of
    peers: int  # members it has a partition in common with


class PlacementReport(msgspec.Struct, frozen=True):
    """What a dry run shows about a placement."""

    shares: tuple[MemberShare, ...]
    efficiency: float  # of replicas held
    first_efficiency: float  # of first places
    after_loss: float  # of replicas while one member is away, the worst case
    worst_lost: int  # the member whose loss that is; 0 if no loss makes a difference
    zone_violations: int  # partitions whose owners stand in fewer zones than they could
    replica_sets: int  # different sets of owners


def judge_placement(
    members: Sequence[Member], placement: Sequence[Sequence[int]], n: int
) -> PlacementReport:
    """Measure a placement: balance now, after any one loss, zones, and how far it scatters."""
    ordered = sorted(members, key=lambda member: member.id)
    fair = dict(zip((member.id for member in ordered), _fair(ordered, n, placement), strict=True))
    replicas = dict.fromkeys(fair, 0)
    firsts = dict.fromkeys(fair, 0)
    peers: dict[int, dict[int, None]] = {member.id: {} for member in ordered}
    for owners in placement:
        firsts[owners[0]] += 1
        for owner in owners:
            replicas[owner] += 1
            peers[owner].update(dict.fromkeys(owners))
    after_loss, worst_lost = _worst_loss(ordered, placement, replicas, n)
    return PlacementReport(
        shares=tuple(
            MemberShare(
                id=member.id,
                name=member.name,
                zone=member.zone,
                weight=member.weight,
                replicas=replicas[member.id],
                fair=fair[member.id],
                firsts=firsts[member.id],
                peers=max(0, len(peers[member.id]) - 1),
            )
            for member in ordered
        ),
        efficiency=_efficiency(replicas, fair),
        first_efficiency=_efficiency(firsts, fair),
        after_loss=after_loss,
        worst_lost=worst_lost,
        zone_violations=_zone_violations(ordered, placement, n),
        replica_sets=len({tuple(sorted(owners)) for owners in placement}),
    )


def _fair(members: Sequence[Member], n: int, placement: Sequence[Sequence[int]]) -> list[float]:
    """Return fair shares with fractions: those of a ring cut much finer, scaled down."""
    zones = [member.zone for member in members]
    weights = [member.weight for member in members]
    _, shares = fair_shares(zones, weights, n, len(placement) * _FINER)
    return [max(share, 1) / _FINER for share in shares]


def _efficiency(load: dict[int, int], fair: dict[int, float]) -> float:
    """Return the fair load over the highest, loads counted relative to fair shares."""
    factor = sum(load.values()) / sum(fair.values())
    highest = max(held / (fair[member] * factor) for member, held in load.items())
    return 1 / highest


def _worst_loss(
    members: Sequence[Member], placement: Sequence[Sequence[int]], replicas: dict[int, int], n: int
) -> tuple[float, int]:
    """Return the efficiency after the worst loss, the first fallbacks standing in."""
    if len(members) <= n:
        return 1.0, 0  # Nobody can stand in, so nobody's load changes.
    zone_of = {member.id: member.zone for member in members}
    gained: dict[int, dict[int, int]] = {member.id: {} for member in members}
    for partition, owners in enumerate(placement):
        stand_in = walk_fallbacks(placement, zone_of, partition, 1)[0]
        for owner in owners:
            gained[owner][stand_in] = gained[owner].get(stand_in, 0) + 1
    worst = 1.0
    worst_lost = 0
    for lost in members:
        left = [member for member in members if member.id != lost.id]
        fair = dict(zip((member.id for member in left), _fair(left, n, placement), strict=True))
        load = {member: replicas[member] + gained[lost.id].get(member, 0) for member in fair}
        efficiency = _efficiency(load, fair)
        if efficiency < worst:
            worst = efficiency
            worst_lost = lost.id
    return worst, worst_lost


def _zone_violations(members: Sequence[Member], placement: Sequence[Sequence[int]], n: int) -> int:
    zone_of = {member.id: member.zone for member in members}
    shares, _ = share_zones([member.zone for member in members], n)
    bounds = {share.zone: (share.low, share.high) for share in shares}
    violations = 0
    for owners in placement:
        held = dict.fromkeys(bounds, 0)
        for owner in owners:
            held[zone_of[owner]] += 1
        if any(not low <= held[zone] <= high for zone, (low, high) in bounds.items()):
            violations += 1
    return violations
