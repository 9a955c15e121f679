"""What one seed draws before anything happens: the cluster, its settings, its load, its faults.

Drawing which faults exist at all, and how large everything is, finds more than turning
everything on at once (swarm testing, Groce et al. 2012): some errors need a quiet corner.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Final

from kvorum.config import NodeConfig
from kvorum.faults import POINTS
from kvorum.model.quorum import Durability

# Faults that leave every promise standing, and those that may not.
INSIDE: Final = (
    "kill", "kill_in_turn", "kill_all", "power_loss", "power_loss_of_all", "pause", "cut_one_way",
    "cut_pair", "isolate", "split", "cut_client", "slow_paths", "slow_disk", "reset",
    "reset_node", "clock_skew", "clock_step", "full_disk", "full_engine", "clean_restart",
    "failed_sync",
)  # fmt: skip
OUTSIDE: Final = ("wiped_disk", "rolled_back_disk", "rot", "clock_far_off")

SECOND: Final = 1_000_000
LIVE_SHARE: Final = 0.25  # of all fault points, in each seed
MEMBERS: Final = (3, 3, 3, 3, 4, 5, 5, 6, 7, 1, 2)


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table of the workload."""

    name: str
    r: int
    w: int
    durability: Durability
    lww: bool
    ttl_seconds: int = 0
    doomed: bool = False  # it is dropped half-way


@dataclass(slots=True)
class Plan:
    """Everything that is settled before the first event."""

    seed: int
    members: int
    n: int
    partitions: int
    volatile: tuple[int, ...]  # members that keep nothing on a disk
    tables: tuple[TablePlan, ...]
    config: NodeConfig
    freeze_bytes: int
    limit_bytes: int
    delay: int  # of the network, at the least
    jitter: int
    disk_delay: int
    clients: int
    keys: int
    operations: int
    burst: int
    value_bytes: int
    duration: int  # microseconds in which clients work and faults happen
    client_timeout: int
    inside: bool  # only faults that leave every promise standing
    kinds: tuple[str, ...] = field(default=())
    faults: int = 0
    points: tuple[str, ...] = ()  # fault points that are live
    timer_slack: int = 0  # how much later than asked for timers fire, as on a busy machine
    steady: bool = False  # every delay is the same, and no chunk is split: for golden scripts

    @property
    def patient(self) -> bool:
        """Whether no timeout can pass before a fault, however unlucky the delays are."""
        slowest = 60 * (2 * self.delay + self.jitter) + 20 * self.disk_delay
        return slowest < min(self.config.request_timeout_ms * 1_000, self.client_timeout)

    def describe(self) -> str:
        tables = ", ".join(
            f"{table.name} r={table.r} w={table.w} {table.durability.name.lower()}"
            + (" lww" if table.lww else "")
            for table in self.tables
        )
        return (
            f"{self.members} members, n={self.n}, {self.partitions} partitions, {self.clients} "
            f"clients, {self.keys} keys, {self.operations} operations; {tables}; faults: "
            f"{self.faults} of {' '.join(self.kinds)}"
            + (f"; points: {' '.join(self.points)}" if self.points else "")
        )


def draw_plan(seed: int) -> Plan:
    random = Random(f"{seed}/plan")
    members = random.choice(MEMBERS)
    n = min(members, random.choice((3, 3, 3, 3, 2, 5, 1)))
    inside = random.random() < 0.6
    volatile: tuple[int, ...] = ()
    if random.random() < 0.08:
        volatile = tuple(m for m in range(1, members + 1) if random.random() < 0.5)
    duration = random.randrange(3, 9) * SECOND
    freeze = random.choice((2_000, 8_000, 32_000, 1 << 20))
    plan = Plan(
        seed=seed,
        members=members,
        n=n,
        partitions=random.choice((8, 16, 32)),
        volatile=volatile,
        tables=_draw_tables(random, n, inside),
        config=_draw_config(random),
        freeze_bytes=freeze,
        limit_bytes=max(freeze * random.choice((3, 20)), 40_000),
        delay=random.choice((100, 300, 1_000, 5_000)),
        jitter=random.choice((100, 1_000, 5_000, 30_000)),
        disk_delay=random.choice((200, 1_000, 5_000, 20_000)),
        clients=random.randrange(1, 6),
        keys=random.choice((1, 2, 4, 8, 20)),
        operations=random.randrange(160, 260),
        burst=random.choice((1, 2, 4, 8)),
        value_bytes=random.choice((0, 10, 100, 1000)),
        duration=duration,
        client_timeout=random.choice((1, 2, 4)) * SECOND,
        inside=inside,
        timer_slack=random.choice((0, 5_000, 20_000, 20_000)),
    )
    _draw_faults(plan, random)
    plan.points = tuple(
        name for name in POINTS if Random(f"{seed}/point/{name}").random() < LIVE_SHARE
    )
    return plan


def _draw_tables(random: Random, n: int, inside: bool) -> tuple[TablePlan, ...]:
    levels = [Durability.ONE, Durability.ONE, Durability.QUORUM, Durability.ALL]
    if not inside:
        levels.append(Durability.NONE)
    majority = n // 2 + 1
    tables = [TablePlan("default", majority, majority, random.choice(levels), False)]
    if random.random() < 0.5:
        r, w = random.randint(1, n), random.randint(1, n)
        tables.append(TablePlan("loose", r, w, random.choice(levels), False))
    if random.random() < 0.4:
        tables.append(TablePlan("latest", majority, majority, random.choice(levels), True))
    if random.random() < 0.1:
        tables.append(TablePlan("fleeting", majority, majority, random.choice(levels), False, 2))
    if random.random() < 0.15:
        tables.append(
            TablePlan("doomed", majority, majority, random.choice(levels), False, doomed=True)
        )
    return tuple(tables)


def _draw_config(random: Random) -> NodeConfig:
    return NodeConfig(
        request_timeout_ms=random.choice((500, 1_000, 3_000)),
        retry_window_ms=random.choice((2_000, 60_000)),
        peer_dead_timeout_ms=random.choice((1_500, 5_000)),
        reconnect_last_ms=random.choice((200, 1_000)),
        large_bytes=random.choice((200, 2_000, 64 << 10)),
        batch_bytes_max=random.choice((2_000, 1 << 20)),
        requests_in_flight_max=random.choice((20, 20_000)),
    )


def _draw_faults(plan: Plan, random: Random) -> None:
    kinds = [kind for kind in INSIDE if random.random() < 0.35]
    if not plan.inside:
        kinds += [kind for kind in OUTSIDE if random.random() < 0.5]
    plan.kinds = tuple(kinds) or ("kill",)
    plan.faults = random.randrange(3, 15)
