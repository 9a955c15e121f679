"""Virtual time: one heap of what will happen, in one order, whatever machine runs it.

Entries are (time, sequence, job, arguments); the sequence breaks ties, so nothing depends on
how objects compare. Randomness comes from separate generators, one for each name: what one
link or disk draws does not change what another one does.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from kvorum.simulator.trace import Trace

Job = Callable[..., None]


class Schedule:
    """The clock of a world, and all that is to come."""

    __slots__ = ("_generators", "_heap", "_sequence", "events", "now", "seed", "trace")

    def __init__(self, seed: int, trace: Trace) -> None:
        self.seed = seed
        self.trace = trace
        self.now = 0  # microseconds since the world began
        self.events = 0
        self._heap: list[tuple[int, int, Job, tuple[Any, ...]]] = []
        self._sequence = 0
        self._generators: dict[str, Random] = {}

    def random_for(self, name: str) -> Random:
        """The generator of this name: equal seeds and names draw equal numbers."""
        generator = self._generators.get(name)
        if generator is None:
            generator = self._generators[name] = Random(f"{self.seed}/{name}")
        return generator

    def at(self, time: int, job: Job, *arguments: Any) -> None:
        if time < self.now:
            time = self.now
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, job, arguments))

    def after(self, delay: int, job: Job, *arguments: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (self.now + delay, self._sequence, job, arguments))

    def tell(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.add(self.now, text)

    def run_until(self, time: int, enough: Callable[[], bool] | None = None) -> None:
        """Let happen what is due before ``time``; stop early, at that moment, once ``enough``."""
        heap = self._heap
        events = 0
        while heap and heap[0][0] <= time:
            self.now, _, job, arguments = heappop(heap)
            events += 1
            job(*arguments)
            if enough is not None and enough():
                self.events += events
                return
        self.events += events
        self.now = max(self.now, time)
