"""What one seed draws before anything happens.

Drawing which faults exist at all, and how large everything is, finds more than turning
everything on at once (swarm testing, Groce et al. 2012): some errors need a quiet corner.
"""

from random import Random
from typing import Final

from msgspec import structs

from kvorum.config import NodeConfig
from kvorum.faults import POINTS
from kvorum.model.quorum import Durability
from kvorum.simulator.plan import SECOND, Plan, PlannedFault, PlannedWork, TablePlan

# Faults that leave every promise standing, and those that may not.
INSIDE: Final = (
    "kill", "kill_in_turn", "kill_all", "power_loss", "power_loss_of_all", "pause", "cut_one_way",
    "cut_pair", "isolate", "split", "cut_client", "slow_paths", "slow_disk", "reset",
    "reset_node", "clock_skew", "clock_step", "full_disk", "full_engine", "clean_restart",
    "failed_sync", "halves", "ring_of_paths", "bridge", "swizzle", "stalls", "failing_disk",
)  # fmt: skip
OUTSIDE: Final = ("wiped_disk", "rolled_back_disk", "rot", "flipped_bit", "clock_far_off")

LIVE_SHARE: Final = 0.25  # of all fault points, in each seed
MEMBERS: Final = (3, 3, 3, 3, 3, 4, 5, 5, 6, 7, 8, 9, 1, 2)
DICE: Final = 1 << 32
MILLISECOND: Final = 1_000
LONGEST: Final = 3 * SECOND  # that a fault lasts; a cut may last a little longer
LONGEST_CUT: Final = 5 * SECOND
CUTS: Final = (
    "cut_one_way", "cut_pair", "isolate", "split", "cut_client", "halves", "ring_of_paths",
    "bridge", "swizzle",
)  # fmt: skip
HOURS_OFF: Final = 7_200 * SECOND

# What a client does, and how often in a hundred.
MIX: Final = {
    "get": 30, "put": 25, "update": 20, "blind": 8, "delete": 7, "remove": 5, "reread": 5,
}  # fmt: skip
KINDS: Final = tuple(MIX)
SHARES: Final = tuple(MIX.values())


def draw_plan(seed: int) -> Plan:
    random = Random(f"{seed}/plan")
    members = random.choice(MEMBERS)
    n = min(members, random.choice((3, 3, 3, 3, 2, 4, 5, 1)))
    inside = random.random() < 0.6
    volatile: tuple[int, ...] = ()
    if random.random() < 0.08:
        volatile = tuple(m for m in range(1, members + 1) if random.random() < 0.5)
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
        value_bytes=random.choice((0, 10, 100, 1_000, 4_000)),
        duration=random.choice((2, 3, 3, 4, 6, 9)) * SECOND,
        client_timeout=random.choice((1, 2, 4)) * SECOND,
        inside=inside,
        timer_slack=random.choice((0, 5_000, 20_000, 20_000)),
        gather=random.choice((50, 500, 3_000)),
    )
    plan.config = _draw_hint_room(plan, Random(f"{seed}/hints"))
    plan.work = _draw_work(plan, Random(f"{seed}/work"))
    plan.faults = _draw_faults(plan, Random(f"{seed}/faults"))
    plan.points = tuple(
        name for name in POINTS if Random(f"{seed}/point/{name}").random() < LIVE_SHARE
    )
    return plan


def _draw_tables(random: Random, n: int, inside: bool) -> tuple[TablePlan, ...]:
    levels = [Durability.ONE, Durability.ONE, Durability.QUORUM, Durability.ALL]
    if not inside:
        levels.append(Durability.NONE)
    majority = n // 2 + 1

    def table(name: str, r: int = majority, w: int = majority, **settings: bool | int) -> TablePlan:
        sloppy = name == "default" or random.random() < 0.5
        return TablePlan(name, r, w, random.choice(levels), sloppy=sloppy, **settings)  # type: ignore[arg-type]

    tables = [table("default")]
    if random.random() < 0.5:
        tables.append(table("loose", random.randint(1, n), random.randint(1, n)))
    if random.random() < 0.4:
        tables.append(table("latest", lww=True))
    if random.random() < 0.1:
        tables.append(table("fleeting", ttl_seconds=2))
    if random.random() < 0.15:
        tables.append(table("doomed", doomed=True))
    return tuple(tables)


