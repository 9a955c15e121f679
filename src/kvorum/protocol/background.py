"""One budget for all background work, taken from what clients leave over.

Handoff, exchange, reaping, scanning and scrubbing are tasks. Each does its work in small steps
when it is given an allowance, and says what a step has cost; nothing of it happens elsewhere.
Costs are counted in **units** of about a microsecond's work, estimated by whoever does it from
records and bytes, since the core has no clock within a turn.

How large a share of the node's time the tasks have follows the latency that clients meet here.
As long as its 99th percentile stays under a limit the share grows by equal steps; once it does
not, the share is halved, down to a floor at which the work still gets done. (Dynamo paper,
section 6.5, with the additive increase and multiplicative decrease of TCP.)

Between two steps the other work of the node has its turns: a slice is at most ``SLICE`` units,
and the next one waits until the share has earned it.
"""

from collections import deque
from typing import Final

from kvorum.config import NodeConfig
from kvorum.protocol.environment import Environment
from kvorum.protocol.timers import Timed, Timers

SLICE: Final = 400  # units in one turn at the most
SLICE_MIN: Final = 50  # it is not worth waking up for less
PAUSE_MIN: Final = 500  # between two slices
JUDGE_INTERVAL: Final = 500_000  # between two looks at the latencies
SAMPLES_MIN: Final = 50  # fewer tell nothing about a 99th percentile
WINDOW: Final = 10_000_000  # how long samples are gathered until there are enough of them
VISITS_MAX: Final = 64  # steps in one turn, were they ever so cheap
WHOLE: Final = 1_000  # a share of everything
SHARE_STEP: Final = 20

# What work costs, in units.
RECORD_READ: Final = 3  # to find, check and hash one record
RECORD_SENT: Final = 20  # to pack it, and to take its answer
BYTES_SHIFT: Final = 9  # 512 bytes read or written cost one unit


class Task:
    """Work that can wait, done in steps."""

    __slots__ = ()

    def step(self, allowance: int) -> int:
        """Work for about so many units; return what it cost, or 0 if there is nothing to do.

        After a 0 the task rests until ``Background.wake``.
        """
        raise NotImplementedError


class Background(Timed):
    """Gives the tasks of one node their turns."""

    __slots__ = (
        "_active", "_armed", "_env", "_floor", "_gathered_since", "_judged_at", "_limit",
        "_refilled_at", "_share_max", "_timers", "_tokens", "p99", "share", "spent",
    )  # fmt: skip

    def __init__(self, env: Environment, timers: Timers, config: NodeConfig) -> None:
        self._env = env
        self._timers = timers
        self._limit = config.background_latency_limit_ms * 1000
        self._floor = config.background_share_min_percent * WHOLE // 100
        self._share_max = config.background_share_max_percent * WHOLE // 100
        self._active: deque[Task] = deque()
        self._armed = False
        self._tokens = 0
        self._refilled_at = env.now
        self._judged_at = env.now
        self._gathered_since = env.now
        self.share = self._share_max  # in thousandths; nobody may be waiting yet
        self.p99 = -1  # what it was at the last look; -1: too few requests to say
        self.spent = 0  # units since the start

    def wake(self, task: Task) -> None:
        """The task has something to do."""
        if task in self._active:
            return
        self._active.append(task)
        if not self._armed:
            now = self._env.now
            if now - self._judged_at > WINDOW:
                # What clients met before there was any work says nothing about it.
                self._env.latencies.clear()
                self._judged_at = self._gathered_since = now
            self._arm(now)

    @property
    def busy(self) -> bool:
        return bool(self._active)

    def _arm(self, time: int) -> None:
        self._armed = True
        self._timers.wake(time, self)

    def on_timer(self) -> None:
        now = self._env.now
        if now - self._judged_at >= JUDGE_INTERVAL:
            self._judge(now)
        self._refill(now)
        left = self._tokens
        active = self._active
        visits = 0
        while left > 0 and active and visits < VISITS_MAX:
            visits += 1
            task = active.popleft()
            cost = task.step(left)
            if cost:
                left -= cost
                self.spent += cost
                if task not in active:
                    active.append(task)
        self._tokens = left
        self._armed = False
        if active:
            # What a step cost beyond its allowance is owed, and earned first.
            self._arm(now + max((SLICE_MIN - left) * WHOLE // self.share, PAUSE_MIN))

    def _refill(self, now: int) -> None:
        earned = (now - self._refilled_at) * self.share // WHOLE
        self._refilled_at = now
        self._tokens = min(self._tokens + earned, SLICE)

    def _judge(self, now: int) -> None:
        """Look at how clients fare, and take more or less."""
        self._judged_at = now
        latencies = self._env.latencies
        if latencies and len(latencies) < SAMPLES_MIN and now - self._gathered_since < WINDOW:
            return
        self._gathered_since = now
        self.p99 = -1
        if latencies:
            samples = sorted(latencies)
            latencies.clear()
            self.p99 = samples[len(samples) * 99 // 100]
        if self.p99 > self._limit:
            self.share = max(self.share // 2, self._floor)
        else:
            self.share = min(self.share + SHARE_STEP, self._share_max)
