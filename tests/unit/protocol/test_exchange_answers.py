"""The answering side of exchange: bounded answers, and whatever it is asked does it no harm."""

import pytest

from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.merkle import LEAVES, Trees, entry_hash, leaf_of, leaf_start
from kvorum.model.record import first_record
from kvorum.protocol.exchange import BLOCK_SHIFT, Exchange
from kvorum.protocol.exchange_answers import SERVED_LATELY
from kvorum.protocol.generations import make_generation
from kvorum.protocol.narrowing import BLOCKS_MAX, KEYS_MAX, LEAVES_MAX, Reading, packed
from kvorum.storage.commit import drain
from kvorum.storage.engine import EngineFailed
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    ExchangeMessage,
    LeavesAnswer,
    LeavesQuery,
)
from kvorum.wire.link import NOT_TAKEN, OK, OP_PUT
from kvorum.wire.reaping_messages import GenerationState
from tests.support.recording import OneNode
from tests.support.records import dot, value

BOOK = first_record(value(dot(8, 1), b"book"))
PEN = first_record(value(dot(9, 1), b"pen"))
LAST = leaf_start(LEAVES)
MOMENT = 20_000


class Story:
    """Member 1 holds some records, and members 2 and 3 ask it about them."""

    def __init__(self, records: int = 3, count: int = 3, n: int = 3) -> None:
        self.one = OneNode(count=count, n=n).connect()
        self.one.advance(MOMENT)
        self.keys: list[bytes] = []
        for number in range(records):
            self.hold(b"k%d" % number)

    def hold(self, name: bytes, record: bytes = BOOK) -> bytes:
        key = self.one.key(name)
        self.one.node.holdings.write(key, None, pack_holding(NO_OWN, name, record))
        self.keys.append(key)
        self.keys.sort()
        return key

    @property
    def trees(self) -> Trees:
        return self.one.node.holdings.trees

    @property
    def exchange(self) -> Exchange:
        return self.one.node.exchange

    def ask(self, *questions: ExchangeMessage, member: int = 2) -> None:
        for question in questions:
            self.one.env.sent.clear()
            assert self.one.node.on_control(member, question) is None  # type: ignore[arg-type]

    def answers(self, member: int = 2) -> list[ExchangeMessage]:
        """Given in the background, soon."""
        self.one.advance(MOMENT)
        kinds = (BlocksAnswer, LeavesAnswer, EntriesAnswer)
        return [m for to, m in self.one.env.sent if to == member and isinstance(m, kinds)]

    def blocks(self, blocks: list[int], hashes: list[int]) -> tuple[list[int], list[int]]:
        self.ask(BlocksQuery(7, blocks, packed(hashes)))
        (answer,) = self.answers()
        assert isinstance(answer, BlocksAnswer)
        assert answer.number == 7
        return answer.differing, answer.unknown

    def leaves(self, leaves: list[int], values: list[int]) -> LeavesAnswer:
        self.ask(LeavesQuery(7, leaves, packed(values)))
        (answer,) = self.answers()
        assert isinstance(answer, LeavesAnswer)
        assert answer.number == 7
        return answer

    def query(
        self, shown: dict[bytes, int] | None = None, number: int = 7, start: bytes = b"",
        end: bytes = LAST, leaves: list[int] | None = None,
    ) -> EntriesQuery:  # fmt: skip
        """About the leaves of all that is held here, or about these."""
        shown = shown or {}
        if leaves is None:
            leaves = sorted({leaf_of(key) for key in self.keys})
        return EntriesQuery(number, leaves, start, end, [*shown], packed([*shown.values()]))

    def hash(self, key: bytes) -> int:
        return entry_hash(key, self.one.store.get(key) or b"")

    def sent(self, member: int = 2) -> list[bytes]:
        return [entry.key for entry in self.one.asked(member) if entry.op == OP_PUT]

    def close(self, partition: int) -> None:
        """The copy of this partition is set aside: nothing of it may be told."""
        fifth, sixth = make_generation(5, 2), make_generation(6, 2)
        self.one.node.on_control(2, GenerationState(partition, sixth, fifth))
        assert self.one.node.generations.owned[partition] < 0


