"""Disasters of the network: cuts of every shape, slow and stalling paths, broken connections.

See ``faults.py`` for what a disaster is. A cut holds back what is sent, as TCP would keep sending
it, and lets it go when it heals; only a reset loses anything, in the middle of a frame as often
as not.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from kvorum.simulator.plan import PlannedFault
from kvorum.simulator.world import World

Pairs = list[tuple[int, int]]
STALL: Final = 300_000  # how long a stalling path stands still, at the most


def _cut(world: World, fault: PlannedFault, pairs: Pairs) -> None:
    world.network.cut(pairs)
    world.until_healed(fault.duration, lambda: world.network.heal(pairs))


def _both_ways(pairs: Iterable[tuple[int, int]]) -> Pairs:
    return [way for one, other in pairs for way in ((one, other), (other, one))]


def _hosts(world: World) -> list[int]:
    return [*world.machines, *(client.host for client in world.clients)]


def _two(world: World, fault: PlannedFault) -> tuple[int, int] | None:
    """Two different members; None where there is only one."""
    node, other = world.pick(fault.node).member, world.pick(fault.other).member
    if node == other:
        other = world.pick(node + 1).member
    return None if node == other else (node, other)


def cut_one_way(world: World, fault: PlannedFault, random: Random) -> str:
    """One direction between two members; the other goes on."""
    pair = _two(world, fault)
    if pair is None:
        return ""
    _cut(world, fault, [pair])
    return f"{pair[0]}>{pair[1]}"


def cut_pair(world: World, fault: PlannedFault, random: Random) -> str:
    pair = _two(world, fault)
    if pair is None:
        return ""
    _cut(world, fault, _both_ways([pair]))
    return f"{pair[0]}-{pair[1]}"


def isolate(world: World, fault: PlannedFault, random: Random) -> str:
    """One member from all others; its clients may go with it or not."""
    alone = world.pick(fault.node).member
    hosts = _hosts(world) if random.random() < 0.3 else list(world.machines)
    others = [host for host in hosts if host != alone]
    if not others:
        return ""
    _cut(world, fault, _both_ways((alone, other) for other in others))
    return str(alone)


def _part(world: World, fault: PlannedFault, sides: dict[int, int]) -> str:
    """Cut whatever stands on different sides."""
    pairs = [
        (host, target)
        for host, side in sides.items()
        for target, other in sides.items()
        if side != other
    ]
    if not pairs:
        return ""
    _cut(world, fault, pairs)
    return " ".join(str(host) for host, side in sides.items() if side)


def split(world: World, fault: PlannedFault, random: Random) -> str:
    """Two sides, clients on both."""
    return _part(world, fault, {host: random.randrange(2) for host in _hosts(world)})


def halves(world: World, fault: PlannedFault, random: Random) -> str:
    """Two sides of equally many members, so that neither is a majority if it can be helped."""
    members = list(world.machines)
    random.shuffle(members)
    sides = {member: int(index * 2 >= len(members)) for index, member in enumerate(members)}
    sides |= {client.host: random.randrange(2) for client in world.clients}
    return _part(world, fault, sides)


def bridge(world: World, fault: PlannedFault, random: Random) -> str:
    """Two sides with one member that both still reach."""
    between = world.pick(fault.node).member
    others = [member for member in world.machines if member != between]
    random.shuffle(others)
    sides = {member: int(index * 2 >= len(others)) for index, member in enumerate(others)}
    cut = _part(world, fault, sides)
    return f"{between} between {cut}" if cut else ""


def ring_of_paths(world: World, fault: PlannedFault, random: Random) -> str:
    """Each member reaches its two neighbours only."""
    members = list(world.machines)
    random.shuffle(members)
    size = len(members)
    pairs = [
        (members[left], members[right])
        for left in range(size)
        for right in range(left + 2, size)
        if right - left < size - 1
    ]
    if not pairs:
        return ""
    _cut(world, fault, _both_ways(pairs))
    return " ".join(map(str, members))


def swizzle(world: World, fault: PlannedFault, random: Random) -> str:
    """Cut several members off, one by one, and let them back in another order."""
    members = list(world.machines)
    chosen = random.sample(members, random.randint(1, len(members)))
    order = random.sample(chosen, len(chosen))
    step = max(fault.duration // (2 * len(chosen)), 1)
    for index, member in enumerate(chosen):
        pairs = _both_ways((member, other) for other in members if other != member)
        away = (len(chosen) - index + order.index(member)) * step
        world.schedule.after(index * step, _cut_if_unhealed, world, pairs, away)
    return " ".join(map(str, chosen))


def _cut_if_unhealed(world: World, pairs: Pairs, duration: int) -> None:
    if not world.healed:
        world.network.cut(pairs)
        world.until_healed(duration, lambda: world.network.heal(pairs))


def cut_client(world: World, fault: PlannedFault, random: Random) -> str:
    client = random.choice(world.clients)
    member = world.pick(fault.node).member
    pairs = [(client.host, member), (member, client.host)]
    _cut(world, fault, pairs if random.random() < 0.5 else [random.choice(pairs)])
    return f"{client.name}-{member}"


def slow_paths(world: World, fault: PlannedFault, random: Random) -> str:
    """Everything from and to one member takes many times longer."""
    member = world.pick(fault.node).member
    paths = [
        world.network.path(*way)
        for way in _both_ways((member, other) for other in _hosts(world) if other != member)
    ]
    for path in paths:
        path.slowness = max(fault.amount, 1)

    def heal() -> None:
        for path in paths:
            path.slowness = 1

    world.until_healed(fault.duration, heal)
    return f"{member} x{fault.amount}"


def stalls(world: World, fault: PlannedFault, random: Random) -> str:
    """A path that stands still for a moment, again and again."""
    pair = _two(world, fault)
    if pair is None:
        return ""
    pairs = _both_ways([pair]) if random.random() < 0.5 else [pair]
    times = max(fault.amount, 1)
    for _ in range(times):
        begin = random.randrange(fault.duration + 1)
        length = min(random.randrange(STALL), fault.duration // times + 1)
        world.schedule.after(begin, _cut_if_unhealed, world, pairs, length)
    return f"{pair[0]}>{pair[1]} {times} times"


def reset(world: World, fault: PlannedFault, random: Random) -> str:
    """Break a few connections, whoever's they are."""
    numbers = list(world.network.connections)
    chosen = random.sample(numbers, min(len(numbers), fault.amount))
    for number in chosen:
        world.network.reset(number)
    return " ".join(map(str, chosen))


def reset_node(world: World, fault: PlannedFault, random: Random) -> str:
    """Break every connection of one member."""
    member = world.pick(fault.node).member
    for number, (end, other) in list(world.network.connections.items()):
        if member in (end.host, other.host):
            world.network.reset(number)
    return str(member)


CUTS: Final[tuple[Callable[[World, PlannedFault, Random], str], ...]] = (
    cut_one_way, cut_pair, isolate, split, halves, bridge, ring_of_paths, swizzle, cut_client,
    slow_paths, stalls, reset, reset_node,
)  # fmt: skip
