"""Run the stages of ``make test`` in order, say how long each took, and add up the tests.

A failing stage does not stop the next ones: whoever waits for a run wants to hear everything.
``python -m scripts.stages`` runs all of them, ``python -m scripts.stages simulation`` only one.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent  # Not resolved: the environment's folder, not the system's.


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of the run: either commands of the tools, or folders of tests for pytest."""

    name: str
    commands: tuple[tuple[str, ...], ...] = ()
    folders: tuple[str, ...] = ()
    pytest_options: tuple[str, ...] = ()


STAGES = (
    Stage(
        "lint",
        commands=(
            ("ruff", "check", "--quiet", "."),
            ("ruff", "format", "--check", "--quiet", "."),
            ("mypy",),
            ("lint-imports", "--no-cache"),
        ),
    ),
    Stage(
        "unit",
        folders=("unit", "property", "golden", "scripts", "tidy"),
        pytest_options=("-n", "2"),
    ),
    Stage("simulation", folders=("simulation",), pytest_options=("-n", "2")),
    Stage("cluster", folders=("conformance", "cluster", "docs")),
    Stage("benchmarks", folders=("benchmarks",)),
)


@dataclass(slots=True)
class Outcome:
    """What one stage came to; ``seconds`` is wall time, ``absent`` if it has no tests yet."""

    stage: Stage
    seconds: float
    passed: bool
    absent: bool = False


@dataclass(slots=True)
class Tally:
    """Tests of all stages together, as each pytest run reported them."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    lacking: list[str] = field(default_factory=list)

    def read(self, file: Path) -> None:
        for line in file.read_text().splitlines() if file.exists() else []:
            counts = json.loads(line)
            self.passed += counts["passed"]
            self.failed += counts["failed"]
            self.skipped += counts["skipped"]
            self.lacking += counts["lacking"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [stage.name for stage in STAGES]
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(names)}")
    wanted = parser.parse_args().stages
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"no stage is called {', '.join(unknown)}; there are {', '.join(names)}")
    tally = Tally()
    with TemporaryDirectory() as folder:
        file = Path(folder, "tally")
        outcomes = [run(stage, file) for stage in STAGES if not wanted or stage.name in wanted]
        tally.read(file)
    report(outcomes, tally)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def run(stage: Stage, tally: Path) -> Outcome:
    commands = [(str(TOOLS / command[0]), *command[1:]) for command in stage.commands]
    folders = [f"tests/{name}" for name in stage.folders if has_tests(ROOT / "tests" / name)]
    if folders:
        python = (sys.executable, "-m", "pytest", "-q", "--durations=5", "--durations-min=2")
        commands.append((*python, *stage.pytest_options, *folders))
    print(f"== {stage.name}", flush=True)
    start = time.monotonic()
    environment = os.environ | {"KVORUM_TEST_TALLY": str(tally)}
    passed = True
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode != 0:
            print(f"== failed with code {done.returncode}: {' '.join(command)}", flush=True)
            passed = False
    seconds = time.monotonic() - start
    print(f"== {stage.name}: {seconds:.0f} s\n", flush=True)
    return Outcome(stage, seconds, passed, absent=not commands)


def has_tests(folder: Path) -> bool:
    return next(folder.rglob("test_*.py"), None) is not None


def report(outcomes: list[Outcome], tally: Tally) -> None:
    for outcome in outcomes:
        verdict = "no tests yet" if outcome.absent else "ok" if outcome.passed else "FAILED"
        print(f"{outcome.stage.name:<12}{outcome.seconds:>6.0f} s  {verdict}")
    print(f"{'all':<12}{sum(outcome.seconds for outcome in outcomes):>6.0f} s")
    if tally.lacking:
        print("\nNot run for want of something on this machine (REQUIRE=all makes these fail):")
        for line in tally.lacking:
            print(f"  {line}")
    print(f"\n{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)


if __name__ == "__main__":
    sys.exit(main())
