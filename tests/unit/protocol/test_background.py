"""The background budget: small slices, a share that follows clients' latency, and a floor."""

from kvorum.config import NodeConfig
from kvorum.protocol.background import (
    JUDGE_INTERVAL,
    REST,
    SAMPLES_MIN,
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
AIM = LIMIT // 2  # a node sees little more than half of what clients meet
LOW = AIM // 2
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


def test_the_share_falls_to_a_floor_at_which_work_is_still_done():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(JUDGE_INTERVAL, AIM + 1)
    assert world.background.share == MOST // 2
    world.run(10 * SECOND, AIM + 1)
    assert world.background.share == FLOOR
    spent = world.background.spent
    world.run(SECOND, AIM + 1)
    assert (world.background.spent - spent) / SECOND > 0.5 * FLOOR / WHOLE
    assert world.background.p99 == AIM + 1


def test_the_share_is_cut_in_proportion_where_latencies_are_far_too_high():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(JUDGE_INTERVAL, 4 * AIM)
    assert world.background.share == MOST // 4


def test_the_share_rises_by_quarters_and_by_sixteenths_once_latencies_have_risen():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(2 * JUDGE_INTERVAL, AIM + 1)
    share = world.background.share
    assert share == MOST // 4
    world.run(JUDGE_INTERVAL, LOW)
    assert world.background.share == share + share // 4
    share = world.background.share
    world.run(JUDGE_INTERVAL, LOW + 1)
    assert world.background.share == share + share // 16
    world.run(4 * SECOND, LOW)
    assert world.background.share == MOST


def test_the_share_rises_from_the_lowest_floor_there_is():
    world = World(NodeConfig(background_share_min_percent=1))
    world.background.wake(Counted(10**12))
    world.run(10 * SECOND, AIM + 1)
    assert world.background.share == 10
    world.run(3 * JUDGE_INTERVAL, AIM)
    assert 10 < world.background.share <= 13


def test_a_share_that_is_not_taken_does_not_grow():
    """It has not been tried: nobody knows what clients would meet if it were taken."""
    world = World()

    class Rare(Task):
        """A step now and then that costs next to nothing."""

        done = False

        def step(self, allowance: int) -> int:
            self.done = not self.done
            return 1 if self.done else 0

    task = Rare()
    world.background.share = MOST // 4
    for _ in range(20):
        world.background.wake(task)
        world.run(SECOND // 10, LOW)
    assert world.background.spent > 10
    assert world.background.p99 == LOW
    assert world.background.share == MOST // 4


def test_what_work_causes_besides_is_earned_and_taken_too():
    """Found by a simulation: two nodes that kept to their shares drowned the one that asked."""
    world = World()
    caused = 50

    class Asking(Task):
        def step(self, allowance: int) -> int:
            world.background.charge(caused)
            return 10

    world.background.share = MOST // 4
    world.background.wake(Asking())
    world.run(SECOND // 4, LOW)
    share = world.background.spent * (10 + caused) // 10 * 4 * WHOLE // SECOND
    assert 0.8 * MOST // 4 < share < 1.1 * MOST // 4
    world.run(SECOND // 2, LOW)
    assert world.background.share > MOST // 4, "it is taken, so it may grow"


def test_what_comes_between_two_slices_is_earned_before_the_next():
    world = World()
    world.background.wake(Counted(10**9))
    world.run(SECOND // 10)
    spent = world.background.spent
    world.background.charge(100 * MOST)  # as much as is earned in 100 ms
    world.run(SECOND // 10)
    assert world.background.spent - spent < 2 * SLICE
    world.run(SECOND // 10)
    assert world.background.spent - spent > 50 * MOST


def test_one_slow_request_in_a_thousand_is_not_the_99th_percentile():
    world = World()
    world.background.wake(Counted(10**12))
    world.env.latencies.append(10 * LIMIT)
    world.run(JUDGE_INTERVAL, 100)
    assert world.background.share == MOST
    assert world.background.p99 == 100


def test_few_slow_requests_are_gathered_until_they_tell_something():
    world = World()
    world.background.wake(Counted(10**12))
    for _ in range(SAMPLES_MIN - 1):
        world.env.latencies.append(LIMIT + 1)
    world.run(JUDGE_INTERVAL)
    assert world.background.share == MOST
    world.env.latencies.append(LIMIT + 1)
    world.run(JUDGE_INTERVAL)
    share = world.background.share
    assert share < MOST // 2
    world.background.share = MOST
    world.env.latencies.append(LIMIT + 1)
    world.run(WINDOW - JUDGE_INTERVAL)
    assert world.background.share == MOST
    world.run(JUDGE_INTERVAL)  # So few in so long a time must do.
    assert world.background.share < MOST // 2


def test_few_requests_that_are_fast_leave_room():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(2 * JUDGE_INTERVAL, AIM + 1)
    for _ in range(20):
        world.env.latencies.append(LOW)
        world.run(JUDGE_INTERVAL)
    assert world.background.share == MOST


def test_where_nobody_waits_the_share_is_the_largest_at_once():
    world = World()
    world.background.wake(Counted(10**12))
    world.run(10 * SECOND, AIM + 1)
    assert world.background.share == FLOOR
    world.run(2 * JUDGE_INTERVAL)
    assert world.background.share == MOST
    assert world.background.p99 == -1


def test_after_a_rest_work_begins_at_the_floor_if_there_are_clients():
    world = World()
    world.background.wake(Counted(10))
    world.run(JUDGE_INTERVAL)
    world.run(2 * REST, LOW)
    assert world.background.share == MOST
    world.background.wake(Counted(10**12))
    assert world.background.share == FLOOR
    world.run(20 * SECOND, LOW)
    assert world.background.share == MOST


def test_after_a_rest_work_begins_with_all_there_is_if_there_are_none():
    world = World()
    world.background.share = FLOOR
    world.env.now += 2 * REST
    world.background.wake(Counted(10**12))
    assert world.background.share == MOST


def test_what_clients_met_before_there_was_work_is_not_held_against_it():
    world = World()
    world.env.latencies.extend([LIMIT + 1] * 100)
    world.env.now += 2 * REST
    world.background.wake(Counted(10**12))
    world.run(JUDGE_INTERVAL + SECOND // 100, LOW)
    assert world.env.now > NOW
    assert world.background.p99 == LOW
    assert world.background.share > FLOOR
