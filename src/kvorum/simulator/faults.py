"""Disasters, each in a few lines, to be planned and combined freely.

A disaster is a function of the world, its entry in the plan and dice of its own. It does its harm
to the node that the entry names, or to the next one that it can be done to, registers how that is
undone, and returns what it did, or an empty string where it found nothing to harm. Those in
``draw.INSIDE`` leave every promise standing; the others may break some, which the checkers then
know from the history. What befalls the network stands in ``cuts.py``.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from kvorum.simulator.cuts import CUTS
from kvorum.simulator.draw import LONGEST, a_while
from kvorum.simulator.machine import PLENTY, Machine
from kvorum.simulator.plan import PlannedFault
from kvorum.simulator.process import DIES_AFTER_LOG, DIES_BEFORE_LOG, DIES_HALF_FLUSHED
from kvorum.simulator.world import World

Disaster = Callable[[World, PlannedFault, Random], str]


def _running(world: World, fault: PlannedFault) -> Machine | None:
    """The node meant, or the next one that runs."""
    for offset in range(len(world.machines)):
        machine = world.pick(fault.node + offset)
        if machine.process is not None and not machine.paused:
            return machine
    return None


# Processes and machines.


def kill(world: World, fault: PlannedFault, random: Random) -> str:
    machine = _running(world, fault)
    if machine is None:
        return ""
    machine.kill()
    world.until_healed(fault.duration, machine.start)
    return machine.name


def kill_in_turn(world: World, fault: PlannedFault, random: Random) -> str:
    """Kill in the middle of a turn's end, where the order of log and answers matters."""
    machine = _running(world, fault)
    if machine is None or machine.process is None:
        return ""
    places = (DIES_BEFORE_LOG, DIES_AFTER_LOG, DIES_HALF_FLUSHED)
    machine.process.dies = places[fault.amount % len(places)]
    world.until_healed(fault.duration, machine.start)
    return machine.name


def kill_all(world: World, fault: PlannedFault, random: Random) -> str:
    for machine in world.machines.values():
        machine.kill()
        world.until_healed(a_while(random, LONGEST), machine.start)
    return "all"


def power_loss(world: World, fault: PlannedFault, random: Random) -> str:
    machine = _running(world, fault)
    if machine is None:
        return ""
    machine.lose_power()
    world.until_healed(fault.duration, machine.start)
    return machine.name


def power_loss_of_all(world: World, fault: PlannedFault, random: Random) -> str:
    for machine in world.machines.values():
        machine.lose_power()
        world.until_healed(a_while(random, LONGEST), machine.start)
    return "all"


def pause(world: World, fault: PlannedFault, random: Random) -> str:
    machine = _running(world, fault)
    if machine is None:
        return ""
    machine.pause()
    world.until_healed(fault.duration, machine.resume)
    return machine.name


def clean_restart(world: World, fault: PlannedFault, random: Random) -> str:
    machine = _running(world, fault)
    if machine is None:
        return ""
    machine.stop_clean()
    world.until_healed(fault.duration, machine.start)
    return machine.name


# Clocks.


def clock_skew(world: World, fault: PlannedFault, random: Random) -> str:
    """A clock that is off by what is allowed, to the end."""
    machine = world.pick(fault.node)
    machine.skew = fault.amount
    return f"{machine.name} by {fault.amount} us"


def clock_step(world: World, fault: PlannedFault, random: Random) -> str:
    """A clock that jumps, and jumps back."""
    machine = world.pick(fault.node)
    before = machine.skew
    world.until_healed(fault.duration, lambda: setattr(machine, "skew", before))
    return clock_skew(world, fault, random)


def clock_far_off(world: World, fault: PlannedFault, random: Random) -> str:
    """A clock that is off by hours, for a while."""
    return clock_step(world, fault, random)


# Disks.


