"""A simulated cluster whose work takes time, with a load that can be turned on and off.

It is slow: a message takes 0.2 ms, and a unit of background work not the microsecond that it is
taken for but ten. So the largest share that the settings allow is far more than there is, and
what keeps clients' latency low is the controller, not the estimate.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from kvorum.model.quorum import Durability
from kvorum.protocol.background import Background
from kvorum.simulator.plan import SECOND, Plan, PlannedWork, TablePlan
from kvorum.simulator.trace import Trace
from kvorum.simulator.workload import Operation, SimulatedClient
from kvorum.simulator.world import World

MESSAGE_COST: Final = 200
UNIT_COST: Final = 10
PRELOAD_PAUSE: Final = 400
CLIENTS: Final = 3


class TimedClient(SimulatedClient):
    """A client that notes what each of its requests has taken."""

    tell: Callable[[int, int], None]

    def _conclude(self, operation: Operation) -> None:
        self.tell(operation.started_at, self.world.schedule.now - operation.started_at)
        super()._conclude(operation)


class LoadedCluster:
    """Three nodes that all own everything, and as many clients."""

    def __init__(self, records: int, rate: int, seed: int = 1) -> None:
        """``rate`` is the requests in a second while there is load."""
        self._records = records
        self._rate = rate
        self._random = Random(seed)
        self._loaded = False
        self._sent = 0
        self.latencies: list[tuple[int, int]] = []  # when a request was made, and what it took
        self._plan = plan = Plan(
            seed=seed, members=3, n=3, partitions=8, keys=records, delay=200, jitter=50,
            disk_delay=1_000, tables=(TablePlan("default", 2, 2, Durability.ONE),), value_bytes=100,
        )  # fmt: skip
        self.world = World(plan, Trace())
        self.world.start()
        self._clients = [self._client() for _ in range(CLIENTS)]
        self.run(SECOND)
        self._preload()
        plan.message_cost = MESSAGE_COST
        plan.unit_cost = UNIT_COST

    @property
    def now(self) -> int:
        return self.world.schedule.now

    @property
    def limit(self) -> int:
        """The threshold that foreground latency is to stay under."""
        return self._plan.config.background_latency_limit_ms * 1_000

    @property
    def share_max(self) -> int:
        return self._plan.config.background_share_max_percent * 10

    def run(self, microseconds: int) -> None:
        self.world.schedule.run_until(self.now + microseconds)

    def _client(self) -> TimedClient:
        client = TimedClient(self.world, 1001 + len(self.world.clients))
        client.tell = lambda since, took: self.latencies.append((since, took))
        self.world.clients.append(client)
        client.step(lambda session: session.start())
        return client

    def _preload(self) -> None:
        """Write every key once, while work takes no time."""
        for number in range(self._records):
            self.world.schedule.after(number * PRELOAD_PAUSE, self._work, "blind", number)
        self.run(self._records * PRELOAD_PAUSE + SECOND)
        assert not self.world.busy

    def _work(self, kind: str, key: int) -> None:
        self._sent += 1
        client = self._clients[self._sent % CLIENTS]
        client.work(PlannedWork(0, 1, kind, "default", key, self._sent))

    # Load.

    def begin_load(self) -> None:
        self._loaded = True
        self._one_request()

    def end_load(self) -> None:
        self._loaded = False

    def _one_request(self) -> None:
        if self._loaded:
            random = self._random
            self._work(random.choice(("get", "blind")), random.randrange(self._records))
            pause = round(random.expovariate(self._rate) * SECOND)
            self.world.schedule.after(pause, self._one_request)

    def p99(self, since: int, until: int) -> int:
        """The 99th percentile of what clients met with the requests of this time."""
        took = sorted(took for at, took in self.latencies if since <= at < until)
        assert len(took) > 100
        return took[len(took) * 99 // 100]

    # Nodes.

    def background(self, member: int) -> Background:
        process = self.world.machines[member].process
        assert process is not None
        return process.node.background

    @property
    def shares(self) -> list[int]:
        return [self.background(member).share for member in self.world.machines]

    def replace_disk(self, member: int) -> None:
        """The node comes back at once, with nothing."""
        machine = self.world.machines[member]
        machine.kill()
        machine.wipe()
        machine.start()

    def until_caught_up(self, member: int, patience: int) -> int:
        """Run until the node knows that it lacks nothing; how long that took, at most so long."""
        process = self.world.machines[member].process
        assert process is not None
        catch_up = process.node.catch_up
        assert catch_up.count
        begin = self.now
        self.world.schedule.run_until(begin + patience, lambda: not catch_up.count)
        assert not catch_up.count, f"still behind after {patience} us"
        return self.now - begin
