"""Requests on keys over HTTP: what each answers, and what of it reaches the node."""

import gzip
import json
from email import message_from_bytes
from typing import Any

import pytest

from kvorum.config import NodeConfig
from kvorum.protocol.tracing import PATIENCE, TRACES_MAX
from kvorum.server.http_headers import PutId
from kvorum.wire.link import OVERLOADED
from tests.support.http_door import Client, Doors, Reply, request
from tests.support.recording import OneNode

KEY = "/tables/default/keys/alice"
NONE = "?durability=none"


def put(client: Client, value: bytes, **headers: str) -> Reply:
    reply = client.ask("PUT", KEY + NONE, value, **headers)
    assert reply.status == 204, reply
    return reply


def problem(reply: Reply) -> dict[str, Any]:
    assert reply.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(reply.body)
    assert document["status"] == reply.status
    assert document["type"] == f"urn:kvorum:problem:{document['code']}"
    assert document["detail"]
    assert document["action"]
    return document


def test_a_value_comes_back_with_its_type_and_what_is_known_of_it() -> None:
    client = Doors().client()
    stored = put(client, b"\x00book\xff", Content_Type="text/plain; charset=utf-8")
    assert stored.headers["x-kvorum-acks"] == "a;level=memory"
    assert stored.headers["x-kvorum-w"] == "1"
    assert stored.headers["x-kvorum-coordinator"] == "a"
    reply = client.ask("GET", KEY)
    assert (reply.status, reply.body) == (200, b"\x00book\xff")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["x-kvorum-time"] == "2023-11-14T22:13:20.000000Z"
    assert reply.headers["x-kvorum-replicas"] == "a"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["etag"].startswith('W/"')
    assert reply.headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    head = client.ask("HEAD", KEY)
    assert head == Reply(200, reply.headers, b"")
    assert client.ask("GET", f"{KEY}/sorted").status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_traced_request_is_answered_as_ever_and_tells_its_steps(method: str) -> None:
    client = Doors().client()
    put(client, b"book")
    body = b"pen" if method == "PUT" else None
    path = KEY + (NONE if method in ("PUT", "DELETE") else "")
    client.send(request(method, path, body, X_Kvorum_Trace="1"))
    (reply,) = client.take_for(method)
    steps = reply.headers["x-kvorum-trace"].split(", ")
    taken, *own, answered = steps
    assert (taken, answered) == ('a;at_us=0;what="taken"', 'a;at_us=0;what="answered"')
    read = 'a;at_us=0;what="read";detail="its own copy"'
    written = 'a;at_us=0;what="written";detail="to memory"'
    assert own == {"GET": [read], "HEAD": [read], "PUT": [written]}.get(method, [written])
    assert reply.status == {"GET": 200, "HEAD": 200}.get(method, 204)
    assert reply.body == (b"book" if method == "GET" else b"")
    assert reply.headers["x-kvorum-context"]
    assert client.doors.one.node.tracer.open == {}
    untraced = client.ask("GET", KEY, X_Kvorum_Trace="0")
    assert "x-kvorum-trace" not in untraced.headers


def test_a_traced_request_that_is_refused_tells_its_steps_too() -> None:
    client = Doors().client()
    client.send(request("GET", KEY, X_Kvorum_Trace="1"))
    (reply,) = client.take()
    assert reply.headers["x-kvorum-trace"].count("a;at_us=0") == 3
    assert problem(reply)["code"] == "not_found"
    reply = client.ask("GET", KEY, X_Kvorum_Trace="yes")
    assert problem(reply)["code"] == "bad_header"


def test_more_traces_than_there_may_be_are_refused_and_none_outlives_its_connection() -> None:
    one = OneNode().connect()
    doors = Doors(one)
    clients = [doors.client() for _ in range(TRACES_MAX)]
    for client in clients:
        client.send(request("GET", KEY, X_Kvorum_Trace="1"))
    late = doors.client().ask("GET", KEY, X_Kvorum_Trace="1")
    assert problem(late)["code"] == "overloaded"
    assert late.status == 503
    for client in clients:
        client.connection.connection_lost(None)
    one.accepts(2)
    one.accepts(3)
    one.advance(PATIENCE)
    assert one.node.tracer.open == {}


