"""A door held against its own OpenAPI document."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs

CONFIG = Path(__file__).parents[1] / "conformance" / "schemathesis.toml"
LINE_MAX = 400  # of what is shown; keys may be long


def run_schemathesis(url: str, operations: int, folder: Path) -> None:
    """Try every one of so many operations of the document under ``url``."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={CONFIG}",
            "run",
            url,
            "--phases=examples,coverage,fuzzing",
            "--seed=20260401",
            "--generation-database=none",
            "--no-color",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = "\n".join(line[:LINE_MAX] for line in (done.stdout + done.stderr).splitlines())
    if done.returncode:
        raise AssertionError(shown)
    assert f"Tested: {operations}" in shown, shown


def check_answer(openapi: Any, path: str, body: Any, method: str = "get") -> None:
    """That an answer of status 200 is what the document says of this path, field by field."""
    content = openapi["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    schema = {**content["schema"], "components": openapi["components"]}
    jsonschema_rs.validator_for(schema).validate(body)
