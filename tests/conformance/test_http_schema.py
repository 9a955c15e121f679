"""The door does what its OpenAPI document says, tried with what schemathesis makes of it.

Every answer must stand in the document with its status, type, headers and schema; what breaks the
rules of the document must be refused; and nothing may be answered 500, which stands nowhere in it.
"""

from pathlib import Path

from tests.support.cluster import running_cluster
from tests.support.schemas import run_schemathesis

LIMITS = {"value_bytes_max": 65_536}
OPERATIONS = 16


def test_the_door_does_what_its_document_says(tmp_path: Path) -> None:
    with running_cluster(nodes=1, http=True, config=LIMITS) as cluster:
        run_schemathesis(f"{cluster.http_url('a')}/openapi.json", OPERATIONS, tmp_path)
        node = cluster.processes["a"]
        assert node.running
        assert "Traceback" not in node.log.read_text()
