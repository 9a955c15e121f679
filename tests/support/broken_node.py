"""Real nodes that break a rule on purpose, to show that the tests which guard it can fail.

``break_nodes`` makes every node that the test starts from then on break the rules named, by the
one hook that Python gives a process before its program begins, a module called ``sitecustomize``.
One break is none: it holds messages back, as a network may, but only some of a connection's.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from kvorum.model.record import HAS_TOMBSTONE
from kvorum.protocol.catch_up import CatchUp
from kvorum.protocol.exchange import Exchange
from kvorum.protocol.handoff import Handoff
from kvorum.protocol.put import PutCoordinator
from kvorum.protocol.read_repair import ReadRepair
from kvorum.protocol.replica import Replica
from kvorum.wire.link import Asker, Link

ROOT = Path(__file__).parent.parent.parent
NAMES: Final = "KVORUM_TEST_BREAKS"
C: Final = 3
PUT_LATE_SECONDS: Final = 1.0
REPAIR_LATE_SECONDS: Final = 9.0


def never_fills_up() -> None:
    """Neither exchange nor fallbacks bring a store what it has missed."""
    Exchange.on_due = lambda *_: None  # type: ignore[method-assign]
    Handoff._step = lambda *_: 0  # type: ignore[method-assign]


def owes_nothing() -> None:
    """A store that begins with nothing takes itself for whole."""
    honest = CatchUp._owe
    CatchUp._owe = lambda self, partition, mask: honest(self, partition, 0)  # type: ignore[method-assign]


def takes_what_was_read_before_a_reap() -> None:
    """Old generations are as good as the present one."""
    honest = Replica.on_put

    def on_put(self: Replica, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        return honest(self, key, holding, epoch, self._generations.of(key))

    Replica.on_put = on_put  # type: ignore[method-assign]


def messages_to_c_are_late() -> None:
    """What is put reaches it a second later, what a get mends several; deletes come at once."""
    honest = Link.put_entry

    def put_entry(self: Link, entry: bytes, asker: Asker) -> bool:
        if isinstance(asker, ReadRepair):
            late = REPAIR_LATE_SECONDS
        elif isinstance(asker, PutCoordinator) and not asker.record[1] & HAS_TOMBSTONE:
            late = PUT_LATE_SECONDS
        else:
            late = 0
        if self.peer != C or not late:
            return honest(self, entry, asker)
        asyncio.get_running_loop().call_later(late, honest, self, entry, asker)
        return True

    Link.put_entry = put_entry  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        never_fills_up,
        owes_nothing,
        takes_what_was_read_before_a_reap,
        messages_to_c_are_late,
    )
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
