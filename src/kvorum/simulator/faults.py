"""Disasters, each in a few lines, to be drawn and combined freely.

A fault is a function of the world and a generator. It does its harm, registers how that is
undone, and returns what it did, or an empty string where it found nothing to harm. Those in
``plan.INSIDE`` leave every promise standing; the others may break some, which the checkers then
know from the history.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from kvorum.simulator.machine import PLENTY, Machine
from kvorum.simulator.process import DIES_AFTER_LOG, DIES_BEFORE_LOG, DIES_HALF_FLUSHED
from kvorum.simulator.world import World

Fault = Callable[[World, Random], str]
MILLISECOND: Final = 1_000
SECOND: Final = 1_000_000


def _some_running(world: World, random: Random) -> Machine | None:
    running = [
        machine for machine in world.machines.values() if machine.process and not machine.paused
    ]
    return random.choice(running) if running else None


def _a_while(random: Random, longest: int = 3 * SECOND) -> int:
    """Mostly short, sometimes long."""
    return random.choice((20 * MILLISECOND, 200 * MILLISECOND, longest // 3, longest)) + (
        random.randrange(100 * MILLISECOND)
    )


# Processes and machines.


def kill(world: World, random: Random) -> str:
    machine = _some_running(world, random)
    if machine is None:
        return ""
    machine.kill()
    world.until_healed(_a_while(random), machine.start)
    return machine.name


def kill_in_turn(world: World, random: Random) -> str:
    """Kill in the middle of a turn's end, where the order of log and answers matters."""
    machine = _some_running(world, random)
    if machine is None or machine.process is None:
        return ""
    machine.process.dies = random.choice((DIES_BEFORE_LOG, DIES_AFTER_LOG, DIES_HALF_FLUSHED))
    world.until_healed(_a_while(random), machine.start)
    return machine.name


def kill_all(world: World, random: Random) -> str:
    for machine in world.machines.values():
        machine.kill()
        world.until_healed(_a_while(random), machine.start)
    return "all"


def power_loss(world: World, random: Random) -> str:
    machine = _some_running(world, random)
    if machine is None:
        return ""
    machine.lose_power()
    world.until_healed(_a_while(random), machine.start)
    return machine.name


def power_loss_of_all(world: World, random: Random) -> str:
    for machine in world.machines.values():
        machine.lose_power()
        world.until_healed(_a_while(random), machine.start)
    return "all"


def pause(world: World, random: Random) -> str:
    machine = _some_running(world, random)
    if machine is None:
        return ""
    machine.pause()
    world.until_healed(_a_while(random), machine.resume)
    return machine.name


def clean_restart(world: World, random: Random) -> str:
    machine = _some_running(world, random)
    if machine is None:
        return ""
    machine.stop_clean()
    world.until_healed(_a_while(random), machine.start)
    return machine.name


# Cuts, slowness and resets.


def _cut(world: World, random: Random, pairs: list[tuple[int, int]]) -> None:
    world.network.cut(pairs)
    world.until_healed(_a_while(random, 5 * SECOND), lambda: world.network.heal(pairs))


def _hosts(world: World) -> list[int]:
    return [*world.machines, *(client.host for client in world.clients)]


def cut_one_way(world: World, random: Random) -> str:
    """One direction between two members; the other goes on."""
    if len(world.machines) < 2:
        return ""
    host, target = random.sample(list(world.machines), 2)
    _cut(world, random, [(host, target)])
    return f"{host}>{target}"


def cut_pair(world: World, random: Random) -> str:
    if len(world.machines) < 2:
        return ""
    host, target = random.sample(list(world.machines), 2)
    _cut(world, random, [(host, target), (target, host)])
    return f"{host}-{target}"


def isolate(world: World, random: Random) -> str:
    """One member from all others; its clients may go with it or not."""
    alone = random.choice(list(world.machines))
    hosts = _hosts(world) if random.random() < 0.3 else list(world.machines)
    others = [host for host in hosts if host != alone]
    if not others:
        return ""
    _cut(world, random, [pair for other in others for pair in ((alone, other), (other, alone))])
    return str(alone)


def split(world: World, random: Random) -> str:
    """Two sides, clients on both."""
    sides = {host: random.randrange(2) for host in _hosts(world)}
    pairs = [
        (host, target)
        for host, side in sides.items()
        for target, other in sides.items()
        if side != other
    ]
    if not pairs:
        return ""
    _cut(world, random, pairs)
    return " ".join(str(host) for host, side in sides.items() if side)


def cut_client(world: World, random: Random) -> str:
    client = random.choice(world.clients)
    member = random.choice(list(world.machines))
    pairs = [(client.host, member), (member, client.host)]
    _cut(world, random, pairs if random.random() < 0.5 else [random.choice(pairs)])
    return f"{client.name}-{member}"


