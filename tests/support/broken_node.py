"""Real nodes that break a rule on purpose, to show that the tests which guard it can fail.

``break_nodes`` makes every node that the test starts from then on break the rules named, by the
one hook that Python gives a process before its program begins, a module called ``sitecustomize``.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvorum.protocol.catch_up import CatchUp
from kvorum.protocol.exchange import Exchange
from kvorum.protocol.handoff import Handoff

ROOT = Path(__file__).parent.parent.parent
NAMES = "KVORUM_TEST_BREAKS"


def never_fills_up() -> None:
    """Neither exchange nor fallbacks bring a store what it has missed."""
    Exchange.on_due = lambda *_: None  # type: ignore[method-assign]
    Handoff._step = lambda *_: 0  # type: ignore[method-assign]


def owes_nothing() -> None:
    """A store that begins with nothing takes itself for whole."""
    honest = CatchUp._owe
    CatchUp._owe = lambda self, partition, mask: honest(self, partition, 0)  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (never_fills_up, owes_nothing)
}


def break_nodes(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Let nodes begin with these breaks; ``folder`` is the test's own."""
    assert set(names) <= set(BREAKS)
    hook = folder / "sitecustomize.py"
    hook.write_text("from tests.support.broken_node import begin\n\nbegin()\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(folder), str(ROOT))))
    monkeypatch.setenv(NAMES, " ".join(names))


def begin() -> None:
    """What such a node does before anything else."""
    for name in os.environ[NAMES].split():
        BREAKS[name]()
