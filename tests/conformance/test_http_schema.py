"""The door does what its OpenAPI document says, tried with what schemathesis makes of it.

Every answer must stand in the document with its status, type, headers and schema; what breaks the
rules of the document must be refused; and nothing may be answered 500, which stands nowhere in it.
"""

import subprocess
import sys
from pathlib import Path

from tests.support.cluster import running_cluster

CONFIG = Path(__file__).with_name("schemathesis.toml")
LIMITS = {"value_bytes_max": 65_536}
LINE_MAX = 400  # of what is shown; keys may be long


def test_the_door_does_what_its_document_says(tmp_path: Path) -> None:
    with running_cluster(nodes=1, http=True, config=LIMITS) as cluster:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                f"--config-file={CONFIG}",
                "run",
                f"{cluster.http_url('a')}/openapi.json",
                "--phases=coverage,fuzzing",
                "--seed=20260401",
                "--generation-database=none",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        shown = "\n".join(line[:LINE_MAX] for line in (done.stdout + done.stderr).splitlines())
        if done.returncode:
            raise AssertionError(shown)
        assert "Tested: 16" in shown
        node = cluster.processes["a"]
        assert node.running
        assert "Traceback" not in node.log.read_text()
