"""What work costs in time, where a plan says so: turns that last, and whoever waits for them."""

from dataclasses import replace

import pytest

from kvorum.model.quorum import Durability
from kvorum.protocol.background import Task
from kvorum.simulator.connections import messages_in
from kvorum.simulator.draw import draw_plan
from kvorum.simulator.plan import SECOND, Plan, PlannedWork, TablePlan
from kvorum.simulator.process import Process
from kvorum.simulator.run import run_plan
from kvorum.simulator.trace import Trace
from kvorum.simulator.workload import SimulatedClient
from kvorum.simulator.world import World
from kvorum.wire.kinds import ANSWERS, BATCH, MARK, PUT
from tests.support.seeds import first_seed

MILLISECOND = 1_000
COST = 10 * MILLISECOND
UNITS = 300


class Busy(Task):
    """A piece of work that is done in one step."""

    def __init__(self) -> None:
        self.done = False

    def step(self, allowance: int) -> int:
        cost = 0 if self.done else UNITS
        self.done = True
        return cost


class Lone:
    """One node, and two clients that are connected to it."""

    def __init__(self, message_cost: int = 0, unit_cost: int = 0) -> None:
        plan = Plan(
            seed=1, members=1, n=1, partitions=1, keys=9, steady=True, volatile=(1,),
            tables=(TablePlan("default", 1, 1, Durability.NONE),),
            message_cost=message_cost, unit_cost=unit_cost,
        )  # fmt: skip
        self.world = World(plan, Trace())
        self.world.start()
        self.clients = [self.world.add_client() for _ in range(2)]
        self.world.schedule.run_until(SECOND)

    @property
    def process(self) -> Process:
        process = self.world.machines[1].process
        assert process is not None
        return process

    def put(self, client: SimulatedClient) -> None:
        client.work(PlannedWork(0, 1, "put", "default"))

    def answered_after(self, client: SimulatedClient) -> int:
        """Microseconds from the client's request until its answer."""
        (operation,) = client.pending
        schedule = self.world.schedule
        schedule.run_until(schedule.now + SECOND, lambda: not client.pending)
        assert not client.pending
        return schedule.now - operation.started_at

    def pass_time(self, microseconds: int) -> None:
        schedule = self.world.schedule
        schedule.run_until(schedule.now + microseconds)


@pytest.fixture
def usual() -> int:
    """How long a put takes where work takes no time."""
    lone = Lone()
    lone.put(lone.clients[0])
    return lone.answered_after(lone.clients[0])


def test_an_answer_leaves_when_the_time_that_the_request_takes_is_over(usual: int) -> None:
    lone = Lone(message_cost=COST)
    lone.put(lone.clients[0])
    assert lone.answered_after(lone.clients[0]) == usual + COST


def test_requests_of_one_turn_wait_for_each_other(usual: int) -> None:
    lone = Lone(message_cost=COST)
    for client in lone.clients:
        lone.put(client)
    assert lone.answered_after(lone.clients[0]) == usual + 2 * COST
    assert lone.answered_after(lone.clients[1]) == usual + 2 * COST


def test_what_arrives_in_a_busy_turn_waits_for_the_next(usual: int) -> None:
    lone = Lone(message_cost=COST)
    lone.put(lone.clients[0])
    later = 4 * MILLISECOND
    lone.pass_time(later)
    lone.put(lone.clients[1])
    assert lone.answered_after(lone.clients[1]) == usual + 2 * COST - later + lone.world.plan.gather


def test_a_busy_turn_is_not_cut_short_by_whatever_else_was_to_wake_the_node(usual: int) -> None:
    lone = Lone(message_cost=COST)
    begins = lone.world.schedule.now + lone.world.plan.delay + lone.world.plan.gather
    lone.process.wake(begins)
    lone.process.wake(begins - 500)
    lone.put(lone.clients[0])  # It wakes the node at ``begins`` once more.
    assert lone.answered_after(lone.clients[0]) == usual + COST


def test_requests_wait_for_background_work(usual: int) -> None:
    lone = Lone(unit_cost=100)
    lone.process.node.background.wake(Busy())
    lone.process.wake(lone.world.schedule.now)
    lone.put(lone.clients[0])
    took = lone.answered_after(lone.clients[0])
    assert usual < took < usual + UNITS * 100 + MILLISECOND
    assert took > UNITS * 100


def test_a_node_that_dies_in_a_busy_turn_has_answered_nothing() -> None:
    lone = Lone(message_cost=COST)
    lone.put(lone.clients[0])
    lone.pass_time(5 * MILLISECOND)
    lone.world.machines[1].kill()
    lone.pass_time(SECOND)
    assert lone.world.counts.get("put ok", 0) == 0


def test_a_node_that_stops_cleanly_in_a_busy_turn_ends_it_first() -> None:
    lone = Lone(message_cost=COST)
    lone.put(lone.clients[0])
    lone.pass_time(5 * MILLISECOND)
    lone.world.machines[1].stop_clean()
    lone.pass_time(5 * MILLISECOND)
    assert lone.world.counts["put ok"] == 1


def test_a_busy_turn_stands_still_while_the_node_does(usual: int) -> None:
    lone = Lone(message_cost=COST)
    lone.put(lone.clients[0])
    lone.pass_time(5 * MILLISECOND)
    lone.world.machines[1].pause()
    pause = 50 * MILLISECOND
    lone.pass_time(pause)
    assert lone.clients[0].pending
    lone.world.machines[1].resume()
    assert lone.answered_after(lone.clients[0]) >= pause


@pytest.mark.parametrize("offset", range(4))
def test_promises_hold_on_slow_nodes_too(offset: int) -> None:
    plan = draw_plan(first_seed() + offset)
    plan = replace(plan, message_cost=(20, 300)[offset % 2], unit_cost=(1, 7)[offset % 2])
    assert run_plan(plan).failures == []


def test_a_plan_with_costs_is_one_run_and_another_than_without() -> None:
    drawn = draw_plan(2)
    plan = replace(drawn, message_cost=100, unit_cost=2)
    assert run_plan(plan).digest == run_plan(plan).digest != run_plan(drawn).digest


@pytest.mark.parametrize(("kind", "count"), [(BATCH, 300), (ANSWERS, 300), (MARK, 1), (PUT, 1)])
def test_each_request_of_a_batch_and_each_answer_is_a_message(kind: int, count: int) -> None:
    assert messages_in(bytes((kind, 0)) + (300).to_bytes(2, "little") + bytes(4)) == count
