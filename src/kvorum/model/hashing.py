"""Where a key lives: its position on the ring, and the key under which an engine keeps it.

Only the table and the partition key are hashed, so that all records of one partition key lie
side by side in ``sort_key`` order. The hash is keyed with a secret of the cluster: nobody
outside can craft keys that all fall into one partition. (Dynamo paper, section 4.2; there MD5.)

An engine key is, byte for byte::

    space 1 | position 16 | table id 8 | second hash 8 | sort key

so a partition is one range of engine keys and a partition key's records are one sub-range of
it. The second hash keeps two partition keys of equal position apart; the full keys stand in
the holding and are checked there.
"""

from hashlib import blake2b
from typing import Final

SPACE_META: Final = b"\x00"
SPACE_RECORDS: Final = b"\x01"
SPACE_HINTS: Final = b"\x02"

HASH_KEY_BYTES: Final = 16
TABLE_ID_BYTES: Final = 8
POSITION_BYTES: Final = 16
SECOND_HASH_BYTES: Final = 8
LOCATION_BYTES: Final = POSITION_BYTES + SECOND_HASH_BYTES

POSITION_OFFSET: Final = 1
TABLE_ID_OFFSET: Final = POSITION_OFFSET + POSITION_BYTES
SECOND_HASH_OFFSET: Final = TABLE_ID_OFFSET + TABLE_ID_BYTES
SORT_KEY_OFFSET: Final = SECOND_HASH_OFFSET + SECOND_HASH_BYTES  # the fixed part of an engine key

MAX_PARTITION_BITS: Final = 16
MAX_PARTITIONS: Final = 1 << MAX_PARTITION_BITS


def locate(hash_key: bytes, table_id: bytes, partition_key: bytes) -> bytes:
    """Return the ring position (16 bytes) and the second hash (8 bytes) of a partition key.

    blake2b pads ``person`` with zeros to its 16 bytes, so the table id is given as it is.
    """
    return blake2b(partition_key, digest_size=24, key=hash_key, person=table_id).digest()


def engine_key(hash_key: bytes, table_id: bytes, partition_key: bytes, sort_key: bytes) -> bytes:
    """Return the key under which every engine of the cluster keeps this record."""
    place = blake2b(partition_key, digest_size=24, key=hash_key, person=table_id).digest()
    return b"\x01" + place[:16] + table_id + place[16:] + sort_key


class TableLocator:
    """Locates the keys of one table of one cluster, at half the price of ``engine_key``.

    The key and the table id are taken in once, and the hash goes on from there for each key.
    """

    __slots__ = ("_copy", "_table_id")

    def __init__(self, hash_key: bytes, table_id: bytes) -> None:
        self._copy = blake2b(digest_size=24, key=hash_key, person=table_id).copy
        self._table_id = table_id

    def engine_key(self, partition_key: bytes, sort_key: bytes) -> bytes:
        hashing = self._copy()
        hashing.update(partition_key)
        place = hashing.digest()
        return b"\x01" + place[:16] + self._table_id + place[16:] + sort_key


def partition_shift(partitions: int) -> int:
    """Return how far the first two bytes of a position are shifted to give its partition."""
    return MAX_PARTITION_BITS - (partitions.bit_length() - 1)


def partition_of(position: bytes, shift: int) -> int:
    """Return the partition of a ring position: its uppermost bits."""
    return (position[0] << 8 | position[1]) >> shift


def partition_of_engine_key(key: bytes, shift: int) -> int:
    return (key[1] << 8 | key[2]) >> shift


def table_of_engine_key(key: bytes) -> bytes:
    return key[TABLE_ID_OFFSET:SECOND_HASH_OFFSET]


def partition_range(partition: int, shift: int) -> tuple[bytes, bytes]:
    """Return the engine keys of a partition's records as (first included, end excluded)."""
    first = partition << shift
    end = (partition + 1) << shift
    low = SPACE_RECORDS + first.to_bytes(2, "big")
    if end == MAX_PARTITIONS:
        return low, SPACE_HINTS
    return low, SPACE_RECORDS + end.to_bytes(2, "big")
