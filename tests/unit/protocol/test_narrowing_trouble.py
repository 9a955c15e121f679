"""A narrowing that cannot know everything, or whose peer fails or says what it should not."""

import pytest

from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.merkle import LEAVES
from kvorum.protocol.narrowing import (
    packed,
)
from kvorum.storage.engine import EngineFailed
from kvorum.wire.exchange_messages import (
    BlocksQuery,
    LeavesAnswer,
)
from tests.support.fault_points import HitsAt
from tests.support.narrowings import (
    HELD,
    LEAF,
    PARTITION,
    PLENTY,
    SHIFT,
    SIZE,
    key_in,
)
from tests.support.narrowings import NarrowingStory as Story
from tests.support.recording import OneNode

# What is not known.


def test_what_is_being_counted_here_is_not_asked_about_and_uncertain() -> None:
    story = Story([(0, SIZE), (PARTITION, PARTITION + SIZE)])
    story.trees.spoil(5)
    assert story.asks_blocks().blocks == [PARTITION >> SHIFT]
    assert story.blocks([]).question() is None
    assert story.narrowing.settled([0, 1]) == [1]


def test_neither_is_a_partition_that_others_own_or_whose_copy_is_set_aside() -> None:
    one = OneNode(count=4, n=2).connect()
    foreign = next(p for p in range(8) if not one.ring.is_owner(1, p))
    mine = next(p for p in range(8) if one.ring.is_owner(1, p))
    spans = [(p * PARTITION, p * PARTITION + SIZE) for p in sorted((foreign, mine))]
    story = Story(spans, one=one)
    assert story.asks_blocks().blocks == [mine * PARTITION >> SHIFT]
    assert story.blocks([]).question() is None
    assert story.narrowing.settled([foreign, mine]) == [mine]


def test_where_nothing_is_known_it_is_over_at_once() -> None:
    story = Story([(0, LEAVES)])
    story.trees.spoil_all()
    assert story.question() is None
    assert story.narrowing.settled([*range(8)]) == []


def test_what_is_being_counted_there_is_uncertain() -> None:
    story = Story([(0, SIZE), (PARTITION, PARTITION + SIZE)])
    story.asks_blocks()
    assert story.blocks([], unknown=[PARTITION >> SHIFT]).question() is None
    assert story.narrowing.settled([0, 1]) == [0]


def test_so_is_a_leaf_of_a_differing_block() -> None:
    story = Story()
    story.asks_blocks()
    story.blocks([1])
    story.trees.spoil(LEAF)
    assert LEAF not in story.asks_leaves().leaves
    assert story.leaves({}).question() is None
    assert story.narrowing.settled([0]) == []
    story = Story()
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    assert story.leaves({}, unknown=[LEAF]).question() is None
    assert story.narrowing.settled([0]) == []


def test_where_the_peer_could_not_deliver_it_is_uncertain() -> None:
    story = Story()
    question = story.to_keys()
    assert story.entries(question.end, failed=1).question() is None
    assert story.narrowing.settled([0, 1]) == [1]
    assert not story.narrowing.broken


# Trouble.


def test_a_question_that_cannot_be_sent_ends_it() -> None:
    story = Story()
    story.one.env.unreachable[2] = None
    assert story.narrowing.step(PLENTY) > 0
    assert story.narrowing.over
    assert story.narrowing.broken
    assert story.narrowing.settled([0]) == []
    assert story.narrowing.step(PLENTY) == 1


def test_a_question_that_is_lost_is_waited_for() -> None:
    story = Story()
    story.one.env.faults = HitsAt("exchange.question_lost")
    story.narrowing.step(PLENTY)
    assert story.narrowing.waiting
    assert not story.narrowing.over
    assert not [message for _, message in story.one.env.sent if isinstance(message, BlocksQuery)]


def test_an_engine_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    story.leaves({LEAF: 1}).asks_leaves()
    story.leaves({LEAF: 1})

    def scan(*_: object) -> list[tuple[bytes, bytes]]:
        raise EngineFailed("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(type(story.one.engine), "scan", scan)
        assert story.question() is None
    assert story.narrowing.broken
    assert story.narrowing.settled([0]) == []


def test_an_answer_to_what_was_sent_after_its_end_changes_nothing() -> None:
    story = Story().hold(key_in(LEAF))
    question = story.to_keys()
    story.entries(question.end, wanted=[key_in(LEAF)])
    story.narrowing.step(PLENTY)
    story.narrowing.over = True
    story.one.accepts(2)
    assert story.went_on == 0
    assert story.narrowing.found == 0


@pytest.mark.parametrize("block", [-1, LEAVES >> SHIFT, 1 << 62])
def test_blocks_that_do_not_exist_are_passed_over(block: int) -> None:
    story = Story()
    story.asks_blocks()
    assert story.blocks([block, 1], unknown=[block]).asks_leaves().leaves == [
        *range(SIZE, 2 * SIZE)
    ]
    assert story.narrowing.settled([0]) == [0]


def test_leaves_that_were_not_asked_about_are_passed_over() -> None:
    story = Story()
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    others = [-1, 0, LEAVES, 1 << 62]
    story.leaves(dict.fromkeys(others, 1), unknown=others)
    assert story.question() is None
    assert story.narrowing.settled([0]) == [0]


@pytest.mark.parametrize("key", [b"", b"\1", b"\0unadopted", b"\0" + key_in(LEAF)[1:]])
def test_what_is_no_record_is_never_sent_whoever_wants_it(key: bytes) -> None:
    """A key of two bytes made the node fall; one of its own made it tell what it keeps there."""
    story = Story().hold(key_in(LEAF))
    question = story.to_keys()
    story.one.store.put(SPACE_HINTS + key_in(LEAF)[1:], HELD)
    story.one.store.put(b"\0" + key_in(LEAF)[1:], HELD)
    story.entries(question.end, wanted=[key, SPACE_HINTS + key_in(LEAF)[1:], key_in(LEAF)])
    story.narrowing.step(PLENTY)
    assert story.sent() == [key_in(LEAF)]


def test_leaves_without_their_values_are_passed_over() -> None:
    story = Story(thorough=True)
    story.asks_blocks()
    story.blocks([1]).asks_leaves()
    story.narrowing.on_answer(LeavesAnswer(7, [LEAF, LEAF + 1], packed([1]) + b"\0" * 7, []))
    assert story.asks_keys().leaves == [LEAF]
