"""Fault points in a simulated world: which are live, when they are hit, and what follows.

The plan draws the live ones (``kvorum.faults`` names them all). While clients work, each visit to
a live point hits with a probability of one in four, drawn from a generator of that point and
machine, so that a point more or less changes nothing else. A node that dies at a point is started
again after a while, as is one that must be restarted because it will not go on.
"""

from typing import TYPE_CHECKING, Final

from kvorum.faults import Faults
from kvorum.simulator.process import ProcessDied

if TYPE_CHECKING:
    from random import Random

    from kvorum.simulator.machine import Machine

HIT_SHARE: Final = 0.25
PAUSES: Final = (20_000, 200_000, 1_000_000)  # before somebody restarts the node
# A machine that goes down at every fourth turn would show nothing else.
HITS_MAX: Final = {
    "log.sync_fails": 3, "log.write_refused": 30, "put.before_replicate": 3,
    "reap.before_commit": 3, "reap.before_state": 3,
}  # fmt: skip
NEEDS_RESTART: Final = ("log.sync_fails",)


class SimulatedFaults(Faults):
    """What the processes of one machine ask; it outlives them."""

    __slots__ = ("_left", "_live", "_machine")

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self._left = dict(HITS_MAX)
        schedule = machine.world.schedule
        self._live: dict[str, Random] = {
            name: schedule.random_for(f"point/{name}/{machine.member}")
            for name in machine.world.plan.points
        }

    def hit(self, name: str) -> bool:
        random = self._live.get(name)
        if random is None:
            return False
        machine = self._machine
        world = machine.world
        if not world.points_open or random.random() >= HIT_SHARE:
            return False
        if name in self._left:
            if not self._left[name]:
                return False
            self._left[name] -= 1
        world.note_point(name, machine.name)
        if name in NEEDS_RESTART:
            world.until_healed(random.choice(PAUSES), machine.restart_if_failed)
        return True

    def crash(self, name: str) -> None:
        if not self.hit(name):
            return
        machine = self._machine
        machine.world.until_healed(self._live[name].choice(PAUSES), machine.start)
        machine.kill()
        raise ProcessDied
