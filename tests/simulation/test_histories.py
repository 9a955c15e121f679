"""Histories in which replicated stores are known to go wrong, step by step; each guards a rule.

At the end of each everything is healed, all replicas become equal without a read, every key is
read with all its owners, and the end is judged. Each is told twice: with the code as it is, and
with the rule broken, in the real code and for the length of a test; then it must be noticed.
``tests/cluster/test_histories.py`` tells the same of real processes.
"""

from collections.abc import Callable

import pytest

from kvorum.model.holding import record_of
from kvorum.model.record import Value, split_values
from kvorum.protocol import replica
from kvorum.protocol.generations import Generations
from kvorum.protocol.minting import Minter
from kvorum.protocol.reap_round import Round
from kvorum.protocol.reaping import Reaping
from kvorum.protocol.replica import Replica
from kvorum.protocol.timers import Timed
from kvorum.storage.buffer import Buffer
from kvorum.wire.reaping_messages import GenerationQuery, ReapRaise, ReapStatement
from tests.simulation.test_checkers import (
    Patch,
    draws_the_same_store_id_after_every_start,
    hands_out_one_stamp_for_ever,
    never_exchanges,
    never_hands_off,
)
from tests.support.scripts import NAMES, Stage
from tests.unit.protocol.test_dot_rules import dot_after_a_seen_one

Break = Callable[[Patch], None]
History = Callable[[Stage], None]


def play(stage: Stage, *commands: str) -> None:
    for command in commands:
        stage.do(command)


def values(stage: Stage, name: str = "k") -> dict[str, list[str]]:
    """What each owner that runs holds of a key; a tombstone is called ``deleted``."""
    held: dict[str, list[str]] = {}
    key = stage._engine_key(name)
    for member in stage.world.ring.owners_of_engine_key(key):
        machine = stage.world.machines[member]
        if machine.process is not None:
            holding = machine.process.store.get(key)
            found = split_values(record_of(holding)) if holding else ()
            ends = [Value(each) for each in found]
            held[machine.name] = sorted(
                "deleted" if end.tombstone else end.data.decode() for end in ends
            )
    return held


def everywhere(stage: Stage, expected: list[str], name: str = "k") -> bool:
    """Whether every owner runs and holds just this."""
    held = values(stage, name)
    return len(held) == stage.run.plan.n and all(each == expected for each in held.values())


def exchange_from_now_on(stage: Stage) -> None:
    """It was in the way of a cluster's story; all nodes start again, one after the other."""
    stage._exchange = ""
    for machine in stage.world.machines.values():
        play(stage, f"stop {machine.name}", f"start {machine.name}")


def verdicts(stage: Stage) -> set[str]:
    """End the story as a run of a seed is ended; the names of those checkers that convict."""
    stage.run.finish()
    return {failure.partition(":")[0] for failure in stage.world.failures}


def acknowledged(stage: Stage) -> dict[str, list[str]]:
    """Key -> the values of the puts that were answered ok."""
    found: dict[str, list[str]] = {}
    for write in stage.world.history.writes.values():
        if write.acked_at >= 0:
            found.setdefault(write.name.partition("/")[2], []).append(write.value.decode())
    return found


def counted(stage: Stage, counter: str) -> int:
    """What the nodes that run have counted, together."""
    running = [machine.process for machine in stage.world.machines.values() if machine.process]
    return sum(getattr(process.env.counters, counter) for process in running)


# Rules broken on purpose; those that ``test_checkers.py`` breaks as well come from there.


def reaps_without_whoever_is_away(patch: Patch) -> None:
    """A round asks, and awaits, only those that are connected."""

    def begin(self: Reaping, partition: int) -> None:
        keys = self._candidates(partition)
        links, ring, me = self._env.links, self._ring, self._me
        owners = [each for each in ring.owners(partition) if each == me or links[each].connected]
        others = [each for each in owners if each != me]
        if keys and others:
            round_ = Round(
                partition, ring.partition_epoch(partition), keys, tuple(owners), others,
                self._env.now,
            )  # fmt: skip
            self._rounds[partition] = round_
            for member in others:
                self._env.send(member, GenerationQuery(partition))

    patch.setattr(Reaping, "_begin", begin)


