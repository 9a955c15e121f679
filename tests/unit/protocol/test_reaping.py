"""Reap rounds among whole nodes: when a delete goes, what keeps it, and what can never return."""

import pytest

from kvorum.faults import NO_FAULTS, Faults
from kvorum.model.context import context_of_record
from kvorum.model.holding import NO_OWN, own_dot, record_of, with_own
from kvorum.model.reaping import without_actors
from kvorum.model.record import Value, head_of, highest_clock, record_digest, split_values
from kvorum.protocol.generations import make_generation, number_of, raised_by
from kvorum.protocol.holdings import NOTES_KEPT
from kvorum.protocol.ports import Strays
from kvorum.protocol.reap_round import Round
from kvorum.protocol.reaping import Reaping
from kvorum.protocol.shipment import Shipment
from kvorum.wire.link import OK, STALE_GENERATION
from kvorum.wire.message import Message
from kvorum.wire.reaping_messages import (
    GenerationState,
    GenerationStates,
    KeyStatement,
    ReapCommit,
    ReapCommitted,
    ReapDrop,
    Reaped,
    ReapRaise,
    ReapStatement,
)
from kvorum.wire.requests import TOMBSTONE
from tests.support.recording import OneNode
from tests.support.records import dot, record_of_dots
from tests.support.wired import Cluster

SECOND = 1_000_000


class Straying(Strays):
    """Knows of a copy that lies about somewhere."""

    def __init__(self) -> None:
        self.held = True

    def holds(self, key: bytes) -> bool:
        return self.held


