"""Tables on one node: what was learned is there again after a start."""

import msgspec
import pytest

from kvorum.model.hashing import engine_key
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.merkle import Trees
from kvorum.model.quorum import Durability
from kvorum.model.ring import Ring
from kvorum.model.tables import DEFAULT_TABLE_ID, TableSettings
from kvorum.model.topology import Member, make_topology
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.tables import DROP_SLICE, Tables
from kvorum.protocol.timers import Timers
from kvorum.simulator.disk import Disk
from kvorum.storage.commit import drain
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.store import Store, open_store
from kvorum.wire.messages import TablesUpdate
from tests.support.recording import OneNode
from tests.support.records import dot, record_of_dots
from tests.support.replicas import StillEnvironment

RING = Ring(make_topology((Member(1, "a", "127.0.0.1", 7401),), 1, 8, bytes(24)))


def store_of(engine: MemoryEngine, files: Disk | None = None) -> Store:
    return open_store(files, engine, cluster_id=bytes(8), member_id=1, member_name="a", draw=bytes)


def tables_on(store: Store) -> Tables:
    holdings = Holdings(store, RING, Trees())
    return Tables(StillEnvironment(), store, holdings, RING, Timers(), 1, lambda: 1)


@pytest.mark.parametrize("first_byte", [0x00, 0x7F, 0xFF])
def test_a_table_is_there_again_after_a_start_whatever_its_id(first_byte: int) -> None:
    """Found by seed 184: one id in 256 begins with 0xff, and such tables were forgotten."""
    store = store_of(MemoryEngine())
    table_id = bytes((first_byte,)) + b"\xff" * 7
    settings = TableSettings("carts", table_id, 1, 1, durability=Durability.NONE)
    tables_on(store).on_update(TablesUpdate(1, [settings]))
    assert tables_on(store).registry.live(table_id) == settings


def test_damaged_records_of_a_dropped_table_go_with_it() -> None:
    """Found by seed 5160: a scan leaves damaged records out, so the sweep left them for ever."""
    engine = MemoryEngine(durable=True)
    store = store_of(engine, Disk())
    carts = TableSettings("carts", b"carts   ", 1, 1)
    keys = [engine_key(RING.hash_key, carts.id, name, b"") for name in (b"good", b"damaged")]
    for key in keys:
        store.put(key, bytes(100))
    assert drain(store.buffer)
    engine.records[keys[1]] = engine.records[keys[1]][:-1] + b"!"
    tables = tables_on(store)
    dropped = msgspec.structs.replace(carts, version=(2, 1), dropped=True)
    tables.on_update(TablesUpdate(1, [carts, dropped]))
    while tables.dropped:
        tables.sweep_dropped()
    assert [store.get(key) for key in keys] == [None, None]


def test_a_drop_touches_no_record_before_it_is_known_and_a_bounded_slice_after() -> None:
    """Dropping takes as long whatever the table's size."""
    store = store_of(MemoryEngine())
    carts = TableSettings("carts", b"carts   ", 1, 1)
    keys = [engine_key(RING.hash_key, carts.id, b"%d" % i, b"") for i in range(3 * DROP_SLICE)]
    for key in keys:
        store.put(key, bytes(100))
    tables = tables_on(store)
    dropped = msgspec.structs.replace(carts, version=(2, 1), dropped=True)
    tables.on_update(TablesUpdate(1, [carts, dropped]))
    assert tables.registry.live(carts.id) is None
    left = [sum(store.get(key) is not None for key in keys)]
    while tables.dropped:
        tables.sweep_dropped()
        left.append(sum(store.get(key) is not None for key in keys))
    assert left == [3 * DROP_SLICE, 2 * DROP_SLICE, DROP_SLICE, 0, 0]


def test_a_get_that_outlives_its_table_mends_nothing() -> None:
    """Found by seed 9201: the sweep had passed, and a late answer brought a record back."""
    one = OneNode().connect()
    carts = TableSettings("carts", b"carts   ", 1, 1, version=(2, 1), dropped=True)
    one.node.tables.on_update(TablesUpdate(1, [carts]))
    record = record_of_dots([dot(1, 1)], [dot(1, 1)])
    for table_id, is_kept in ((carts.id, False), (DEFAULT_TABLE_ID, True)):
        key = engine_key(one.ring.hash_key, table_id, b"alice", b"")
        copies = one.node.requests.replica_sets.of(key).copies
        copies.mend(key, pack_holding(NO_OWN, b"alice", record), 0)
        assert (one.store.get(key) is not None) == is_kept


def test_a_node_that_cannot_write_learns_of_a_drop_and_does_not_confirm_it() -> None:
    """Found by seed 100934: nobody tells it again, so it served the table for ever."""
    one = OneNode().connect()
    assert one.disk is not None
    one.disk.free_bytes = 0
    one.store.put(b"\0x", b"x")
    assert not one.store.end_turn()
    carts = TableSettings("carts", b"carts   ", 1, 1, version=(2, 1), dropped=True)
    assert one.node.on_control(2, TablesUpdate(1, [carts])) is None
    assert one.node.tables.registry.by_id(carts.id) == carts
    one.disk.free_bytes = 1 << 30
    assert one.store.end_turn()
    assert tables_on(one.store).registry.by_id(carts.id) == carts
