"""Keys over HTTP: written in pieces, gone on with from a cursor."""

import gzip
import json
import zlib
from typing import Any

import pytest

from kvorum.protocol import listing
from tests.support.http_door import Client, Doors, Reply

KEYS = "/tables/default/keys"


def filled(*keys: str) -> Doors:
    doors = Doors()
    client = doors.client()
    for key in keys:
        assert client.ask("PUT", f"{KEYS}/{key}?durability=none", b"v").status == 204
    return doors


def listed(doors: Doors, client: Client, query: str = "", **headers: str) -> Reply:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    client.send(f"GET {KEYS}{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    doors.one.advance(1_000_000)
    (reply,) = client.take_now()
    assert reply.status == 200
    return reply


def names(document: Any) -> list[str]:
    return [each["key"]["text"] for each in document["keys"]]


def test_all_keys_are_listed_once() -> None:
    keys = [f"key-{number}" for number in range(300)]
    doors = filled(*keys)
    document = json.loads(listed(doors, doors.client()).body)
    assert sorted(names(document)) == sorted(keys)
    assert document["cursor"] is None
    assert "problem" not in document


def test_pages_follow_each_other_by_their_cursors() -> None:
    keys = [f"key-{number}" for number in range(50)]
    doors = filled(*keys)
    client = doors.client()
    whole = names(json.loads(listed(doors, client).body))
    found: list[str] = []
    query = "?limit=7"
    while True:
        document = json.loads(listed(doors, client, query).body)
        found += names(document)
        if document["cursor"] is None:
            break
        assert len(document["keys"]) == 7
        query = f"?limit=7&after={document['cursor']}"
    assert found == whole


def test_a_prefix_and_sort_keys_and_any_bytes() -> None:
    doors = filled("a/1", "a/2", "b/1", "%ff%00")
    document = json.loads(listed(doors, doors.client(), "?prefix=%61").body)
    assert sorted((each["key"]["text"], each["sort_key"]["text"]) for each in document["keys"]) == [
        ("a", "1"), ("a", "2"),
    ]  # fmt: skip
    document = json.loads(listed(doors, doors.client(), "?prefix=%ff").body)
    assert document["keys"] == [{"key": {"base64": "/wA="}}]


def test_what_is_deleted_is_not_listed() -> None:
    doors = filled("a", "b")
    client = doors.client()
    client.ask("DELETE", f"{KEYS}/a?durability=none")
    assert names(json.loads(listed(doors, client).body)) == ["b"]


def test_a_listing_may_be_packed() -> None:
    doors = filled(*[f"key-{number}" for number in range(100)])
    reply = listed(doors, doors.client(), Accept_Encoding="gzip")
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.headers["vary"] == "Accept-Encoding"
    assert len(json.loads(gzip.decompress(reply.body))["keys"]) == 100


def test_http_1_0_is_told_the_end_by_the_end() -> None:
    doors = filled("a")
    client = doors.client()
    client.send(f"GET {KEYS} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
    doors.one.advance(1_000_000)
    doors.turns.end()
    head, _, body = client.transport.written.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert names(json.loads(body)) == ["a"]
    assert client.ended


def test_the_next_page_waits_until_this_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EXAMINED_MAX", 64)
    doors = filled(*[f"key-{number}" for number in range(200)])
    client = doors.client()
    client.connection.pause_writing()
    client.send(f"GET {KEYS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    doors.one.advance(1_000_000)
    doors.turns.end()
    assert 0 < client.transport.written.count(b'"key"') <= 64
    client.connection.resume_writing()
    for _ in range(5):
        doors.one.advance(1_000_000)
        doors.turns.end()
    (reply,) = client.take_now()
    assert len(json.loads(reply.body)["keys"]) == 200


def test_who_goes_away_stops_its_listing() -> None:
    doors = filled(*[f"key-{number}" for number in range(200)])
    client = doors.client()
    client.send(f"GET {KEYS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    client.connection.connection_lost(None)
    doors.one.advance(1_000_000)
    assert doors.one.node.listing.open == 0


def test_what_goes_wrong_on_the_way_stands_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EXAMINED_MAX", 64)
    doors = filled()
    client = doors.client()
    client.ask("PUT", "/tables/t")
    for number in range(200):
        client.ask("PUT", f"/tables/t/keys/{number}?durability=none", b"v")
    client.send(b"GET /tables/t/keys HTTP/1.1\r\nHost: localhost\r\n\r\n")
    doors.one.advance(0)
    other = doors.client()
    assert other.ask("DELETE", "/tables/t").status == 204
    doors.one.advance(1_000_000)
    (reply,) = client.take_now()
    document = json.loads(reply.body)
    assert document["problem"]["code"] == "unknown_table"
    assert len(document["keys"]) == 64


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/tables/none/keys", 404, "unknown_table"),
        (f"{KEYS}?limit=0", 400, "bad_query"),
        (f"{KEYS}?limit=100001", 400, "bad_query"),
        (f"{KEYS}?after=", 400, "bad_query"),
        (f"{KEYS}?after=!", 400, "bad_query"),
        (f"{KEYS}?after={'A' * 3000}", 400, "bad_query"),
        (f"{KEYS}?prefix=%f", 400, "bad_path"),
        (f"{KEYS}?before=x", 400, "bad_query"),
    ],
)
def test_what_is_wrong_is_said(path: str, status: int, code: str) -> None:
    reply = Doors().client().ask("GET", path)
    assert (reply.status, json.loads(reply.body)["code"]) == (status, code)


def test_any_cursor_is_a_place_to_go_on_from() -> None:
    doors = filled("a", "b")
    for cursor in ("AA", "_w", "_" * 40):
        document = json.loads(listed(doors, doors.client(), f"?after={cursor}").body)
        assert len(document["keys"]) <= 2


def test_pieces_that_are_packed_can_be_read_as_they_come() -> None:
    doors = filled("a")
    client = doors.client()
    client.send(f"GET {KEYS} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode())
    doors.one.advance(1_000_000)
    (reply,) = client.take_now()
    assert b'"a"' in zlib.decompressobj(31).decompress(reply.body)
