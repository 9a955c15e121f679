"""Make a plan that fails as small as it can be while it goes on failing in the same manner.

First goes what comes after the failure. Then the knobs are turned: fewer nodes, tables, clients and
keys, empty values, plain settings, less time; that makes every later trial cheaper. Then entries
go, faults, operations and live fault points, in halves, quarters and so on down to single ones
(delta debugging, Zeller and Hildebrandt 2002). Then all of it again, since each may have made
another thing needless, until nothing more goes.

A failure is of the same kind if the same checker convicts. Another failure that a smaller plan
happens to show is not followed: it has a seed of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from kvorum.config import NodeConfig
from kvorum.simulator.plan import SECOND, Plan
from kvorum.simulator.run import MEETING, Result, run_plan
from kvorum.simulator.world import checker_of

ENTRIES: Final = ("faults", "work", "points")
ROUNDS_MAX: Final = 8  # two or three are usual
SHORTEST: Final = SECOND // 10
EXCEPTION: Final = "exception"


def kind_of(failure: str) -> str:
    """The checker that speaks; of an exception, also which one it is."""
    checker = checker_of(failure)
    if checker != EXCEPTION:
        return checker
    raised = failure.splitlines()[-2]  # Below it stands when.
    return f"{EXCEPTION} {raised.partition(':')[0]}"


class Shrinker:
    """One plan on its way down."""

    def __init__(self, plan: Plan, result: Result, tell: Callable[[str], None]) -> None:
        """``result`` is what the plan came to: a failure at least."""
        self.plan = plan
        self.kind = kind_of(result.failures[0])
        self.trials = 0
        self._failed_at = run_plan(plan, until=self.kind).virtual_microseconds
        self._tell = tell

    def shrink(self) -> None:
        """Leave the smallest plan found in ``plan``."""
        for _ in range(ROUNDS_MAX):
            before = self.plan
            self._drop_late()
            for smaller in KNOBS:
                self._turn(smaller)
            for name in ENTRIES:
                self._drop_entries(name)
            self._tell(
                f"{self.trials} trials: {len(self.plan.work)} operations, "
                f"{len(self.plan.faults)} faults, {self.plan.members} nodes"
            )
            if self.plan == before:
                return

    def _try(self, candidate: Plan) -> bool:
        """Take a candidate if it fails in the same manner."""
        self.trials += 1
        result = run_plan(candidate, until=self.kind)
        if not any(kind_of(failure) == self.kind for failure in result.failures):
            return False
        self.plan = candidate
        self._failed_at = result.virtual_microseconds
        return True

    def _drop_late(self) -> None:
        """Drop what had not begun when the checker spoke; clients begin after the meeting."""
        plan, last = self.plan, self._failed_at - MEETING
        work = tuple(work for work in plan.work if work.at <= last)
        faults = tuple(fault for fault in plan.faults if fault.at <= last)
        early = replace(plan, work=work, faults=faults, duration=min(plan.duration, last))
        if early != plan:
            self._try(early)

    def _drop_entries(self, name: str) -> None:
        size = len(getattr(self.plan, name))
        while size:
            start = 0
            while start < len(getattr(self.plan, name)):
                entries: tuple[Any, ...] = getattr(self.plan, name)
                changed: dict[str, Any] = {name: entries[:start] + entries[start + size :]}
                if not self._try(replace(self.plan, **changed)):
                    start += size
            size //= 2

    def _turn(self, smaller: Callable[[Plan], Iterator[Plan]]) -> None:
        """Turn one knob to the first, hence smallest, of its values that still fails."""
        for candidate in smaller(self.plan):
            # Where the plan has a value already, those that follow are no smaller.
            if candidate == self.plan or self._try(candidate):
                return


# Each yields what a plan would be with one knob turned down, the smallest first.


def _tables(plan: Plan) -> Iterator[Plan]:
    used = {work.table for work in plan.work}
    kept = tuple(
        table for index, table in enumerate(plan.tables) if not index or table.name in used
    )
    yield replace(plan, tables=kept)


def _members(plan: Plan) -> Iterator[Plan]:
    for members in range(1, plan.members):
        n = min(plan.n, members)
        tables = tuple(
            replace(table, r=min(table.r, n), w=min(table.w, n)) for table in plan.tables
        )
        volatile = tuple(member for member in plan.volatile if member <= members)
        yield replace(plan, members=members, n=n, tables=tables, volatile=volatile)


def _clients(plan: Plan) -> Iterator[Plan]:
    for clients in range(min(len(plan.work), 1), plan.clients):
        yield replace(plan, clients=clients)


def _keys(plan: Plan) -> Iterator[Plan]:
    for keys in (1, 2, 4):
        if keys < plan.keys:
            yield replace(plan, keys=keys)


def _values(plan: Plan) -> Iterator[Plan]:
    yield replace(plan, value_bytes=0)


def _volatile(plan: Plan) -> Iterator[Plan]:
    yield replace(plan, volatile=())


def _duration(plan: Plan) -> Iterator[Plan]:
    """Only as long as something is still to begin, or is under way."""
    moments = [work.at for work in plan.work] + [fault.at for fault in plan.faults]
    begins = max(moments, default=0)
    for tail in (SHORTEST, SECOND):
        if begins + tail < plan.duration:
            yield replace(plan, duration=begins + tail)


def _timing(plan: Plan) -> Iterator[Plan]:
    yield replace(plan, timer_slack=0, jitter=0, delay=1_000, disk_delay=5_000)
    yield replace(plan, timer_slack=0, jitter=100)
    yield replace(plan, timer_slack=0)
    yield replace(plan, message_cost=0, unit_cost=0)


def _settings(plan: Plan) -> Iterator[Plan]:
    yield replace(plan, config=NodeConfig(), freeze_bytes=1 << 20, limit_bytes=4 << 20)
    yield replace(plan, config=NodeConfig())


KNOBS: Final[tuple[Callable[[Plan], Iterator[Plan]], ...]] = (
    _members, _tables, _clients, _keys, _values, _volatile, _duration, _timing, _settings,
)  # fmt: skip
