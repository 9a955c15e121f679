"""Batches: many requests in one, and an outcome for each."""

import json
from typing import Any

import pytest

from kvorum.config import NodeConfig
from kvorum.server import http_batch
from kvorum.server.http_batch import GET_WINDOW, WINDOW
from kvorum.server.http_headers import PutId
from tests.support.http_door import Client, Doors, request
from tests.support.recording import OneNode

PATH = "/tables/default/batch"


def body_of(*requests: dict[str, Any]) -> bytes:
    return json.dumps({"requests": requests}).encode()


def batch(client: Client, *requests: dict[str, Any], path: str = PATH) -> list[dict[str, Any]]:
    reply = client.ask("POST", path, body_of(*requests), Content_Type="application/json")
    assert reply.status == 200, reply
    results: list[dict[str, Any]] = json.loads(reply.body)["results"]
    assert len(results) == len(requests)
    return results


def put(key: Any, value: Any, **more: Any) -> dict[str, Any]:
    return {"op": "put", "key": key, "value": value, "durability": "none", **more}


def get(key: Any, **more: Any) -> dict[str, Any]:
    return {"op": "get", "key": key, **more}


def test_each_request_has_its_own_outcome() -> None:
    client = Doors().client()
    stored, refused, none = batch(
        client, put("a", "book", content_type="text/plain"), put("b", "v", w=3), get("c")
    )
    assert stored["status"] == 204
    assert stored["acks"] == [{"node": "a", "level": "memory", "fallback": False}]
    assert (refused["status"], refused["problem"]["code"]) == (400, "bad_request")
    assert (none["status"], none["problem"]["code"]) == (404, "not_found")
    (found,) = batch(client, get("a"))
    assert found["value"] == {"text": "book"}
    assert found["content_type"] == "text/plain"
    assert client.ask("GET", "/tables/default/keys/a").headers["etag"] == found["etag"]


def test_keys_and_values_may_be_any_bytes() -> None:
    client = Doors().client()
    key = {"base64": "/wA="}
    batch(client, put(key, {"base64": "AP8="}, sort_key={"text": "é"}))
    (found,) = batch(client, get(key, sort_key="é"))
    assert found["value"] == {"base64": "AP8="}
    assert client.ask("GET", "/tables/default/keys/%FF%00/%c3%a9").body == b"\x00\xff"


def test_contexts_go_round() -> None:
    client = Doors().client()
    (first,) = batch(client, put("a", "1"))
    batch(client, put("a", "2", context=first["context"]))
    (found,) = batch(client, get("a"))
    assert found["value"] == {"text": "2"}
    batch(client, put("a", "3"))
    (found,) = batch(client, get("a"))
    assert (found["status"], len(found["siblings"])) == (300, 2)
    (gone,) = batch(client, {"op": "delete", "key": "a", "durability": "none"})
    assert gone["status"] == 204
    (found,) = batch(client, get("a"))
    assert (found["status"], found["problem"]["code"]) == (404, "deleted")
    assert found["context"]


