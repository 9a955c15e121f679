"""The reference page of HTTP has every code, route, parameter and header."""

import re
from pathlib import Path

import pytest

from kvorum.config import NodeConfig
from kvorum.server.http_openapi import openapi
from kvorum.server.http_paths import DELETE_OPTIONS, PUT_OPTIONS, READ_OPTIONS
from kvorum.server.http_problems import KINDS

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "reference" / "http.md").read_text()
SOURCES = "".join(path.read_text() for path in (ROOT / "src/kvorum/server").glob("http*.py"))


@pytest.mark.parametrize("code", KINDS)
def test_each_code_has_its_row(code: str) -> None:
    kind = KINDS[code]
    row = f"| {kind.status} | `{code}` | {kind.title} | {kind.action} |"
    assert row in TEXT.splitlines(), f"write this row: {row}"


def test_there_are_no_other_codes() -> None:
    rows = re.findall(r"^\| \d{3} \| `(\w+)` \|", TEXT, re.M)
    assert rows == list(KINDS)


@pytest.mark.parametrize("name", sorted({*READ_OPTIONS, *PUT_OPTIONS, *DELETE_OPTIONS}))
def test_each_parameter_has_its_row(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", TEXT, re.M)


def test_each_header_of_ours_has_its_row() -> None:
    used = set(re.findall(r"x-kvorum-[a-z]+(?:-[a-z]+)*", SOURCES.lower()))
    documented = set(re.findall(r"`(x-kvorum-[a-z-]+)`", TEXT.lower()))
    assert used == documented


def test_each_path_of_the_document_is_covered() -> None:
    for path, operations in openapi(NodeConfig())["paths"].items():
        shown = path.replace("/{sort_key}", "[/{sort_key}]")
        if path.endswith("{key}"):
            shown += "[/{sort_key}]"
        assert f"{shown}`" in TEXT, path
        for method in operations:
            assert method == "parameters" or f"`{method.upper()}" in TEXT


def test_every_problem_says_what_to_do() -> None:
    for kind in KINDS.values():
        assert kind.action.endswith(".")
        assert not kind.title.endswith(".")
