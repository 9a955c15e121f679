"""Positions and engine keys: fixed for ever, because every stored record lies under one."""

from hashlib import blake2b
from itertools import pairwise

import pytest

from kvorum.model import hashing

HASH_KEY = bytes(range(16))
TABLE = b"default\0"
GOLDEN = "016df082890695eba6122ca88823dc13e164656661756c7400aa08ad8a915de4fb323032342d30312d3031"


def test_a_location_is_position_and_second_hash_of_one_keyed_hash() -> None:
    expected = blake2b(b"alice", digest_size=24, key=HASH_KEY, person=TABLE + bytes(8)).digest()
    assert hashing.locate(HASH_KEY, TABLE, b"alice") == expected
    assert len(expected) == hashing.LOCATION_BYTES


def test_an_engine_key_never_changes() -> None:
    key = hashing.engine_key(HASH_KEY, TABLE, b"alice", b"2024-01-01")
    assert key.hex() == GOLDEN


def test_an_engine_key_holds_its_parts_in_order() -> None:
    place = hashing.locate(HASH_KEY, TABLE, b"alice")
    key = hashing.engine_key(HASH_KEY, TABLE, b"alice", b"sort")
    assert key[:1] == hashing.SPACE_RECORDS
    assert key[hashing.POSITION_OFFSET : hashing.TABLE_ID_OFFSET] == place[:16]
    assert hashing.table_of_engine_key(key) == TABLE
    assert key[hashing.SECOND_HASH_OFFSET : hashing.SORT_KEY_OFFSET] == place[16:]
    assert key[hashing.SORT_KEY_OFFSET :] == b"sort"


def test_a_table_locator_gives_the_same_keys() -> None:
    locator = hashing.TableLocator(HASH_KEY, TABLE)
    for name in (b"", b"alice", b"bob" * 1000):
        assert locator.engine_key(name, b"s") == hashing.engine_key(HASH_KEY, TABLE, name, b"s")


def test_table_and_cluster_both_move_a_key() -> None:
    places = {
        hashing.locate(HASH_KEY, TABLE, b"alice"),
        hashing.locate(HASH_KEY, b"carts\0\0\0", b"alice"),
        hashing.locate(bytes(16), TABLE, b"alice"),
    }
    assert len(places) == 3


@pytest.mark.parametrize("partitions", [1, 2, 256, 1024, 65_536])
def test_a_partition_is_one_range_of_engine_keys(partitions: int) -> None:
    shift = hashing.partition_shift(partitions)
    for number in range(200):
        key = hashing.engine_key(HASH_KEY, TABLE, number.to_bytes(4, "big"), b"")
        partition = hashing.partition_of_engine_key(key, shift)
        assert partition == hashing.partition_of(key[1:17], shift)
        assert partition == int.from_bytes(key[1:17], "big") * partitions >> 128
        low, end = hashing.partition_range(partition, shift)
        assert low <= key < end


def test_the_ranges_of_all_partitions_cover_the_space_of_records() -> None:
    shift = hashing.partition_shift(8)
    ranges = [hashing.partition_range(partition, shift) for partition in range(8)]
    assert ranges[0][0] == b"\x01\x00\x00"
    assert ranges[-1][1] == hashing.SPACE_HINTS
    for (_, end), (low, _) in pairwise(ranges):
        assert end == low
