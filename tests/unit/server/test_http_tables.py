"""Tables over HTTP: listed, shown, created, changed and dropped."""

import json
from typing import Any

import pytest

from kvorum.server.http_openapi import openapi
from tests.support.http_door import Client, Doors, Reply
from tests.support.recording import OneNode


def ask(client: Client, method: str, path: str, document: Any = None) -> Reply:
    if document is None:
        return client.ask(method, path)
    return client.ask(method, path, json.dumps(document).encode(), Content_Type="application/json")


def code_of(reply: Reply) -> str:
    return str(json.loads(reply.body)["code"])


def test_a_table_lives_from_put_to_delete() -> None:
    doors = Doors()
    client = doors.client()
    wish = {"resolution": "lww", "durability": "none", "ttl_seconds": 60, "sloppy": False}
    created = ask(client, "PUT", "/tables/carts", wish)
    assert created.status == 201
    table = json.loads(created.body)
    assert table["name"] == "carts"
    assert {name: table[name] for name in wish} == wish
    assert (table["r"], table["w"], table["conflict"], table["unreached"]) == (1, 1, False, [])
    assert ask(client, "PUT", "/tables/carts", wish).status == 200
    assert json.loads(ask(client, "GET", "/tables/carts").body) == table
    listed = json.loads(ask(client, "GET", "/tables").body)["tables"]
    assert [each["name"] for each in listed] == ["carts", "default"]
    changed = ask(client, "PATCH", "/tables/carts", {"max_siblings": 7, "ttl_seconds": 0})
    assert changed.status == 200
    assert json.loads(changed.body) == table | {"max_siblings": 7, "ttl_seconds": 0}
    assert client.ask("PUT", "/tables/carts/keys/k", b"v").status == 204
    assert ask(client, "DELETE", "/tables/carts").status == 204
    assert code_of(ask(client, "GET", "/tables/carts")) == "unknown_table"
    assert code_of(client.ask("GET", "/tables/carts/keys/k")) == "unknown_table"


@pytest.mark.parametrize("name", [".", "..", "%2E%2e"])
def test_no_table_is_called_as_a_step_in_a_path(name: str) -> None:
    client = Doors().client()
    reply = client.ask("PUT", f"/tables/{name}")
    assert (reply.status, code_of(reply)) == (400, "bad_request")
    assert "a step in the path of a URL" in json.loads(reply.body)["detail"]
    assert client.ask("PUT", "/tables/...").status == 201


def test_a_table_without_wishes_is_as_the_default_one() -> None:
    client = Doors().client()
    reply = client.ask("PUT", "/tables/plain")
    assert reply.status == 201
    default = json.loads(client.ask("GET", "/tables/default").body)
    assert json.loads(reply.body) | {"name": "", "id": ""} == default | {"name": "", "id": ""}


def test_which_of_two_tables_is_dropped_is_said_by_its_id() -> None:
    client = Doors().client()
    table = json.loads(client.ask("PUT", "/tables/t").body)
    assert code_of(client.ask("DELETE", "/tables/t?id=0000000000000000")) == "unknown_table"
    assert client.ask("DELETE", f"/tables/t?id={table['id']}").status == 204


@pytest.mark.parametrize(
    ("method", "path", "document", "status", "code"),
    [
        ("PUT", "/tables/default", {"w": 1, "max_siblings": 5}, 409, "table_exists"),
        ("PUT", "/tables/t", {"w": 4}, 400, "bad_request"),
        ("PUT", "/tables/t", {"w": 0}, 400, "bad_body"),
        ("PUT", "/tables/t", {"W": 1}, 400, "bad_body"),
        ("PUT", "/tables/t", {"w": "1"}, 400, "bad_body"),
        ("PUT", "/tables/t", {"ttl_seconds": -1}, 400, "bad_body"),
        ("PUT", "/tables/t", {"resolution": "magic"}, 400, "bad_body"),
        ("PUT", "/tables/t", [], 400, "bad_body"),
        ("PUT", "/tables/" + "x" * 129, {}, 400, "bad_request"),
        ("PUT", "/tables/a%2Fb", {}, 400, "bad_request"),
        ("PUT", "/tables/%ff", {}, 400, "bad_request"),
        ("PUT", "/tables/t?w=1", {}, 400, "bad_query"),
        ("PATCH", "/tables/none", {}, 404, "unknown_table"),
        ("PATCH", "/tables/default", {"resolution": "lww"}, 400, "bad_body"),
        ("DELETE", "/tables/default", None, 400, "bad_request"),
        ("DELETE", "/tables/none", None, 404, "unknown_table"),
        ("DELETE", "/tables/t?id=xyz", None, 400, "bad_query"),
        ("DELETE", "/tables/t?id=00", None, 400, "bad_query"),
        ("GET", "/tables?limit=1", None, 400, "bad_query"),
    ],
)
def test_what_is_wrong_is_said(
    method: str, path: str, document: Any, status: int, code: str
) -> None:
    reply = ask(Doors().client(), method, path, document)
    assert (reply.status, code_of(reply)) == (status, code)


def test_a_body_must_say_that_it_is_json() -> None:
    client = Doors().client()
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        reply = client.ask("PUT", "/tables/t", b"{}", Content_Type=content_type)
        assert (reply.status, code_of(reply)) == (415, "unsupported_media_type")
    deep = b"[" * 100_000
    reply = client.ask("PUT", "/tables/t", deep[:60_000], Content_Type="application/json")
    assert code_of(reply) == "bad_body"


def test_a_change_names_who_has_not_confirmed_it() -> None:
    one = OneNode(durable=False)
    doors = Doors(one)
    client = doors.client()
    client.send(b"PUT /tables/t HTTP/1.1\r\nHost: localhost\r\n\r\n")
    one.advance(1_100_000)
    (reply,) = client.take_now()
    assert json.loads(reply.body)["unreached"] == ["b", "c"]


def test_index_and_document_are_served() -> None:
    doors = Doors()
    client = doors.client()
    index = json.loads(client.ask("GET", "/").body)
    assert (index["node"], index["api"]) == ("a", "/openapi.json")
    reply = client.ask("GET", "/openapi.json")
    assert json.loads(reply.body) == json.loads(json.dumps(openapi(doors.one.config)))
    assert client.ask("HEAD", "/openapi.json").headers == reply.headers