def test_a_put_id_counts_in_a_batch_too() -> None:
    doors = Doors()
    put_id = str(PutId(b"client 1", 7, doors.one.node.peering.steady // 1000 * 1000))
    client = doors.client()
    (first,) = batch(client, put("a", "1", put_id=put_id))
    assert first["put_id"] == put_id
    (again,) = batch(client, put("a", "1", put_id=put_id))
    assert again["context"] == first["context"]


def test_more_than_a_window_is_done_in_turn() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    count = WINDOW * 2 + 5
    requests = [put(f"k{number}", "v") for number in range(count)]
    client.send(request("POST", PATH, body_of(*requests), Content_Type="application/json"))
    assert len(one.asked(2)) == WINDOW
    for _ in range(3):
        one.accepts(2)
        client.doors.turns.end()
    (reply,) = client.take_now()
    assert [each["status"] for each in json.loads(reply.body)["results"]] == [204] * count
    assert one.env.counters.puts == count


def test_large_answers_are_asked_for_a_few_at_a_time() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    one.put(b"a", b"x" * 70_000, durability=0, w=1)
    one.accepts(2, large=True)
    requests = [get("a", r=1) for _ in range(GET_WINDOW)] + [get("b") for _ in range(20)]
    client.send(request("POST", PATH, body_of(*requests), Content_Type="application/json"))
    assert len(one.asked(2)) + len(one.asked(3)) == 2
    for _ in range(10):
        one.accepts(2)
        one.accepts(3)
        client.doors.turns.end()
    (reply,) = client.take_now()
    found = [each["status"] for each in json.loads(reply.body)["results"]]
    assert found == [200] * GET_WINDOW + [404] * 20


def test_what_is_not_done_in_time_says_so_one_by_one() -> None:
    one = OneNode(durable=False).connect()
    doors = Doors(one)
    client = doors.client()
    requests = [put("a", "v"), get("b"), *[put(f"k{number}", "v") for number in range(WINDOW)]]
    body = body_of(*requests)
    client.send(request("POST", f"{PATH}?timeout_ms=20", body, Content_Type="application/json"))
    doors.turns.loop.ring(0.02)
    (reply,) = client.take_now()
    results = json.loads(reply.body)["results"]
    codes = [each["problem"]["code"] for each in results]
    assert codes[:3] == ["outcome_unknown", "timed_out", "outcome_unknown"]
    assert codes[-2:] == ["overloaded", "overloaded"]
    assert results[0]["problem"]["put_id"]
    one.accepts(2)
    assert client.take_now() == []


def test_what_a_lost_connection_asked_is_let_go() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    client.send(request("POST", PATH, body_of(put("a", "v")), Content_Type="application/json"))
    client.connection.connection_lost(None)
    one.accepts(2)
    assert client.transport.written == b""


def test_gets_bring_no_more_than_an_answer_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_batch, "ANSWER_BYTES_MAX", 1500)
    monkeypatch.setattr(http_batch, "GET_WINDOW", 1)
    client = Doors().client()
    batch(client, put("a", "x" * 1000))
    results = batch(client, *[get("a") for _ in range(5)])
    assert [each["status"] for each in results] == [200, 200, 200, 413, 413]


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "get", "key": ""},
        {"op": "get", "key": {}},
        {"op": "get", "key": {"text": "a", "base64": ""}},
        {"op": "get", "key": "a", "w": 1},
        {"op": "get", "key": "a", "value": "v"},
        {"op": "get", "key": "a", "r": 0},
        {"op": "get", "key": "x" * 65_536},
        {"op": "put", "key": "a"},
        {"op": "put", "key": "a", "value": "v", "r": 1},
        {"op": "put", "key": "a", "value": "v", "context": "!"},
        {"op": "put", "key": "a", "value": "v", "context": "é"},
        {"op": "put", "key": "a", "value": "v", "put_id": "1"},
        {"op": "put", "key": "a", "value": "v", "ttl_seconds": 0},
        {"op": "put", "key": "a", "value": "v", "content_type": "a\r\nb"},
        {"op": "put", "key": "a", "value": "v", "content_type": "x" * 256},
        {"op": "delete", "key": "a", "value": "v"},
        {"op": "delete", "key": "a", "ttl_seconds": 5},
    ],
)
def test_one_wrong_request_fails_alone(wrong: dict[str, Any]) -> None:
    client = Doors().client()
    first, second = batch(client, wrong, put("fine", "v"))
    assert first["status"] in (400, 413)
    assert first["problem"]["detail"]
    assert second["status"] == 204


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'{"requests":[]}',
        b'{"requests":[{"op":"frob","key":"a"}]}',
        b'{"requests":[{"op":"get"}]}',
        b'{"requests":[{"op":"get","key":1}]}',
        b'{"requests":[{"op":"get","key":"a","more":1}]}',
        b'{"requests":[{"op":"get","key":{"base64":"!"}}]}',
        b'{"requests":[{"op":"get","key":"\xff"}]}',
        b"[" * 10_000,
        body_of(*[{"op": "get", "key": "a"}] * 1001),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(body: bytes) -> None:
    reply = Doors().client().ask("POST", PATH, body, Content_Type="application/json")
    assert (reply.status, json.loads(reply.body)["code"]) == (400, "bad_body")


def test_lone_surrogates_are_no_text() -> None:
    body = b'{"requests":[{"op":"get","key":"\\ud800"}]}'
    reply = Doors().client().ask("POST", PATH, body, Content_Type="application/json")
    assert reply.status in (200, 400)
    assert b'"bad_body"' in reply.body


def test_a_batch_needs_a_table_and_a_type() -> None:
    client = Doors(config=NodeConfig()).client()
    body = body_of(get("a"))
    reply = client.ask("POST", "/tables/none/batch", body, Content_Type="application/json")
    assert reply.status == 404
    assert client.ask("POST", PATH, body).status == 415
    assert client.ask("POST", f"{PATH}?r=1", body, Content_Type="application/json").status == 400
