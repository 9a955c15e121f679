"""The files in ``deploy`` are sound, and every metric that they name is one that nodes answer."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvorum.admin.metrics import describe
from tests.support.container import CONTAINERFILE, instructions
from tests.support.requirements import requires

DEPLOY = Path(__file__).parents[2] / "deploy"
MONITOR = DEPLOY.parent / "docs" / "how-to" / "monitor.md"
DASHBOARD = json.loads((DEPLOY / "grafana" / "kvorum.json").read_text())
RULES = DEPLOY / "prometheus" / "kvorum.rules.yml"
UNIT = DEPLOY / "systemd" / "kvorum@.service"
# What the client of Prometheus brings, and Prometheus itself.
OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
KINDS = {one.name: one for one in describe()}


def alerts() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    for alert in alerts():
        yield alert["expr"]
    yield from re.findall(r"^\|.*\| `([^`]*\bkvorum_[^`]*)` \|$", MONITOR.read_text(), re.M)


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_metric_and_label_exists_and_is_used_as_what_it_is(expression: str) -> None:
    names = re.findall(r"\b(?:kvorum|process|python)_[a-z_]+|\bup\b", expression)
    assert names
    assert expression.count("(") == expression.count(")")
    for name in names:
        if name in OTHERS:
            continue
        plain = re.sub(r"_(bucket|count|sum)$", "", name)
        metric = KINDS.get(name) or KINDS[plain]
        assert (metric.kind == "histogram") == (name not in KINDS)
        if metric.kind in ("counter", "histogram") and name in expression.split("label_values")[0]:
            assert re.search(rf"(rate|increase)\({name}", expression), f"{name} only ever grows"
        for used in re.findall(rf"{name}\{{([^}}]*)\}}", expression):
            labels = set(re.findall(r"(\w+)(?:=~|!=|=)", used))
            assert labels <= {*metric.labels, "job", "instance"}, expression


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names) > 8
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "action"}


@requires("promtool")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


@requires("systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "kvorum")
    unit = tmp_path / "kvorum@a.service"
    unit.write_text(UNIT.read_text().replace("/opt/kvorum/bin/kvorum", program))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "kvorum@" in line]
    assert ours == [], "\n".join(ours)


def test_the_unit_starts_a_node_as_the_command_line_has_it() -> None:
    (command,) = re.findall(r"^ExecStart=\S+ (.*)$", UNIT.read_text(), re.MULTILINE)
    _check_command(command.split())


def test_the_container_runs_one_node_as_nobody_special() -> None:
    known = {"FROM", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
             "ENTRYPOINT"}  # fmt: skip
    found = instructions()
    assert {name for name, _ in found} <= known
    by_name = dict(found)
    assert by_name["USER"].isdecimal(), "a host cannot see of a name that it is not root"
    assert by_name["USER"] != "0"
    assert [name for name, _ in found].index("USER") < [name for name, _ in found].index("VOLUME")
    for name, text in found:
        if name in ("RUN", "ENTRYPOINT", "VOLUME"):
            assert isinstance(json.loads(text), list), f"{name} needs no shell"
    check = json.loads(by_name["HEALTHCHECK"].partition("CMD ")[2])
    compile(check[2], "healthcheck", "exec")
    _check_command(json.loads(by_name["ENTRYPOINT"])[1:])


def test_hadolint_takes_the_container_file() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", CONTAINERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _check_command(words: list[str]) -> None:
    """Every option of a ``kvorum serve`` is one that there is."""
    assert words[0] == "serve"
    reference = (DEPLOY.parent / "docs" / "reference" / "cli.md").read_text()
    serve = reference[reference.index("## kvorum serve") :]
    serve = serve[: serve.index("\n## ", 5)]
    for word in words[1:]:
        if word.startswith("--"):
            assert f"`{word}`" in serve, word