def test_a_caller_who_waits_no_longer_is_told_so_though_its_request_is_traced() -> None:
    one = OneNode().connect()
    client = Doors(one).client()
    client.send(request("GET", KEY + "?timeout_ms=50", X_Kvorum_Trace="1"))
    client.doors.turns.loop.ring(0.05)
    (reply,) = client.take_now()
    assert problem(reply)["code"] == "timed_out"
    one.accepts(2)
    one.accepts(3)
    one.advance(PATIENCE)
    assert client.take_now() == []


def test_a_value_without_a_type_is_just_bytes() -> None:
    client = Doors().client()
    put(client, b"")
    reply = client.ask("GET", KEY)
    assert (reply.body, reply.headers["content-type"]) == (b"", "application/octet-stream")


def test_a_type_that_would_break_the_header_is_not_shown() -> None:
    doors = Doors()
    doors.one.put(durability=0, content_type=b"text/html\r\nSet-Cookie: a=b")
    reply = doors.client().ask("GET", KEY)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "set-cookie" not in reply.headers


def test_a_write_with_the_context_replaces_and_one_without_stands_beside() -> None:
    client = Doors().client()
    put(client, b"book")
    context = client.ask("GET", KEY).headers["x-kvorum-context"]
    put(client, b"book, pen", X_Kvorum_Context=context)
    assert client.ask("GET", KEY).body == b"book, pen"
    put(client, b"book, lamp", X_Kvorum_Context=context)
    reply = client.ask("GET", KEY)
    assert reply.status == 300
    put(client, b"all", X_Kvorum_Context=reply.headers["x-kvorum-context"])
    assert client.ask("GET", KEY).body == b"all"
    put(client, b"blind")
    assert client.ask("GET", KEY).status == 300


def test_a_put_returns_a_context_to_go_on_from() -> None:
    client = Doors().client()
    context = put(client, b"1").headers["x-kvorum-context"]
    for number in range(2, 5):
        stored = put(client, b"%d" % number, X_Kvorum_Context=context)
        context = stored.headers["x-kvorum-context"]
    assert client.ask("GET", KEY).body == b"4"


def test_siblings_are_parts_that_any_mail_parser_reads() -> None:
    client = Doors().client()
    put(client, b"book\r\n--x", Content_Type="text/plain")
    put(client, b"\xffpen", Content_Type="image/x")
    reply = client.ask("GET", KEY)
    assert reply.status == 300
    message = message_from_bytes(
        f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode() + reply.body
    )
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert [part.get_content_type() for part in parts] == ["text/plain", "image/x"]
    assert [part.get_payload(decode=True) for part in parts] == [b"book\r\n--x", b"\xffpen"]
    assert len({part["X-Kvorum-Dot"] for part in parts}) == 2
    assert all(part["X-Kvorum-Time"] for part in parts)
    assert client.ask("HEAD", KEY).headers == reply.headers


def test_siblings_are_json_for_whom_wants_it() -> None:
    client = Doors().client()
    put(client, b"book", Content_Type="text/plain")
    put(client, b"\xffpen")
    reply = client.ask("GET", KEY, Accept="application/json")
    assert (reply.status, reply.headers["content-type"]) == (300, "application/json")
    document = json.loads(reply.body)
    assert document["context"] == reply.headers["x-kvorum-context"]
    assert document["etag"] == reply.headers["etag"]
    first, second = document["siblings"]
    assert first["value"] == {"text": "book"}
    assert first["content_type"] == "text/plain"
    assert second["value"] == {"base64": "/3Blbg=="}
    assert first["dot"] < second["dot"]
    assert reply.headers["vary"] == "Accept"


def test_a_delete_takes_what_it_has_read() -> None:
    client = Doors().client()
    assert client.ask("DELETE", KEY + NONE).status == 204
    put(client, b"book")
    put(client, b"pen")
    assert client.ask("DELETE", KEY + NONE).status == 204
    reply = client.ask("GET", KEY)
    assert (reply.status, problem(reply)["code"]) == (404, "deleted")
    context = reply.headers["x-kvorum-context"]
    put(client, b"again", X_Kvorum_Context=context)
    assert client.ask("GET", KEY).body == b"again"


