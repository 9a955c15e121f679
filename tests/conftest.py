"""Rules for every test: hypothesis profiles, requirements, and nothing left behind."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.leaks import leaks_since, snapshot
from tests.support.requirements import REASON_PREFIX, require

# The same examples on every machine, so that a red run is red for everyone; ``long`` explores.
settings.register_profile(
    "default",
    derandomize=True,
    max_examples=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    derandomize=False,
    max_examples=2_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("KVORUM_HYPOTHESIS_PROFILE") or "default")

# What a person has set for the command line must not reach the tests of it.
os.environ.pop("KVORUM_NODES", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-scripts",
        action="store_true",
        help="rewrite the golden traces in tests/scripts to what happens now; review the diff",
    )


@pytest.fixture
def update_scripts(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-scripts"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            require(name)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = snapshot()
    yield
    leaks = leaks_since(before)
    if leaks:
        pytest.fail("the test left behind: " + "; ".join(leaks), pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what could not run here, and tell the stage runner how many tests there were."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # A worker of a parallel run; the run itself reports for all of them.
    stats = terminalreporter.stats
    lacking = [
        f"{report.nodeid}  {reason}"
        for report in stats.get("skipped", [])
        if (reason := _skip_reason(report)).startswith(REASON_PREFIX)
    ]
    if lacking:
        terminalreporter.section("not run for want of something on this machine")
        for line in lacking:
            terminalreporter.line(line)
    tally = os.environ.get("KVORUM_TEST_TALLY")
    if tally:
        counts = {
            "passed": len(stats.get("passed", [])),
            "failed": len(stats.get("failed", [])) + len(stats.get("error", [])),
            "skipped": len(stats.get("skipped", [])),
            "lacking": lacking,
        }
        with Path(tally).open("a") as file:
            file.write(json.dumps(counts) + "\n")


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return ""