def the(answers: list[ExchangeMessage]) -> EntriesAnswer:
    (answer,) = answers
    assert isinstance(answer, EntriesAnswer)
    return answer


# Blocks.


def test_only_blocks_that_differ_are_named() -> None:
    story = Story()
    mine = leaf_of(story.keys[0]) >> BLOCK_SHIFT
    other = next(b for b in range(100) if all(leaf_of(k) >> BLOCK_SHIFT != b for k in story.keys))
    size = 1 << BLOCK_SHIFT
    same = story.trees.hash_of(mine << BLOCK_SHIFT, (mine << BLOCK_SHIFT) + size)
    nothing = story.trees.hash_of(other << BLOCK_SHIFT, (other << BLOCK_SHIFT) + size)
    assert story.blocks([mine, other], [same, nothing]) == ([], [])
    assert story.blocks([mine, other], [nothing, nothing]) == ([mine], [])
    assert story.blocks([mine, other], [same ^ 1, nothing ^ 1]) == ([mine, other], [])


def test_a_block_with_a_leaf_that_is_being_counted_is_unknown() -> None:
    story = Story()
    story.ask(BlocksQuery(7, [0, 1], packed([1, 1])))
    story.trees.spoil(63)
    (answer,) = story.answers()
    assert answer == BlocksAnswer(7, [1], [0])


def test_a_block_of_a_partition_that_may_not_be_told_is_unknown() -> None:
    story = Story()
    story.close(0)
    story.ask(BlocksQuery(7, [0, 1023], packed([1, 1])))
    assert story.answers() == [BlocksAnswer(7, [1023], [0])]


def test_nothing_is_said_of_blocks_that_are_owned_by_others() -> None:
    story = Story(count=4, n=2)
    foreign = next(p for p in range(8) if not story.one.ring.is_owner(1, p))
    block = foreign << story.one.ring.shift >> BLOCK_SHIFT
    assert story.blocks([block], [1]) == ([], [block])
    leaf = foreign << story.one.ring.shift
    assert story.leaves([leaf], [1]) == LeavesAnswer(7, [], b"", [leaf])


@pytest.mark.parametrize("block", [-1, 1024, 1 << 62, -(1 << 62)])
def test_blocks_that_do_not_exist_are_passed_over(block: int) -> None:
    assert Story().blocks([block, 5], [1, 1]) == ([5], [])


def test_a_question_about_blocks_is_answered_as_far_as_it_may_go() -> None:
    many = list(range(2 * BLOCKS_MAX))
    assert Story().blocks(many, [1] * len(many)) == (many[:BLOCKS_MAX], [])
    assert Story().blocks([1, 2, 3], [1]) == ([1], []), "the hashes of the others are missing"
    assert Story().blocks([], [1, 2]) == ([], [])


# Leaves.


def test_only_leaves_that_differ_are_named_with_what_they_are_here() -> None:
    story = Story()
    leaf = leaf_of(story.keys[0])
    value = story.trees.leaves[leaf]
    assert value
    assert story.leaves([leaf, 0], [value, 0]) == LeavesAnswer(7, [], b"", [])
    assert story.leaves([leaf, 0], [0, 0]) == LeavesAnswer(7, [leaf], packed([value]), [])
    assert story.leaves([leaf, 0], [5, 6]) == LeavesAnswer(7, [leaf, 0], packed([value, 0]), [])


def test_a_leaf_that_is_being_counted_is_unknown() -> None:
    story = Story()
    story.ask(LeavesQuery(7, [0, 1], packed([1, 1])))
    story.trees.spoil(0)
    assert story.answers() == [LeavesAnswer(7, [1], packed([0]), [0])]


@pytest.mark.parametrize("leaf", [-1, LEAVES, 1 << 62])
def test_leaves_that_do_not_exist_are_passed_over(leaf: int) -> None:
    assert Story().leaves([leaf, 5], [1, 1]) == LeavesAnswer(7, [5], packed([0]), [])


def test_a_question_about_leaves_is_answered_as_far_as_it_may_go() -> None:
    many = list(range(2 * LEAVES_MAX))
    answer = Story(records=0).leaves(many, [1] * len(many))
    assert answer.differing == many[:LEAVES_MAX]
    assert answer.values == bytes(8 * LEAVES_MAX)
    assert Story().leaves([1, 2], [1]).differing == [1]


