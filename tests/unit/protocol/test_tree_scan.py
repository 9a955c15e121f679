"""Leaves are counted anew, step by step: after an unclean stop, round damage, and now and then."""

import pytest

from kvorum.config import NodeConfig
from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.merkle import LEAF_BYTES, LEAVES, Trees, leaf_of, leaf_start
from kvorum.model.record import first_record
from kvorum.protocol.background import RECORD_READ, SLICE
from kvorum.protocol.tree_scan import (
    LEAVES_SHIFT,
    READ_BYTES,
    ROWS_MAX,
    SCRUB_LEAVES,
    STEP_COST,
    STEP_LEAVES,
    RowReader,
    TreeScan,
)
from kvorum.storage.commit import drain
from kvorum.storage.engine import EngineFailed
from tests.support.recording import OneNode
from tests.support.records import dot, value

SECOND = 1_000_000
RECORD = first_record(value(dot(8, 1), b"book"))
ENOUGH = 100 * LEAVES // STEP_LEAVES


class Story:
    """A node with some records whose leaves are known, or which was killed since."""

    def __init__(self, records: int = 20, size: int = 4, config: NodeConfig | None = None) -> None:
        self.one = OneNode(config=config)
        record = first_record(value(dot(8, 1), b"x" * size))
        names = [b"k%d" % number for number in range(records)]
        self.keys = sorted(self.one.key(name) for name in names)
        for name in names:
            self.one.node.holdings.write(
                self.one.key(name), None, pack_holding(NO_OWN, name, record)
            )
        self.leaves = bytes(self.trees.encoded(0, LEAVES))

    @property
    def trees(self) -> Trees:
        return self.one.node.holdings.trees

    @property
    def scan(self) -> TreeScan:
        return self.one.node.tree_scan

    @property
    def right(self) -> bool:
        """Whether all leaves are known, and say what is held."""
        return not self.trees.stale_count and bytes(self.trees.encoded(0, LEAVES)) == self.leaves

    def killed(self) -> "Story":
        self.one.sync()
        self.one.restart(clean=False)
        return self

    def damage(self, key: bytes) -> None:
        """What the engine holds of the key fails its checksum."""
        assert drain(self.one.store.buffer)
        self.one.engine.records[key] = b"garbage that is long enough"

    def fail_reads(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The engine fails from now on; how often it was asked."""
        asked: list[int] = []

        def scan(lo: bytes, hi: bytes, limit: int) -> list[tuple[bytes, bytes]]:
            asked.append(limit)
            raise EngineFailed("the disk is gone")

        monkeypatch.setattr(type(self.one.engine), "scan", lambda _, *range: scan(*range))
        return asked


# After a stop.


def test_a_new_store_knows_its_leaves() -> None:
    story = Story(records=0)
    assert story.trees.stale_count == 0
    assert story.scan.step(SLICE) == 0


def test_a_clean_stop_hands_the_leaves_to_the_next_start() -> None:
    story = Story()
    story.one.restart()
    assert story.right
    assert story.scan.step(SLICE) == 0, "nothing to count"


def test_leaves_of_another_size_are_not_taken_over() -> None:
    story = Story()
    parting = story.scan.encoded()
    assert len(parting) == LEAVES * LEAF_BYTES
    story.one.sync()
    assert story.one.store.close_clean(0, b"\x92\xc4\x03abc\xc4\x00")
    story.one.start()
    assert story.trees.stale_count == LEAVES


def test_after_an_unclean_stop_all_leaves_are_counted_in_the_background() -> None:
    story = Story().killed()
    assert story.trees.stale_count == LEAVES
    assert story.one.node.background.busy
    story.one.advance(SECOND)
    assert story.right
    assert not story.one.node.background.busy
    assert story.one.env.counters.records_scanned == 20
    assert story.one.env.counters.leaves_mended == 0, "they were not wrong, only unknown"


def test_a_stop_while_they_are_counted_hands_over_nothing() -> None:
    story = Story().killed()
    story.scan.step(SLICE)
    assert 0 < story.trees.stale_count < LEAVES
    assert story.scan.encoded() == b""
    story.one.restart()
    assert story.trees.stale_count == LEAVES
    story.one.advance(SECOND)
    assert story.right


def test_a_store_without_a_disk_has_nothing_to_count_after_any_stop() -> None:
    one = OneNode(durable=False)
    one.restart(clean=False)
    assert one.node.holdings.trees.stale_count == 0


# Steps.


def test_each_step_reads_few_records_settles_few_leaves_and_says_what_it_has_cost() -> None:
    story = Story(records=1_000).killed()
    steps = 0
    while story.trees.stale_count:
        stale, read = story.trees.stale_count, story.one.env.counters.records_scanned
        cost = story.scan.step(SLICE)
        settled = stale - story.trees.stale_count
        rows = story.one.env.counters.records_scanned - read
        assert settled <= STEP_LEAVES + 1
        assert rows <= ROWS_MAX
        assert cost >= STEP_COST + rows * RECORD_READ + (settled >> LEAVES_SHIFT)
        assert cost <= SLICE + STEP_COST
        steps += 1
        assert steps < ENOUGH
    assert steps >= 1_000 // ROWS_MAX
    assert story.right
    assert story.scan.step(SLICE) == 0, "and then it rests"


def test_a_small_allowance_makes_a_small_step() -> None:
    story = Story(records=1_000).killed()
    story.scan.step(1)
    assert story.one.env.counters.records_scanned == 1
    story.scan.step(10 * RECORD_READ)
    assert story.one.env.counters.records_scanned == 1 + 11


def test_writes_and_removals_while_leaves_are_counted_are_counted_once() -> None:
    story = Story(records=200).killed()
    holdings = story.one.node.holdings
    wanted = Story(records=200)
    changed = story.keys[::7]
    for key in changed:
        held = story.one.store.get(key)
        assert held
        heavier = held + b"!" if key in changed[::2] else None
        for each in (holdings, wanted.one.node.holdings):
            if heavier is None:
                each.forget(key, held)
            else:
                each.trees.change(key, held, heavier)
        if heavier is not None:
            story.one.store.put(key, heavier)
        story.scan.step(30)
    story.one.advance(SECOND)
    story.leaves = bytes(wanted.trees.encoded(0, LEAVES))
    assert story.right


def test_clients_have_their_turns_between_two_steps() -> None:
    story = Story(records=1_000).killed()
    deadlines: list[int] = []
    while story.trees.stale_count:
        before = story.one.node.background.spent
        story.one.env.now = story.one.node.next_deadline()
        deadlines.append(story.one.env.now)
        story.one.node.advance()
        assert story.one.node.background.spent - before <= 2 * SLICE
    assert len(deadlines) > 10


# Damage.


def test_a_record_that_is_found_damaged_makes_its_leaf_be_counted_without_it() -> None:
    story = Story()
    story.damage(story.keys[3])
    wanted = Story()
    wanted.one.node.holdings.forget(story.keys[3], wanted.one.store.get(story.keys[3]))
    assert story.one.store.get(story.keys[3]) == b""
    story.scan.look_for_damage()
    assert story.trees.stale_count == 1
    assert story.trees.stale[leaf_of(story.keys[3])]
    story.one.advance(SECOND)
    story.leaves = bytes(wanted.trees.encoded(0, LEAVES))
    assert story.right, "other owners have it, so theirs differs"
    assert story.one.env.counters.leaves_mended == 0


def test_the_node_looks_for_damage_by_itself() -> None:
    story = Story()
    story.damage(story.keys[3])
    assert story.one.store.get(story.keys[3]) == b""
    story.one.advance(2 * SECOND)
    assert story.trees.stale_count == 0
    assert not story.right


def test_damage_that_is_no_records_makes_no_leaf_stale() -> None:
    story = Story()
    hint = SPACE_HINTS + story.keys[0][1:]
    story.one.store.put(hint, b"\0" * 40)
    story.damage(hint)
    assert story.one.store.get(hint) == b""
    story.scan.look_for_damage()
    assert story.trees.stale_count == 0
    assert not story.one.node.background.busy


def test_damage_that_the_scan_itself_meets_is_seen_in_that_step() -> None:
    story = Story().killed()
    key = story.keys[3]
    story.damage(key)
    wanted = Story()
    wanted.one.node.holdings.forget(key, wanted.one.store.get(key))
    story.one.advance(SECOND)
    story.leaves = bytes(wanted.trees.encoded(0, LEAVES))
    assert story.right


def test_what_a_scrub_meets_is_counted_without_it_and_costs_something() -> None:
    story = Story(config=NodeConfig(scrub_interval_s=1))
    key = story.keys[3]
    story.damage(key)
    story.one.advance(2 * SECOND)
    assert story.trees.stale_count == 0
    wanted = Story()
    wanted.one.node.holdings.forget(key, wanted.one.store.get(key))
    story.leaves = bytes(wanted.trees.encoded(0, LEAVES))
    assert story.right
    assert story.one.env.counters.leaves_mended == 0


def test_an_engine_that_fails_is_left_alone_until_the_next_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story(config=NodeConfig(scrub_interval_s=1_024)).killed()
    asked = story.fail_reads(monkeypatch)
    assert story.scan.step(SLICE) == 0
    assert asked
    story.one.advance(SECOND // 2)
    assert len(asked) <= 3, "no busy loop"
    monkeypatch.undo()
    story.one.advance(4 * SECOND)
    assert story.right


# The scrub.


def test_the_scrub_reads_every_record_once_in_its_interval() -> None:
    story = Story(records=100, config=NodeConfig(scrub_interval_s=2))
    story.one.advance(SECOND)
    assert 20 < story.one.env.counters.records_scanned < 80
    story.one.advance(SECOND)
    assert 95 <= story.one.env.counters.records_scanned <= 105
    story.one.advance(4 * SECOND)
    assert 290 <= story.one.env.counters.records_scanned <= 310
    assert story.right


def test_one_block_of_the_scrub_ends_where_the_next_one_begins() -> None:
    story = Story(records=2_000)
    assert [scrub_block(story) for _ in range(8)] == [held_in(story, n) for n in range(8)]


def test_a_leaf_that_has_come_out_wrong_is_put_right_counted_and_told() -> None:
    story = Story(config=NodeConfig(scrub_interval_s=1))
    leaf = leaf_of(story.keys[3])
    story.trees.leaves[leaf] ^= 1
    assert not story.right
    story.one.advance(2 * SECOND)
    assert story.right
    assert story.one.env.counters.leaves_mended == 1
    (detail,) = (each for event, each in story.one.env.reported if event == "leaves_mended")
    assert detail["count"] == 1
    assert detail["first_leaf"] <= leaf < detail["first_leaf"] + STEP_LEAVES


def scrub_block(story: Story) -> int:
    """The next block of the scrub is due and done; how many records were read."""
    before = story.one.env.counters.records_scanned
    story.scan.on_timer()
    while story.scan.step(SLICE):
        pass
    return story.one.env.counters.records_scanned - before


def held_in(story: Story, block: int) -> int:
    return sum(leaf_of(key) // SCRUB_LEAVES == block for key in story.keys)


def test_the_scrub_waits_while_leaves_are_stale() -> None:
    story = Story(records=2_000).killed()
    assert scrub_block(story) == 2_000, "all are counted, and no block of the scrub"
    assert story.right
    assert [scrub_block(story) for _ in range(4)] == [held_in(story, n) for n in range(4)]


def test_a_block_that_takes_longer_than_its_time_is_read_to_its_end() -> None:
    story = Story(records=2_000)
    block = next(block for block in range(100) if held_in(story, block) > 2)
    for _ in range(block):
        scrub_block(story)
    before = story.one.env.counters.records_scanned
    story.scan.on_timer()
    story.scan.step(1)
    assert scrub_block(story) + 1 == held_in(story, block)
    assert story.one.env.counters.records_scanned - before == held_in(story, block)
    assert scrub_block(story) == held_in(story, block + 1)


def test_stale_leaves_come_before_the_block_that_is_being_scrubbed() -> None:
    story = Story(records=2_000)
    story.scan.on_timer()
    assert story.scan.step(1) > 0, "in the middle of the first block"
    last = leaf_of(story.keys[-1])
    story.trees.spoil(last)
    story.scan.step(SLICE)
    assert story.trees.stale_count == 0
    assert story.right


def test_what_it_comes_by_is_shown_to_whoever_looks_for_deletes() -> None:
    story = Story(records=0)
    tombstone = first_record(value(dot(8, 1), tombstone=True))
    story.one.store.put(story.one.key(), pack_holding(NO_OWN, b"alice", tombstone))
    assert story.one.node.holdings.noted == 0
    story.killed().one.advance(SECOND)
    assert story.one.node.holdings.noted == 1


# Reading.


def test_a_reader_says_up_to_where_its_records_are_all() -> None:
    story = Story(records=30)
    reader = RowReader(story.one.store)
    lo, hi = leaf_start(0), leaf_start(LEAVES)
    rows, end = reader.read(lo, hi, 10)
    assert [key for key, _ in rows] == story.keys[:10]
    assert end == story.keys[9] + b"\0"
    size = sum(len(holding) for _, holding in rows)
    assert reader.cost >= STEP_COST + 10 * RECORD_READ + size // 512
    rows, end = reader.read(end, hi, 64)
    assert [key for key, _ in rows] == story.keys[10:]
    assert end == hi
    assert reader.read(hi, hi, 64) == ([], hi)
    assert reader.cost == STEP_COST


def test_a_reader_learns_how_large_records_are_and_reads_fewer_of_them() -> None:
    story = Story(records=60, size=READ_BYTES // 4)
    reader = RowReader(story.one.store)
    at, hi = leaf_start(0), leaf_start(LEAVES)
    for _ in range(20):
        rows, _ = reader.read(at, hi, ROWS_MAX)
    assert len(rows) <= 4
    assert reader.cost <= STEP_COST + 4 * (RECORD_READ + READ_BYTES // 4 // 512 + 1)


@pytest.mark.parametrize("times", [4, 50], ids=["large", "huge"])
def test_a_reader_reads_at_least_one_record_however_large_they_are(times: int) -> None:
    story = Story(records=3, size=times * READ_BYTES)
    reader = RowReader(story.one.store)
    at, hi = leaf_start(0), leaf_start(LEAVES)
    read = []
    while at < hi:
        rows, at = reader.read(at, hi, ROWS_MAX)
        read += rows
    assert [key for key, _ in read] == story.keys
