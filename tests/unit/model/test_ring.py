"""Owners and fallbacks as requests ask for them."""

import pytest
from msgspec.structs import replace

from kvorum.model.hashing import engine_key
from kvorum.model.ring import Ring
from kvorum.model.topology import PartitionEntry, Topology
from tests.support.members import some_topology


@pytest.fixture
def ring() -> Ring:
    return Ring(some_topology(6, n=3, partitions=16, zones=("x", "y", "z")))


def test_the_owners_of_a_key_are_those_of_its_partition(ring: Ring) -> None:
    for number in range(100):
        key = engine_key(ring.hash_key, b"default\0", str(number).encode(), b"")
        partition = ring.partition_of(key[1:17])
        assert partition == ring.partition_of_engine_key(key) == key[1] >> 4
        assert ring.owners_of_engine_key(key) == ring.owners(partition)
        low, end = ring.partition_range(partition)
        assert low <= key < end


def test_a_preference_list_is_owners_then_fallbacks_and_names_nobody_twice(ring: Ring) -> None:
    for partition in range(16):
        names = ring.preference_list(partition)
        assert names[:3] == ring.owners(partition)
        assert names[3:] == ring.fallbacks(partition)
        assert sorted(names) == [1, 2, 3, 4, 5, 6]


def test_only_so_many_fallbacks_are_listed() -> None:
    ring = Ring(some_topology(6, n=2, partitions=16), listed_fallbacks=2)
    assert all(len(ring.fallbacks(partition)) == 2 for partition in range(16))


def test_without_anybody_else_there_are_no_fallbacks() -> None:
    assert Ring(some_topology(3)).fallbacks(0) == ()


def test_what_the_document_says_of_a_partition_can_be_asked() -> None:
    topology: Topology = replace(
        some_topology(4, n=2, partitions=2),
        epoch=7,
        partitions=(PartitionEntry((1, 2), (1, 3), 7), PartitionEntry((3, 4), (), 1)),
    )
    ring = Ring(topology)
    assert (ring.epoch, ring.n, ring.partitions) == (7, 2, 2)
    assert ring.topology is topology
    assert ring.cluster_id == topology.cluster_id
    assert (ring.next_owners(0), ring.partition_epoch(0)) == ((1, 3), 7)
    assert (ring.next_owners(1), ring.partition_epoch(1)) == ((), 1)
    assert ring.is_owner(1, 0)
    assert not ring.is_owner(3, 0)
    assert ring.partitions_of(3) == [1]


def test_members_are_found_by_id_and_by_name(ring: Ring) -> None:
    assert ring.member_ids == (1, 2, 3, 4, 5, 6)
    found = ring.member(2)
    assert found is not None
    assert found.name == "b"
    assert ring.member_named("b") is found
    assert ring.member(99) is None
    assert ring.member_named("nobody") is None