# Keys.


def test_the_asker_is_sent_what_it_lacks_and_answered_when_it_has_taken_it() -> None:
    story = Story()
    first, *others = story.keys
    story.ask(story.query({key: story.hash(key) for key in others}))
    assert story.answers() == []
    assert story.sent() == [first]
    (entry,) = story.one.asked(2)
    assert record_of(entry.body) == BOOK
    story.one.answers(2, OK)
    assert the(story.answers()) == EntriesAnswer(7, LAST, [], 1, 0)
    assert story.one.env.counters.exchange_sent == 1
    assert story.one.env.counters.exchange_bytes == len(first) + len(entry.body)


def test_what_both_hold_alike_is_not_sent() -> None:
    story = Story()
    story.ask(story.query({key: story.hash(key) for key in story.keys}))
    assert the(story.answers()) == EntriesAnswer(7, LAST, [], 0, 0)
    assert story.sent() == []


def test_what_differs_is_sent_and_wanted() -> None:
    story = Story()
    shown = {key: story.hash(key) for key in story.keys}
    shown[story.keys[1]] ^= 1
    story.ask(story.query(shown))
    assert story.answers() == []
    assert story.sent() == [story.keys[1]]
    story.one.accepts(2)
    assert the(story.answers()) == EntriesAnswer(7, LAST, [story.keys[1]], 1, 0)


def test_what_is_lacked_here_is_wanted() -> None:
    story = Story()
    gone = story.keys[1]
    shown = {key: story.hash(key) for key in story.keys}
    story.one.node.holdings.forget(gone, story.one.store.get(gone))
    story.ask(story.query(shown))
    assert the(story.answers()) == EntriesAnswer(7, LAST, [gone], 0, 0)


def test_what_is_damaged_here_is_wanted_and_not_sent() -> None:
    story = Story()
    shown = {key: story.hash(key) for key in story.keys}
    assert drain(story.one.store.buffer)
    story.one.engine.records[story.keys[1]] = b"garbage that is long enough"
    story.ask(story.query(shown))
    assert the(story.answers()) == EntriesAnswer(7, LAST, [story.keys[1]], 0, 0)


def test_what_is_not_taken_is_told() -> None:
    story = Story()
    story.ask(story.query())
    assert story.answers() == []
    story.one.answers(2, OK, NOT_TAKEN, OK)
    assert the(story.answers()) == EntriesAnswer(7, LAST, [], 2, 1)


def test_what_may_not_be_told_is_not_sent_and_counts_as_undelivered() -> None:
    """Of a partition whose copy is being set aside."""
    story = Story(records=1)
    story.ask(story.query())
    story.close(story.one.ring.partition_of_engine_key(story.keys[0]))
    assert the(story.answers()) == EntriesAnswer(7, LAST, [], 0, 1)
    assert story.sent() == []


def test_a_piece_ends_where_there_is_too_much_and_nothing_beyond_is_wanted() -> None:
    story = Story(records=0)
    story.keys = [leaf_start(9) + b"%036d" % number for number in range(KEYS_MAX + 10)]
    held = pack_holding(NO_OWN, b"alice", BOOK)
    for key in story.keys:
        story.one.node.holdings.write(key, None, held)
    shown = {key: story.hash(key) for key in story.keys}
    lacked = {leaf_start(9) + b"%036da" % number: 1 for number in (5, KEYS_MAX - 20, KEYS_MAX + 5)}
    more = dict(sorted({**shown, **lacked}.items())[: KEYS_MAX - 5])
    story.ask(story.query({**more, story.keys[-1] + b"!": 1}))
    story.answers()
    story.one.accepts(2)
    answer = the(story.answers())
    end = story.keys[KEYS_MAX - 1] + b"\0"
    assert answer.end == end
    assert answer.wanted == [key for key in lacked if key in more]
    assert answer.sent == KEYS_MAX - len([key for key in more if key in shown])
    story.ask(story.query(start=end))
    story.answers()
    assert story.sent() == story.keys[KEYS_MAX:]