def test_a_delete_with_a_context_spares_what_it_has_not_seen() -> None:
    client = Doors().client()
    context = put(client, b"book").headers["x-kvorum-context"]
    put(client, b"pen")
    reply = client.ask("DELETE", KEY + NONE, X_Kvorum_Context=context)
    assert reply.status == 204
    reply = client.ask("GET", KEY)
    assert (reply.status, reply.body) == (200, b"pen")
    assert reply.headers["x-kvorum-concurrent-delete"] == "true"
    put(client, b"lamp")
    listed = json.loads(client.ask("GET", KEY, Accept="application/json").body)["siblings"]
    assert [sibling.get("deleted", False) for sibling in listed].count(True) == 1
    assert b"X-Kvorum-Deleted: true" in client.ask("GET", KEY).body


def test_a_key_that_never_was_has_no_context() -> None:
    reply = Doors().client().ask("GET", KEY)
    assert (reply.status, problem(reply)["code"]) == (404, "not_found")
    assert "x-kvorum-context" not in reply.headers


def test_an_etag_tells_whether_the_record_is_the_same() -> None:
    client = Doors().client()
    put(client, b"book")
    etag = client.ask("GET", KEY).headers["etag"]
    for condition in (etag, etag.removeprefix("W/"), "*", f'"x", {etag}'):
        for method in ("GET", "HEAD"):
            reply = client.ask(method, KEY, If_None_Match=condition)
            assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
    assert client.ask("GET", KEY, If_None_Match='"other"').status == 200
    put(client, b"book")
    reply = client.ask("GET", KEY, If_None_Match=etag)
    assert reply.status == 300
    assert client.ask("GET", KEY, If_None_Match=reply.headers["etag"]).status == 304


def test_the_etag_is_the_same_for_every_form_and_node() -> None:
    doors = Doors()
    client = doors.client()
    put(client, b"x" * 5000, Content_Type="text/plain")
    plain = client.ask("GET", KEY)
    packed = client.ask("GET", KEY, Accept_Encoding="gzip")
    assert plain.headers["etag"] == packed.headers["etag"]
    assert client.ask("GET", f"{KEY}?r=1").headers["etag"] == plain.headers["etag"]


@pytest.mark.parametrize(
    "name", ["If_Match", "If_None_Match", "If_Modified_Since", "If_Unmodified_Since", "If_Range"]
)
def test_conditional_writes_are_refused_with_an_explanation(name: str) -> None:
    client = Doors().client()
    for reply in (
        client.ask("PUT", KEY + NONE, b"v", **{name: "*"}),
        client.ask("DELETE", KEY + NONE, **{name: "*"}),
    ):
        assert reply.status == 501
        document = problem(reply)
        assert document["code"] == "conditional_write"
        assert "X-Kvorum-Context" in document["action"]
    assert client.ask("GET", KEY).status == 404


