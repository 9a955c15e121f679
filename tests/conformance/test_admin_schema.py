"""The administration port does what its OpenAPI document says.

Tried by schemathesis, as the data port is in ``test_http_schema.py``: every answer must stand in
the document with its status, type and schema, what breaks its rules must be refused, and nothing
may be answered 500. And by hand where only some history brings a document to have all its parts.
"""

from pathlib import Path
from typing import Any

import pytest

from kvorum.admin.openapi import openapi
from kvorum.client.addresses import Address
from tests.support.cluster import running_cluster
from tests.support.http import ask
from tests.support.schemas import check_answer, run_schemathesis
from tests.support.waiting import wait_until

OPERATIONS = 15


def test_the_port_does_what_its_document_says(tmp_path: Path) -> None:
    with running_cluster(nodes=3, admin=True) as cluster:
        node = cluster.processes["a"]
        run_schemathesis(f"http://{node.admin}/openapi.json", OPERATIONS, tmp_path)
        assert node.running
        assert "admin_failed" not in node.said()
        assert "Traceback" not in node.log.read_text()


def test_what_a_history_brings_into_the_documents_stands_in_the_document() -> None:
    """Siblings, a delete, bytes that are no text, a node that is dead, and hints kept for it."""
    with running_cluster(nodes=4, admin=True) as cluster:
        admin = cluster.processes["a"].admin
        document = _json(admin, "/openapi.json")

        def checked(path: str, query: str = "") -> Any:
            body = _json(admin, path + query)
            check_answer(document, path, body)
            return body

        with cluster.connect("a") as client:
            rows = client.table("default")
            rows.put("alice", b"book")
            rows.put("alice", b"\xff")
            rows.delete("gone")
            rows.put("gone", b"pen", ttl_seconds=3600)
            cluster.processes["d"].kill()
            wait_until(lambda: not _answers(admin, "d"), "d is dead, and shown as alive")
            for number in range(40):
                rows.put(f"key {number}", b"book")
        assert len(checked("/api/key", "?key=alice")["values"]) == 2
        assert checked("/api/explain", "?key=alice")["replicas"][0]["values"]
        assert any(checked("/api/explain", f"?key=key%20{number}")["hints"] for number in range(40))
        status = checked("/api/status")
        assert not status["nodes"]["d"]["answers"]
        assert status["nodes"]["a"]["operations"]
        assert not checked("/api/overview")["nodes"]["d"]["answers"]
        assert checked("/api/events")
        wait_until(lambda: checked("/api/repairs")["owed"], "hints are kept, and not shown")
        for path in ("/health", "/health/live", "/health/ready", "/api/about", "/api/topology",
                     "/api/tables"):  # fmt: skip
            assert checked(path)


def _json(admin: Address | None, path: str) -> Any:
    answer = ask(admin, path)
    assert answer.status == 200, answer
    return answer.json()


def _answers(admin: Address | None, name: str) -> bool:
    return bool(_json(admin, "/api/overview")["nodes"][name]["answers"])


@pytest.mark.parametrize("schema", openapi("kvorum 1")["components"]["schemas"])
def test_a_field_more_or_less_would_be_noticed(schema: str) -> None:
    """Every object of the document is closed, or says of what kind its unnamed fields are."""
    found = openapi("kvorum 1")["components"]["schemas"][schema]
    pending = [found]
    objects = 0
    while pending:
        part = pending.pop()
        if part.get("type") == "object":
            objects += 1
            assert part["additionalProperties"] is False or part["additionalProperties"]
            pending += part.get("properties", {}).values()
        pending += [part["items"]] if "items" in part else part.get("oneOf", [])
    assert objects
