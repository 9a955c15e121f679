"""One narrowing, its peer played by the test: from blocks to leaves, keys, and records."""

import pytest

from kvorum.model.holding import record_of
from kvorum.model.merkle import LEAVES, entry_hash, leaf_start
from kvorum.protocol.background import RECORD_READ
from kvorum.protocol.generations import make_generation
from kvorum.protocol.narrowing import (
    BLOCKS_MAX,
    KEYS_MAX,
    LEAVES_MAX,
    QUESTION_COST,
    READ_LEAST,
    RESTLESS_MAX,
    SECOND_LOOK,
    Peer,
    packed,
    unpacked,
)
from kvorum.wire.exchange_messages import (
    BlocksQuery,
    EntriesQuery,
    LeavesQuery,
)
from kvorum.wire.link import NOT_TAKEN, OK
from kvorum.wire.reaping_messages import GenerationState
from tests.support.narrowings import (
    BOOK,
    EVERYTHING,
    HELD,
    LEAF,
    PLENTY,
    SHIFT,
    SIZE,
    key_in,
)
from tests.support.narrowings import NarrowingStory as Story
from tests.support.recording import OneNode

# From blocks to records.


def test_equal_blocks_are_all_there_is_to_ask() -> None:
    story = Story().hold(key_in(LEAF))
    first, second = (story.trees.hash_of(at, at + SIZE) for at in (0, SIZE))
    assert first != second
    assert story.asks_blocks() == BlocksQuery(7, [0, 1], packed([first, second]))
    assert story.blocks([]).question() is None
    assert story.narrowing.settled([0]) == [0]
    assert story.narrowing.found == 0


def test_it_asks_for_the_leaves_of_differing_blocks_and_for_the_keys_of_differing_leaves() -> None:
    key = key_in(LEAF)
    story = Story().hold(key)
    story.asks_blocks()
    mine = [story.trees.leaves[leaf] for leaf in range(SIZE, 2 * SIZE)]
    assert story.blocks([1]).asks_leaves() == LeavesQuery(7, [*range(SIZE, 2 * SIZE)], packed(mine))
    one = packed([story.trees.leaves[LEAF]])
    assert story.leaves({LEAF: 1}).asks_leaves() == LeavesQuery(7, [LEAF], one)
    start, end = leaf_start(LEAF), leaf_start(LEAF + 1)
    hashes = packed([entry_hash(key, HELD)])
    assert story.leaves({LEAF: 1}).asks_keys() == EntriesQuery(7, [LEAF], start, end, [key], hashes)
    assert story.one.env.counters.exchange_leaves == 1
    assert story.entries(end, sent=3).question() is None
    assert story.narrowing.found == story.one.env.counters.exchange_received == 3
    assert story.narrowing.settled([0]) == [0]
    assert story.sent() == []


def test_what_the_peer_wants_is_sent_and_waited_for() -> None:
    keys = [key_in(LEAF, number) for number in range(3)]
    story = Story().hold(*keys)
    question = story.to_keys()
    story.entries(question.end, wanted=keys[:2])
    assert story.narrowing.step(PLENTY) > QUESTION_COST
    assert story.narrowing.waiting
    assert story.sent() == keys[:2]
    assert [record_of(entry.body) for entry in story.one.asked(2)] == [BOOK, BOOK]
    counters = story.one.env.counters
    assert counters.exchange_sent == 2
    assert counters.exchange_bytes == 2 * (len(keys[0]) + len(HELD))
    assert story.narrowing.step(PLENTY) == 1, "nothing more before they have been answered"
    story.one.env.now += 5
    story.one.answers(2, OK, NOT_TAKEN)
    assert story.went_on == 1
    assert story.narrowing.heard_at == story.one.env.now
    assert story.question() is None
    assert (story.narrowing.found, story.narrowing.undelivered) == (1, 1)


def test_what_is_gone_meanwhile_or_of_a_dropped_table_is_not_sent() -> None:
    keys = [key_in(LEAF, number) for number in range(3)]
    story = Story().hold(*keys)
    question = story.to_keys()
    story.one.node.holdings.forget(keys[0], HELD)
    story.one.node.tables.registry.dropped_ids[keys[1][17:25]] = None
    story.entries(question.end, wanted=keys)
    assert story.question() is None
    assert story.sent() == []
    assert story.went_on == 1
    assert (story.narrowing.found, story.narrowing.undelivered) == (0, 0)


def test_what_may_not_be_told_is_undelivered() -> None:
    story = Story().hold(key_in(LEAF))
    question = story.to_keys()
    fifth, sixth = make_generation(5, 2), make_generation(6, 2)
    story.one.node.on_control(2, GenerationState(0, sixth, fifth))
    story.entries(question.end, wanted=[key_in(LEAF)])
    assert story.question() is None
    assert story.sent() == []
    assert story.narrowing.undelivered == 1


def test_records_of_a_dropped_table_are_not_shown() -> None:
    story = Story().hold(key_in(LEAF))
    story.one.node.tables.registry.dropped_ids[key_in(LEAF)[17:25]] = None
    assert story.to_keys().keys == []


