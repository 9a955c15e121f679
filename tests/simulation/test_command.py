"""``kvorum simulate``: one seed or many, for people and for programs."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from kvorum.cli.main import run
from kvorum.cli.outcome import INTERRUPTED, OK, REFUSED
from kvorum.faults import POINTS
from kvorum.protocol import put
from tests.support.waiting import wait_until


def test_one_seed_tells_its_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--seed", "5", "--trace"]) == OK
    told = capsys.readouterr().out
    assert "ReplicaPut" in told
    assert "everything is healed" in told
    assert "trace hash" in told


def test_many_seeds_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--seeds", "6", "--from", "40", "--processes", "2", "--json"]) == OK
    totals = json.loads(capsys.readouterr().out)
    assert totals["seeds"] == 6
    assert totals["failed"] == []
    assert totals["operations"] >= 6 * 150
    assert sum(totals["faults"].values()) >= 6
    assert totals["virtual_hours"] > 0


def _seconds_of(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def test_a_run_that_is_interrupted_says_what_came_of_it() -> None:
    # Whoever runs the tests in the background has them ignore interrupts.
    heedful = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heedful}; import sys; from kvorum.cli.main import run; sys.exit(run(sys.argv[1:]))"
    options = ["simulate", "--minutes", "30", "--processes", "2"]
    run_of_many = subprocess.Popen(
        [sys.executable, "-c", program, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process = psutil.Process(run_of_many.pid)
    wait_until(lambda: _seconds_of(process.children()) > 4, "the workers do nothing")
    os.killpg(run_of_many.pid, signal.SIGINT)
    said, complained = run_of_many.communicate(timeout=60)
    assert run_of_many.returncode == INTERRUPTED
    assert "interrupted; until then:" in complained
    assert "Traceback" not in complained
    (totals,) = [line for line in said.splitlines() if "virtual hours in" in line]
    assert int(totals.split()[0]) > 0


def test_a_failing_seed_is_printed_with_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(put, "put_verdict", lambda *masks: put.ENOUGH)
    assert run(["simulate", "--seeds", "8", "--processes", "1"]) == REFUSED
    said = capsys.readouterr().err
    assert "hollow ack" in said
    assert "replay it: kvorum simulate --seed" in said


def test_points_that_no_seed_hits_are_named_and_may_be_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(POINTS, "nowhere.at_all", "nothing asks for it")
    several = ["simulate", "--seeds", "2", "--from", "40", "--processes", "1"]
    assert run(several) == OK
    assert "nowhere.at_all" in capsys.readouterr().out
    assert run([*several, "--require-points"]) == REFUSED
    assert "never hit: " in capsys.readouterr().err
