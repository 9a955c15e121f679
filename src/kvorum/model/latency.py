"""How long a peer takes to answer, learned from its answers: p95, mean, and when to lose patience.

Integer microseconds throughout. The mean and the mean deviation are Jacobson's estimators
(SIGCOMM 1988), as TCP's retransmission timer has them; the 95th percentile climbs by nineteen
steps for a slower answer and falls by one for a faster one, so that it rests where one answer
in twenty is slower. One sample is one batch.
"""

from typing import Final

FIRST_GUESS: Final = 20_000
TIMEOUT_MIN: Final = 50_000
TIMEOUT_MAX: Final = 1_000_000
HEDGE_MIN: Final = 2_000


class Latency:
    """One peer's answering times."""

    __slots__ = ("deviation", "mean", "p95")

    def __init__(self) -> None:
        self.mean = FIRST_GUESS
        self.deviation = FIRST_GUESS // 2
        self.p95 = FIRST_GUESS * 2

    def observe(self, elapsed: int) -> None:
        error = elapsed - self.mean
        self.mean += error >> 3
        self.deviation += ((error if error >= 0 else -error) - self.deviation) >> 2
        step = (self.p95 >> 8) + 1
        if elapsed > self.p95:
            self.p95 += 19 * step
        else:
            self.p95 -= step

    @property
    def timeout(self) -> int:
        """How long a silence may last before the peer counts as silent: the adaptive timeout."""
        wanted = self.mean + 8 * self.deviation
        return min(max(wanted, TIMEOUT_MIN), TIMEOUT_MAX)

    @property
    def hedge_after(self) -> int:
        """How long a get waits before it asks one more replica."""
        return min(max(self.p95, HEDGE_MIN), self.timeout)
