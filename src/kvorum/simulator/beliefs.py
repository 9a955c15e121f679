"""What members of a healed world believe of each other: everybody who runs is alive.

Beliefs may be wrong as long as something is. Once everything is healed they have half a minute to
come right: suspicions are refuted, and whoever was declared dead is found again.
"""

from typing import TYPE_CHECKING, Final

from kvorum.model.members import State

if TYPE_CHECKING:
    from kvorum.simulator.world import World

SECOND: Final = 1_000_000
BELIEF_PATIENCE: Final = 30 * SECOND  # after the heal
LOOK_AGAIN: Final = SECOND // 2


def doubts(world: "World") -> list[str]:
    """Who is not believed alive though it runs, and by whom."""
    found = []
    running = [machine for machine in world.machines.values() if machine.process is not None]
    for machine in running:
        process = machine.process
        assert process is not None
        members = process.node.membership.members
        for other in running:
            belief = members.of(other.member)
            if belief is not None and belief.state != State.ALIVE:
                found.append(f"{other.name} is believed {belief.state.name} by {machine.name}")
            if members.is_dead(other.member):
                found.append(f"{other.name} is shunned by {machine.name}")
    return found


def judge_beliefs(world: "World", healed_at: int) -> None:
    """Wait until all who run believe each other alive, or fail the world."""
    schedule = world.schedule
    while doubts(world) and schedule.now < healed_at + BELIEF_PATIENCE:
        schedule.run_until(schedule.now + LOOK_AGAIN)
    for doubt in doubts(world):
        world.fail(f"unbelieved: {doubt}, half a minute after everything was healed")