def test_no_more_keys_and_leaves_are_looked_at_than_a_question_may_have() -> None:
    story = Story(records=0)
    key = story.hold(b"last")
    many = [leaf for leaf in range(LEAVES) if leaf != leaf_of(key)][:KEYS_MAX]
    story.ask(story.query(leaves=[*many, leaf_of(key)]))
    assert the(story.answers()).sent == 0
    assert story.sent() == []
    shown = {leaf_start(9) + b"%036d" % number: 1 for number in range(KEYS_MAX + 10)}
    story.ask(story.query(shown, leaves=[9]))
    assert the(story.answers()).wanted == [*shown][:KEYS_MAX]


def test_only_records_that_were_asked_about_are_wanted() -> None:
    story = Story(records=0)
    inside = leaf_start(9) + b"x" * 36
    shown = dict.fromkeys(
        [
            b"", b"\1", b"\1\0", b"\1\0\x09", leaf_start(9) + b"short",
            leaf_start(8) + b"x" * 36, leaf_start(10) + b"x" * 36,
            SPACE_HINTS + inside[1:], b"\0" + inside[1:], inside, inside + b"beyond",
        ],
        1,
    )  # fmt: skip
    story.ask(story.query(shown, leaves=[9], end=inside + b"\0"))
    assert the(story.answers()).wanted == [inside]


@pytest.mark.parametrize(
    ("start", "end", "leaves"),
    [
        (b"", b"", [5]),
        (LAST, LAST, [5]),
        (b"\xff" * 9, b"\xff" * 10, [5]),
        (b"", LAST, []),
        (b"", LAST, [-1, LEAVES, 1 << 62]),
    ],
)
def test_a_question_about_nothing_is_answered_with_nothing(
    start: bytes, end: bytes, leaves: list[int]
) -> None:
    story = Story()
    story.ask(story.query(start=start, end=end, leaves=leaves))
    assert the(story.answers()) == EntriesAnswer(7, end, [], 0, 0)
    assert story.sent() == []


def test_records_of_a_dropped_table_are_neither_sent_nor_wanted() -> None:
    story = Story(records=1)
    (key,) = story.keys
    other = key[:17] + b"another!" + key[25:]
    story.one.node.tables.registry.dropped_ids[key[17:25]] = None
    story.ask(story.query({other: 1}))
    assert the(story.answers()).wanted == [other]
    story.ask(story.query({key + b"x": 1}))
    answer = the(story.answers())
    assert (answer.wanted, answer.sent) == ([], 0)
    assert story.sent() == []


# Whose turn it is.


def test_a_new_question_takes_the_place_of_one_that_was_not_answered_yet() -> None:
    story = Story()
    story.ask(LeavesQuery(7, [], b""), LeavesQuery(8, [], b""))
    assert story.answers() == [LeavesAnswer(8, [], b"", [])]


def test_a_new_question_takes_the_place_of_one_whose_records_are_under_way() -> None:
    story = Story()
    story.ask(story.query(number=7))
    assert story.answers() == []
    shown = {key: story.hash(key) for key in story.keys}
    story.ask(story.query(shown, number=8))
    assert the(story.answers()).number == 8
    story.one.env.sent.clear()
    story.one.accepts(2)
    assert story.answers() == [], "nobody waits for it any more"


@pytest.mark.parametrize("again", [False, True], ids=["about leaves", "about keys"])
def test_a_new_question_ends_the_sending_for_the_last_one(again: bool) -> None:
    """Found by a reader: only one about keys did, and only when its turn came."""
    story = Story(records=60)
    story.ask(story.query(number=7))
    while not story.sent():
        story.one.advance(100)
    before = len(story.sent())
    assert before < 20, "not all at once"
    shown = {key: story.hash(key) for key in story.keys}
    story.ask(story.query(shown, number=8) if again else LeavesQuery(8, [], b""))
    (answer,) = story.answers()
    assert isinstance(answer, EntriesAnswer if again else LeavesAnswer)
    assert answer.number == 8
    while story.sent():
        story.one.accepts(2)
    assert story.answers() == [answer], "nobody waits for the first one any more"
    assert story.sent() == []


