"""The laws of hash trees (architecture: repair)."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.merkle import (
    LEAVES,
    NO_LEAF,
    Trees,
    entry_hash,
    leaf_of,
    leaf_start,
    spans_of,
)
from tests.support.records import TABLE_ID, dot

PARTITIONS = 1024
SHIFT = 6  # a partition of so many has 64 leaves
FEW_LEAVES = (0, 1, 64, LEAVES - 1)


def key_of(leaf: int, number: int) -> bytes:
    """An engine key in ``leaf``; keys of one leaf are in the order of their numbers."""
    return leaf_start(leaf) + bytes((number,)) * 14 + TABLE_ID + bytes(8)


def holding_of(number: int, own: bytes = NO_OWN) -> bytes:
    return pack_holding(own, b"key", b"record %d" % number)


keys = st.builds(key_of, st.sampled_from(FEW_LEAVES), st.integers(0, 3))
holdings = st.integers(0, 9)
contents = st.dictionaries(keys, holdings, max_size=12)


def built(records: dict[bytes, int]) -> Trees:
    trees = Trees()
    for key, number in records.items():
        trees.change(key, None, holding_of(number))
    return trees


def counted(records: dict[bytes, bytes], leaf: int) -> int:
    """A leaf worked out from nothing."""
    total = 0
    for key, holding in records.items():
        if leaf_of(key) == leaf:
            total ^= entry_hash(key, holding)
    return total


@given(contents, contents)
def test_trees_differ_exactly_where_the_sets_of_records_do(one, two):
    mine, theirs = built(one), built(two)
    unlike = {leaf_of(key) for key, number in one.items() ^ two.items()}
    assert {leaf for leaf in range(LEAVES) if mine.leaves[leaf] != theirs.leaves[leaf]} == unlike
    for partition in (0, 1, 2, PARTITIONS - 1):
        ((first, end),) = spans_of([partition], SHIFT)
        differs = mine.hash_of(first, end) != theirs.hash_of(first, end)
        assert differs == any(first <= leaf < end for leaf in unlike)
    assert (mine.digest([(0, LEAVES)]) == theirs.digest([(0, LEAVES)])) == (not unlike)
    halves = [(0, LEAVES // 2), (LEAVES // 2, LEAVES)]
    assert mine.digest(halves) == mine.digest([(0, LEAVES)])


@given(contents, contents, st.randoms(use_true_random=False))
def test_the_order_of_changes_and_what_was_between_do_not_matter(first, last, random):
    trees = built(first)
    order = sorted(first.keys() | last.keys())
    random.shuffle(order)
    for key in order:
        held = holding_of(first[key]) if key in first else None
        trees.change(key, held, holding_of(last[key]) if key in last else None)
    assert trees.leaves == built(last).leaves


@given(contents, keys, holdings, holdings)
def test_a_change_undone_leaves_no_trace(records, key, one, two):
    trees = built(records)
    before = trees.leaves[:]
    held = holding_of(records[key]) if key in records else None
    trees.change(key, held, holding_of(one))
    trees.replace(key, holding_of(one), holding_of(two))
    trees.change(key, holding_of(two), held)
    assert trees.leaves == before


def test_what_is_local_is_not_hashed():
    own = dot(3, 7)
    key = key_of(5, 1)
    assert entry_hash(key, holding_of(4)) == entry_hash(key, holding_of(4, own))
    assert entry_hash(key, holding_of(4)) != entry_hash(key, holding_of(5))
    assert entry_hash(key, holding_of(4)) != entry_hash(key_of(5, 2), holding_of(4))


def test_a_scan_of_everything_leaves_nothing_stale():
    records = {key_of(leaf, number): holding_of(leaf) for leaf in FEW_LEAVES for number in (1, 2)}
    trees = Trees()
    trees.spoil_all()
    trees.begin_scan(0)
    assert trees.scanned(sorted(records.items()), SPACE_HINTS) == 0
    assert trees.stale_count == 0
    assert trees.first_stale(0) == NO_LEAF
    assert all(trees.leaves[leaf] == counted(records, leaf) for leaf in range(LEAVES))


def test_a_leaf_that_is_wrong_without_being_stale_is_mended_and_told():
    trees = built({key_of(64, 1): 1})
    trees.leaves[64] ^= 1
    trees.begin_scan(60)
    assert trees.scanned([(key_of(64, 1), holding_of(1))], leaf_start(70)) == 1
    assert trees.leaves == built({key_of(64, 1): 1}).leaves


def test_leaves_are_taken_over_as_they_were_saved():
    trees = built({key_of(1, 1): 1, key_of(LEAVES - 1, 2): 2})
    other = Trees()
    other.spoil_all()
    other.load(bytes(trees.encoded(0, LEAVES)))
    assert other.leaves == trees.leaves
    assert other.stale_count == 0


def test_leaves_travel_in_one_byte_order(monkeypatch):
    trees = built({key_of(1, 1): 1})
    plain = bytes(trees.encoded(0, 4))
    monkeypatch.setattr("kvorum.model.merkle.sys.byteorder", "big")
    swapped = bytes(trees.encoded(0, 4))
    assert swapped[8:16] == plain[15:7:-1]
    other = Trees()
    other.load(bytes(trees.encoded(0, LEAVES)))
    assert other.leaves == trees.leaves


class Scanning(RuleBasedStateMachine):
    """Writes, drops and damage go on while leaves are counted anew, slice after slice."""

    def __init__(self) -> None:
        super().__init__()
        self.trees = Trees()
        self.records: dict[bytes, bytes] = {}  # what can be read
        self.damaged: set[bytes] = set()
        self.at = b""  # where the scan stands; empty: none is under way
        self.wrong = 0

    @rule(key=keys, number=holdings)
    def write(self, key: bytes, number: int) -> None:
        held = b"" if key in self.damaged else self.records.get(key)
        self.damaged.discard(key)
        self.records[key] = holding_of(number)
        if held:
            self.trees.replace(key, held, self.records[key])
        else:
            self.trees.change(key, held, self.records[key])

    @rule(key=keys)
    def drop(self, key: bytes) -> None:
        held = b"" if key in self.damaged else self.records.get(key)
        if held is not None:
            self.damaged.discard(key)
            self.records.pop(key, None)
            self.trees.change(key, held, None)

    @rule(key=keys)
    def find_damaged(self, key: bytes) -> None:
        if self.records.pop(key, None) is not None:
            self.damaged.add(key)
            self.trees.spoil(leaf_of(key))

    @rule()
    def forget_everything(self) -> None:
        """As after an unclean stop: the leaves are of another time."""
        for leaf in FEW_LEAVES:
            self.trees.leaves[leaf] ^= 0x1234
            self.trees.spoil(leaf)

    @rule(leaf=st.sampled_from(FEW_LEAVES))
    def begin(self, leaf: int) -> None:
        self.trees.begin_scan(leaf)
        self.at = leaf_start(leaf)

    @precondition(lambda self: self.at)
    @rule(limit=st.integers(1, 3))
    def go_on(self, limit: int) -> None:
        rows = sorted(row for row in self.records.items() if row[0] >= self.at)[:limit]
        end = rows[-1][0] + b"\0" if len(rows) == limit else SPACE_HINTS
        self.wrong += self.trees.scanned(rows, end)
        self.at = b"" if end == SPACE_HINTS else end

    @precondition(lambda self: self.at)
    @rule(leaf=st.sampled_from(FEW_LEAVES))
    def go_on_to_the_end_of_a_leaf(self, leaf: int) -> None:
        end = leaf_start(leaf + 1)
        if end > self.at:
            rows = sorted(row for row in self.records.items() if self.at <= row[0] < end)
            self.wrong += self.trees.scanned(rows, end)
            self.at = b"" if end == SPACE_HINTS else end

    @invariant()
    def what_is_not_stale_is_right(self) -> None:
        assert self.trees.stale_count == sum(self.trees.stale)
        assert self.wrong == 0, "a leaf was wrong that was not stale"
        for leaf in FEW_LEAVES:
            if not self.trees.stale[leaf]:
                assert self.trees.leaves[leaf] == counted(self.records, leaf)

    def teardown(self) -> None:
        """Each leaf scanned without interruption is stale no more."""
        for leaf in FEW_LEAVES:
            rows = [row for row in sorted(self.records.items()) if leaf_of(row[0]) == leaf]
            self.trees.begin_scan(leaf)
            self.trees.scanned(rows, leaf_start(leaf + 1))
            assert not self.trees.stale[leaf]
        self.what_is_not_stale_is_right()


TestScanning = Scanning.TestCase
