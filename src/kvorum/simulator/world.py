"""One whole cluster with its clients on one virtual clock.

A world is made from a plan and is entirely determined by it: machines, network, clients and
faults share nothing with the real world. Faults register how they are healed; ``heal`` undoes
all that is left of them, so that the end can be judged.
"""

from collections.abc import Callable
from typing import Final

from kvorum.counters import Counters
from kvorum.model.ring import Ring
from kvorum.model.topology import Member, make_topology
from kvorum.simulator.checkers import Checks
from kvorum.simulator.history import History
from kvorum.simulator.machine import PLENTY, Machine
from kvorum.simulator.network import Network
from kvorum.simulator.plan import Plan
from kvorum.simulator.process import ALIVE
from kvorum.simulator.schedule import Schedule
from kvorum.simulator.story import Story
from kvorum.simulator.trace import Trace
from kvorum.simulator.workload import FIRST_CLIENT, SimulatedClient

NAMES: Final = "abcdefghijklmnopqrstuvwxyz"
FAILURES_KEPT: Final = 3  # of each checker


def checker_of(failure: str) -> str:
    return failure.partition(":")[0]


class Convicted(Exception):
    """The checker that was waited for has spoken, and the rest of the run is of no interest."""


class World:
    """Everything there is for one plan."""

    def __init__(self, plan: Plan, trace: Trace, until: str = "") -> None:
        """``until`` names a checker at whose first failure the run ends."""
        self.plan = plan
        self._until = until
        self.schedule = Schedule(plan.seed, trace)
        self.failures: list[str] = []
        self.counts: dict[str, int] = {}
        self.counters: dict[str, int] = {}  # of all processes, summed up
        self.faults: dict[str, int] = {}
        self.points: dict[str, int] = {}  # fault points, and how often each was hit
        self.points_open = False  # they are only hit while clients work
        self.operations = 0
        self.struck = False  # some fault has happened
        self.healed = False  # and none will any more
        self.network = Network(self.schedule, plan.delay, plan.jitter, plan.steady)
        members = tuple(
            Member(number + 1, NAMES[number], f"10.0.0.{number + 1}", 7401)
            for number in range(plan.members)
        )
        default = plan.tables[0]
        self.ring = Ring(
            make_topology(
                members, plan.n, plan.partitions,
                self.schedule.random_for("topology").randbytes(24),
                default.r, default.w, default.durability,
            )
        )  # fmt: skip
        self.history = History(self)
        self.checks = Checks(self, self.history)
        self.machines = {
            member.id: Machine(self, member.id, member.id in plan.volatile) for member in members
        }
        self.story: Story | None = None
        if trace.keep:
            self.story = Story(self, lambda text: trace.remark(self.schedule.now, text))
        self.clients: list[SimulatedClient] = []
        self._healers: dict[int, Callable[[], None]] = {}
        self._last_healer = 0

    def pick(self, number: int) -> Machine:
        """The machine of this number, counted round: a plan may be older than its cluster."""
        return self.machines[(number - 1) % len(self.machines) + 1]

    def add_client(self) -> SimulatedClient:
        client = SimulatedClient(self, FIRST_CLIENT + len(self.clients))
        self.clients.append(client)
        client.step(lambda session: session.start())
        return client

    def start(self) -> None:
        for machine in self.machines.values():
            machine.start()

    # What is noted.

    def fail(self, text: str) -> None:
        """A checker has found something."""
        self.schedule.tell(f"FAILURE {text}")
        checker = checker_of(text)
        kept = sum(failure.startswith(checker) for failure in self.failures)
        if kept < FAILURES_KEPT:
            seconds, micros = divmod(self.schedule.now, 1_000_000)
            self.failures.append(f"{text} (at {seconds}.{micros:06d} s)")
        if checker == self._until:
            raise Convicted

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def note_point(self, name: str, machine: str) -> None:
        """A fault point is hit."""
        self.struck = True
        self.points[name] = self.points.get(name, 0) + 1
        self.schedule.tell(f"fault point {name}: {machine}")

    def add_counters(self, counters: Counters) -> None:
        for name, count in counters.snapshot().items():
            self.counters[name] = self.counters.get(name, 0) + count

    # Faults.

    def until_healed(self, duration: int, heal: Callable[[], None]) -> None:
        """Undo a fault after a while, or when everything is healed."""
        self._last_healer += 1
        number = self._last_healer
        self._healers[number] = heal
        self.schedule.after(duration, self._heal_one, number)

    def _heal_one(self, number: int) -> None:
        heal = self._healers.pop(number, None)
        if heal is not None:
            heal()

    def heal(self) -> None:
        """Undo every fault and have every machine run."""
        self.schedule.tell("everything is healed")
        self.points_open = False
        self.healed = True
        for number in list(self._healers):
            self._heal_one(number)
        for machine in self.machines.values():
            machine.resume()
            machine.slowness = 1
            machine.skew = 0
            machine.disk.free_bytes = PLENTY
            machine.disk.fail_append = False
            machine.engine.full = False
            if machine.process is not None:
                machine.process.dies = ALIVE
                if machine.process.store.failed:
                    machine.kill()
            machine.start()

    @property
    def may_forget_tables(self) -> bool:
        """Disks were lost that knew of tables, and the tables' keys may be lost with them."""
        return any(one.destroyed_at >= 0 or one.volatile for one in self.machines.values())

    @property
    def may_lie_about_disks(self) -> bool:
        """A disk was put back to what it once held, or a bit of it flipped."""
        return any(fault in self.faults for fault in ("rolled_back_disk", "rot"))

    @property
    def writable(self) -> bool:
        """Every node takes writes: no sync that began on a slow disk is still under way."""
        for machine in self.machines.values():
            if machine.process is None or machine.process.store.refusal:
                return False
        return True

    @property
    def hints_held(self) -> bool:
        """Some node still keeps something for another."""
        return any(
            machine.process is not None and machine.process.node.hints.count
            for machine in self.machines.values()
        )

    @property
    def busy(self) -> bool:
        """Some client still waits for something."""
        return any(client.pending for client in self.clients)

    def stop(self) -> None:
        """Take in the counters of what still runs."""
        for machine in self.machines.values():
            if machine.process is not None:
                counters = machine.process.env.counters
                counters.quarantined = machine.process.store.buffer.quarantine_count
                self.add_counters(counters)
