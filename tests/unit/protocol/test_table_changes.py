"""Tables made, changed and dropped by clients, spread to members, and swept when dropped."""

import pytest

from kvorum.model.quorum import Durability, Resolution
from kvorum.model.tables import DEFAULT_TABLE, DEFAULT_TABLE_ID, TableSettings
from kvorum.protocol import tables as module
from kvorum.protocol.node import DROP_INTERVAL
from kvorum.storage.commit import drain
from kvorum.storage.engine import EngineFailed
from kvorum.wire.message import Message
from kvorum.wire.messages import (
    ControlRefused,
    TableAnswer,
    TableCreate,
    TableDrop,
    TableList,
    TableQuery,
    TableSet,
    TablesUpdate,
    TablesUpdated,
)
from kvorum.wire.requests import BAD_REQUEST, OVERLOADED, UNKNOWN_TABLE
from tests.support.recording import OneNode
from tests.support.wired import Cluster

SECOND = 1_000_000


def answered(one: OneNode, question: Message) -> TableAnswer:
    one.question(question)
    return answer_of(one)


def answer_of(one: OneNode) -> TableAnswer:
    answer = one.client.message()
    assert isinstance(answer, TableAnswer), answer
    return answer


def refused(one: OneNode, question: Message) -> ControlRefused:
    one.question(question)
    answer = one.client.message()
    assert isinstance(answer, ControlRefused), answer
    return answer


def alone() -> OneNode:
    """A node whose disk is written at once, as far as its clients can tell."""
    return OneNode(count=1, n=1, durable=False)


def made(one: OneNode, name: str = "carts", **choices: object) -> TableSettings:
    (settings,) = answered(one, TableCreate(1, name, **choices)).tables  # type: ignore[arg-type]
    return settings


def test_a_new_table_takes_the_defaults_and_is_known_everywhere() -> None:
    cluster = Cluster()
    cluster[1].question(TableCreate(5, "carts", durability="all", max_siblings=7))
    assert cluster[1].client.take() == []
    cluster.settle()
    assert cluster[1].client.take() == [], "it is not on this node's disk yet"
    cluster.sync()
    answer = answer_of(cluster[1])
    (settings,) = answer.tables
    assert (answer.request, answer.unreached) == (5, [])
    default = cluster[1].node.tables.registry.live(DEFAULT_TABLE_ID)
    assert default is not None
    assert (settings.r, settings.w, settings.sloppy) == (default.r, default.w, default.sloppy)
    assert (settings.durability, settings.max_siblings) == (Durability.ALL, 7)
    for member in (1, 2, 3):
        assert cluster[member].node.tables.registry.by_name("carts") == settings
    assert "table_learned" in cluster[2].env.events


def test_members_that_do_not_confirm_are_named_after_a_second() -> None:
    one = OneNode().connect(2)
    one.question(TableCreate(1, "carts"))
    one.sync()
    assert one.client.take() == []
    one.advance(SECOND)
    assert answer_of(one).unreached == [2, 3]
    one.node.on_control(2, TablesUpdated(1))
    assert one.client.take() == [], "a confirmation after the second finds nobody"


def test_members_without_a_connection_are_not_waited_for() -> None:
    one = OneNode().connect(2)
    one.question(TableCreate(1, "carts"))
    one.sync()
    one.node.on_control(2, TablesUpdated(1))
    assert answer_of(one).unreached == [3]
    one.advance(SECOND)
    assert one.client.take() == []


def test_whoever_confirms_everything_confirms_each_change_in_it() -> None:
    """A member that came back was told all, and was called unreached all the same."""
    one = OneNode().connect()
    one.env.unreachable[2] = None
    one.question(TableCreate(1, "carts"))
    one.sync()
    one.node.on_control(3, TablesUpdated(1))
    assert one.client.take() == []
    one.env.unreachable.clear()
    one.node.on_control_open(2)
    (update,) = [each for _, each in one.env.sent if isinstance(each, TablesUpdate)][-1:]
    one.node.on_control(2, TablesUpdated(0))
    assert one.client.take() == []
    one.node.on_control(2, TablesUpdated(update.number))
    assert answer_of(one).unreached == []


