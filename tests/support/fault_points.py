"""Fault points that a test opens by name."""

from kvorum.faults import POINTS, Faults


class Died(Exception):
    """The node was killed at a fault point."""


class HitsAt(Faults):
    """Hits at the named points, at every visit, and nowhere else."""

    __slots__ = ("names",)

    def __init__(self, *names: str) -> None:
        assert all(name in POINTS for name in names), names
        self.names = names

    def hit(self, name: str) -> bool:
        return name in self.names

    def crash(self, name: str) -> None:
        if name in self.names:
            raise Died(name)
