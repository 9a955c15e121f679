"""One budget for all background work, taken from what clients leave over.

Handoff, exchange, reaping, scanning and scrubbing are tasks. Each does its work in small steps
when it is given an allowance, and says what a step has cost; nothing of it happens elsewhere.
Costs are counted in **units** of about a microsecond's work, estimated by whoever does it from
records and bytes, since the core has no clock within a turn.

How large a share of the node's time the tasks have follows the latency that clients meet here,
of which the 99th percentile is to stay under a limit. (Dynamo paper, section 6.5.) A node sees
only a part of it, from the turn that takes a request in to the one that answers: not what the
request has waited for the former, nor how long the latter lasts. Under load that is little more
than half, so half of the limit is what the node aims at. Under it the share grows by a quarter
each time, from half of it on by a sixteenth; over it the share is cut at least to half, down to
a floor at which the work still gets done. All steps are in proportion, because units are
estimates: on a slow machine the right share may lie far below what was foreseen.

Two things are known from TCP, too. A share that was not taken has not been tried, and does not
grow. And work that begins after a rest begins at the floor if there are clients, for what was
right before says nothing about them. Where nobody waits the share is the largest at once.

What the work makes the node do besides, as taking in records that it has asked for or given
credit for, is charged to it. Else two nodes that give what they can would drown the one that takes.

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
REST: Final = 2 * JUDGE_INTERVAL  # without any work, and it begins anew
VISITS_MAX: Final = 64  # steps in one turn, were they ever so cheap
WHOLE: Final = 1_000  # a share of everything
RISES_FAST: Final = 2  # by a quarter, where latencies are far below what is aimed at
RISES_SLOW: Final = 4  # by a sixteenth, where they are not

# What work costs, in units.
RECORD_READ: Final = 3  # to find, check and hash one record
RECORD_SENT: Final = 20  # to pack it, and to take its answer
RECORD_TAKEN: Final = 20  # to unpack it, merge it and answer
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
        "_active", "_armed", "_charged", "_env", "_floor", "_gathered_since", "_judged_at",
        "_refilled_at", "_share_max", "_target", "_timers", "_tokens", "_used_then", "p99", "share",
        "spent",
    )  # fmt: skip

    def __init__(self, env: Environment, timers: Timers, config: NodeConfig) -> None:
        self._env = env
        self._timers = timers
        self._target = config.background_latency_limit_ms * 1000 // 2
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
        self._charged = 0  # units of what it has caused besides
        self._used_then = 0  # both, as they were at the last look

    def wake(self, task: Task) -> None:
        """The task has something to do."""
        if task in self._active:
            return
        self._active.append(task)
        if not self._armed:
            now = self._env.now
            if now - self._judged_at > REST:
                self._begin_anew(now)
            self._arm(now)

    def _begin_anew(self, now: int) -> None:
        """After a rest: what clients met before there was any work says nothing about it."""
        latencies = self._env.latencies
        self.share = self._floor if latencies else self._share_max
        latencies.clear()
        self._judged_at = self._gathered_since = now
        self._used_then = self.spent + self._charged

    def charge(self, units: int) -> None:
        """Background work makes the node do so much outside its slices; it is earned as well."""
        self._tokens -= units
        self._charged += units

    def charge_taken(self, records: int, time: int) -> None:
        """This node has taken so many records in ``time``, as those say who sent them.

        That is at most half of what background work may cost in this time: a word that is wrong
        must not stop what there is to do here.
        """
        self.charge(min(records * RECORD_TAKEN, time * self._share_max // WHOLE // 2))

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
        active = self._active
        visits = 0
        while self._tokens > 0 and active and visits < VISITS_MAX:
            visits += 1
            task = active.popleft()
            cost = task.step(self._tokens)
            if cost:
                self._tokens -= cost
                self.spent += cost
                if task not in active:
                    active.append(task)
        self._armed = False
        if active:
            # What a step cost beyond its allowance is owed, and earned first.
            self._arm(now + max((SLICE_MIN - self._tokens) * WHOLE // self.share, PAUSE_MIN))

    def _refill(self, now: int) -> None:
        earned = (now - self._refilled_at) * self.share // WHOLE
        self._refilled_at = now
        self._tokens = min(self._tokens + earned, SLICE)

    def _judge(self, now: int) -> None:
        """Look at how clients fare, and take more or less."""
        earned = (now - self._judged_at) * self.share // WHOLE
        used = self.spent + self._charged
        taken = used - self._used_then
        self._judged_at = now
        self._used_then = used
        latencies = self._env.latencies
        if not latencies:
            self._gathered_since = now
            self.p99 = -1
            self.share = self._share_max
            return
        target = self._target
        samples = sorted(latencies)
        met = samples[len(samples) * 99 // 100]
        if len(samples) >= SAMPLES_MIN or now - self._gathered_since >= WINDOW:
            self.p99 = met
        elif met > target:
            return  # It may have been the one in a hundred: gather more.
        latencies.clear()
        self._gathered_since = now
        if met > target:
            self.share = max(min(self.share // 2, self.share * target // met), self._floor)
        elif taken * 2 >= earned:
            # What clients meet tells nothing about a share that is not taken.
            rise = self.share >> (RISES_FAST if met * 2 <= target else RISES_SLOW)
            self.share = min(self.share + max(rise, 1), self._share_max)