def test_a_client_that_has_gone_is_told_nothing() -> None:
    one = OneNode().connect(2)
    one.question(TableCreate(1, "carts"))
    one.client.closed = True
    one.advance(SECOND)
    assert one.node.tables.registry.by_name("carts") is not None


def test_creating_again_changes_nothing_if_it_is_the_same() -> None:
    one = alone()
    settings = made(one, resolution="lww")
    assert made(one, resolution="lww") == settings
    refusal = refused(one, TableCreate(3, "carts", durability="none"))
    assert refusal.code == BAD_REQUEST
    assert "exists with other settings: resolution is lww, not siblings" in refusal.text


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (TableCreate(1, "carts", resolution="newest"), "resolution 'newest'"),
        (TableCreate(1, "carts", durability="some"), "durability 'some'"),
        (TableCreate(1, "no spaces"), "table name"),
        (TableCreate(1, "carts", r=4), "r=4: must lie between 1 and n=1"),
        (TableSet(1, "default", durability="some"), "durability 'some'"),
        (TableSet(1, "default", w=4), "w=4: must lie between 1 and n=1"),
        (TableDrop(1, "default"), "cannot be dropped"),
    ],
    ids=range(7),
)
def test_what_cannot_be_is_refused(wish: Message, text: str) -> None:
    refusal = refused(alone(), wish)
    assert refusal.code == BAD_REQUEST
    assert text in refusal.text


@pytest.mark.parametrize(
    "wish",
    [TableQuery(1, "carts"), TableSet(1, "carts"), TableDrop(1, "carts"),
     TableDrop(1, "carts", b"no table"), TableDrop(1, "carts", DEFAULT_TABLE_ID)],
    ids=range(5),
)  # fmt: skip
def test_what_is_not_there_is_unknown(wish: Message) -> None:
    refusal = refused(alone(), wish)
    assert refusal.code == UNKNOWN_TABLE
    assert "create it first" in refusal.text


def test_a_changed_table_keeps_what_is_not_named() -> None:
    one = alone()
    before = made(one, ttl_seconds=60, sloppy=False)
    answer = answered(one, TableSet(2, "carts", durability="none", max_record_bytes=2048))
    (after,) = answer.tables
    assert (after.durability, after.max_record_bytes) == (Durability.NONE, 2048)
    assert (after.id, after.ttl_seconds, after.sloppy) == (before.id, 60, False)
    assert after.version > before.version
    (after,) = answered(one, TableSet(3, "carts", ttl_seconds=0, sloppy=True)).tables
    assert (after.ttl_seconds, after.sloppy, after.resolution) == (0, True, Resolution.SIBLINGS)


def test_tables_are_asked_for_by_name_or_all_at_once() -> None:
    one = alone()
    settings = made(one)
    assert answered(one, TableQuery(4, "carts")) == TableAnswer(4, [settings], [], [])
    assert [each.name for each in answered(one, TableList(5)).tables] == ["carts", DEFAULT_TABLE]


def conflicting() -> tuple[OneNode, list[bytes]]:
    """A node that has heard of two tables of one name, made on two sides of a cut."""
    one = alone()
    ids = [made(one).id, b"another!"]
    one.node.on_control(2, TablesUpdate(9, [TableSettings("carts", ids[1], 1, 1)]))
    return one, sorted(ids)


def test_two_tables_of_one_name_are_a_conflict_until_one_is_dropped() -> None:
    one, ids = conflicting()
    answer = answered(one, TableQuery(4, "carts"))
    assert [each.id for each in answer.tables] == ids
    assert answer.conflicts == ["carts"]
    assert answered(one, TableList(5)).conflicts == ["carts"]
    refusal = refused(one, TableDrop(6, "carts"))
    assert all(each.hex() in refusal.text for each in ids)
    answered(one, TableDrop(7, "carts", ids[0]))
    assert answered(one, TableQuery(8, "carts")).conflicts == []