def _draw_config(random: Random) -> NodeConfig:
    dead = random.choice((1_500, 5_000))
    return NodeConfig(
        request_timeout_ms=random.choice((500, 1_000, 3_000)),
        retry_window_ms=random.choice((2_000, 60_000)),
        peer_dead_timeout_ms=dead,
        probe_interval_ms=random.choice((500, 1_500)) if dead > 4_500 else 500,
        reconnect_last_ms=random.choice((200, 1_000)),
        max_clock_skew_ms=random.choice((2_000, 10_000, 10_000, 60_000)),
        large_bytes=random.choice((200, 2_000, 64 << 10)),
        batch_bytes_max=random.choice((2_000, 1 << 20)),
        requests_in_flight_max=random.choice((20, 20_000)),
        reap_interval_ms=random.choice((20, 100, 400, 1_000)),
        exchange_interval_ms=random.choice((300, 2_000, 5_000)),
        scrub_interval_s=random.choice((5, 60, 7 * 24 * 3600)),
        background_latency_limit_ms=random.choice((1, 20)),
    )


def _draw_hint_room(plan: Plan, random: Random) -> NodeConfig:
    """How many bytes of hints a node keeps: mostly enough for all, else some or none."""
    room = random.choice((None, None, None, 0, 300, 600, 600, 1_500))
    if room is None:
        return plan.config
    room += 2 * plan.value_bytes if room else 0
    return structs.replace(plan.config, hint_bytes_max=room, hint_bytes_per_peer_max=room * 2 // 3)


def _draw_work(plan: Plan, random: Random) -> tuple[PlannedWork, ...]:
    """Bursts of several requests at one moment, on few keys."""
    left = random.randrange(160, 260)
    longest = random.choice((1, 2, 4, 8))
    work: list[PlannedWork] = []
    while left > 0:
        size = min(random.randint(1, longest), left)
        left -= size
        at = random.randrange(plan.duration)
        client = random.randint(1, plan.clients)
        for _ in range(size):
            kind = random.choices(KINDS, SHARES)[0]
            table = random.choice(plan.tables).name
            key = random.randrange(plan.keys)
            work.append(PlannedWork(at, client, kind, table, key, random.randrange(DICE)))
    for each in plan.tables:
        if each.doomed:
            work.append(PlannedWork(plan.duration // 2, 1, "drop", each.name))
    return tuple(sorted(work, key=lambda one: one.at))


def _draw_faults(plan: Plan, random: Random) -> tuple[PlannedFault, ...]:
    kinds = [kind for kind in INSIDE if random.random() < 0.35]
    if not plan.inside:
        kinds += [kind for kind in OUTSIDE if random.random() < 0.5]
    kinds = kinds or ["kill"]
    faults = [
        _draw_fault(plan, random, random.choice(kinds)) for _ in range(random.randrange(3, 15))
    ]
    return tuple(sorted(faults, key=lambda one: one.at))


def _draw_fault(plan: Plan, random: Random, kind: str) -> PlannedFault:
    at = random.randrange(plan.duration)
    node = random.randint(1, plan.members)
    other = (node + random.randint(1, max(plan.members - 1, 1)) - 1) % plan.members + 1
    duration = a_while(random, LONGEST_CUT if kind in CUTS else LONGEST)
    # Two clocks that are off the other way still differ by what is allowed.
    allowed = plan.config.max_clock_skew_ms * MILLISECOND * 2 // 5
    amounts: dict[str, tuple[int, ...]] = {
        "kill_in_turn": (1, 2, 3),
        "slow_paths": (5, 20, 100),
        "slow_disk": (5, 50),
        "full_disk": (0, 100, 5_000),
        "clock_skew": (random.randint(-allowed, allowed),),
        "clock_step": (random.randint(-allowed, allowed),),
        "clock_far_off": (random.randint(-HOURS_OFF, HOURS_OFF),),
        "reset": (1, 2, 3, 4),
        "rot": (1, 2, 3),
        "stalls": (2, 5, 10),
    }
    amount = random.choice(amounts.get(kind, (0,)))
    return PlannedFault(at, kind, node, other, duration, amount, random.randrange(DICE))


def a_while(random: Random, longest: int) -> int:
    """Mostly short, sometimes long."""
    return random.choice((20 * MILLISECOND, 200 * MILLISECOND, longest // 3, longest)) + (
        random.randrange(100 * MILLISECOND)
    )
