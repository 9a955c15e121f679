"""Everything about one run that is settled before it begins: cluster, settings, faults, work.

A plan is explicit. Each fault and each thing that a client does is an entry of its own, with its
moment, its parameters and dice of its own, so that one can be left out without changing another:
that is what makes a plan that fails shrink (``shrink.py``). What is drawn while a world runs,
delays above all, comes from generators that the plan's seed names.

``draw.py`` draws plans; ``planfile.py`` writes and reads them.
"""

from dataclasses import dataclass, field
from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.quorum import Durability

SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table of the workload."""

    name: str
    r: int
    w: int
    durability: Durability
    lww: bool = False
    ttl_seconds: int = 0
    doomed: bool = False  # it is dropped half-way
    sloppy: bool = True


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One disaster. What a parameter means, and whether it means anything, is the kind's affair."""

    at: int  # microseconds after the clients begin
    kind: str
    node: int = 0
    other: int = 0
    duration: int = 0
    amount: int = 0
    dice: int = 0  # seeds whatever else it draws


@dataclass(frozen=True, slots=True)
class PlannedWork:
    """One thing that one client does."""

    at: int  # microseconds after the clients begin
    client: int  # from 1 on
    kind: str
    table: str
    key: int = 0
    dice: int = 0  # seeds whatever else it draws: overrides, sizes


@dataclass(slots=True)
class Plan:
    """One run."""

    seed: int
    members: int
    n: int
    partitions: int
    tables: tuple[TablePlan, ...]  # the first is the default table
    volatile: tuple[int, ...] = ()  # members that keep nothing on a disk
    config: NodeConfig = field(default_factory=NodeConfig)
    freeze_bytes: int = 1 << 20
    limit_bytes: int = 4 << 20
    delay: int = 1_000  # of the network, at the least
    jitter: int = 0
    disk_delay: int = 5_000
    clients: int = 0
    keys: int = 1
    value_bytes: int = 0
    duration: int = 0  # microseconds in which clients work and faults happen
    client_timeout: int = 20 * SECOND
    timer_slack: int = 0  # how much later than asked for timers fire, as on a busy machine
    gather: int = 50  # from what wakes a process to its turn; what arrives meanwhile comes in too
    message_cost: int = 0  # how long a process is busy with a request, an answer, a control message
    unit_cost: int = 0  # and with one unit of background work (``protocol/background.py``)
    steady: bool = False  # every delay is the same, and no chunk is split: for golden scripts
    inside: bool = True  # only faults that leave every promise standing
    points: tuple[str, ...] = ()  # fault points that are live
    faults: tuple[PlannedFault, ...] = ()
    work: tuple[PlannedWork, ...] = ()

    @property
    def work_takes_time(self) -> bool:
        return bool(self.message_cost or self.unit_cost)

    @property
    def patient(self) -> bool:
        """Whether no timeout can pass before a fault, however unlucky the delays are."""
        slowest = 60 * (2 * self.delay + self.jitter + self.gather) + 20 * self.disk_delay
        least = min(self.config.request_timeout_ms * 1_000, self.client_timeout)
        return slowest < least and not self.work_takes_time

    def describe(self) -> str:
        tables = ", ".join(
            f"{table.name} r={table.r} w={table.w} {table.durability.name.lower()}"
            + (" lww" if table.lww else "")
            + ("" if table.sloppy else " strict")
            for table in self.tables
        )
        kinds = " ".join(dict.fromkeys(fault.kind for fault in self.faults))
        return (
            f"{self.members} members, n={self.n}, {self.partitions} partitions, {self.clients} "
            f"clients, {self.keys} keys, {len(self.work)} operations; {tables}; faults: "
            f"{len(self.faults)} of {kinds or 'none'}"
            + (f"; points: {' '.join(self.points)}" if self.points else "")
        )
