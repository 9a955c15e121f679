"""What a coordinator counts of each table's requests: durations, refusals and doubts."""

from kvorum.config import NodeConfig
from kvorum.counters import bucket_of
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.wire.link import OK
from kvorum.wire.messages import (
    OperationStatus,
    StatusAnswer,
    StatusQuery,
    TableCreate,
    TableDrop,
)
from kvorum.wire.requests import READ_FIRST, TOMBSTONE
from tests.support.recording import OneNode

NONE = 0
DEADLINE = NodeConfig().request_timeout_ms * 1000


def operations(one: OneNode) -> list[OperationStatus]:
    one.client.take()
    one.question(StatusQuery(9))
    status = one.client.message()
    assert isinstance(status, StatusAnswer)
    return status.operations


def once(duration: int) -> list[int]:
    """The durations of one request that took so long, in microseconds."""
    return [0] * bucket_of(duration) + [1]


def test_a_duration_runs_from_the_turn_that_read_the_request_to_that_of_its_answer() -> None:
    one = OneNode().connect()
    one.put(durability=NONE)
    one.env.now += 3_000
    one.answers(2, OK)
    one.get(r=1)
    assert operations(one) == [
        OperationStatus("default", "get", 0, 0, once(0)),
        OperationStatus("default", "put", 0, 0, once(3_000)),
    ]


def test_one_that_took_longer_than_the_table_of_buckets_reaches_is_counted_too() -> None:
    one = OneNode().connect(2)
    one.put(durability=NONE)
    one.get(r=2)
    one.env.now += 1_000_000
    one.answers(2, OK, OK)
    found = {status.operation: status.durations for status in operations(one)}
    assert found == {name: once(1_000_000) for name in ("get", "put")}


def test_refusals_and_doubts_are_counted_by_operation() -> None:
    one = OneNode().connect()
    one.put(w=9)
    one.put(value=b"", flags=TOMBSTONE, w=9)
    one.get(r=9)
    one.put(w=2, durability=NONE)
    one.advance(DEADLINE + 1_000)
    one.disconnect(2)
    one.disconnect(3)
    one.put(value=b"", flags=TOMBSTONE | READ_FIRST)
    one.get(r=2)
    one.advance(DEADLINE + 1_000)
    assert operations(one) == [
        OperationStatus("default", "get", 2, 0, []),
        OperationStatus("default", "put", 1, 1, []),
        OperationStatus("default", "delete", 2, 0, []),
    ]


def test_a_put_too_old_to_be_known_is_a_doubt() -> None:
    one = OneNode().connect()
    one.put(age=2 * NodeConfig().retry_window_ms * 1000)
    assert operations(one) == [OperationStatus("default", "put", 0, 1, [])]


def test_a_table_that_is_not_there_is_counted_nowhere_and_one_dropped_no_more() -> None:
    one = OneNode().connect()
    one.put(table=b"no table")
    one.get(table=b"no table")
    assert list(one.env.counters.tables) == []
    one.question(TableCreate(1, "carts", r=1, w=1, durability="none"))
    table_id = one.node.tables.registry.tables()[0].id
    assert table_id != DEFAULT_TABLE_ID
    one.get(table=table_id, r=1)
    assert operations(one) == [OperationStatus("carts", "get", 0, 0, once(0))]
    one.question(TableDrop(2, "carts"))
    assert operations(one) == []
