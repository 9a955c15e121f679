"""The steps of an exchange are as large as the background budget allows, and hardly larger."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from kvorum.model.quorum import Durability
from kvorum.protocol.background import RECORD_TAKEN, Background
from kvorum.protocol.exchange import Exchange
from kvorum.protocol.exchange_answers import Answerer
from kvorum.protocol.narrowing import LEAVES_MAX, QUESTION_COST, READ_LEAST, Narrowing
from kvorum.simulator.plan import SECOND, Plan, PlannedWork, TablePlan
from kvorum.simulator.trace import Trace
from kvorum.simulator.world import World
from kvorum.storage.engine import EngineFailed

RECORDS: Final = 300
EXCESS: Final = max(QUESTION_COST + LEAVES_MAX // 4, QUESTION_COST + READ_LEAST + 100)


def written_without(lacking: int) -> World:
    """Two nodes; while one of them was down the other has taken all records."""
    plan = Plan(
        seed=5, members=2, n=2, partitions=1, keys=RECORDS, value_bytes=400,
        tables=(TablePlan("default", 1, 1, Durability.ONE),),
    )  # fmt: skip
    world = World(plan, Trace())
    world.struck = True  # A node is down, and some writes ask for both.
    world.start()
    client = world.add_client()
    world.schedule.run_until(2 * SECOND)
    world.machines[lacking].stop_clean()
    for number in range(RECORDS):
        work = PlannedWork(0, 1, "blind", "default", number, number)
        world.schedule.after(number * 1_000, client.work, work)
    world.schedule.run_until(world.schedule.now + SECOND)
    assert not world.busy
    return world


def until_equal(world: World) -> None:
    end = world.schedule.now + 30 * SECOND
    while world.checks.unequal() and world.schedule.now < end:
        world.schedule.run_until(world.schedule.now + SECOND)
    assert world.checks.unequal() == []
    assert world.failures == []


def noted(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> list[tuple[int, int]]:
    """Allowance and cost of each step of this kind."""
    steps: list[tuple[int, int]] = []
    real: Callable[..., int] = getattr(kind, name)

    def step(self: Any, *given: Any) -> int:
        cost = real(self, *given)
        steps.append((given[-1] if given else self._allowance, cost))
        return cost

    monkeypatch.setattr(kind, name, step)
    return steps


@pytest.mark.parametrize(
    ("lacking", "sender", "name"), [(1, Answerer, "_send"), (2, Narrowing, "_send_wanted")]
)
def test_steps_cost_what_they_may_whoever_sends(
    monkeypatch: pytest.MonkeyPatch, lacking: int, sender: type, name: str
) -> None:
    world = written_without(lacking)
    steps = noted(monkeypatch, Exchange, "step")
    sending = noted(monkeypatch, sender, name)
    world.machines[lacking].start()
    until_equal(world)
    assert sum(cost for _, cost in sending) > 15 * RECORDS
    assert max(cost - allowance for allowance, cost in steps) < EXCESS


@pytest.mark.parametrize("lacking", [1, 2])
def test_the_node_that_takes_records_is_charged_for_them(
    monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    world = written_without(lacking)
    charged: dict[Background, int] = {}
    real = Background.charge

    def charge(self: Background, units: int) -> None:
        if units:
            charged[self] = charged.get(self, 0) + units
        real(self, units)

    monkeypatch.setattr(Background, "charge", charge)
    world.machines[lacking].start()
    until_equal(world)
    process = world.machines[lacking].process
    giver = world.machines[3 - lacking].process
    assert process is not None
    assert giver is not None
    sent = giver.env.counters.exchange_sent
    assert sent > RECORDS * 3 // 4
    assert charged == {process.node.background: sent * RECORD_TAKEN}


def test_an_engine_that_fails_while_records_are_sent_costs_the_asker_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = written_without(1)
    real = Answerer._send
    failing = [20]

    def send(self: Answerer, serving: Any, allowance: int) -> int:
        failing[0] -= 1
        if failing[0] != 0:
            return real(self, serving, allowance)
        reading = self.reading

        def fails(reading: Any, key: bytes) -> bytes | None:
            raise EngineFailed("a bad disk")

        with monkeypatch.context() as patch:
            patch.setattr(type(reading), "get", fails)
            return real(self, serving, allowance)

    monkeypatch.setattr(Answerer, "_send", send)
    world.machines[1].start()
    until_equal(world)
    assert failing[0] < 0
