"""Every limit of a client's request, before anything is written or begun."""

import pytest

from kvorum.client.store import Found, Stored
from kvorum.config import NodeConfig
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.protocol.requests import TTL_MAX
from kvorum.storage.commit import drain
from kvorum.wire.framing import LENGTH_BYTES, FrameInvalid
from kvorum.wire.link import OK
from kvorum.wire.messages import TableCreate
from kvorum.wire.requests import (
    BAD_REQUEST,
    GET_HEAD_BYTES,
    OVERLOADED,
    PUT_HEAD_BYTES,
    READ_FIRST,
    TOMBSTONE,
    TOO_LARGE,
    UNKNOWN_TABLE,
    get_frame,
    put_frame,
)
from tests.support.recording import OneNode, Refusal, Unknown

SMALL = NodeConfig(
    partition_key_bytes_max=8, sort_key_bytes_max=4, value_bytes_max=16, context_bytes_max=64
)
WINDOW = NodeConfig().retry_window_ms * 1000


def refusal_of(one: OneNode, code: int) -> str:
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal), outcome
    assert outcome.code == code
    assert one.client.in_flight == 0
    assert one.store.get(one.key()) is None
    return outcome.text


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize(
    ("code", "text", "wish"),
    [
        (UNKNOWN_TABLE, "there is no table with the id", {"table": b"no table"}),
        (TOO_LARGE, "the partition key has 9 bytes; the limit is 8", {"key": b"123456789"}),
        (TOO_LARGE, "the sort key has 5 bytes; the limit is 4", {"sort_key": b"12345"}),
        (BAD_REQUEST, "the partition key is empty", {"key": b""}),
    ],
    ids=["table", "key", "sort key", "empty"],
)
def test_a_request_that_cannot_be_is_refused(
    kind: str, code: int, text: str, wish: dict[str, object]
) -> None:
    one = OneNode(config=SMALL).connect()
    getattr(one, kind)(**wish)
    assert text in refusal_of(one, code)
    assert getattr(one.env.counters, f"{kind}s") == 1
    assert getattr(one.env.counters, f"{kind}s_refused") == 1


@pytest.mark.parametrize(
    ("code", "text", "wish"),
    [
        (TOO_LARGE, "the value has 17 bytes", {"value": b"x" * 17}),
        (TOO_LARGE, "the context has 65 bytes", {"context": b"x" * 65}),
        (BAD_REQUEST, "w=4: must lie between 1 and n=3", {"w": 4}),
        (BAD_REQUEST, "durability 4 is unknown", {"durability": 4}),
        (BAD_REQUEST, "a delete carries no value", {"flags": TOMBSTONE}),
        (BAD_REQUEST, "a time to live of", {"ttl": TTL_MAX + 1}),
    ],
    ids=["value", "context", "w", "durability", "delete", "ttl"],
)
def test_a_put_that_cannot_be_is_refused(code: int, text: str, wish: dict[str, object]) -> None:
    one = OneNode(config=SMALL).connect()
    one.put(**wish)  # type: ignore[arg-type]
    assert text in refusal_of(one, code)


def test_a_get_of_more_than_there_are_copies_is_refused() -> None:
    one = OneNode().connect()
    one.get(r=4)
    assert refusal_of(one, BAD_REQUEST) == "r=4: must lie between 1 and n=3"


def put_payload(**lengths: int) -> bytes:
    frame = put_frame(
        1, 0, DEFAULT_TABLE_ID, b"key", b"", b"", b"value", b"", b"client 1", 1, 0, 0, 0, 0, 0, 0
    )
    payload = bytearray(frame[LENGTH_BYTES:])
    if "key" in lengths:
        payload[2:4] = lengths["key"].to_bytes(2, "little")
    return bytes(payload)


