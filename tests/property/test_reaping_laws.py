"""Deletes stay deleted, whatever the order in which rounds, records and losses meet."""

from random import Random

import pytest

from kvorum.protocol.replica import Replica
from tests.support.schedules import Owners

SEEDS = 150


def act(owners: Owners, random: Random, faults: bool) -> None:
    member = random.randrange(1, 4)
    chance = random.random()
    if chance < 0.08:
        owners.put(member, reads=random.random() < 0.6)
    elif chance < 0.17:
        owners.put(member, reads=True, tombstone=True)
    elif chance < 0.22:
        owners.send(member, random.choice([each for each in owners.nodes if each != member]))
    elif chance < 0.30:
        owners.pass_time(random.randrange(200_000, 2_000_000))
    elif chance < 0.45:
        owners.nodes[member].sync()
    elif chance < 0.46 and faults:
        owners.snapshot(member)
    elif chance < 0.465 and faults:
        owners.roll_back(member)
    elif chance < 0.475 and faults:
        owners.crash(member)
    elif chance < 0.50:
        owners.meet()  # A quiet moment, in which rounds may succeed.
        owners.pass_time(10_000_000)
    elif chance < 0.52:
        owners.release()
    else:
        owners.step(lossy=True)


def finish(owners: Owners) -> None:
    """No more clients and no more faults: everything on its way arrives, and rounds go on."""
    while owners.late:
        owners.release()
    owners.settle()
    for _ in range(30):
        owners.meet()
        while owners.late:
            owners.release()
        owners.pass_time(10_000_000)
        owners.settle()


@pytest.mark.parametrize("faults", [False, True], ids=["messages", "disks"])
def test_what_was_reaped_never_comes_back_and_what_was_not_seen_stays(faults: bool) -> None:
    reaped = 0
    for seed in range(SEEDS):
        owners = Owners(seed)
        random = Random(seed)
        for _ in range(random.choice([60, 120, 240])):
            act(owners, random, faults)
            assert not owners.undead(), (seed, owners.story)
        finish(owners)
        assert not owners.undead(), (seed, owners.story)
        states = {tuple(owners.values(member)) for member in owners.nodes}
        assert len(states) == 1, (seed, states, owners.story)
        if not faults:
            alive = owners.values(1)
            lost = [v for v in owners.written if v not in owners.covered and v not in alive]
            assert not lost, (seed, lost, owners.story)
            if not alive:
                assert [one.store.get(owners.key) for one in owners.nodes.values()] == [None] * 3
        reaped += sum(one.env.counters.reaped_records for one in owners.nodes.values())
    assert reaped > SEEDS  # Rounds did go through, many of them.


def take_any_generation(patch: pytest.MonkeyPatch) -> None:
    """Reap without generations: a record is taken whenever it was read."""
    honest = Replica.on_put

    def on_put(self: Replica, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        own = self._owned[(key[1] << 8 | key[2]) >> self._shift]
        return honest(self, key, holding, epoch, own if own >= 0 else generation)

    patch.setattr(Replica, "on_put", on_put)


def test_without_generations_the_dead_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_generation(monkeypatch)
    for seed in range(SEEDS):
        owners = Owners(seed)
        random = Random(seed)
        for _ in range(random.choice([60, 120, 240])):
            act(owners, random, faults=False)
            if owners.undead():
                return
    pytest.fail("nothing that was reaped came back, though the rule against it is broken")
