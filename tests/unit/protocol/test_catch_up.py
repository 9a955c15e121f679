"""Who counts for r after a stop: a node is behind until it has met every other owner."""

import msgspec
import pytest

from kvorum.client.store import Found
from kvorum.config import NodeConfig
from kvorum.protocol.catch_up import (
    KEY_COMPLETE,
    MASK_BYTES,
    CatchUp,
    Parting,
    decode_parting,
    encode_parting,
)
from tests.support.recording import OneNode
from tests.support.wired import Cluster

PARTITIONS = 8
ALL = list(range(PARTITIONS))
SECOND = 1_000_000


class Story:
    """Member 1 and what it owes to whom; members 2 and 3 own every partition as well."""

    def __init__(self, count: int = 3, n: int = 3, owed: bytes = b"") -> None:
        self.one = OneNode(count=count, n=n)
        self.ring = self.one.ring
        self.catch_up = self.begin(owed)

    def begin(self, owed: bytes = b"") -> CatchUp:
        """As at a start of the same store; ``owed`` is what a clean stop has left."""
        self.catch_up = CatchUp(self.one.env, self.one.store, self.ring, 1, owed)
        return self.catch_up

    @property
    def behind(self) -> list[int]:
        return [partition for partition in ALL if self.catch_up.owes(partition)]

    @property
    def mine(self) -> list[int]:
        return [partition for partition in ALL if self.ring.is_owner(1, partition)]


# Who is owed what.


def test_whoever_does_not_know_what_it_owes_owes_everything_to_every_other_owner() -> None:
    story = Story()
    assert story.behind == ALL
    assert story.catch_up.count == len(ALL)
    assert story.catch_up.waits_for(2)
    assert story.catch_up.waits_for(3)
    assert not story.catch_up.waits_for(1)


def test_nothing_is_owed_of_partitions_that_others_own() -> None:
    story = Story(count=4, n=2)
    assert story.behind == story.mine != ALL
    assert story.catch_up.count == len(story.mine)


def test_a_partition_has_caught_up_when_it_was_exchanged_with_each_of_the_other_owners() -> None:
    story = Story()
    before = story.one.env.counters.caught_up
    assert story.catch_up.settle(2, [0, 1]) == 0
    assert story.behind == ALL, "member 3 may hold the only copy that had reached a disk"
    assert story.catch_up.settle(3, [1, 2]) == 1
    assert story.behind == [0, 2, 3, 4, 5, 6, 7]
    assert story.catch_up.settle(3, [0]) == story.catch_up.settle(2, [2]) == 1
    assert story.behind == [3, 4, 5, 6, 7]
    assert story.catch_up.count == 5
    assert story.one.env.counters.caught_up - before == 3


def test_meeting_the_same_owner_twice_is_meeting_one() -> None:
    story = Story()
    assert story.catch_up.settle(2, ALL) == story.catch_up.settle(2, ALL) == 0
    assert story.behind == ALL
    assert not story.catch_up.waits_for(2)
    assert story.catch_up.waits_for(3)
    assert story.catch_up.settle(3, ALL) == PARTITIONS
    assert story.behind == []
    assert story.catch_up.count == 0
    assert not story.catch_up.waits_for(3)


def test_whoever_owns_no_copy_settles_nothing() -> None:
    story = Story(count=4, n=2)
    for member in story.one.others:
        foreign = [p for p in ALL if not story.ring.is_owner(member, p)]
        assert story.catch_up.settle(member, foreign) == 0
    assert story.behind == story.mine


def test_it_waits_only_for_those_with_whom_it_shares_what_is_behind() -> None:
    story = Story(count=4, n=2)
    partition = story.mine[0]
    (partner,) = (m for m in story.ring.owners(partition) if m != 1)
    for member in story.one.others:
        story.catch_up.settle(member, [p for p in ALL if p != partition])
    assert story.behind == [partition]
    assert [m for m in story.one.others if story.catch_up.waits_for(m)] == [partner]


def test_a_sole_owner_is_never_behind() -> None:
    story = Story(n=1)
    assert story.mine
    assert story.behind == []
    assert story.catch_up.count == 0
    assert story.catch_up.complete_count == len(story.mine)