@pytest.mark.parametrize(
    "payload",
    [
        put_payload()[: PUT_HEAD_BYTES - 1],
        put_payload(key=9),
        get_frame(1, 0, DEFAULT_TABLE_ID, b"", b"", 0, 0)[LENGTH_BYTES : 3 + GET_HEAD_BYTES],
        get_frame(1, 0, DEFAULT_TABLE_ID, b"key", b"", 0, 0)[LENGTH_BYTES:-1],
        get_frame(1, 0, DEFAULT_TABLE_ID, b"key", b"", 0, 0)[LENGTH_BYTES:] + b"x",
    ],
    ids=["put head", "put body", "get head", "get body", "more than a get"],
)
def test_a_frame_whose_lengths_do_not_add_up_ends_the_connection(payload: bytes) -> None:
    with pytest.raises(FrameInvalid, match="cut short"):
        OneNode().node.on_client(OneNode().client, payload)


def test_a_put_of_long_ago_is_unknown_since_nobody_remembers_it() -> None:
    one = OneNode().connect()
    one.put(age=WINDOW)
    one.accepts(2)
    one.sync()
    assert isinstance(one.client.outcome(), Stored)
    one.put(age=WINDOW + 1)
    outcome = one.client.outcome()
    assert isinstance(outcome, Unknown)
    assert "older than this node remembers" in outcome.text
    assert one.env.counters.retries_expired == 1


def test_a_put_that_its_client_has_settled_is_not_written_again() -> None:
    one = OneNode().connect()
    one.put(counter=3, w=1, durability=0)
    one.put(counter=5, lowest_open=4, w=1, durability=0)
    assert len(one.client.outcomes()) == 2
    one.put(counter=3, lowest_open=4, w=1, durability=0)
    assert isinstance(one.client.outcome(), Unknown)


def test_a_put_from_the_future_is_refused() -> None:
    one = OneNode().connect()
    one.put(age=-WINDOW, w=1, durability=0)
    assert isinstance(one.client.outcome(), Stored)
    one.put(key=b"bob", age=-WINDOW - 1)
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert "connect again" in outcome.text


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize(
    "config",
    [NodeConfig(requests_in_flight_max=2), NodeConfig(requests_in_flight_per_client_max=2)],
    ids=["all", "one client"],
)
def test_past_a_bound_requests_are_refused_at_once(kind: str, config: NodeConfig) -> None:
    one = OneNode(config=config).connect()
    for number in range(2):
        one.put(key=b"%d" % number, w=3)
    assert one.node.requests.in_flight == 2
    getattr(one, kind)()
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert (outcome.code, one.env.counters.overloads) == (OVERLOADED, 1)
    one.advance(5_010_000)
    assert len(one.client.outcomes()) == 2
    one.put(w=1, durability=0)
    assert isinstance(one.client.outcome(), Stored)


def test_answered_requests_behind_one_that_hangs_are_not_in_flight() -> None:
    """A put that waited for a dead disk had a fast node refuse everybody."""
    one = OneNode(config=NodeConfig(requests_in_flight_max=3)).connect()
    one.put(key=b"hangs", w=3)
    for _ in range(10):
        one.put(w=1, durability=0)
        one.advance(1)
    outcomes = [outcome for _, outcome in one.client.outcomes()]
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    assert len(outcomes) == 10


def test_what_is_answered_is_looked_for_once_a_turn() -> None:
    one = OneNode(config=NodeConfig(requests_in_flight_max=2)).connect()
    one.put(key=b"1", w=3)
    one.put(key=b"2", w=3)
    one.get()
    before = one.node.requests.open
    one.get()
    assert one.node.requests.open is before
    assert len(one.client.outcomes()) == 2


def test_forwarding_is_bounded_too() -> None:
    one = OneNode(count=4, config=NodeConfig(requests_in_flight_per_client_max=1)).connect()
    key = next(
        key
        for key in (b"%d" % number for number in range(1000))
        if 1 not in one.ring.owners_of_engine_key(one.key(key))
    )
    one.get(key=key)
    one.get(key=key)
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert outcome.code == OVERLOADED
    assert one.client.in_flight == 1


