"""Whatever the cluster looks like, a plan keeps its promises, and the ring agrees with it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kvorum.model.placement import plan_placement, walk_fallbacks
from kvorum.model.placement_report import judge_placement
from kvorum.model.ring import Ring
from kvorum.model.topology import (
    Member,
    TopologyInvalid,
    decode_topology,
    encode_topology,
    make_topology,
)
from tests.support.members import ENTROPY, some_topology


@st.composite
def clusters(draw: st.DrawFn) -> tuple[tuple[Member, ...], int, int]:
    count = draw(st.integers(1, 12))
    zones = draw(st.lists(st.sampled_from("vwxyz"), min_size=count, max_size=count))
    weights = draw(st.lists(st.sampled_from([1, 1, 1, 2, 5, 1000]), min_size=count, max_size=count))
    ids = draw(st.lists(st.integers(1, 65_535), min_size=count, max_size=count, unique=True))
    members = tuple(
        Member(ids[i], f"m{i}", "localhost", 7000 + i, zones[i], weights[i]) for i in range(count)
    )
    return members, draw(st.integers(1, count)), 1 << draw(st.integers(0, 7))


@given(clusters())
def test_owners_are_distinct_in_spread_zones_and_hold_their_fair_share(
    cluster: tuple[tuple[Member, ...], int, int],
) -> None:
    members, n, partitions = cluster
    zone_of = {member.id: member.zone for member in members}
    placement = plan_placement(members, n, partitions)
    assert len(placement) == partitions
    for owners in placement:
        assert len(set(owners)) == n
        held = [[zone_of[owner] for owner in owners].count(zone) for zone in "vwxyz"]
        spare = [
            count < sum(member.zone == zone for member in members)
            for zone, count in zip("vwxyz", held, strict=True)
        ]
        # No zone holds two more than a zone that still has somebody to offer.
        assert max(held) <= min(
            [count + 1 for count, free in zip(held, spare, strict=True) if free], default=n
        )
    report = judge_placement(members, placement, n)
    assert report.zone_violations == 0
    # Whole replicas, rounded once among zones and once within each.
    assert all(abs(share.replicas - share.fair) < 2 for share in report.shares)


@settings(max_examples=40)
@given(clusters())
def test_a_plan_is_a_function_of_its_members_and_survives_the_file(
    cluster: tuple[tuple[Member, ...], int, int],
) -> None:
    members, n, partitions = cluster
    topology = make_topology(members, n, partitions, ENTROPY)
    assert make_topology(members, n, partitions, ENTROPY) == topology
    assert decode_topology(encode_topology(topology)) == topology


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_still_a_sound_topology(data: st.DataObject) -> None:
    document = bytearray(encode_topology(some_topology(2, n=1, partitions=2)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(document) - 1))
        document[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        topology = decode_topology(bytes(document))
    except TopologyInvalid:
        return
    assert decode_topology(encode_topology(topology)) == topology


def fallbacks_by_brute_force(
    owners: list[tuple[int, ...]], zone_of: dict[int, str], partition: int
) -> list[int]:
    """Take, one after the other, the first met along the ring in the least used zones."""
    met: list[int] = []
    for step in range(len(owners)):
        met += owners[(partition + step) % len(owners)]
    met += sorted(zone_of)
    chosen = list(owners[partition])
    while len(chosen) < len(zone_of):
        used = [zone_of[member] for member in chosen]
        free = [member for member in met if member not in chosen]
        fewest = min(used.count(zone_of[member]) for member in free)
        chosen.append(next(m for m in free if used.count(zone_of[m]) == fewest))
    return chosen[len(owners[partition]) :]


@given(clusters(), st.binary(min_size=16, max_size=16))
def test_the_ring_agrees_with_brute_force(
    cluster: tuple[tuple[Member, ...], int, int], position: bytes
) -> None:
    members, n, partitions = cluster
    topology = make_topology(members, n, partitions, ENTROPY)
    ring = Ring(topology, listed_fallbacks=2)
    partition = int.from_bytes(position, "big") // ((1 << 128) // partitions)
    assert ring.partition_of(position) == partition
    assert ring.owners_of_engine_key(b"\x01" + position) == topology.partitions[partition].owners
    zone_of = {member.id: member.zone for member in members}
    owners = [entry.owners for entry in topology.partitions]
    expected = fallbacks_by_brute_force(owners, zone_of, partition)
    assert walk_fallbacks(owners, zone_of, partition, len(members)) == expected
    assert ring.fallbacks(partition) == tuple(expected[:2])
    assert ring.fallbacks(partition) is ring.fallbacks(partition)