def test_a_copy_that_was_set_aside_owes_its_partition_to_everybody_again() -> None:
    story = Story()
    for member in (2, 3):
        story.catch_up.settle(member, ALL)
    story.catch_up.forget(5)
    assert story.behind == [5]
    assert story.catch_up.settle(2, [5]) == 0
    assert story.catch_up.settle(3, [5]) == 1


def test_a_foreign_copy_that_was_set_aside_owes_nothing() -> None:
    """A listed fallback sets hints aside, too."""
    story = Story(count=4, n=2)
    foreign = next(p for p in ALL if p not in story.mine)
    before = story.behind
    story.catch_up.forget(foreign)
    assert story.behind == before


# From one start to the next.


def test_what_is_owed_at_a_clean_stop_is_owed_at_the_next_start() -> None:
    story = Story()
    story.catch_up.settle(2, ALL)
    story.catch_up.settle(3, [0, 7])
    owed = story.catch_up.encoded()
    assert len(owed) == MASK_BYTES * PARTITIONS
    story.begin(owed)
    assert story.behind == [1, 2, 3, 4, 5, 6]
    assert story.catch_up.count == 6
    assert not story.catch_up.waits_for(2)
    assert story.catch_up.settle(3, ALL) == 6


def test_what_others_own_is_owed_to_nobody_and_never_complete() -> None:
    story = Story(count=4, n=2)
    for member in story.one.others:
        story.catch_up.settle(member, ALL)
    story.begin(story.catch_up.encoded())
    assert story.behind == []
    assert story.catch_up.complete_count == len(story.mine) < PARTITIONS


def test_what_does_not_fit_this_ring_says_nothing() -> None:
    story = Story()
    for owed in (b"", bytes(MASK_BYTES * PARTITIONS - 1), bytes(MASK_BYTES * PARTITIONS + 2)):
        assert story.begin(owed).count == PARTITIONS


def test_what_is_owed_to_more_than_sixteen_owners_is_kept_as_well() -> None:
    """Such a node could not stop cleanly."""
    story = Story(count=18, n=17)
    everybody = set(story.one.others)
    partition = story.mine[0]
    last = story.ring.owners(partition)[-1]
    for member in everybody - {last}:
        story.catch_up.settle(member, ALL)
    story.begin(story.catch_up.encoded())
    assert [m for m in story.one.others if story.catch_up.waits_for(m)] == [last]


@pytest.mark.parametrize("clean", [True, False])
def test_only_after_an_unclean_stop_is_everything_owed_again(clean: bool) -> None:
    one = OneNode()
    assert one.node.catch_up.count == 0
    one.sync()
    one._adopts = False
    one.restart(clean=clean)
    assert one.node.catch_up.count == (0 if clean else PARTITIONS)
    assert one.node.catch_up.complete_count == PARTITIONS


def test_a_parting_is_read_as_it_was_written_and_anything_else_as_none() -> None:
    assert decode_parting(encode_parting(b"leaves", b"owed", [b"key"])) == Parting(
        b"leaves", b"owed", [b"key"]
    )
    without_notes = msgspec.msgpack.encode([b"leaves", b"owed"])  # as it was once
    assert decode_parting(without_notes) == Parting(b"leaves", b"owed")
    for garbage in (b"", b"garbage", b"\x92\x01\x02", encode_parting(b"leaves", b"owed", [])[:-1]):
        assert decode_parting(garbage) == Parting()


# Complete marks.


def test_whoever_has_met_all_owners_notes_that_it_is_complete() -> None:
    story = Story()
    story.one.store.delete(KEY_COMPLETE)
    story.begin()
    assert story.catch_up.complete_count == 0
    story.catch_up.settle(2, ALL)
    assert story.one.store.get(KEY_COMPLETE) is None
    story.catch_up.settle(3, [0, 2])
    assert story.one.store.get(KEY_COMPLETE) == b"\x05"
    assert story.catch_up.complete_count == 2
    assert story.begin().complete_count == 2, "the mark goes with the data"