def takes_what_was_read_before_a_reap(patch: Patch) -> None:
    """Old generations are as good as the present one."""
    honest = Replica.on_put

    def on_put(self: Replica, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        return honest(self, key, holding, epoch, self._generations.of(key))

    patch.setattr(Replica, "on_put", on_put)


def states_what_it_holds_later(patch: Patch) -> None:
    """A generation is entered at once, and what is held under it is read a second later."""

    class Late(Timed):
        def __init__(self, reaping: Reaping, raiser: int, asked: ReapRaise) -> None:
            self.told = reaping, raiser, asked

        def on_timer(self) -> None:
            reaping, raiser, asked = self.told
            expired_by = reaping._expired_by()
            keys = [reaping._statement_of(key, True, expired_by) for key in asked.keys]
            statement = ReapStatement(asked.partition, asked.generation, asked.epoch, keys)
            reaping._when_durable(raiser, statement)

    def state(self: Reaping, raiser: int, asked: ReapRaise) -> None:
        self._generations.enter(asked.partition, asked.generation, asked.dropped)
        self._timers.wake(self._env.now + 1_000_000, Late(self, raiser, asked))

    patch.setattr(Reaping, "_state", state)


def continues_an_actor_after_a_drop(patch: Patch) -> None:
    """An actor of this store that is found in a record is taken for the key's own."""
    honest = Minter._live_dot

    def live_dot(self: Minter, own: bytes, record: bytes, context: bytes) -> bytes:
        seen = dot_after_a_seen_one(self._store.store_id, record)
        return seen or honest(self, own, record, context)

    patch.setattr(Minter, "_live_dot", live_dot)


def lets_old_deletes_in(patch: Patch) -> None:
    """Whoever missed a drop goes on with what it has, and nobody remembers what was reaped."""
    honest = Generations.learn

    def learn(self: Generations, partition: int, generation: int, dropped: int) -> bool:
        return honest(self, partition, generation, 0)

    patch.setattr(Generations, "learn", learn)
    patch.setattr(Generations, "was_reaped", lambda self, key, record: False)


def acknowledges_what_it_has_not_written(patch: Patch) -> None:
    """What some turns brought is in no file when the process is gone."""
    honest = Buffer.end_turn
    patch.setattr(Buffer, "end_turn", lambda buffer: buffer.position % 7 != 0 or honest(buffer))


def keeps_one_of_two(patch: Patch) -> None:
    """Of two concurrent records the greater wins, as if they had an order."""
    patch.setattr(replica, "merge", max)


def never_fills_up(patch: Patch) -> None:
    """Neither exchange nor fallbacks bring a store what it has missed."""
    never_exchanges(patch)
    never_hands_off(patch)


# The histories.


def zombie(stage: Stage) -> None:
    """A key is deleted while an owner is away that has the old value, and comes back with it."""
    play(stage, "cluster a b c n=3 r=2 w=2", "put a k=1 as first", "pass 60ms", "kill c", "pass 3s")
    play(stage, "delete a k with first", "pass 90s")
    assert values(stage) == {"a": ["deleted"], "b": ["deleted"]}, "the reap did not wait for c"
    play(stage, "start c")
    play(stage, "pass 90s")
    assert everywhere(stage, []), "the delete has reached all, and goes"
    play(stage, "get c k", "pass 60ms")
    assert stage.take_lines()[-1].startswith("c → client Found nothing")


def doomstone(stage: Stage) -> None:
    """A fallback brings an old delete to a key that has been reaped and written again."""
    play(stage, "cluster a b c d n=3 r=2 w=2", "put a C=1 as first w=3", "pass 60ms")
    play(stage, "kill c", "pass 3s", "delete a C with first w=3", "pass 60ms", "kill d", "save d")
    play(stage, "start c", "pass 20s")
    assert everywhere(stage, ["deleted"], "C"), "the reap did not wait for the fallback"
    play(stage, "start d", "pass 90s")
    assert everywhere(stage, [], "C")
    play(stage, "put a C=2", "pass 60ms", "restore d", "start d", "pass 90s")
    assert everywhere(stage, ["2"], "C"), "the old delete is back"
    assert counted(stage, "partitions_set_aside"), "d went on with what it had"


def late_repair(stage: Stage) -> None:
    """A read repair stands in the network while its key is deleted and reaped."""
    play(stage, "cluster a b c n=3 r=2 w=2", "cut a > c", "put a k=1 as first", "pass 10ms")
    play(stage, "get b k r=3", "pass 1ms", "cut b > c", "pass 2ms", "heal a > c", "pass 20ms")
    assert "b → c ReplicaPut k = 1 (a,1)  (cut)" in stage.take_lines(), "no repair is on its way"
    play(stage, "delete a k with first w=3", "pass 3s")
    assert everywhere(stage, []), "reaped while the repair is on its way"
    play(stage, "heal b > c", "pass 10ms")
    assert values(stage)["c"] == [], "the repair brought the value back"
    assert "c → b Answer: stale generation" in stage.take_lines()
    play(stage, "pass 30s")


def late_statement(stage: Stage) -> None:
    """An owner enters a round with an old value, sends it on, and hears of the delete only then."""
    play(stage, "cluster a b c n=3 r=2 w=2 exchange=off", "put a k=1 as first", "pass 60ms")
    play(stage, "kill b", "delete a k with first", "start b")
    assert values(stage)["b"] == ["1"]
    partition = stage.world.ring.partition_of_engine_key(stage._engine_key("k"))
    late = stage.world.machines[2].process
    assert late is not None
    while not late.node.generations.known(partition):
        play(stage, "pass 1ms")
    play(stage, "cut b > c", "put b k=2", "pass 9ms", "get a k as seen", "pass 9ms")
    play(stage, "delete a k with seen", "pass 9ms")
    assert everywhere(stage, ["deleted"]), "too late: the round is over"
    play(stage, "pass 1s", "heal b > c", "pass 10ms")
    assert values(stage)["c"] == ["deleted"], "what was on its way has come back"
    exchange_from_now_on(stage)
    play(stage, "pass 90s")
    assert everywhere(stage, [])


def dropped_copy(stage: Stage) -> None:
    """A node's own copy is damaged, an older one heals it, and the node writes on."""
    play(stage, "cluster a b c n=3 r=2 w=2 exchange=off", "put a k=1 as first", "pass 60ms")
    play(stage, "kill b", "put a k=2 with first", "pass 60ms", "cut c", "start b", "rot a k")
    play(stage, "get a k r=2", "pass 60ms")
    assert values(stage) == {"a": ["1"], "b": ["1"], "c": ["2"]}
    play(stage, "put a k=3", "pass 60ms", "heal", "pass 1s")
    exchange_from_now_on(stage)
    play(stage, "pass 30s")
    assert everywhere(stage, ["2", "3"]), "one dot was given to two values"


def counter_regression(stage: Stage) -> None:
    """A node that has lost its disk, and with it its counters, writes the key again."""
    play(stage, "cluster a b c n=3 r=2 w=2", "put a k=1", "pass 60ms", "wipe a", "start a 60ms")
    assert values(stage)["a"] == [], "too late: the others have told it of the key"
    play(stage, "cut a", "pass 1s", "put a k=2")
    assert values(stage)["a"] == ["2"]
    play(stage, "heal", "pass 60s")
    assert everywhere(stage, ["1", "2"]), "one dot was given to two values"


def both_sides(stage: Stage) -> None:
    """Two parts of a cluster write the same keys while no word passes between them."""
    play(stage, "cluster a b c d e n=3 r=2 w=2", "cut a c d e", "cut b c d e", "pass 4s")
    for key in "ABCFkx":
        play(stage, f"put b {key}=left", f"put d {key}=right", "pass 200ms")
    assert acknowledged(stage) == {key: ["left", "right"] for key in "ABCFkx"}
    play(stage, "heal", "pass 60s")
    for key in "ABCFkx":
        assert everywhere(stage, ["left", "right"], key), key


def roll(stage: Stage, how: str) -> None:
    """Each node in turn goes, in the midst of writes, and comes back."""
    play(stage, "cluster a b c d n=3 r=2 w=2 durability=quorum")
    written = 0
    for node in "abcd":
        others = [each for each in "abcd" if each != node]
        for command in (f"{how} {node}", "pass 400ms", f"start {node}", "pass 1s"):
            for _ in range(8):
                play(stage, f"put {others[written % 3]} k{written}=v{written}", "pass 3ms")
                written += 1
            play(stage, command)
    play(stage, "pass 30s")
    puts = acknowledged(stage)
    unknown = written - len(puts)  # Forwarded to a node that went at once.
    assert unknown <= (0 if how == "stop" else 4), f"{unknown} puts have failed"
    assert all(puts[key] == [key.replace("k", "v")] for key in puts)
    for key, expected in puts.items():
        assert everywhere(stage, expected, key), key


def rolling_stop(stage: Stage) -> None:
    roll(stage, "stop")


def rolling_kill(stage: Stage) -> None:
    roll(stage, "kill")


def rolling_power(stage: Stage) -> None:
    roll(stage, "power")


def long_absence(stage: Stage) -> None:
    """A node is away for six minutes: longer than anything waits for anything."""
    play(stage, "cluster a b c d n=3 r=2 w=2", "put a C=1 as first w=3", "put b E=1 as gone w=3")
    play(stage, "pass 60ms", "kill c", "pass 10s", "put a C=2 with first", "delete b E with gone")
    play(stage, "pass 15s", "put d B=1", "pass 6m", "put a F=1", "pass 60ms")
    assert values(stage, "E") == {"b": ["deleted"], "a": ["deleted"]}, "reaped by the clock"
    play(stage, "start c", "pass 90s")
    for key, expected in {"C": ["2"], "E": [], "B": ["1"], "F": ["1"]}.items():
        assert everywhere(stage, expected, key), (key, values(stage, key))


def turnover(stage: Stage) -> None:
    """Every disk is replaced by an empty one, node after node, and nobody reads anything."""
    play(stage, "cluster a b c d n=3 r=2 w=2")
    for number in range(24):
        play(stage, f"put {NAMES[number % 4]} k{number}=v{number}", "pass 10ms")
    play(stage, "pass 10s")
    for node in "abcd":
        play(stage, f"wipe {node}", "pass 2s", f"start {node}", "pass 30s")
    for number in range(24):
        assert everywhere(stage, [f"v{number}"], f"k{number}"), number
    assert not counted(stage, "read_repairs")


HISTORIES: list[tuple[History, Break, str]] = [
    (zombie, reaps_without_whoever_is_away, "set aside"),
    (doomstone, hands_out_one_stamp_for_ever, "dot twice"),
    (doomstone, lets_old_deletes_in, "the old delete is back"),
    (late_repair, takes_what_was_read_before_a_reap, "undead"),
    (late_statement, states_what_it_holds_later, "undead"),
    (dropped_copy, continues_an_actor_after_a_drop, "dot twice"),
    (counter_regression, draws_the_same_store_id_after_every_start, "dot twice"),
    (both_sides, keeps_one_of_two, "backwards"),
    (rolling_stop, never_fills_up, "unhealed"),
    (rolling_kill, acknowledges_what_it_has_not_written, "hollow ack"),
    (rolling_power, never_fills_up, "unhealed"),
    (long_absence, never_fills_up, "unhealed"),
    (turnover, never_fills_up, "unhealed"),
]


@pytest.mark.parametrize("told", dict.fromkeys(told for told, _, _ in HISTORIES))
def test_a_history_ends_well(told: History) -> None:
    stage = Stage()
    told(stage)
    assert verdicts(stage) == set()


@pytest.mark.parametrize(("told", "broken", "convicted"), HISTORIES)
def test_the_rule_that_a_history_guards_is_missed_when_it_is_broken(
    told: History, broken: Break, convicted: str, monkeypatch: Patch
) -> None:
    """By the checker named, or by what the history itself says of it."""
    broken(monkeypatch)
    stage = Stage()
    said = ""
    try:
        told(stage)
    except AssertionError as error:
        said = str(error).partition("\n")[0]
    assert convicted in {said, *verdicts(stage)}
