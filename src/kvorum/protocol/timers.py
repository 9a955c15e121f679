"""What falls due when: one heap for all control work.

Nothing is ever cancelled: a timer that is no longer wanted finds its owner settled and passes.
Requests have no timers of their own; their deadlines are swept from the head of queues.
"""

from heapq import heappop, heappush


class Timed:
    """Whoever can be woken."""

    __slots__ = ()

    def on_timer(self) -> None:
        raise NotImplementedError


class Timers:
    """Deadlines in microseconds of ``Environment.now``, earliest first; ties in order of asking."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timed]] = []
        self._sequence = 0

    def wake(self, deadline: int, owner: Timed) -> None:
        self._sequence += 1
        heappush(self._heap, (deadline, self._sequence, owner))

    def next_deadline(self) -> int:
        """When something is due next; -1: never."""
        return self._heap[0][0] if self._heap else -1

    def fire(self, now: int) -> None:
        while self._heap and self._heap[0][0] <= now:
            heappop(self._heap)[2].on_timer()