def slow_paths(world: World, random: Random) -> str:
    """Everything from and to one member takes many times longer."""
    member = random.choice(list(world.machines))
    factor = random.choice((5, 20, 100))
    paths = [
        path
        for other in _hosts(world)
        if other != member
        for path in (world.network.path(member, other), world.network.path(other, member))
    ]
    for path in paths:
        path.slowness = factor

    def heal() -> None:
        for path in paths:
            path.slowness = 1

    world.until_healed(_a_while(random), heal)
    return f"{member} x{factor}"


def reset(world: World, random: Random) -> str:
    """Break a few connections, whoever's they are."""
    numbers = list(world.network.connections)
    if not numbers:
        return ""
    chosen = random.sample(numbers, min(len(numbers), random.randint(1, 4)))
    for number in chosen:
        world.network.reset(number)
    return " ".join(map(str, chosen))


def reset_node(world: World, random: Random) -> str:
    """Break every connection of one member."""
    member = random.choice(list(world.machines))
    for number, (end, other) in list(world.network.connections.items()):
        if member in (end.host, other.host):
            world.network.reset(number)
    return str(member)


# Clocks.


def _skew(world: World, random: Random, most: int, duration: int) -> str:
    machine = random.choice(list(world.machines.values()))
    before = machine.skew
    machine.skew = random.randint(-most, most)
    if duration:
        world.until_healed(duration, lambda: setattr(machine, "skew", before))
    return f"{machine.name} by {machine.skew} us"


def clock_skew(world: World, random: Random) -> str:
    """A clock that is off by what is allowed, to the end."""
    return _skew(world, random, 4 * SECOND, 0)


def clock_step(world: World, random: Random) -> str:
    """A clock that jumps, and jumps back."""
    return _skew(world, random, 4 * SECOND, _a_while(random))


def clock_far_off(world: World, random: Random) -> str:
    """A clock that is off by hours."""
    return _skew(world, random, 7200 * SECOND, _a_while(random))


# Disks.


def slow_disk(world: World, random: Random) -> str:
    machine = random.choice(list(world.machines.values()))
    machine.slowness = random.choice((5, 50))
    world.until_healed(_a_while(random), lambda: setattr(machine, "slowness", 1))
    return machine.name


def full_disk(world: World, random: Random) -> str:
    machine = random.choice(list(world.machines.values()))
    machine.disk.free_bytes = random.choice((0, 100, 5_000))

    def heal() -> None:
        machine.disk.free_bytes = PLENTY

    world.until_healed(_a_while(random), heal)
    return machine.name


def full_engine(world: World, random: Random) -> str:
    """The engine has no room for a while; the log and the overlay go on as long as they can."""
    machine = random.choice(list(world.machines.values()))
    machine.engine.full = True

    def heal() -> None:
        machine.engine.full = False

    world.until_healed(_a_while(random), heal)
    return machine.name


def failed_sync(world: World, random: Random) -> str:
    """Syncs fail; sooner or later somebody restarts the node on a disk that works again."""
    machine = _some_running(world, random)
    if machine is None or machine.volatile:
        return ""
    machine.disk.fail_sync = True

    def restart() -> None:
        machine.disk.fail_sync = False
        machine.kill()
        machine.start()

    world.until_healed(_a_while(random), restart)
    return machine.name


def wiped_disk(world: World, random: Random) -> str:
    machine = random.choice(list(world.machines.values()))
    machine.kill()
    machine.wipe()
    world.until_healed(_a_while(random), machine.start)
    return machine.name


def rolled_back_disk(world: World, random: Random) -> str:
    """A backup is taken now and put back later."""
    machine = _some_running(world, random)
    if machine is None or machine.volatile:
        return ""
    snapshot = machine.snapshot()

    def restore() -> None:
        machine.kill()
        machine.restore(snapshot)
        machine.start()

    world.until_healed(_a_while(random), restore)
    return machine.name


def rot(world: World, random: Random) -> str:
    """Bits flip in records that lie in one engine."""
    machine = random.choice(list(world.machines.values()))
    keys = [key for key in sorted(machine.engine.records) if key[0] == 1]
    if machine.volatile or not keys:
        return ""
    for key in random.sample(keys, min(len(keys), random.randint(1, 3))):
        machine.rot(key)
    return machine.name


FAULTS: Final[dict[str, Fault]] = {
    fault.__name__: fault
    for fault in (
        kill, kill_in_turn, kill_all, power_loss, power_loss_of_all, pause, clean_restart,
        cut_one_way, cut_pair, isolate, split, cut_client, slow_paths, reset, reset_node,
        clock_skew, clock_step, clock_far_off, slow_disk, full_disk, full_engine, failed_sync,
        wiped_disk, rolled_back_disk, rot,
    )
}  # fmt: skip


def strike(world: World, kind: str) -> None:
    """Let one fault happen, and note it."""
    world.struck = True
    done = FAULTS[kind](world, world.schedule.random_for(f"fault/{kind}"))
    if done:
        world.schedule.tell(f"fault {kind}: {done}")
        world.faults[kind] = world.faults.get(kind, 0) + 1