def test_a_put_id_makes_a_put_once() -> None:
    doors = Doors()
    client = doors.client()
    put_id = str(PutId(b"client 1", 7, doors.one.node.peering.steady // 1000 * 1000))
    first = put(client, b"v", X_Kvorum_Put_Id=put_id)
    assert first.headers["x-kvorum-put-id"] == put_id
    again = put(doors.client(), b"v", X_Kvorum_Put_Id=put_id.upper().replace("CLIENT", "client"))
    assert again.headers["x-kvorum-context"] == first.headers["x-kvorum-context"]
    assert client.ask("GET", KEY).status == 200
    assert doors.one.env.counters.retries_known == 1


def test_an_old_put_id_is_answered_unknown() -> None:
    doors = Doors()
    old = doors.one.node.peering.steady - 61_000_000
    reply = doors.client().ask(
        "PUT", KEY + NONE, b"v", X_Kvorum_Put_Id=str(PutId(b"client 1", 7, old))
    )
    assert reply.status == 504
    assert problem(reply)["code"] == "outcome_unknown"


def test_every_put_is_told_its_id_and_settled() -> None:
    doors = Doors()
    client = doors.client()
    ids = {put(client, b"v").headers["x-kvorum-put-id"] for _ in range(5)}
    assert len(ids) == 5
    client.ask("DELETE", KEY + NONE)
    assert doors.one.node.requests.ledger.count == 1  # Only the last is not yet said to be over.


def three_nodes() -> tuple[OneNode, Doors]:
    one = OneNode(durable=False).connect()
    return one, Doors(one)


def test_an_unknown_outcome_names_the_id_to_ask_under() -> None:
    one, doors = three_nodes()
    client = doors.client()
    client.send(b"".join(_puts(1)))
    one.asked(2)
    one.advance(6_000_000)
    (reply,) = client.take_now()
    assert reply.status == 504
    document = problem(reply)
    assert document["code"] == "outcome_unknown"
    assert document["put_id"] == reply.headers["x-kvorum-put-id"]
    # Asked again it is the same write, and another one goes under another client id.
    client.send(_puts(1, document["put_id"])[0])
    one.accepts(2)
    (reply,) = client.take_now()
    assert (reply.status, reply.headers["x-kvorum-put-id"]) == (204, document["put_id"])
    assert one.env.counters.retries_known == 1
    client.send(_puts(1)[0])
    one.accepts(2)
    (other,) = client.take_now()
    assert other.headers["x-kvorum-put-id"][-32:-16] != document["put_id"][-32:-16]


def _puts(count: int, put_id: str = "") -> list[bytes]:
    header = f"X-Kvorum-Put-Id: {put_id}\r\n" if put_id else ""
    text = f"PUT {KEY}{NONE} HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 1\r\n\r\nv"
    return [text.encode()] * count


def test_a_caller_may_set_a_limit_of_its_own() -> None:
    one, doors = three_nodes()
    client = doors.client()
    client.send(f"GET {KEY}?timeout_ms=50 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    client.send(_puts(1)[0].replace(b"?", b"?timeout_ms=60&"))
    doors.turns.loop.ring(0.05)
    doors.turns.loop.ring(0.06)
    late_get, late_put = client.take_now()
    assert (late_get.status, problem(late_get)["code"]) == (504, "timed_out")
    assert (late_put.status, problem(late_put)["code"]) == (504, "outcome_unknown")
    one.accepts(2)
    assert client.take_now() == []  # What comes now nobody waits for.
    client.send(f"GET {KEY}?timeout_ms=50 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    one.accepts(2)
    assert client.take_now()[0].status == 200
    doors.turns.loop.ring(0.05)
    assert client.take_now() == []


def test_too_few_replicas_are_told_with_when_to_come_again() -> None:
    one = OneNode(durable=False)
    client = Doors(one).client()
    reply = client.ask("PUT", KEY + NONE, b"v")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert problem(reply)["code"] == "quorum_not_met"
    client.send(f"GET {KEY} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    one.advance(6_000_000)
    (reply,) = client.take_now()
    assert (reply.status, problem(reply)["code"]) == (503, "quorum_not_met")


def test_an_overloaded_node_says_so() -> None:
    doors = Doors(config=NodeConfig(remembered_puts_max=1))
    client = doors.client()
    put_id = str(PutId(b"client 1", 7, doors.one.node.peering.steady))
    put(client, b"v", X_Kvorum_Put_Id=put_id)
    reply = client.ask("PUT", KEY + NONE, b"v")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert problem(reply)["code"] == "overloaded"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("PUT", "/tables/none/keys/k", b"v", {}, 404, "unknown_table"),
        ("GET", "/tables/%ff/keys/k", None, {}, 404, "unknown_table"),
        ("GET", "/tables/default/keys/k?r=4", None, {}, 400, "bad_request"),
        ("PUT", "/tables/default/keys/k?w=2", b"v", {}, 400, "bad_request"),
        ("PUT", "/tables/default/keys/k?r=1", b"v", {}, 400, "bad_query"),
        ("DELETE", "/tables/default/keys/k?ttl_seconds=1", None, {}, 400, "bad_query"),
        ("PUT", "/tables/default/keys/k", None, {}, 411, "length_required"),
        ("PUT", KEY, b"v", {"X_Kvorum_Context": "!"}, 400, "bad_context"),
        ("PUT", KEY + NONE, b"v", {"X_Kvorum_Context": "AAAA"}, 400, "bad_context"),
        ("PUT", KEY, b"v", {"X_Kvorum_Put_Id": "1"}, 400, "bad_header"),
        ("PUT", KEY, b"v", {"Content_Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("GET", KEY, None, {"If_Match": "*"}, 501, "conditional_write"),
        ("PATCH", KEY, None, {}, 405, "method_not_allowed"),
        ("POST", "/tables/default/keys", None, {}, 405, "method_not_allowed"),
        ("HEAD", "/tables/default/keys", None, {}, 405, "method_not_allowed"),
        ("TRACE", "/", None, {}, 405, "method_not_allowed"),
        ("GET", "/tables/default/keys/" + "x" * 2049, None, {}, 413, "too_large"),
        ("GET", "/tables/default/keys/x/" + "x" * 1025, None, {}, 413, "too_large"),
    ],
)
def test_what_is_wrong_is_said(
    method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, code: str
) -> None:
    client = Doors().client()
    reply = client.ask(method, path, body, **headers)
    assert reply.status == status
    if method != "HEAD":
        assert problem(reply)["code"] == code
    if status == 405:
        assert "GET" in reply.headers["allow"]


def test_options_names_the_methods() -> None:
    reply = Doors().client().ask("OPTIONS", KEY)
    assert (reply.status, reply.headers["allow"]) == (204, "GET, HEAD, PUT, DELETE, OPTIONS")


def test_options_of_the_request_reach_the_node() -> None:
    one, doors = three_nodes()
    client = doors.client()
    client.send(f"GET {KEY}?r=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert client.take_now()[0].status == 404
    reply = client.ask("PUT", f"{KEY}?w=3&durability=all", b"v")
    assert problem(reply)["code"] == "quorum_not_met"  # Nobody here has a disk.
    client.ask("PUT", f"{KEY}?w=1&durability=none&ttl_seconds=1", b"v")
    assert one.node.store.get(one.key()) is not None
    one.accepts(2)


def test_a_refusal_of_replicas_is_no_secret() -> None:
    one, doors = three_nodes()
    client = doors.client()
    client.send(_puts(1)[0])
    for member in (2, 3):
        one.asked(member)
        one.answers(member, OVERLOADED)
    one.advance(6_000_000)
    (reply,) = client.take_now()
    assert problem(reply)["code"] == "outcome_unknown"


def test_what_is_worth_it_is_packed_for_whom_takes_it() -> None:
    client = Doors().client()
    for size, packed in ((1023, False), (1024, True), (30_000, True)):
        context = client.ask("GET", KEY).headers.get("x-kvorum-context")
        given = {"X_Kvorum_Context": context} if context else {}
        put(client, b"x" * size, Content_Type="text/plain", **given)
        reply = client.ask("GET", KEY, Accept_Encoding="gzip")
        assert (reply.headers.get("content-encoding") == "gzip") == packed
        body = gzip.decompress(reply.body) if packed else reply.body
        assert body == b"x" * size
        plain = client.ask("GET", KEY)
        assert plain.body == b"x" * size
        for each in (plain, reply):  # A cache must know of the other form, whichever it keeps.
            assert each.headers.get("vary") == ("Accept-Encoding" if packed else None)
    context = client.ask("GET", KEY).headers["x-kvorum-context"]
    put(client, b"x" * 5000, Content_Type="image/png", X_Kvorum_Context=context)
    image = client.ask("GET", KEY, Accept_Encoding="gzip").headers
    assert "content-encoding" not in image
    assert "vary" not in image


def test_large_values_are_packed_off_the_loop() -> None:
    doors = Doors()
    client = doors.client()
    put(client, b"x" * 100_000, Content_Type="text/plain")
    client.send(f"GET {KEY} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode())
    assert client.take() == []
    assert doors.door._threads is not None
    doors.door._threads.shutdown()
    for call in doors.turns.loop.handed_over:
        call()
    (reply,) = client.take_now()
    assert gzip.decompress(reply.body) == b"x" * 100_000
