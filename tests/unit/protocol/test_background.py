"""The background budget: small slices, a share that follows clients' latency, and a floor."""

from kvorum.config import NodeConfig
from kvorum.protocol.background import (
    JUDGE_INTERVAL,
    SAMPLES_MIN,
    SHARE_STEP,
    SLICE,
    WHOLE,
    WINDOW,
    Background,
    Task,
)
from kvorum.protocol.timers import Timers
from tests.support.recording import NOW, RecordingEnvironment

SECOND = 1_000_000
LIMIT = NodeConfig().background_latency_limit_ms * 1000
FLOOR = NodeConfig().background_share_min_percent * WHOLE // 100
MOST = NodeConfig().background_share_max_percent * WHOLE // 100


class Counted(Task):
    """Work of a known size, done in steps of one cost."""

    def __init__(self, left: int, step_cost: int = 10) -> None:
        self.left = left
        self.step_cost = step_cost
        self.allowances: list[int] = []

    def step(self, allowance: int) -> int:
        if self.left <= 0:
            return 0
        self.allowances.append(allowance)
        self.left -= self.step_cost
        return self.step_cost


class World:
    """A background with its clock."""

    def __init__(self, config: NodeConfig | None = None) -> None:
        self.config = config or NodeConfig()
        self.env = RecordingEnvironment(1, (1, 2), self.config, iter(range(99)))
        self.timers = Timers()
        self.background = Background(self.env, self.timers, self.config)
        self.slices: list[int] = []  # units spent in each turn

    def run(self, duration: int, latency: int = -1) -> None:
        """Let time pass; every millisecond a client is answered after ``latency``."""
        end = self.env.now + duration
        while self.env.now < end:
            if latency >= 0:
                self.env.latencies.append(latency)
            self.env.now += 1_000
            before = self.background.spent
            self.timers.fire(self.env.now)
            if self.background.spent > before:
                self.slices.append(self.background.spent - before)


def test_a_task_that_nobody_wakes_costs_nothing():
    world = World()
    assert world.timers.next_deadline() == -1
    world.background.wake(Counted(0))
    world.run(SECOND)
    assert world.background.spent == 0
    assert not world.background.busy
    assert world.timers.next_deadline() == -1


def test_work_is_done_in_slices_and_takes_its_share_of_the_time():
    world = World()
    task = Counted(10**9)
    world.background.wake(task)
    world.run(SECOND)
    assert max(world.slices) <= SLICE
    assert 0.8 * MOST / WHOLE < world.background.spent / SECOND < 1.01 * MOST / WHOLE


def test_what_a_step_costs_beyond_its_allowance_is_earned_before_the_next():
    world = World()
    world.background.wake(Counted(10**9, step_cost=10 * SLICE))
    world.run(SECOND)
    assert world.background.spent / SECOND <= MOST / WHOLE + 0.01
    assert len(world.slices) > 50


def test_tasks_take_turns():
    world = World()
    tasks = [Counted(10**9), Counted(10**9), Counted(50)]
    for task in tasks:
        world.background.wake(task)
        world.background.wake(task)  # Twice is once.
    world.run(SECOND)
    assert tasks[2].left <= 0
    done = [10**9 - task.left for task in tasks[:2]]
    assert abs(done[0] - done[1]) < 0.1 * done[0]


def test_a_task_may_wake_itself_or_another_within_a_step():
    world = World()
    follower = Counted(20)

    class Leader(Task):
        def step(self, allowance: int) -> int:
            world.background.wake(follower)
            world.background.wake(self)
            return 0 if world.background.spent else 10

    world.background.wake(Leader())
    world.run(SECOND)
    assert follower.left <= 0


def test_steps_that_cost_next_to_nothing_do_not_hold_up_a_turn():
    world = World()

    class Restless(Task):
        steps = 0

        def step(self, allowance: int) -> int:
            self.steps += 1
            world.background.wake(self)
            return 0

    task = Restless()
    world.background.wake(task)
    world.run(1_000)
    world.run(1_000)
    assert 0 < task.steps < 200


def test_the_share_falls_by_halves_to_a_floor_and_rises_by_steps():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(JUDGE_INTERVAL, LIMIT + 1)
    assert world.background.share == MOST // 2
    world.run(10 * SECOND, LIMIT + 1)
    assert world.background.share == FLOOR
    spent = world.background.spent
    world.run(SECOND, LIMIT + 1)
    assert (world.background.spent - spent) / SECOND > 0.5 * FLOOR / WHOLE
    assert world.background.p99 == LIMIT + 1
    world.run(2 * JUDGE_INTERVAL, LIMIT)
    assert world.background.share in (FLOOR + SHARE_STEP, FLOOR + 2 * SHARE_STEP)
    world.run(20 * SECOND, LIMIT)
    assert world.background.share == MOST


def test_one_slow_request_in_a_thousand_is_not_the_99th_percentile():
    world = World()
    world.background.wake(Counted(10**12))
    world.env.latencies.append(10 * LIMIT)
    world.run(JUDGE_INTERVAL, 100)
    assert world.background.share == MOST
    assert world.background.p99 == 100


def test_few_requests_are_gathered_until_they_tell_something():
    world = World()
    world.background.wake(Counted(10**12))
    for _ in range(SAMPLES_MIN - 1):
        world.env.latencies.append(LIMIT + 1)
    world.run(JUDGE_INTERVAL)
    assert world.background.share == MOST
    world.env.latencies.append(LIMIT + 1)
    world.run(JUDGE_INTERVAL)
    assert world.background.share == MOST // 2
    world.env.latencies.append(LIMIT + 1)
    world.run(WINDOW + JUDGE_INTERVAL)  # So few in so long a time must do.
    assert world.background.share < MOST // 2 + WINDOW // JUDGE_INTERVAL * SHARE_STEP


def test_nobody_waiting_leaves_room():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(10 * SECOND, LIMIT + 1)
    world.run(20 * SECOND)
    assert world.background.share == MOST
    assert world.background.p99 == -1


def test_what_clients_met_before_there_was_work_is_not_held_against_it():
    world = World()
    world.env.latencies.extend([LIMIT + 1] * 100)
    world.env.now += 2 * WINDOW
    world.background.wake(Counted(10**12))
    world.run(SECOND)
    assert world.env.now > NOW
    assert world.background.share == MOST
