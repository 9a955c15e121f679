"""Members that keep nothing on a disk are known as such before any of their acks can come."""

import pytest

from kvorum.model.hashing import engine_key
from kvorum.model.tables import DEFAULT_TABLE_ID
from tests.support.recording import OneNode


@pytest.mark.parametrize("large", [False, True])
def test_whichever_connection_stands_first_tells_that_a_member_has_no_disk(large: bool) -> None:
    """Found by seed 3444: large values went out before the other connection stood."""
    one = OneNode()
    one.node.peering.volatile[2] = True
    (one.node.on_large_open if large else one.node.on_data_open)(2)
    key = engine_key(one.ring.hash_key, DEFAULT_TABLE_ID, b"alice", b"")
    replicas = one.node.requests.replica_sets.of(key)
    assert replicas.volatile == replicas.bits[2]