def test_a_dropped_table_is_gone_at_once_and_its_records_soon() -> None:
    one = OneNode().connect()
    one.question(TableCreate(1, "carts", durability="none", w=1))
    table = one.node.tables.registry.by_name("carts")
    assert table is not None
    for number in range(module.DROP_SLICE + 10):
        one.put(key=b"%d" % number, table=table.id)
    one.put(key=b"damaged", table=table.id)
    for key in (b"alice", b"damaged"):
        one.put(key=key, w=1, durability=0)
    drain(one.store.buffer)
    for table_id in (table.id, DEFAULT_TABLE_ID):
        one.engine.records[one.key(b"damaged", table_id)] = b"garbage that is long enough"
    one.client.take()
    one.question(TableDrop(2, "carts"))
    one.get(table=table.id)
    assert one.node.tables.registry.live(table.id) is None
    one.restart()  # the sweep goes on after a start
    assert table.id in one.node.tables.dropped
    one.advance(10 * DROP_INTERVAL)
    assert one.env.counters.dropped_records == module.DROP_SLICE + 10
    assert one.node.tables.dropped == {}
    rows = one.store.scan(b"\x01", b"\x02", 1000)
    assert [key for key, _ in rows] == [one.key()], "records of other tables stay"
    assert one.store.get(one.key(b"damaged", table.id)) is None
    assert one.store.get(one.key(b"damaged")) == b""
    one.restart()
    assert one.node.tables.dropped == {}
    one.node.tables.sweep_dropped()
    assert table.id in one.node.tables.registry.dropped_ids


def test_the_sweep_waits_while_nothing_can_be_written_or_read() -> None:
    one = alone()
    made(one)
    answered(one, TableDrop(2, "carts"))
    one.store.buffer.failed = "the engine has failed"
    one.advance(2 * DROP_INTERVAL)
    assert one.node.tables.dropped != {}
    one.store.buffer.failed = ""

    def fail(*_: object) -> list[tuple[bytes, bytes]]:
        raise EngineFailed("a bad disk")

    scan = one.store.scan
    one.store.scan = fail
    one.advance(2 * DROP_INTERVAL)
    assert one.node.tables.dropped != {}
    one.store.scan = scan
    one.advance(2 * DROP_INTERVAL)
    assert one.node.tables.dropped == {}


def test_nothing_is_changed_while_nothing_can_be_written() -> None:
    one = alone()
    one.store.buffer.failed = "the engine has failed"
    refusal = refused(one, TableCreate(1, "carts"))
    assert (refusal.code, refusal.text) == (OVERLOADED, "the engine has failed")
    assert one.node.on_control(2, TablesUpdate(1, [])) is None, "so it is not confirmed either"


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TABLES_MAX", 2)
    one = alone()
    made(one)
    assert refused(one, TableCreate(1, "orders")).code == OVERLOADED


def test_what_a_member_tells_is_kept_unless_it_cannot_be() -> None:
    one = alone()
    good = TableSettings("carts", b"table id", 1, 1)
    bad = TableSettings("carts", b"table xy", 9, 1)
    worse = TableSettings("carts", b"table xz", 1, 1, version=(1 << 63, 2))
    answer = one.node.on_control(2, TablesUpdate(3, [good, bad, worse, good]))
    assert answer == TablesUpdated(3)
    assert one.env.events == ["table_learned", "table_refused", "table_refused"]
    assert one.node.tables.registry.by_name("carts") == good


def test_a_table_dropped_by_another_member_is_swept_here() -> None:
    cluster = Cluster()
    cluster[1].question(TableCreate(1, "carts", durability="none"))
    cluster.settle()
    table = cluster[1].node.tables.registry.by_name("carts")
    assert table is not None
    cluster[1].put(table=table.id)
    cluster.settle()
    cluster[2].question(TableDrop(2, "carts"))
    cluster.settle()
    cluster.advance(5 * DROP_INTERVAL)
    for member in (1, 2, 3):
        assert cluster[member].store.get(cluster[member].key(table=table.id)) is None