def pass_time(cluster: Cluster, seconds: float) -> None:
    """Time passes, and disks take what was written, as rounds need."""
    for _ in range(int(seconds * 4)):
        cluster.advance(SECOND // 4)
        for _ in range(3):
            cluster.sync()


def written(cluster: Cluster, at: int = 1, name: bytes = b"alice", ttl: int = 0) -> None:
    cluster[at].put(name, b"book", w=2, ttl=ttl)
    cluster.settle()
    cluster.sync()


def context(one: OneNode, name: bytes = b"alice") -> bytes:
    held = one.store.get(one.key(name))
    assert held
    record = record_of(held)
    return context_of_record(one.key(name), record, highest_clock(record))


def deleted(cluster: Cluster, at: int = 1, name: bytes = b"alice") -> None:
    one = cluster[at]
    one.put(name, b"", context=context(one, name), flags=TOMBSTONE, w=2)
    cluster.settle()
    cluster.sync()


def held(cluster: Cluster, name: bytes = b"alice") -> list[bytes | None]:
    return [one.store.get(one.key(name)) for one in cluster.nodes.values()]


def counted(cluster: Cluster, name: str) -> int:
    return sum(getattr(one.env.counters, name) for one in cluster.nodes.values())


def test_a_delete_that_all_owners_hold_is_forgotten_by_all() -> None:
    cluster = Cluster()
    written(cluster)
    deleted(cluster)
    assert None not in held(cluster)
    pass_time(cluster, 4)
    assert held(cluster) == [None] * 3
    assert counted(cluster, "reaped_records") == 3
    assert counted(cluster, "reap_rounds") == 1
    generations = {one.node.generations.of(one.key()) for one in cluster.nodes.values()}
    assert len(generations) == 1
    (generation,) = generations
    assert number_of(generation) == 1
    assert cluster[1].node.generations.dropped == {
        cluster[1].ring.partition_of_engine_key(cluster[1].key()): generation
    }
    assert raised_by(generation) in cluster.nodes


def noted(cluster: Cluster) -> list[int]:
    return [one.node.status(1).deletes_noted for one in cluster.nodes.values()]


def test_what_is_forgotten_waits_for_no_round_any_more() -> None:
    """It was shown as waiting until each owner in turn had come to look at its partition again."""
    cluster = Cluster()
    written(cluster)
    written(cluster, name=b"bob")
    deleted(cluster)
    assert noted(cluster) == [1, 1, 1]
    while any(held(cluster)):
        pass_time(cluster, 0.25)
    assert noted(cluster) == [0, 0, 0]
    assert counted(cluster, "reap_rounds") == 1
    pass_time(cluster, 20)
    assert counted(cluster, "reap_rounds") == 1
    assert not any(one.node.holdings.unreaped for one in cluster.nodes.values())


def test_an_owner_that_others_have_reaped_for_names_no_blocker_any_more() -> None:
    cluster = Cluster()
    written(cluster)
    cluster.stop(3)
    deleted(cluster)
    pass_time(cluster, 30)
    assert [one.node.reaping.blockers for one in cluster.nodes.values()][:2] == [{3: 1}] * 2
    for other in (1, 2):
        cluster.join(other, 3)
        cluster.join(3, other)
    while any(held(cluster)):
        pass_time(cluster, 0.25)
    pass_time(cluster, 10)
    assert not any(one.node.reaping.blockers for one in cluster.nodes.values())


def test_what_is_alive_stays() -> None:
    cluster = Cluster()
    written(cluster)
    written(cluster, name=b"bob")
    deleted(cluster)
    pass_time(cluster, 4)
    assert None not in held(cluster, b"bob")
    assert held(cluster) == [None] * 3


def test_an_owner_that_is_away_keeps_the_delete_alive_and_is_named() -> None:
    """The zombie: it would bring the old value back."""
    cluster = Cluster()
    written(cluster)
    cluster.stop(3)
    deleted(cluster)
    pass_time(cluster, 10)
    assert cluster.values(3) == [b"book"]
    assert None not in held(cluster)
    blockers = [one.node.reaping.blockers for one in cluster.nodes.values()]
    assert {3: 1} in blockers
    for other in (1, 2):
        cluster.join(other, 3)
        cluster.join(3, other)
    pass_time(cluster, 88)  # Exchange tells it of the delete; nobody reads.
    assert held(cluster) == [None] * 3
    assert not any(one.node.reaping.blockers for one in cluster.nodes.values())


def test_a_silent_holder_blocks_its_partition_and_no_other() -> None:
    cluster = Cluster(count=4, n=3)
    names = [b"%d" % number for number in range(40)]
    for name in names:
        owner = cluster[1].ring.owners_of_engine_key(cluster[1].key(name))[0]
        written(cluster, owner, name)
        deleted(cluster, owner, name)
    cluster[2].node.reaping._strays = Straying()
    pass_time(cluster, 6)
    strays = [name for name in names if any(held(cluster, name))]
    assert strays == names  # Everybody lists everything here: member 2 says it has stray copies.
    cluster[2].node.reaping._strays.held = False
    pass_time(cluster, 100)
    assert not any(any(held(cluster, name)) for name in names)


def test_a_paused_read_repair_that_lands_after_the_reap_is_refused() -> None:
    cluster = Cluster()
    written(cluster)
    before = cluster[2].store.get(cluster[2].key())
    assert before is not None
    deleted(cluster)
    pass_time(cluster, 4)
    replica = cluster[1].node.replica
    replica.begin()
    late = with_own(before, NO_OWN)
    assert replica.on_put(cluster[1].key(), late, 1, 0) == STALE_GENERATION
    assert held(cluster) == [None] * 3


def test_what_was_reaped_a_moment_ago_is_taken_for_held_until_the_next_entry() -> None:
    cluster = Cluster()
    written(cluster)
    deleted(cluster)
    tombstone = cluster[2].store.get(cluster[2].key())
    assert tombstone is not None
    pass_time(cluster, 4)
    one = cluster[1]
    generation = one.node.generations.of(one.key())
    replica = one.node.replica
    replica.begin()
    assert replica.on_put(one.key(), with_own(tombstone, NO_OWN), 1, generation) == OK
    assert one.store.get(one.key()) is None
    partition = one.ring.partition_of_engine_key(one.key())
    higher = make_generation(number_of(generation) + 1, 2)
    one.node.on_control(2, GenerationState(partition, higher, generation))
    replica.begin()
    assert replica.on_put(one.key(), with_own(tombstone, NO_OWN), 1, higher) == OK
    assert one.store.get(one.key()) is not None


def test_a_write_after_the_reap_begins_anew_and_stays() -> None:
    """The doomstone: an old tombstone must not take the new value with it."""
    cluster = Cluster()
    written(cluster)
    deleted(cluster)
    tombstone = cluster[3].store.get(cluster[3].key())
    assert tombstone is not None
    pass_time(cluster, 4)
    cluster[1].put(value=b"new", w=2)
    cluster.settle()
    cluster.sync()
    for one in cluster.nodes.values():
        replica = one.node.replica
        replica.begin()
        generation = one.node.generations.of(one.key())
        replica.on_put(one.key(), with_own(tombstone, NO_OWN), 1, generation)
    pass_time(cluster, 4)
    assert [cluster.values(member) for member in cluster.nodes] == [[b"new"]] * 3


def test_expired_values_go_when_clocks_can_no_longer_disagree() -> None:
    cluster = Cluster()
    written(cluster, ttl=SECOND)
    one = cluster[1]
    for each in cluster.nodes.values():  # As the slow walk does.
        each.node.holdings.notice(each.key(), each.store.get(each.key()) or b"")
    pass_time(cluster, 5)
    assert None not in held(cluster)
    pass_time(cluster, one.config.max_clock_skew_ms / 1000)
    for each in cluster.nodes.values():
        each.node.holdings.notice(each.key(), each.store.get(each.key()) or b"")
    pass_time(cluster, 5)
    assert held(cluster) == [None] * 3


def test_a_node_whose_clock_is_off_lets_nothing_expire() -> None:
    cluster = Cluster()
    assert cluster[1].node._expired_by() > 0
    one = cluster[1]
    for member in (2, 3):
        one.node.peering.learn_clock(member, one.env.now, one.env.wall + 10**9)
    assert cluster[1].node._expired_by() == 0


def crowded(cluster: Cluster, one: OneNode) -> bytes:
    """A key written under five actors, four of which are never to be heard of again."""
    for _ in range(5):
        one.put(value=b"book", context=context(one) if one.store.get(one.key()) else b"", w=2)
        cluster.settle()
        one.node.minter.end_incarnation("for the test")
    one.put(value=b"last", context=context(one), w=2)
    cluster.settle()
    cluster.sync()
    record = record_of(one.store.get(one.key()) or b"")
    assert head_of(record)[2] == 6
    return record


def test_actors_that_nobody_mints_under_are_forgotten_by_a_round() -> None:
    cluster = Cluster()
    one = cluster[1]
    crowded(cluster, one)
    assert noted(cluster) == [1, 1, 1]
    while counted(cluster, "retired_actors") < 15:
        pass_time(cluster, 0.25)
    assert noted(cluster) == [0, 0, 0]
    pass_time(cluster, 20)
    assert counted(cluster, "reap_rounds") == 1
    records = {record_of(each or b"") for each in held(cluster)}
    assert len(records) == 1
    assert head_of(records.pop())[2] == 1
    assert counted(cluster, "retired_actors") == 15
    # It goes on under its actor, and whoever read before the round is understood.
    counter = own_dot(one.store.get(one.key()) or b"")
    one.put(value=b"next", context=context(cluster[2]), w=2)
    cluster.settle()
    assert own_dot(one.store.get(one.key()) or b"") > counter
    assert [cluster.values(member) for member in cluster.nodes] == [[b"next"]] * 3


def test_a_context_from_before_a_retirement_still_covers_what_it_saw() -> None:
    cluster = Cluster()
    one = cluster[1]
    crowded(cluster, one)
    before = context(one)
    pass_time(cluster, 4)
    one.put(value=b"next", context=before, w=2)
    cluster.settle()
    assert [cluster.values(member) for member in cluster.nodes] == [[b"next"]] * 3


# What a holder answers.


def alone(held_record: bool = True) -> tuple[OneNode, int]:
    one = OneNode().connect()
    if held_record:
        one.put(w=1, durability=0, flags=TOMBSTONE, value=b"")
    one.sync()
    one.env.sent.clear()
    return one, one.ring.partition_of_engine_key(one.key())


def asked(one: OneNode, generation: int, dropped: int = 0, epoch: int = 1) -> Message | None:
    partition = one.ring.partition_of_engine_key(one.key())
    return one.node.on_control(2, ReapRaise(partition, generation, dropped, epoch, [one.key()]))


FIRST_OF_2 = make_generation(1, 2)


def test_a_statement_leaves_when_the_entry_is_durable_and_says_what_was_held_then() -> None:
    one, partition = alone()
    record = record_of(one.store.get(one.key()) or b"")
    actor = own_dot(one.store.get(one.key()) or b"")[:12]
    assert asked(one, FIRST_OF_2) is None
    assert one.node.generations.of(one.key()) == FIRST_OF_2
    one.put(value=b"later", w=1, durability=0)
    one.end_turn()
    assert one.env.sent == []
    one.sync()
    statement = KeyStatement(record_digest(record), True, actor, False)
    assert one.env.sent == [(2, ReapStatement(partition, FIRST_OF_2, 1, [statement]))]


def test_whoever_has_entered_already_states_nothing_and_says_where_it_stands() -> None:
    one, partition = alone()
    asked(one, FIRST_OF_2)
    one.sync()
    one.env.sent.clear()
    assert asked(one, FIRST_OF_2) == GenerationState(partition, FIRST_OF_2, 0)
    assert one.env.sent == []


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_round_of_another_topology_epoch_is_void(epoch: int) -> None:
    one, _ = alone()
    assert asked(one, FIRST_OF_2, epoch=epoch) is None
    assert one.node.generations.of(one.key()) == 0


def test_a_raise_tells_a_store_that_it_has_missed_a_drop() -> None:
    one, _ = alone()
    assert asked(one, make_generation(3, 2), dropped=make_generation(2, 2)) is None
    assert one.env.events[-1] == "copy_set_aside"


def test_nothing_is_stated_that_is_not_held() -> None:
    one, partition = alone(held_record=False)
    asked(one, FIRST_OF_2)
    one.sync()
    expected = ReapStatement(partition, FIRST_OF_2, 1, [KeyStatement(b"")])
    assert one.env.sent == [(2, expected)]


def test_only_the_raiser_may_commit_or_drop_and_only_in_the_generation_entered() -> None:
    one, partition = alone()
    record = record_of(one.store.get(one.key()) or b"")
    asked(one, FIRST_OF_2)
    one.sync()
    one.env.sent.clear()
    reaped = [Reaped(one.key(), record_digest(record))]
    drop = ReapDrop(partition, FIRST_OF_2, 1, reaped)
    one.node.on_control(2, drop)  # Nobody has written down that this round drops.
    one.node.on_control(3, ReapCommit(partition, FIRST_OF_2))
    one.node.on_control(2, ReapCommit(partition, make_generation(2, 2)))
    one.sync()
    assert one.env.sent == []
    one.node.on_control(2, ReapCommit(partition, FIRST_OF_2))
    assert one.env.sent == []
    one.sync()
    assert one.env.sent == [(2, ReapCommitted(partition, FIRST_OF_2))]
    one.node.on_control(3, drop)
    one.node.on_control(2, ReapDrop(partition, FIRST_OF_2, 2, reaped))
    assert one.store.get(one.key()) is not None
    one.node.on_control(2, drop)
    assert one.store.get(one.key()) is None


def test_a_version_that_has_changed_since_is_not_dropped() -> None:
    one, partition = alone()
    record = record_of(one.store.get(one.key()) or b"")
    asked(one, FIRST_OF_2)
    one.put(value=b"later", context=context(one), w=1, durability=0)
    one.sync()
    one.node.on_control(2, ReapCommit(partition, FIRST_OF_2))
    one.sync()
    reaped = [Reaped(one.key(), record_digest(record))]
    one.node.on_control(2, ReapDrop(partition, FIRST_OF_2, 1, reaped))
    (value,) = split_values(record_of(one.store.get(one.key()) or b""))
    assert Value(value).data == b"later"


def test_a_generation_is_never_raised_twice_by_one_member() -> None:
    cluster = Cluster()
    written(cluster)
    deleted(cluster)
    one = cluster[1]
    partition = one.ring.partition_of_engine_key(one.key())
    one.store.put(b"\0raised" + partition.to_bytes(2, "big"), make_generation(7, 1).to_bytes(8))
    one.node.reaping._begin(partition)
    for _ in range(4):
        cluster.settle()
        cluster.sync()
    assert one.node.generations.of(one.key()) == make_generation(8, 1)


@pytest.mark.parametrize("other", [2, 3])
def test_a_round_ends_unproven_when_a_holder_connects_anew(other: int) -> None:
    """It may come with an empty disk, and take old copies before it enters once more."""
    cluster = Cluster()
    written(cluster)
    deleted(cluster)
    one = cluster[1]
    one.node.reaping._begin(one.ring.partition_of_engine_key(one.key()))
    cluster.settle()
    cluster.sync()  # Our number is on the disk.
    one.end_turn()
    for member in (2, 3):
        cluster[member].sync()
    one.node.on_control(other, GenerationStates([]))
    for _ in range(4):
        cluster.settle()
        cluster.sync()
    assert one.env.counters.reap_rounds_void == 1
    assert None not in held(cluster)


def test_what_waits_to_be_reaped_is_known_after_a_clean_stop() -> None:
    """Found by seed 10000376: a delete that one owner was not told to drop stayed for days."""
    one, partition = alone()
    assert list(one.node.holdings.unreaped) == [partition]
    one.restart()
    assert one.node.holdings.unreaped == {partition: {one.key(): None}}
    assert one.node.tree_scan.trees.stale_count == 0, "nothing is read for it"


def test_what_was_noted_and_has_gone_is_noted_no_more_after_a_clean_stop() -> None:
    one, _ = alone()
    one.store.delete(one.key())
    one.sync()
    one.restart()
    assert one.node.holdings.unreaped == {}


def test_only_so_many_notes_are_kept_from_one_run_to_the_next() -> None:
    one = OneNode()
    keys = [number.to_bytes(33, "big") for number in range(NOTES_KEPT + 5)]
    for place, key in enumerate(keys):
        one.node.holdings.unreaped.setdefault(place % 40, {})[key] = None
    assert len(set(one.node.holdings.encoded_notes())) == NOTES_KEPT


def test_a_delete_that_a_peer_lacks_is_looked_at_by_the_next_round() -> None:
    one, partition = alone()
    one.node.holdings.unreaped.clear()
    reading = one.node.exchange._reading
    shipment = Shipment(one.env, one.ring, reading.copies, 2, lambda: None)
    reading.ship(shipment, one.key(), one.store.get(one.key()))
    assert one.node.holdings.unreaped == {partition: {one.key(): None}}


def test_nothing_is_retired_by_a_record_that_has_gone_on_since_it_was_stated() -> None:
    """Found by seed 10012018: what was retired still bore a value of the version stated."""
    stated = record_of_dots([dot(1, 1), dot(2, 1)], [dot(2, 1)])
    later = record_of_dots([dot(1, 2), dot(2, 1)], [dot(1, 2)])
    for record, retired in ((stated, [[dot(1, 1)[:12]]]), (later, [])):
        round_ = Round(0, 1, [b"key"], (1, 2), [2], 0)
        for owner in (1, 2):
            round_.statements[owner] = [KeyStatement(record_digest(stated), False, b"", False)]
        round_.judge([record])
        assert [each.retired for each in round_.reaped] == retired


def test_an_actor_that_a_value_rests_on_stays_whoever_asks() -> None:
    """A peer's message must not be able to bring a node down."""
    record = record_of_dots([dot(1, 1), dot(2, 1)], [dot(2, 1)])
    kept = without_actors(record, [dot(1, 1)[:12], dot(2, 1)[:12]])
    assert kept == record_of_dots([dot(2, 1)], [dot(2, 1)])


class Missed(Faults):
    """One point hits, a single time."""

    def __init__(self, point: str) -> None:
        self.point = point

    def hit(self, name: str) -> bool:
        if name != self.point:
            return False
        self.point = ""
        return True


def test_what_an_owner_was_not_told_to_drop_goes_with_the_next_round() -> None:
    cluster = Cluster()
    written(cluster)
    deleted(cluster)
    for one in cluster.nodes.values():
        one.env.faults = Missed("reap.drop_lost")
    pass_time(cluster, 1)
    left = [record for record in held(cluster) if record]
    while len(left) == 3:
        pass_time(cluster, 1)
        left = [record for record in held(cluster) if record]
    assert len(left) == 1, "one of three was not told"
    for one in cluster.nodes.values():
        one.env.faults = NO_FAULTS
    pass_time(cluster, 120)
    assert held(cluster) == [None] * 3


class StatesLate(Reaping):
    """Breaks the rule that a statement is made with the entry: reads only when it is told."""

    __slots__ = ("raised",)

    def _state(self, raiser: int, asked: ReapRaise) -> None:
        self._generations.enter(asked.partition, asked.generation, asked.dropped)
        self.raised = asked

    def say(self) -> None:
        asked = self.raised
        keys = [self._statement_of(key, True, 0) for key in asked.keys]
        self._when_durable(2, ReapStatement(asked.partition, asked.generation, asked.epoch, keys))


@pytest.mark.parametrize("late", [False, True], ids=["at entry", "late"])
def test_a_statement_made_after_the_entry_would_bring_a_deleted_value_back(late: bool) -> None:
    """Member 3 enters with the old value and sends it; only then does it hear of the delete."""
    one, partition = alone(held_record=False)
    one.put(value=b"old", w=1, durability=0)
    three = OneNode(3).connect()
    old = with_own(one.store.get(one.key()) or b"", NO_OWN)
    three.node.replica.begin()
    assert three.node.replica.on_put(three.key(), old, 1, 0) == OK
    one.put(flags=TOMBSTONE, value=b"", context=context(one), w=1, durability=0)
    one.sync()
    one.env.sent.clear()
    tombstone = with_own(one.store.get(one.key()) or b"", NO_OWN)
    node = three.node
    broken = StatesLate(
        three.env, three.store, node.holdings, node.generations, Straying(), three.ring,
        node.timers, three.config, lambda: 0,
    )  # fmt: skip
    broken._strays.held = False  # type: ignore[attr-defined]
    if late:
        node.reaping = broken

    # Everybody enters; member 3's copy goes on its way, then the delete reaches it.
    assert asked(one, FIRST_OF_2) is None
    assert asked(three, FIRST_OF_2) is None
    node.replica.begin()
    assert node.replica.on_put(three.key(), tombstone, 1, FIRST_OF_2) == OK
    if late:
        broken.say()
    versions = [version_stated(each) for each in (one, three)]
    if versions[0] == versions[1]:
        one.node.on_control(2, ReapCommit(partition, FIRST_OF_2))
        one.sync()
        reaped = [Reaped(one.key(), versions[0])]
        one.node.on_control(2, ReapDrop(partition, FIRST_OF_2, 1, reaped))
    one.node.replica.begin()
    assert one.node.replica.on_put(one.key(), old, 1, FIRST_OF_2) == OK
    (value,) = split_values(record_of(one.store.get(one.key()) or b""))
    assert Value(value).tombstone != late


def version_stated(one: OneNode) -> bytes:
    one.sync()
    (statement,) = [each for _, each in one.env.sent if isinstance(each, ReapStatement)]
    return statement.keys[0].version
