"""The planner at the sizes people run, held to the balance it promises."""

from collections.abc import Sequence

import pytest

from kvorum.model.placement import plan_placement, walk_fallbacks
from kvorum.model.placement_report import judge_placement
from tests.support.members import some_members

THREE = ("x", "y", "z")


@pytest.mark.parametrize(
    ("count", "zones", "after_loss"),
    [(5, ("",), 0.99), (30, ("",), 0.96), (30, THREE, 0.93), (30, ("x", "y"), 0.93)],
)
def test_a_plan_is_balanced_also_after_any_one_loss(
    count: int, zones: Sequence[str], after_loss: float
) -> None:
    members = some_members(count, zones)
    report = judge_placement(members, plan_placement(members, 3, 1024), 3)
    assert report.efficiency >= 0.99
    assert report.after_loss >= after_loss
    assert report.zone_violations == 0
    assert all(abs(share.replicas - share.fair) < 1 for share in report.shares)
    assert all(abs(share.firsts - share.fair / 3) < 2 for share in report.shares)


def test_weights_are_met_to_the_replica() -> None:
    members = some_members(12, weights=(1, 2, 3))
    report = judge_placement(members, plan_placement(members, 3, 1024), 3)
    assert all(abs(share.replicas - share.fair) < 1 for share in report.shares)
    assert report.after_loss >= 0.93


def test_a_member_too_heavy_to_be_fair_to_holds_everything_once() -> None:
    members = some_members(4, weights=(1000, 1, 1, 1))
    report = judge_placement(members, plan_placement(members, 2, 64), 2)
    assert report.shares[0].replicas == 64
    assert sorted(share.replicas for share in report.shares[1:]) == [21, 21, 22]


def test_fewer_zones_than_copies_share_them_evenly() -> None:
    members = some_members(6, zones=("x", "y"))
    zone_of = {member.id: member.zone for member in members}
    for owners in plan_placement(members, 3, 64):
        assert len({zone_of[owner] for owner in owners}) == 2


def test_a_zone_of_one_member_is_used_all_the_time() -> None:
    members = some_members(4, zones=("x", "y", "y", "y"))
    placement = plan_placement(members, 2, 64)
    assert all(1 in owners for owners in placement)


def test_in_a_large_cluster_nobody_shares_with_everybody() -> None:
    members = some_members(100)
    report = judge_placement(members, plan_placement(members, 3, 1024), 3)
    assert max(share.peers for share in report.shares) <= 40


def test_as_many_copies_as_members_means_everybody_owns_everything() -> None:
    members = some_members(3)
    report = judge_placement(members, plan_placement(members, 3, 16), 3)
    assert report.replica_sets == 1
    assert (report.after_loss, report.worst_lost) == (1.0, 0)


def test_the_order_in_which_members_are_given_does_not_matter() -> None:
    members = some_members(7, THREE)
    assert plan_placement(members, 3, 64) == plan_placement(members[::-1], 3, 64)


def test_a_bad_placement_is_judged_bad() -> None:
    members = some_members(4, zones=("x", "x", "y", "y"))
    report = judge_placement(members, [(1, 2)] * 4, 2)
    assert report.zone_violations == 4
    assert report.efficiency == pytest.approx(0.5)
    assert report.first_efficiency == pytest.approx(0.25)
    assert report.worst_lost in (1, 2)
    assert report.shares[2].peers == 0


def test_fallbacks_come_from_zones_the_owners_are_not_in() -> None:
    zone_of = {1: "x", 2: "x", 3: "y", 4: "z"}
    assert walk_fallbacks([(1, 3), (2, 4), (4, 2)], zone_of, 0, 2) == [4, 2]


def test_who_owns_nothing_is_found_at_last() -> None:
    zone_of = {1: "", 2: "", 3: "", 4: ""}
    assert walk_fallbacks([(1,), (2,)], zone_of, 0, 9) == [2, 3, 4]