def test_an_engine_that_fails_amid_the_sending_costs_the_asker_its_answer() -> None:
    story = Story(records=60)
    story.ask(story.query(number=7))
    while not story.sent():
        story.one.advance(100)
    before = len(story.sent())

    def fails(self: Reading, key: bytes) -> bytes | None:
        raise EngineFailed("a bad disk")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "get", fails)
        assert story.answers() == []
    assert len(story.sent()) == before
    while story.sent():
        story.one.accepts(2)
    assert story.answers() == []
    story.ask(story.query(number=8))
    assert story.answers() == []
    assert story.sent() == story.keys[: len(story.sent())] != []
    story.one.accepts(2)
    assert the(story.answers()).number == 8, "the next question is answered as any other"


def test_what_is_left_to_send_is_not_sent_over_a_new_connection() -> None:
    story = Story(records=60)
    story.ask(story.query())
    while not story.sent():
        story.one.advance(100)
    assert len(story.sent()) < 20, "not all at once"
    story.one.disconnect(2)
    story.one.connect(2)
    assert story.answers() == []
    assert story.sent() == []


def test_each_peer_is_answered_the_oldest_question_first() -> None:
    story = Story()
    story.one.node.on_control(3, LeavesQuery(1, [], b""))
    story.one.node.on_control(2, LeavesQuery(2, [], b""))
    story.one.advance(MOMENT)
    answers = [(to, m) for to, m in story.one.env.sent if isinstance(m, LeavesAnswer)]
    assert answers == [(3, LeavesAnswer(1, [], b"", [])), (2, LeavesAnswer(2, [], b"", []))]


def test_a_peer_whose_connection_has_ended_is_not_answered() -> None:
    story = Story()
    story.ask(story.query())
    story.one.disconnect(2)
    assert story.answers() == []
    story.one.connect(2)
    story.ask(story.query())
    assert story.answers() == []
    assert story.sent() == story.keys
    story.one.disconnect(2)
    assert the(story.answers()).failed == 3, "if it can be told at all"
    assert not story.exchange._answerer.serves(2)


def test_a_peer_is_taken_to_be_narrowing_for_a_while_after_its_last_question() -> None:
    story = Story()
    answerer = story.exchange._answerer
    assert not answerer.serves(2)
    story.ask(story.query())
    assert answerer.serves(2)
    assert not answerer.serves(3)
    story.one.advance(SERVED_LATELY - MOMENT)
    assert answerer.serves(2)
    story.one.accepts(2)  # The answer goes out, and the next question has yet to come.
    story.one.advance(SERVED_LATELY - MOMENT)
    assert answerer.serves(2)
    story.one.advance(MOMENT)
    assert not answerer.serves(2)


def test_an_engine_that_fails_leaves_the_question_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story()

    def scan(*_: object) -> list[tuple[bytes, bytes]]:
        raise EngineFailed("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(type(story.one.engine), "scan", scan)
        story.ask(story.query())
        before = story.one.node.background.spent
        assert story.answers() == []
        assert story.one.node.background.spent > before
    story.ask(story.query())
    story.answers()
    assert story.sent() == story.keys


def test_answers_cost_the_background_something_and_longer_ones_more() -> None:
    story = Story(records=0)

    def cost(question: ExchangeMessage) -> int:
        before = story.one.node.background.spent
        story.ask(question)
        story.answers()
        return story.one.node.background.spent - before

    for small, large in (
        (BlocksQuery(1, [1], bytes(8)), BlocksQuery(1, [*range(128)], bytes(8 * 128))),
        (LeavesQuery(1, [1], bytes(8)), LeavesQuery(1, [*range(512)], bytes(8 * 512))),
    ):
        assert 0 < cost(small) < cost(large)
    few = cost(story.query(leaves=[1]))
    for number in range(10):
        story.hold(b"k%d" % number)
    assert 0 < few < cost(story.query())


def test_an_engine_that_fails_while_records_are_sent_ends_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story()

    def fails(reading: Reading, key: bytes) -> bytes | None:
        raise EngineFailed("a bad disk")

    monkeypatch.setattr(Reading, "get", fails)
    story.ask(story.query())
    assert story.answers() == []
    monkeypatch.undo()
    assert story.answers() == []
    assert story.sent() == []
    story.ask(story.query(number=8))
    story.answers()
    assert sorted(story.sent()) == story.keys
