"""A plan that fails becomes small, and goes on failing for the same reason."""

from pathlib import Path

import pytest

from kvorum.cli.main import run
from kvorum.cli.outcome import OK, REFUSED, USAGE
from kvorum.protocol import put
from kvorum.simulator.draw import draw_plan
from kvorum.simulator.planfile import read_plan
from kvorum.simulator.run import run_plan
from kvorum.simulator.shrink import Shrinker, kind_of


def break_puts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(put, "put_verdict", lambda *masks: put.ENOUGH)


def test_a_plan_shrinks_to_the_few_entries_that_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = draw_plan(3)
    honest = run_plan(plan)
    assert honest.failures == []
    break_puts(monkeypatch)
    told: list[str] = []
    broken = run_plan(plan)
    shrinker = Shrinker(plan, broken, told.append)
    shrinker.shrink()
    small = shrinker.plan
    assert len(small.work) <= 3
    assert len(small.faults) <= 1
    assert small.members <= 3
    assert small.keys == 1
    assert shrinker.trials < 400
    assert told[-1].startswith(f"{shrinker.trials} trials")
    assert kind_of(run_plan(small).failures[0]) == kind_of(broken.failures[0]) == "hollow ack"
    monkeypatch.undo()
    assert run_plan(small).failures == [], "the plan shows the mistake, and nothing else"


def test_exceptions_are_told_apart_by_their_class() -> None:
    text = "exception: Traceback (most recent call last):\n  File x\n{}: why\n (at 1.000000 s)"
    assert kind_of(text.format("KeyError")) == "exception KeyError"
    assert kind_of(text.format("a.b.EngineFull")) == "exception a.b.EngineFull"
    assert kind_of("lost: client1 put 3 was acknowledged") == "lost"


def test_the_command_writes_the_small_plan_and_replays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.toml"
    break_puts(monkeypatch)
    assert run(["simulate", "--seed", "3", "--shrink", "--output", str(file)]) == REFUSED
    assert f"run it: kvorum simulate --plan {file}" in capsys.readouterr().err
    assert file.read_text().startswith("# hollow ack: ")
    assert run(["simulate", "--plan", str(file), "--trace"]) == REFUSED
    shown = capsys.readouterr().out
    assert "FAILURE hollow ack" in shown
    monkeypatch.undo()
    assert run(["simulate", "--plan", str(file)]) == OK
    assert read_plan(file.read_text()).seed == 3


def test_a_plan_that_holds_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "good.toml"
    assert run(["simulate", "--seed", "3", "--shrink", "--output", str(file)]) == OK
    assert "nothing to shrink" in capsys.readouterr().err
    assert read_plan(file.read_text()) == draw_plan(3)


def test_a_bad_plan_is_a_matter_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("seed = 3\nmembers = 9\n")
    assert run(["simulate", "--plan", str(file)]) == USAGE
    assert "bad.toml" in capsys.readouterr().err
    assert run(["simulate", "--plan", str(tmp_path / "none.toml")]) == USAGE
    assert run(["simulate", "--shrink"]) == USAGE
