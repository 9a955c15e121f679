"""Seeds that have failed once, each with what it found; and one story no seed tells by chance.

What a seed draws changes with the simulator; the smallest tests of what they found stand in
``tests/unit`` and ``tests/scripts``.
"""

import copy

import pytest

from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.hint import Hint
from kvorum.model.holding import record_of
from kvorum.model.reaping import without_actors
from kvorum.model.siblings import alive, seen_of
from kvorum.simulator.process import Process
from kvorum.simulator.run import run_seed
from kvorum.simulator.world import World
from tests.support.scripts import Stage

FAILED_ONCE = {
    13: "a damaged copy at a peer was never sent a good one, so a read of all owners failed",
    184: "tables whose ids begin with 0xff were forgotten by a restart",
    3444: "a volatile member's ack was reported as one that survives the process",
    5160: "damaged records of a dropped table stayed for ever",
    1494: "the judge took a late duplicate of a retried put for the one that was acknowledged",
    1576: "the judge asked a put's context for the dot of its twin at another node",
    3403960034: "the judge looked before a put that had stood in a slow path had arrived",
    3262349152: "a start on a full engine took for durable what a failed sync had left in memory",
    400155: "the judge looked while a round of reaping went from owner to owner",
    400147: "the judge looked before the last owner had retired an actor",
    400222: "the judge looked while a round of reaping went from owner to owner",
    30000933: "the judge missed in a get what was reaped then, and a backup brought back after",
    600000598: "the judge took another twin of a put that was found for the one that was answered",
    3188593392: "the judge did not know a put that was found elsewhere, its table being dropped",
    1000001597: "an owner that was not told of a retired actor differed until some other round",
    1000005632: "the judge held an owner to what rot had taken before the put was answered",
    7000001666: "the judge held a volatile owner to what it had when asked, before a restart",
    7000006310: "the judge held owners to a hint of a dropped table",
    8000000894: "the judge took a copy that something later had covered for an earlier run's",
    8000001224: "the judge held a volatile owner to what it had when asked, before a restart",
    8000002258: "the judge held a volatile owner to what it had when asked, before a restart",
    8000006428: "a hint was shed by an answer to a question of the start before",
    4350: "the world forgot to start a node that died after everything had been healed",
}


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    assert run_seed(seed).failures == []


def test_a_machine_that_is_rolled_back_mints_under_a_new_id() -> None:
    """A snapshot of a whole machine has the inodes of the original: only its peers can tell."""
    stage = Stage()
    for command in (
        "cluster a b c n=3 r=2 w=2 durability=one",
        "put a k=1 as first",
        "pass 30ms",
        "stop a",
    ):
        stage.do(command)
    machine = stage.world.machines[1]
    disk, records = copy.deepcopy(machine.disk), dict(machine.engine.records)
    for command in ("start a", "put a k=2 with first as second", "pass 30ms", "power a"):
        stage.do(command)
    machine.disk = disk
    for key in list(machine.engine.records):
        machine.engine.commit([], [key], [])
    machine.engine.commit([], [], sorted(records.items()))
    for command in ("start a", "put a k=3 with first", "pass 30ms", "get b k r=3", "pass 30ms"):
        stage.do(command)
    assert machine.process is not None
    assert machine.process.store.clean_start, "the disk itself looks as it was left"
    assert machine.process.env.counters.incarnations_ended == 1
    assert stage.world.failures == []
    found = [line for line in stage.take_lines() if "Found" in line]
    assert found == ["b → client Found 2 (a,2) | 3 (a2,1)  (read at a, c, b)"]


def ended(value: str) -> World:
    """Three equal copies of a key; then its first owner lets go of its own."""
    stage = Stage()
    for command in ("cluster a b c n=3 r=2 w=3", f"put a k={value} as first", "pass 60ms"):
        stage.do(command)
    if not value:
        stage.do("delete a k with first")
        stage.do("pass 60ms")
    (key,) = stage.world.history.keys
    process = stage.world.machines[1].process
    assert process is not None
    process.store.delete(key)
    stage.world.checks.judge_end()
    return stage.world


def test_a_tombstone_that_one_owner_has_reaped_is_as_good_as_nothing() -> None:
    """Found by seeds 400155 and 400222: the judge looked while a round went from owner to owner."""
    assert ended("").failures == []


def deleted_everywhere() -> tuple[Stage, bytes, bytes, bytes]:
    """A key of n=3 among four nodes: its engine key, the old holding, the holding of its delete."""
    stage = Stage()
    for command in ("cluster a b c d n=3 r=2 w=3", "put a k=1 as first", "pass 60ms"):
        stage.do(command)
    (key,) = stage.world.history.keys
    owner = stage.world.machines[stage.world.ring.owners_of_engine_key(key)[0]].process
    assert owner is not None
    old = owner.store.get(key) or b""
    stage.do("delete a k with first")
    stage.do("pass 60ms")
    assert stage.world.failures == []
    return stage, key, old, owner.store.get(key) or b""


def let_go_everywhere(reaped: bool) -> tuple[Stage, bytes, Process, Hint]:
    """No owner has the delete any more, proven or not; a fallback, and its hint of the delete."""
    stage, key, _, deleted = deleted_everywhere()
    ring = stage.world.ring
    owners = ring.owners_of_engine_key(key)
    for owner in owners:
        process = stage.world.machines[owner].process
        assert process is not None
        process.store.delete(key)
    if not reaped:
        stage.world.history.keys[key].reaped = 0
    fallback = stage.world.machines[ring.fallbacks(ring.partition_of_engine_key(key))[0]].process
    assert fallback is not None
    return stage, key, fallback, Hint(2, 2, 0, owners[:1], deleted)