def test_one_piece_of_blocks_has_nothing_to_do_with_the_next() -> None:
    story = Story(EVERYTHING)
    question = story.to_keys()
    story.entries(question.end)
    second = story.asks_blocks().blocks
    assert second == [*range(BLOCKS_MAX, 2 * BLOCKS_MAX)]
    story.blocks([second[5]])
    leaf = second[5] * SIZE
    assert story.asks_leaves().leaves == [*range(leaf, leaf + SIZE)]
    assert story.leaves({leaf: 1}).asks_leaves().leaves == [leaf], "the second look"
    assert story.leaves({}).asks_blocks().blocks[0] == 2 * BLOCKS_MAX


def test_it_walks_through_all_spans_and_no_others() -> None:
    story = Story([(0, SIZE), (5 * SIZE, 7 * SIZE)])
    assert story.asks_blocks().blocks == [0, 5, 6]
    assert story.blocks([6]).asks_leaves().leaves == [*range(6 * SIZE, 7 * SIZE)]


# Bounds.


def test_each_question_is_bounded_and_the_next_one_waits_for_its_answer() -> None:
    story = Story(EVERYTHING, thorough=True)
    asked: list[int] = []
    leaves: list[int] = []
    question = story.question()
    while question is not None:
        assert story.narrowing.step(PLENTY) == 1
        if isinstance(question, BlocksQuery):
            assert len(question.blocks) <= BLOCKS_MAX
            assert len(question.hashes) == 8 * len(question.blocks)
            asked += question.blocks
            story.blocks(question.blocks if question.blocks[0] == 0 else [])
        else:
            assert isinstance(question, LeavesQuery)
            assert len(question.leaves) <= LEAVES_MAX
            leaves += question.leaves
            story.leaves({})
        question = story.question()
    assert asked == [*range(LEAVES // SIZE)]
    assert leaves == [*range(BLOCKS_MAX * SIZE)]


def test_the_second_look_is_bounded_too() -> None:
    story = Story([(0, 16 * SIZE)])
    story.asks_blocks()
    story.blocks([*range(16)])
    for _ in range(2):
        first = story.asks_leaves()
        assert len(first.leaves) == LEAVES_MAX
        story.leaves(dict.fromkeys(first.leaves, 1))
    again = [story.asks_leaves().leaves]
    again.append(story.leaves(dict.fromkeys(again[0], 1)).asks_leaves().leaves)
    assert sorted(again[0] + again[1]) == [*range(16 * SIZE)]
    assert max(len(each) for each in again) <= LEAVES_MAX
    question = story.leaves(dict.fromkeys(again[1], 1)).asks_keys()
    assert question.leaves == [*range(KEYS_MAX)], "and so are the leaves of a question for keys"


def test_keys_are_shown_piece_by_piece() -> None:
    keys = [key_in(LEAF, number) for number in range(2 * KEYS_MAX + 10)]
    story = Story().hold(*keys)
    question = story.to_keys()
    shown: list[bytes] = []
    while True:
        assert len(question.keys) <= KEYS_MAX
        assert unpacked(question.hashes) == [entry_hash(key, HELD) for key in question.keys]
        assert question.leaves == [LEAF]
        shown += question.keys
        story.entries(question.end)
        following = story.question()
        if following is None:
            break
        assert isinstance(following, EntriesQuery)
        assert following.start == question.end
        question = following
    assert shown == keys


def test_no_more_keys_are_read_than_the_step_may_cost() -> None:
    keys = [key_in(LEAF, number) for number in range(KEYS_MAX)]
    story = Story().hold(*keys)
    story.asks_blocks()
    story.blocks([1])
    for _ in range(2):
        story.asks_leaves()
        story.leaves({LEAF: 1})
    story.one.env.sent.clear()
    while not story.narrowing.waiting:
        story.narrowing.step(1)
    ((_, question),) = story.one.env.sent
    assert isinstance(question, EntriesQuery)
    assert 0 < len(question.keys) <= READ_LEAST // RECORD_READ + 1
    assert question.keys == keys[: len(question.keys)]
    assert question.end == question.keys[-1] + b"\0"


@pytest.mark.parametrize(("each", "covered"), [(30, 3), (32, 2), (64, 1), (20, 4)])
def test_a_question_covers_only_the_leaves_of_which_it_shows_something(
    each: int, covered: int
) -> None:
    leaves = [*range(LEAF, LEAF + 8)]
    keys = [key_in(leaf, number) for leaf in leaves for number in range(each)]
    story = Story().hold(*keys)
    question = story.to_keys(*leaves)
    assert question.keys == keys[:KEYS_MAX]
    assert question.leaves == leaves[:covered]
    assert question.end == keys[KEYS_MAX - 1] + b"\0"


def test_it_goes_on_from_where_the_peer_has_come_to() -> None:
    keys = [key_in(LEAF, number) for number in range(4)] + [key_in(LEAF + 1)]
    story = Story().hold(*keys)
    question = story.to_keys(LEAF, LEAF + 1)
    assert (question.leaves, question.keys) == ([LEAF, LEAF + 1], keys)
    story.entries(keys[2])
    question = story.asks_keys()
    assert (question.start, question.keys) == (keys[2], keys[2:])
    story.entries(leaf_start(LEAF + 1))
    question = story.asks_keys()
    assert (question.leaves, question.keys) == ([LEAF + 1], keys[4:])
    assert story.entries(question.end).question() is None


@pytest.mark.parametrize("where", ["nowhere", "start", "before", "beyond"])
def test_a_peer_that_does_not_come_forward_is_given_up(where: str) -> None:
    story = Story().hold(key_in(LEAF))
    question = story.to_keys()
    ends = {
        "nowhere": b"",
        "start": question.start,
        "before": leaf_start(LEAF - 1),
        "beyond": question.end + b"\0",
    }
    story.entries(ends[where], sent=1)
    assert story.question() is None
    assert story.narrowing.broken
    assert story.narrowing.settled([0]) == []


def test_no_more_is_sent_than_two_questions_can_have_found() -> None:
    keys = [key_in(LEAF, number) for number in range(2 * KEYS_MAX + 1)]
    story = Story().hold(*keys)
    question = story.to_keys()
    story.entries(question.end, wanted=keys)
    story.narrowing.step(PLENTY)
    assert story.sent() == keys[: 2 * KEYS_MAX]


# Writes under way.


def second_look(story: Story, first: int, second: int | None) -> None:
    """The peer's ``LEAF`` is this, and a while later that; None: the same as ours."""
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    story.leaves({LEAF: first}).asks_leaves()
    story.leaves({LEAF: second} if second is not None else {})


def test_a_leaf_that_differs_is_looked_at_again_after_a_while() -> None:
    story = Story()
    story.asks_blocks()
    looked_at = story.one.env.now
    story.blocks([1]).asks_leaves()
    story.leaves({LEAF: 1})
    story.narrowing.step(PLENTY)
    assert story.narrowing.pause_until == looked_at + SECOND_LOOK
    assert not story.narrowing.waiting


def test_a_write_that_was_under_way_is_not_narrowed() -> None:
    story = Story()
    second_look(story, 1, None)
    assert story.question() is None
    assert story.narrowing.settled([0]) == [0]
    assert story.peer.restless == {}
    assert story.one.env.counters.exchange_leaves == 0


def test_a_write_on_both_sides_between_two_looks_changes_nothing() -> None:
    """What differs is the same as before, so it is no write under way."""
    story = Story()
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    story.leaves({LEAF: 5})
    story.hold(key_in(LEAF))
    story.asks_leaves()
    story.leaves({LEAF: 5 ^ story.trees.leaves[LEAF]})
    assert story.asks_keys().leaves == [LEAF]


def test_a_write_while_a_question_is_under_way_is_no_difference() -> None:
    """The answer is to what the question has said of a leaf, not to what it is by then."""
    story = Story()
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    story.hold(key_in(LEAF))
    story.leaves({LEAF: 5}).asks_leaves()
    story.leaves({LEAF: 5 ^ story.trees.leaves[LEAF]})
    assert story.asks_keys().leaves == [LEAF]


def test_a_restless_leaf_is_left_for_the_next_round_and_its_partition_is_uncertain() -> None:
    story = Story()
    second_look(story, 1, 2)
    assert story.question() is None
    assert story.peer.restless == {LEAF: 1}
    assert story.narrowing.settled([0, 1]) == [1]
    assert not story.narrowing.broken


def test_a_leaf_that_was_restless_in_many_rounds_is_narrowed_all_the_same() -> None:
    one = OneNode().connect()
    peer = Peer(2, SHIFT)
    for rounds in range(RESTLESS_MAX):
        story = Story(peer=peer, one=one)
        second_look(story, 1, 2)
        assert story.question() is None
        assert peer.restless == {LEAF: rounds + 1}
    story = Story(peer=peer, one=one)
    second_look(story, 1, 2)
    assert story.asks_keys().leaves == [LEAF]
    assert peer.restless == {}


@pytest.mark.parametrize("second", [None, 1], ids=["equal", "the same"])
def test_a_leaf_that_has_come_to_rest_is_restless_no_more(second: int | None) -> None:
    one = OneNode().connect()
    peer = Peer(2, SHIFT)
    story = Story(peer=peer, one=one)
    second_look(story, 1, 2)
    story.question()
    story = Story(peer=peer, one=one)
    second_look(story, 1, second)
    story.question()
    assert peer.restless == {}


def test_a_restless_leaf_that_is_equal_in_the_end_is_not_narrowed() -> None:
    peer = Peer(2, SHIFT)
    peer.restless[LEAF] = RESTLESS_MAX
    story = Story(peer=peer)
    second_look(story, 1, None)
    assert story.question() is None
    assert peer.restless == {}


def test_a_thorough_one_narrows_at_the_first_look() -> None:
    story = Story(thorough=True).hold(key_in(LEAF))
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    assert story.leaves({LEAF: 1}).asks_keys().keys == [key_in(LEAF)]