def slow_disk(world: World, fault: PlannedFault, random: Random) -> str:
    machine = world.pick(fault.node)
    machine.slowness = max(fault.amount, 1)
    world.until_healed(fault.duration, lambda: setattr(machine, "slowness", 1))
    return machine.name


def full_disk(world: World, fault: PlannedFault, random: Random) -> str:
    machine = world.pick(fault.node)
    machine.disk.free_bytes = fault.amount

    def heal() -> None:
        machine.disk.free_bytes = PLENTY

    world.until_healed(fault.duration, heal)
    return machine.name


def full_engine(world: World, fault: PlannedFault, random: Random) -> str:
    """The engine has no room for a while; the log and the overlay go on as long as they can."""
    machine = world.pick(fault.node)
    if machine.volatile:
        return ""  # Its engine is a dict.
    machine.engine.full = True

    def heal() -> None:
        machine.engine.full = False

    world.until_healed(fault.duration, heal)
    return machine.name


def failing_disk(world: World, fault: PlannedFault, random: Random) -> str:
    """The disk takes nothing for a while and says so, after a part of a write as often as not."""
    machine = world.pick(fault.node)
    machine.disk.fail_append = True

    def heal() -> None:
        machine.disk.fail_append = False

    world.until_healed(fault.duration, heal)
    return machine.name


def failed_sync(world: World, fault: PlannedFault, random: Random) -> str:
    """Syncs fail; sooner or later somebody restarts the node on a disk that works again."""
    machine = _running(world, fault)
    if machine is None or machine.volatile:
        return ""
    machine.disk.fail_sync = True

    def restart() -> None:
        machine.disk.fail_sync = False
        machine.kill()
        machine.start()

    world.until_healed(fault.duration, restart)
    return machine.name


def wiped_disk(world: World, fault: PlannedFault, random: Random) -> str:
    machine = world.pick(fault.node)
    machine.kill()
    machine.wipe()
    world.until_healed(fault.duration, machine.start)
    return machine.name


def rolled_back_disk(world: World, fault: PlannedFault, random: Random) -> str:
    """A backup is taken now and put back later."""
    machine = _running(world, fault)
    if machine is None or machine.volatile:
        return ""
    snapshot = machine.snapshot()

    def restore() -> None:
        machine.kill()
        machine.restore(snapshot)
        machine.start()

    world.until_healed(fault.duration, restore)
    return machine.name


def rot(world: World, fault: PlannedFault, random: Random) -> str:
    """Bits flip in records that lie in one engine."""
    machine = world.pick(fault.node)
    keys = [key for key in sorted(machine.engine.records) if key[0] in (1, 2)]
    if machine.volatile or not keys:
        return ""
    for key in random.sample(keys, min(len(keys), fault.amount)):
        machine.rot(key)
    return machine.name


def flipped_bit(world: World, fault: PlannedFault, random: Random) -> str:
    """A bit flips in the log of a node that was killed; whoever starts it replaces a bad disk."""
    machine = world.pick(fault.node)
    if machine.volatile:
        return ""
    machine.kill()
    done = machine.flip_log_bit(random)
    world.until_healed(fault.duration, machine.start)
    return f"{machine.name} in {done}" if done else ""


FAULTS: Final[dict[str, Disaster]] = {
    disaster.__name__: disaster
    for disaster in (
        kill, kill_in_turn, kill_all, power_loss, power_loss_of_all, pause, clean_restart, *CUTS,
        clock_skew, clock_step, clock_far_off, slow_disk, full_disk, full_engine, failing_disk,
        failed_sync, wiped_disk, rolled_back_disk, rot, flipped_bit,
    )
}  # fmt: skip


def strike(world: World, fault: PlannedFault) -> None:
    """Let one fault happen, and note it."""
    world.struck = True
    done = FAULTS[fault.kind](world, fault, Random(fault.dice))
    if done:
        world.schedule.tell(f"fault {fault.kind}: {done}")
        world.faults[fault.kind] = world.faults.get(fault.kind, 0) + 1