@pytest.mark.parametrize("reaped", [True, False])
def test_a_hint_of_what_all_owners_have_let_go_of_is_owed_to_nobody(reaped: bool) -> None:
    """Found by seed 764391570: the judge counted the owners that still held it."""
    stage, key, fallback, hint = let_go_everywhere(reaped)
    stage.world.history._judge_shed(fallback, key, hint)
    shed = ["hint shed"] if not reaped else []
    assert [failure.partition(":")[0] for failure in stage.world.failures] == shed


def test_a_hint_of_a_dropped_table_is_owed_to_nobody() -> None:
    """Found by seed 7000006310: its owners had dropped the table after they were asked."""
    stage, key, fallback, hint = let_go_everywhere(reaped=False)
    stage.world.checks.drop_begun["default"] = None
    stage.world.history._judge_shed(fallback, key, hint)
    assert stage.world.failures == []


@pytest.mark.parametrize("since", [True, False])
def test_a_volatile_owner_may_forget_after_it_was_asked(since: bool) -> None:
    """Found by seeds 7000001666 and 8000002258: it was started anew before the hint was let go."""
    stage, key, fallback, told = let_go_everywhere(reaped=False)
    hint = Hint(2, 0, 0, told.owners, told.holding)
    fallback.node.shedding.asked_at = fallback.steady()
    for owner in stage.world.ring.owners_of_engine_key(key):
        machine = stage.world.machines[owner]
        assert machine.process is not None
        machine.volatile = True
        machine.process.began_at = stage.world.schedule.now + (1 if since else -1)
    stage.world.history._judge_shed(fallback, key, hint)
    shed = [] if since else ["hint shed"]
    assert [failure.partition(":")[0] for failure in stage.world.failures] == shed


def test_a_copy_that_was_never_alive_is_as_durable_as_what_covers_it() -> None:
    """Found by seed 8000000894: the judge took it for one of an earlier run, which was synced."""
    stage = Stage()
    for command in ("cluster a b c n=3 r=2 w=3", "put a k=1 as first", "pass 60ms"):
        stage.do(command)
    (key,) = stage.world.history.keys
    stage.do("put a k=2 with first")
    stage.do("pass 60ms")
    process = stage.world.machines[2].process
    assert process is not None
    first, second = stage.world.history.keys[key].mints
    position = process.held[second.dot]
    assert stage.world.history.position_of(process, second) == position
    del process.held[first.dot]
    assert stage.world.history.position_of(process, first) == position
    process.held.clear()
    assert stage.world.history.position_of(process, first) == -1


def test_a_hint_that_is_written_anew_is_not_taken_for_one_that_was_shed() -> None:
    """Found by seed 40001056: a damaged hint had been shed, of which the judge sees nothing."""
    stage, key, fallback, told = let_go_everywhere(reaped=False)
    hint = told.encode()
    fallback.store.put(SPACE_HINTS + key[1:], hint)
    fallback.env.counters.hints_shed += 1
    fallback.store.put(SPACE_HINTS + key[1:], hint)
    assert stage.world.failures == []
    fallback.env.counters.hints_shed += 1
    fallback.store.delete(SPACE_HINTS + key[1:])
    assert [failure.partition(":")[0] for failure in stage.world.failures] == ["hint shed"]


@pytest.mark.parametrize("rolled_back", [True, False])
def test_an_owner_whose_disk_was_put_back_may_know_less_than_it_stated(rolled_back: bool) -> None:
    """Found by seed 2291498245: the drop came when a backup of another owner was running."""
    stage, key, old, _ = deleted_everywhere()
    first, second, _ = stage.world.ring.owners_of_engine_key(key)
    machine, dropping = stage.world.machines[first], stage.world.machines[second].process
    assert machine.process is not None
    assert dropping is not None
    if rolled_back:
        machine._destroyed(since=0)
    machine.process.store.put(key, old)
    stage.world.failures.clear()  # Going back is noticed by itself.
    dropping.store.delete(key)
    unproven = [] if rolled_back else ["reaped unproven"]
    assert [failure.partition(":")[0] for failure in stage.world.failures] == unproven


def test_a_get_may_lack_what_was_reaped_when_it_began_though_a_backup_brings_it_back() -> None:
    """Found by seed 30000933."""
    stage, key, _, _ = deleted_everywhere()
    history = stage.world.history.keys[key]
    machines = list(stage.world.machines.values())
    history.reap(1, 100)
    history.reap(2, 300)
    for machine in machines:
        machine.losses.append((200, 400))
    history.forget_reaps(machines, 400)
    assert history.reaped & 3 == 1
    assert [history.reaped_since(moment) & 3 for moment in (250, 400, 401)] == [3, 3, 1]


def test_a_value_that_one_owner_has_lost_is_still_missed() -> None:
    checkers = [failure.partition(":")[0] for failure in ended("1").failures]
    assert checkers[:2] == ["reaped alive", "unequal"]


def test_an_actor_that_one_owner_has_retired_is_not_missed() -> None:
    """Found by seed 400147: another owner was yet to retire it."""
    stage = Stage()
    for command in (
        "cluster a b c n=3 r=2 w=3", "put a k=1 as first", "pass 60ms",
        "put b k=2 with first", "pass 60ms",
    ):  # fmt: skip
        stage.do(command)
    (key,) = stage.world.history.keys
    process = stage.world.machines[3].process
    assert process is not None
    holding = process.store.get(key) or b""
    record = record_of(holding)
    (dot,) = alive(record)
    retired = [actor for actor in seen_of(record).runs if actor != dot[:12]]
    assert len(retired) == 1
    less = without_actors(record, retired)
    assert less != record
    process.store.put(key, holding[: -len(record)] + less)
    stage.world.checks.judge_end()
    assert stage.world.failures == []
