"""Tables on one node: what was learned is there again after a start."""

import pytest

from kvorum.model.quorum import Durability
from kvorum.model.ring import Ring
from kvorum.model.tables import TableSettings
from kvorum.model.topology import Member, make_topology
from kvorum.protocol.tables import Tables
from kvorum.protocol.timers import Timers
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.store import Store, open_store
from kvorum.wire.messages import TablesUpdate
from tests.support.replicas import StillEnvironment

RING = Ring(make_topology((Member(1, "a", "127.0.0.1", 7401),), 1, 8, bytes(24)))


def tables_on(store: Store) -> Tables:
    return Tables(StillEnvironment(), store, RING, Timers(), 1, lambda: 1)


@pytest.mark.parametrize("first_byte", [0x00, 0x7F, 0xFF])
def test_a_table_is_there_again_after_a_start_whatever_its_id(first_byte: int) -> None:
    """Found by seed 184: one id in 256 begins with 0xff, and such tables were forgotten."""
    store = open_store(
        None, MemoryEngine(), cluster_id=bytes(8), member_id=1, member_name="a", draw=bytes
    )
    table_id = bytes((first_byte,)) + b"\xff" * 7
    settings = TableSettings("carts", table_id, 1, 1, durability=Durability.NONE)
    tables_on(store).on_update(TablesUpdate(1, [settings]))
    assert tables_on(store).registry.live(table_id) == settings
