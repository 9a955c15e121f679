"""Requests are checked before they are sent, and say what is wrong with them."""

from typing import Any

import pytest

from kvorum.client.addresses import Address, parse_address, parse_addresses
from kvorum.client.requests import (
    ask_create,
    ask_set,
    key_bytes,
    make_delete,
    make_put,
    table_name,
    timeout_microseconds,
    ttl_microseconds,
)
from kvorum.errors import BadRequest, TooLarge
from kvorum.wire.messages import TableSet
from kvorum.wire.requests import READ_FIRST, TOMBSTONE


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7402", Address("127.0.0.1", 7402)),
        ("example.org", Address("example.org", 7401)),
        ("[::1]:7402", Address("::1", 7402)),
        ("[::1]", Address("::1", 7401)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", ":7401", "a:b", "a:0", "a:70000", "::1", "[::1", "[::1]x"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest, match="address"):
        parse_address(text)


def test_several_addresses() -> None:
    both = [Address("a", 1), Address("b", 7401)]
    assert parse_addresses("a:1, b") == parse_addresses(["a:1", "b", "a:1"]) == both
    with pytest.raises(BadRequest, match="no address"):
        parse_addresses([])


def put(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "table": "default", "key": "alice", "value": b"", "context": None, "sort_key": b"",
        "ttl_seconds": None, "w": None, "durability": None, "sloppy": None, "content_type": "",
        "retry": False,
    }  # fmt: skip
    return make_put(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"key": ""}, "the key is empty"),
        ({"key": None}, "a key is bytes or str, not NoneType"),
        ({"key": "\ud800"}, "cannot be written as UTF-8"),
        ({"sort_key": 7}, "a sort key is bytes or str"),
        ({"value": "text"}, "a value is bytes, not str"),
        ({"w": 1.5}, "w=1.5"),
        ({"w": 255}, "w=255"),
        ({"durability": "disk"}, "none, one, quorum or all"),
        ({"ttl_seconds": 0}, "ttl_seconds=0"),
        ({"ttl_seconds": float("nan")}, "ttl_seconds=nan"),
        ({"context": 1}, "a context is the bytes"),
    ],
)
def test_bad_puts(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        put(**changes)


def test_what_no_frame_can_hold() -> None:
    for changes in ({"key": "k" * 65536}, {"sort_key": b"s" * 65536}, {"content_type": "t" * 256}):
        with pytest.raises(TooLarge):
            put(**changes)


def test_a_delete_without_a_context_asks_the_node_to_read_first() -> None:
    assert make_delete("t", "k", None, b"", None, None, None, False).flags == TOMBSTONE | READ_FIRST
    assert make_delete("t", "k", b"c", b"", None, None, None, False).flags == TOMBSTONE


def test_durations() -> None:
    assert ttl_microseconds(0.5) == 500_000
    assert timeout_microseconds(2) == 2_000_000
    for seconds in (0, -1, 1e9):
        with pytest.raises(BadRequest, match="timeout_seconds"):
            timeout_microseconds(seconds)


def test_keys_and_names() -> None:
    assert key_bytes("ü") == "ü".encode()
    with pytest.raises(BadRequest, match="a table is named"):
        table_name("")
    with pytest.raises(BadRequest, match="siblings or lww"):
        ask_create("t", None, None, "newest", None, None, None, None, None)
    with pytest.raises(BadRequest, match="max_siblings=0"):
        ask_set("t", None, None, None, None, None, 0, None)


def test_a_time_to_live_can_be_taken_off_a_table() -> None:
    for given, sent in ((None, -1), (0, 0), (60, 60)):
        question = ask_set("t", None, None, None, None, given, None, None).question
        assert isinstance(question, TableSet)
        assert question.ttl_seconds == sent