def test_a_store_that_takes_nothing_refuses_puts_and_serves_gets() -> None:
    one = OneNode().connect()
    one.store.buffer.failed = "the engine has failed"
    one.put(w=1)
    assert refusal_of(one, OVERLOADED) == "the engine has failed; nothing was written"
    one.get(r=1)
    assert isinstance(one.client.outcome(), Found)


def test_puts_that_no_client_settles_are_bounded() -> None:
    one = OneNode(config=NodeConfig(remembered_puts_max=2)).connect()
    for _ in range(3):
        one.put(key=b"bob", w=1, durability=0)
    (_, outcome) = one.client.outcomes()[-1]
    assert isinstance(outcome, Refusal)
    assert "never settle" in outcome.text
    one.advance(2 * WINDOW + 1_000_000)
    one.put(key=b"bob", w=1, durability=0)
    assert isinstance(one.client.outcome(), Stored)


def lww_table(one: OneNode) -> bytes:
    one.question(TableCreate(1, "clocked", resolution="lww", durability="none", w=1))
    table = one.node.tables.registry.by_name("clocked")
    assert table is not None
    return table.id


def test_a_clock_that_is_off_refuses_last_write_wins_only() -> None:
    one = OneNode().connect()
    table = lww_table(one)
    one.sync()
    one.client.take()
    one.node.requests.clock_is_off = True
    one.put(table=table)
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert "this node's clock is off the median" in outcome.text
    assert one.env.counters.clock_refusals == 1
    one.put(w=1, durability=0)
    assert isinstance(one.client.outcome(), Stored)


def test_last_write_wins_waits_for_a_lease_on_disk() -> None:
    one = OneNode().connect()
    table = lww_table(one)
    one.client.take()
    one.put(table=table)
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert (outcome.code, "lease" in outcome.text) == (OVERLOADED, True)
    one.sync()
    one.client.take()
    one.put(table=table)
    assert isinstance(one.client.outcome(), Stored)


def test_a_store_id_that_cannot_be_made_durable_refuses_the_put() -> None:
    one = OneNode().restart().connect()
    assert one.disk is not None
    one.disk.free_bytes = 0
    one.put(w=1, durability=0)
    assert "this node's data directory cannot be written" in refusal_of(one, OVERLOADED)


def test_a_put_takes_the_tables_w_durability_and_ttl() -> None:
    one = OneNode().connect()
    one.question(TableCreate(1, "carts", w=1, durability="one", ttl_seconds=5))
    table = one.node.tables.registry.by_name("carts")
    assert table is not None
    one.client.take()
    one.put(table=table.id)
    assert one.client.take() == []
    one.sync()
    outcomes = [each for each in one.client.take() if each[0] == 0x40]
    assert len(outcomes) == 1
    one.get(table=table.id, r=1)
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert found.siblings[0].expiry == one.env.wall + 5_000_000


def test_a_put_with_its_content_type_and_sort_key_comes_back_with_them() -> None:
    one = OneNode().connect()
    one.put(sort_key=b"cart", content_type=b"text/plain", w=1, durability=0)
    one.client.take()
    one.get(sort_key=b"cart", r=1)
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert found.siblings[0].content_type == "text/plain"
    one.get(r=1)
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert not found.known


def test_a_damaged_own_copy_is_replaced_by_a_put() -> None:
    one = OneNode().connect()
    one.put(w=1, durability=0)
    drain(one.store.buffer)
    one.engine.records[one.key()] = b"garbage that is long enough"
    one.put(value=b"lamp", w=1, durability=0)
    assert len(one.client.outcomes()) == 2
    one.get(r=1)
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert found.values == (b"lamp",)


def test_a_read_first_put_may_carry_a_value() -> None:
    one = OneNode().connect()
    one.put(flags=READ_FIRST, w=1, durability=0)
    member = next(member for member in one.others if one.asked(member))
    one.answers(member, OK)
    assert isinstance(one.client.outcome(), Stored)
