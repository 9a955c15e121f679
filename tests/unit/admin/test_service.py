"""What the administration port answers, with the cluster's part played by hand."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvorum.admin.cluster import Cluster
from kvorum.admin.problems import CODES, problem_of
from kvorum.admin.service import BODY_BYTES_MAX, Service, decoded, make_service
from kvorum.client.store import Ack, Found, Stored
from kvorum.errors import BadRequest, KvorumError, NoNodeReachable, QuorumNotMet
from kvorum.model.record import Value, pack_value
from kvorum.model.version import make_actor, make_dot
from kvorum.server.environment import Event
from tests.support.admin import Answer, ask, standing_node
from tests.support.recording import WALL, OneNode

PUT = {"table": "default", "key": "alice", "context": "AQID", "value": "book, pen"}
JSON = {"content-type": "application/json"}


class PlayedTable:
    """One table whose key has two siblings; keeps what is put."""

    def __init__(self, sibling: bytes = b"book") -> None:
        self.sibling = sibling
        self.puts: list[tuple[bytes, bytes, dict[str, Any]]] = []

    async def get(self, key: bytes, *, sort_key: bytes) -> Found:
        if key == b"lost":
            raise QuorumNotMet("1 of 2 owners is there")
        actor = make_actor(b"store 01", 1)
        values = [
            Value(pack_value(make_dot(actor, index), WALL, 0, bytes(16), False, b"", data))
            for index, data in ((1, self.sibling), (2, b"\xff"))
        ]
        return Found(values, b"\1\2\3", True, 1, (1, 2), False)

    async def put(self, key: bytes, value: bytes, **options: Any) -> Stored:
        self.puts.append((key, value, options))
        return Stored(b"\4", (Ack(1, "disk", False),), 1, 1, bytes(16))


class PlayedCluster:
    """A cluster of one table."""

    def __init__(self, one: OneNode, table: PlayedTable) -> None:
        self.topology = one.topology
        self._one = one
        self._table = table

    async def client(self) -> Any:
        return SimpleNamespace(topology=self.topology, table=lambda name: self._table)

    async def statuses(self) -> Any:
        answers: dict[str, Any] = {
            "a": self._one.node.status(0),
            "b": NoNodeReachable("Connection refused"),
            "c": NoNodeReachable("no answer within 1.5 s"),
        }
        return self.topology, answers


def asked(
    target: str, one: OneNode | None = None, table: PlayedTable | None = None, *,
    stopping: bool = False, events: tuple[Event, ...] = (), **request: Any,
) -> Answer:  # fmt: skip
    one = one or OneNode().connect()
    node = standing_node(one, stopping=stopping, events=events)
    cluster = cast(Cluster, PlayedCluster(one, table or PlayedTable()))
    return ask(make_service(node, cluster, []), target, **request)


def test_a_node_that_answers_lives_and_is_ready_while_it_can_serve() -> None:
    assert asked("/health/live").json() == {"live": True}
    assert asked("/health/ready").json() == {"ready": True, "reason": ""}
    assert asked("/health").json()["node"] == "a"


def test_a_node_that_stops_or_is_alone_or_cannot_write_lives_but_is_not_ready() -> None:
    for answer, reason in (
        (asked("/health/ready", stopping=True), "the node is stopping"),
        (asked("/health", OneNode()), "the node is connected to no other node"),
        (asked("/health/ready", _unwritable()), "the node takes no writes: it burns"),
    ):
        assert answer.status == 503
        assert answer.json()["reason"] == reason
    assert asked("/health/live", stopping=True).status == 200


def _unwritable() -> OneNode:
    one = OneNode().connect()
    one.store.buffer.fail("it burns")
    return one


def test_metrics_are_answered_in_the_format_that_is_asked_for() -> None:
    plain = asked("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert b"kvorum_puts_total 0.0\n" in plain.body
    openmetrics = asked("/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")


def test_the_overview_has_every_node_and_why_one_does_not_answer() -> None:
    nodes = asked("/api/overview").json()["nodes"]
    assert nodes["a"]["answers"]
    assert nodes["a"]["counters"]["puts"] == 0
    assert nodes["b"] == {"answers": False, "problems": ["Connection refused"]}


def test_the_overview_has_what_the_node_believes_of_each_other_one() -> None:
    one = OneNode().connect()
    believes = asked("/api/overview", one).json()["believes"]
    assert believes["b"] == {"belief": "alive", "for_us": 0, "incarnation": 0}
    assert sorted(believes) == ["b", "c"]


def test_the_status_is_the_one_of_the_command_line() -> None:
    document = asked("/api/status").json()
    assert document["nodes"]["a"]["uptime"] == 0
    assert document["partitions_by_owners_up"][1] == 8


def test_the_topology_names_owners_by_id() -> None:
    document = asked("/api/topology").json()
    assert [member["name"] for member in document["members"]] == ["a", "b", "c"]
    assert len(document["partitions"]) == 8
    assert sorted(document["partitions"][0]) == [1, 2, 3]


def test_events_can_be_asked_for_from_one_on() -> None:
    events = tuple(
        Event(number, WALL, number == 2, "peer_lost", {"member": number, "id": b"\1"})
        for number in (1, 2, 3)
    )
    found = asked("/api/events?after=1", events=events).json()
    assert [event["number"] for event in found] == [2, 3]
    assert found[0]["warning"]
    assert found[0]["detail"] == {"member": 2, "id": "b'\\x01'"}
    assert asked("/api/events?after=x").json()["code"] == "bad_request"


def test_a_key_is_shown_with_its_siblings_and_its_context() -> None:
    document = asked("/api/key?key=alice").json()
    assert document["values"] == [{"text": "book"}, {"base64": "/w=="}]
    assert document["context"] == "AQID"
    assert document["replicas"] == ["a", "b"]


def test_what_is_too_long_to_be_shown_is_not_shown() -> None:
    answer = asked("/api/key?key=alice", table=PlayedTable(bytes(300_000)))
    assert (answer.status, answer.json()["code"]) == (413, "too_large")


def test_a_put_goes_over_what_its_writer_has_seen() -> None:
    table = PlayedTable()
    answer = asked(
        "/api/key", table=table, method="POST", headers=JSON, body=json.dumps(PUT).encode()
    )
    assert answer.json()["acks"] == [{"node": "a", "level": "disk", "fallback": False}]
    ((key, value, options),) = table.puts
    assert (key, value) == (b"alice", b"book, pen")
    assert options["context"] == b"\1\2\3"


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ({"content-type": "text/plain"}, json.dumps(PUT), "must be application/json"),
        ({}, json.dumps(PUT), "must be application/json"),
        (JSON, "{", "not what was expected"),
        (JSON, '{"table": "\xa6"}', "not what was expected: 'utf-8'"),
        (JSON, json.dumps({**PUT, "more": 1}), "unknown field `more`"),
        (JSON, json.dumps({**PUT, "value_encoding": "rot13"}), "an encoding is one of"),
        (JSON, json.dumps({**PUT, "value": "?", "value_encoding": "base64"}), "is not base64"),
        (JSON, json.dumps({**PUT, "context": "?"}), "--context: not a context"),
    ],
)
def test_a_body_that_cannot_be_is_refused(headers: dict[str, str], body: str, text: str) -> None:
    table = PlayedTable()
    answer = asked(
        "/api/key", table=table, method="POST", headers=headers, body=body.encode("latin-1")
    )
    assert (answer.status, answer.json()["code"]) == (400, "bad_request")
    assert text in answer.json()["detail"]
    assert table.puts == []


@pytest.mark.parametrize("headers", [JSON, {**JSON, "content-length": str(BODY_BYTES_MAX + 1)}])
def test_a_body_that_is_too_long_is_not_gathered_nor_its_rest_waited_for(
    headers: dict[str, str],
) -> None:
    body = bytes(0 if "content-length" in headers else BODY_BYTES_MAX + 1)
    answer = asked("/api/key", method="POST", headers=headers, body=body)
    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"


def test_a_failure_of_the_cluster_is_told_with_its_code() -> None:
    answer = asked("/api/key?key=lost")
    assert (answer.status, answer.json()["code"]) == (503, "quorum_not_met")
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_not_there_is_a_problem_too() -> None:
    assert asked("/nothing").json()["code"] == "not_found"
    assert asked("/api/key").json()["detail"].startswith("the query must name a key")
    answer = asked("/health", method="DELETE")
    assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]
    assert asked("/health/").status == 404, "one is sent elsewhere"
    allowed = asked("/api/key", method="DELETE").headers["allow"]
    assert {"GET", "POST"} <= set(allowed.split(", "))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/api/key?key=%ff", "the query is not UTF-8"),
        ("/api/key?key=%zz", "the query has a % without"),
        ("/api/explain?key=a&key=b", "the query has key twice"),
        ("/api/key?key=a&tabel=b", "no parameter 'tabel'; it takes table, key, "),
        ("/api/status?nodes=a", "no parameter 'nodes'; it takes none"),
        ("/api/events?after=-1", "after must be a number"),
    ],
)
def test_a_query_that_cannot_be_meant_is_not_read_as_another(target: str, text: str) -> None:
    answer = asked(target)
    assert (answer.status, answer.json()["code"]) == (400, "bad_request")
    assert text in answer.json()["detail"]


def test_every_route_stands_in_the_openapi_document() -> None:
    paths = asked("/openapi.json").json()["paths"]
    one = OneNode().connect()
    service = Service(standing_node(one), cast(Cluster, None), b"")
    routes = {route.path: (route.methods or set()) - {"HEAD"} for route in service.routes()}
    assert {path: {method.upper() for method in paths[path]} for path in paths} == routes


def test_every_error_has_a_code_and_the_last_takes_all() -> None:
    for kind, status, _ in CODES:
        assert problem_of(kind("it failed")).status_code == status
    assert CODES[-1][0] is KvorumError


def test_bytes_are_given_as_text_hex_or_base64() -> None:
    assert decoded("ü", "text", "key") == "ü".encode()
    assert decoded("00ff", "hex", "key") == b"\0\xff"
    assert decoded("AP8=", "base64", "key") == b"\0\xff"
    with pytest.raises(BadRequest, match="key is not hex"):
        decoded("x", "hex", "key")