def test_it_is_noted_later_where_nothing_can_be_written_now() -> None:
    story = Story()
    story.one.store.delete(KEY_COMPLETE)
    story.begin().settle(2, ALL)
    story.one.store.buffer.failed = "the engine has failed"
    story.catch_up.settle(3, [0])
    assert story.one.store.get(KEY_COMPLETE) is None
    story.one.store.buffer.failed = ""
    story.catch_up.settle(3, [2])
    assert story.one.store.get(KEY_COMPLETE) == b"\x05"


def test_nothing_is_written_where_nothing_has_changed() -> None:
    story = Story()
    position = story.one.store.position
    for member in (2, 3):
        story.catch_up.settle(member, ALL)
    assert story.one.store.position == position


def test_a_disk_that_has_lost_something_has_no_mark_any_more() -> None:
    story = Story()
    assert story.catch_up.complete_count == PARTITIONS
    story.catch_up.forget_marks()
    assert story.catch_up.complete_count == 0
    assert story.behind == ALL
    assert story.begin().complete_count == 0, "nor has it after a crash"


def test_a_copy_that_was_set_aside_has_no_mark_any_more() -> None:
    story = Story()
    story.catch_up.forget(5)
    assert story.catch_up.complete_count == PARTITIONS - 1
    assert story.begin().complete_count == PARTITIONS - 1, "nor has it after a crash"


# Whole nodes.


def restarted(cluster: Cluster, member: int) -> None:
    """The member was killed, and starts again; nobody has connected to it yet."""
    cluster.sync()
    cluster.stop(member)
    cluster[member]._adopts = False
    cluster[member].restart(clean=False)


def meet(cluster: Cluster, one: int, other: int) -> None:
    cluster.join(one, other)
    cluster.join(other, one)
    cluster.settle()


def read(cluster: Cluster, member: int) -> tuple[tuple[bytes, ...], set[int], bool]:
    """A get of two at the member: what it finds, whom it counts, what it says of that."""
    cluster[member].get(r=2)
    cluster.settle()
    found = cluster[member].client.outcome()
    assert isinstance(found, Found)
    return found.values, {*found.replicas}, found.may_miss_acknowledged


def test_a_node_that_was_killed_counts_for_r_once_it_has_caught_up_with_each_owner() -> None:
    cluster = Cluster()
    cluster[1].put(value=b"book", durability=0)
    cluster.settle()
    cluster.advance(20 * SECOND)
    restarted(cluster, 2)
    two = cluster[2].node
    assert two.catch_up.count == PARTITIONS
    meet(cluster, 2, 1)
    cluster.advance(5 * SECOND)
    assert not two.catch_up.waits_for(1)
    assert two.catch_up.count == PARTITIONS, "member 3 has yet to be met"
    assert read(cluster, 2) == ((b"book",), {1, 2}, True)
    meet(cluster, 2, 3)
    cluster.advance(5 * SECOND)
    assert two.catch_up.count == 0
    assert two.env.counters.caught_up == PARTITIONS
    assert "caught_up" in cluster[2].env.events
    assert read(cluster, 2)[2] is False


def test_a_node_that_has_lost_what_it_had_acknowledged_is_given_it_before_it_counts() -> None:
    cluster = Cluster()
    cluster[1].put(value=b"book", durability=0)
    cluster.settle()
    restarted(cluster, 2)
    two = cluster[2]
    two.node.holdings.forget(two.key(), two.store.get(two.key()))
    meet(cluster, 2, 1)
    meet(cluster, 2, 3)
    partition = two.ring.partition_of_engine_key(two.key())
    steps = 0
    while two.node.catch_up.owes(partition):
        assert steps < 200, "it never catches up"
        steps += 1
        cluster.advance(SECOND // 100)
        assert two.node.catch_up.owes(partition) or cluster.values(2) == [b"book"]
    assert steps > 1
    assert cluster[1].env.counters.exchange_sent + cluster[3].env.counters.exchange_sent > 0


def test_catching_up_waits_for_no_round_of_a_pair_at_rest() -> None:
    cluster = Cluster(config=NodeConfig(exchange_interval_ms=600_000))
    restarted(cluster, 2)
    meet(cluster, 2, 1)
    meet(cluster, 2, 3)
    cluster.advance(2 * SECOND)
    assert cluster[2].node.catch_up.count == 0
