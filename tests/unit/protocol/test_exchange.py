"""Rounds of exchange: one small message where all is equal, and what follows where it is not."""

import pytest

from kvorum.config import NodeConfig
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.merkle import spans_of
from kvorum.model.record import first_record
from kvorum.protocol.background import RECORD_TAKEN
from kvorum.protocol.exchange import CHECK, SOON, STEP_PATIENCE, Talk
from kvorum.protocol.generations import NOT_READY
from kvorum.protocol.narrowing import BLOCKS_MAX, KEYS_MAX, SECOND_LOOK
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    ExchangeDigest,
    ExchangeMessage,
    LeavesAnswer,
    LeavesQuery,
)
from kvorum.wire.messages import NOT_COMPARED, UNEQUAL
from tests.support.recording import OneNode
from tests.support.records import dot, value

SECOND = 1_000_000
INTERVAL = 5 * SECOND
MOMENT = 20_000
BOOK = first_record(value(dot(8, 1), b"book"))


class Story:
    """Member 1 talks with member 2, which the test plays; a third is away."""

    def __init__(self, count: int = 3, n: int = 3, config: NodeConfig | None = None) -> None:
        self.one = OneNode(count=count, n=n, config=config)
        self.ring = self.one.ring

    def begin(self) -> "Story":
        """The connection stands, and the first round has begun."""
        self.one.connect(2)
        self.one.advance(2 * SOON)
        assert len(self.sent()) == 1
        return self

    @property
    def talk(self) -> Talk:
        return self.one.node.exchange.talks[2]

    @property
    def digest(self) -> int:
        return self.one.node.holdings.trees.digest(self.talk.spans)

    def hold(self, name: bytes = b"alice", record: bytes = BOOK) -> bytes:
        key = self.one.key(name)
        held = pack_holding(NO_OWN, name, record)
        self.one.node.holdings.write(key, self.one.store.get(key), held)
        return key

    def sent(self, member: int = 2) -> list[ExchangeMessage]:
        """What has been said since the last look."""
        sent = [m for to, m in self.one.env.sent if to == member]
        self.one.env.sent.clear()
        return [message for message in sent if isinstance(message, ExchangeMessage)]

    def says(self, message: ExchangeMessage, member: int = 2) -> list[ExchangeMessage]:
        """The member says this; what it is told at once."""
        self.one.env.sent.clear()
        assert self.one.node.on_control(member, message) is None  # type: ignore[arg-type]
        self.one.advance(MOMENT)
        return self.sent(member)

    def equal(self, asks: bool = False) -> list[ExchangeMessage]:
        return self.says(ExchangeDigest(1, self.digest, True, asks))

    def other(self, asks: bool = False) -> list[ExchangeMessage]:
        return self.says(ExchangeDigest(1, self.digest ^ 1, True, asks))

    def quiet_for(self) -> int:
        """How long it takes until something is said again."""
        began = self.one.env.now
        while not any(isinstance(m, ExchangeMessage) for _, m in self.one.env.sent):
            self.one.advance(MOMENT)
            assert self.one.env.now - began < 60 * SECOND
        return self.one.env.now - began


def about(time: int, wanted: int) -> bool:
    """Rounds are spread by an eighth either way."""
    return wanted - wanted // 8 <= time <= wanted + wanted // 8 + MOMENT


# Rounds.


def test_a_round_begins_soon_after_a_connection_is_made() -> None:
    story = Story()
    story.one.advance(10 * SECOND)
    assert story.sent() == []
    story.one.connect(2)
    assert about(story.quiet_for(), SOON)
    assert story.sent() == [ExchangeDigest(1, story.digest)]
    assert story.one.env.counters.exchange_rounds == 1


def test_a_digest_is_of_all_partitions_that_both_own_and_of_no_others() -> None:
    story = Story(count=4, n=2)
    shared = [p for p in range(8) if story.ring.is_owner(1, p) and story.ring.is_owner(2, p)]
    alone = next(p for p in range(8) if story.ring.is_owner(1, p) and p not in shared)
    assert shared
    assert story.talk.partitions == shared
    assert story.talk.spans == spans_of(shared, story.ring.shift)
    before = story.begin().digest
    names = [b"k%d" % number for number in range(200)]
    by_partition = {story.ring.partition_of_engine_key(story.one.key(name)): name for name in names}
    story.hold(by_partition[alone])
    assert story.equal(asks=True) == [ExchangeDigest(1, before)]
    story.hold(by_partition[shared[0]])
    (answer,) = story.equal(asks=True)
    assert isinstance(answer, ExchangeDigest)
    assert answer.digest != before


def test_whoever_shares_nothing_is_not_talked_to() -> None:
    one = OneNode(count=4, n=1).connect()
    one.advance(2 * INTERVAL)
    assert one.node.exchange.talks == {}
    assert not [m for _, m in one.env.sent if isinstance(m, ExchangeMessage)]
    one.node.on_control(2, ExchangeDigest(1, 5, True, True))
    one.disconnect(2)
    assert not [m for _, m in one.env.sent if isinstance(m, ExchangeMessage)]


def test_between_equal_nodes_nothing_more_is_said_until_the_next_round() -> None:
    story = Story().begin()
    story.hold()
    assert story.equal() == []
    assert story.one.env.counters.exchange_equal == 1
    assert story.one.node.exchange.narrowing == 0
    assert about(story.quiet_for() + MOMENT, INTERVAL)
    assert story.sent() == [ExchangeDigest(1, story.digest)]


def test_a_peer_that_says_nothing_is_told_again_after_two_intervals() -> None:
    story = Story().begin()
    assert about(story.quiet_for(), 2 * INTERVAL)


def test_what_happens_later_than_the_next_round_does_not_put_it_off() -> None:
    story = Story().begin()
    story.talk.sooner(story.one.env.now + 60 * SECOND)
    assert about(story.quiet_for(), 2 * INTERVAL)


def test_rounds_are_spread_so_that_they_do_not_fall_together() -> None:
    story = Story().begin()
    times = []
    for _ in range(6):
        story.equal()
        times.append(story.quiet_for())
    assert len({*times}) > 3
    assert all(about(time + MOMENT, INTERVAL) for time in times)


def test_how_long_a_pair_has_been_equal_is_known_and_ends_with_a_difference() -> None:
    story = Story().begin()
    assert story.talk.equal_for == NOT_COMPARED
    story.equal()
    story.one.advance(SECOND)
    story.equal()
    assert story.talk.equal_for == SECOND + 2 * MOMENT
    story.other()
    assert story.talk.equal_for == UNEQUAL
    story.one.disconnect(2)
    story.begin().equal()
    assert story.talk.equal_for >= 0
    story.one.disconnect(2)
    assert story.talk.equal_for == NOT_COMPARED


def test_whoever_is_asked_for_its_digest_says_it_and_leaves_the_rest_to_the_asker() -> None:
    story = Story().begin()
    story.hold()
    assert story.other(asks=True) == [ExchangeDigest(1, story.digest)]
    assert story.one.node.exchange.narrowing == 0
    assert story.one.env.counters.exchange_narrowed == 0


def test_a_digest_under_another_topology_is_not_compared() -> None:
    story = Story().begin()
    assert story.says(ExchangeDigest(2, story.digest ^ 1, True, True)) == []
    assert story.one.node.exchange.narrowing == 0


def test_while_leaves_are_counted_there_is_no_digest() -> None:
    story = Story().begin()
    story.one.node.holdings.trees.spoil(5)
    assert story.equal(asks=True) == [ExchangeDigest(1, 0, False)]
    assert story.one.env.counters.exchange_equal == 0


def test_a_stale_leaf_that_the_pair_does_not_share_is_nothing_to_it() -> None:
    story = Story(count=4, n=2).begin()
    foreign = next(p for p in range(8) if p not in story.talk.partitions)
    story.one.node.holdings.trees.spoil(foreign << story.ring.shift)
    (answer,) = story.equal(asks=True)
    assert answer == ExchangeDigest(1, story.digest)


def test_before_a_new_store_has_adopted_there_is_no_digest() -> None:
    one = OneNode(adopts=False)
    one.connect(2)
    assert one.node.generations.owned[0] == NOT_READY
    one.node.on_control(2, ExchangeDigest(1, 5, True, True))
    said = [m for to, m in one.env.sent if to == 2 and isinstance(m, ExchangeDigest)]
    assert said == [ExchangeDigest(1, 0, False)]


def test_what_a_peer_cannot_say_is_neither_equal_nor_other() -> None:
    story = Story().begin()
    story.equal()
    story.says(ExchangeDigest(1, 0, False, True))
    story.says(ExchangeDigest(1, story.digest, False, True))
    assert story.talk.equal_for > 0
    assert story.one.env.counters.exchange_narrowed == 0
    assert story.one.env.counters.exchange_equal == 1


def test_a_node_that_has_to_catch_up_asks_for_the_others_digests() -> None:
    story = Story()
    story.one.node.catch_up.owe_all()
    story.one.connect(2)
    story.one.advance(2 * SOON)
    assert story.sent() == [ExchangeDigest(1, story.digest, True, True)]
    story.equal()
    assert story.one.node.catch_up.count == 8, "member 3 has yet to be met"
    assert not story.one.node.catch_up.waits_for(2)
    story.one.connect(3)
    story.one.advance(2 * SOON)
    assert story.sent(3) == [ExchangeDigest(1, story.digest, True, True)]
    story.says(ExchangeDigest(1, story.digest), member=3)
    assert story.one.node.catch_up.count == 0
    assert "caught_up" in story.one.env.events


def test_while_it_counts_its_own_leaves_it_looks_again_soon() -> None:
    story = Story()
    story.one.node.catch_up.owe_all()
    story.one.node.holdings.trees.spoil(5)
    story.one.connect(2)
    story.one.node.exchange.on_due(story.talk)
    assert story.sent() == [ExchangeDigest(1, 0, False, True)]
    assert story.quiet_for() <= CHECK + CHECK // 8 + MOMENT


# Narrowing.


def test_where_it_is_not_equal_whoever_has_heard_it_narrows() -> None:
    story = Story().begin()
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)
    assert question.blocks == [*range(BLOCKS_MAX)]
    assert story.one.node.exchange.narrowing == 1
    assert story.one.env.counters.exchange_narrowed == 1
    assert story.other() == [], "one at a time"
    assert story.one.env.counters.exchange_narrowed == 1


def end_of(story: Story) -> None:
    """The peer finds all blocks equal."""
    question = story.other()
    while question:
        (asked,) = question
        assert isinstance(asked, BlocksQuery)
        question = story.says(BlocksAnswer(asked.number, [], []))
    assert story.one.node.exchange.narrowing == 0


def test_after_a_narrowing_that_has_found_nothing_the_next_round_has_time() -> None:
    story = Story().begin()
    end_of(story)
    assert about(story.quiet_for() + MOMENT, INTERVAL)


def test_answers_to_a_narrowing_that_was_given_up_are_passed_over() -> None:
    story = Story().begin()
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)
    assert story.says(BlocksAnswer(question.number + 1, [], [])) == []
    assert story.says(BlocksAnswer(question.number - 1, [], [])) == []
    (following,) = story.says(BlocksAnswer(question.number, [], []))
    assert isinstance(following, BlocksQuery)
    assert following.blocks == [*range(BLOCKS_MAX, 2 * BLOCKS_MAX)]
    story.one.disconnect(2)
    assert story.says(BlocksAnswer(question.number, [], [])) == []


def test_a_narrowing_that_is_given_up_before_its_turn_asks_nothing() -> None:
    story = Story().begin()
    story.one.node.on_control(2, ExchangeDigest(1, story.digest ^ 1))
    assert story.one.node.exchange.narrowing == 1
    story.one.disconnect(2)
    story.one.advance(MOMENT)
    assert story.sent() == []


def test_a_narrowing_that_is_given_up_while_it_waits_looks_no_second_time() -> None:
    story = Story().begin()
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)
    (question,) = story.says(BlocksAnswer(question.number, [0], []))
    assert isinstance(question, LeavesQuery)
    story.says(LeavesAnswer(question.number, [5], bytes(7) + b"\1", []))
    story.one.disconnect(2)
    story.one.advance(2 * SECOND_LOOK)
    assert story.sent() == []
    assert story.one.node.exchange.narrowing == 0


def test_before_the_second_look_nothing_is_said() -> None:
    story = Story().begin()
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)
    (question,) = story.says(BlocksAnswer(question.number, [0], []))
    assert isinstance(question, LeavesQuery)
    looked_at = story.one.env.now
    assert story.says(LeavesAnswer(question.number, [5], bytes(7) + b"\1", [])) == []
    assert story.quiet_for() >= SECOND_LOOK - 3 * MOMENT
    assert story.one.env.now - looked_at <= SECOND_LOOK + 2 * MOMENT
    (again,) = story.sent()
    assert isinstance(again, LeavesQuery)
    assert again.leaves == [5]


def test_no_two_narrowings_have_the_same_number() -> None:
    story = Story().begin()
    (first,) = story.other()
    story.one.disconnect(2)
    story.begin()
    (second,) = story.other()
    assert isinstance(first, BlocksQuery)
    assert isinstance(second, BlocksQuery)
    assert second.number != first.number


@pytest.mark.parametrize("interval", [INTERVAL, 600 * SECOND], ids=["usual", "long"])
def test_an_answer_that_never_comes_is_waited_for_only_so_long(interval: int) -> None:
    story = Story(config=NodeConfig(exchange_interval_ms=interval // 1000)).begin()
    began = story.one.env.now
    assert story.other()
    story.one.advance(began + STEP_PATIENCE - SECOND // 10 - story.one.env.now)
    assert story.one.node.exchange.narrowing == 1
    assert story.sent() == []
    story.one.advance(SECOND)
    assert story.one.node.exchange.narrowing == 0
    assert story.sent() == [ExchangeDigest(1, story.digest)], "the next round"
    assert story.talk.failures == 1
    story.equal()
    assert story.talk.failures == 0
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)


def test_patience_begins_anew_with_each_answer() -> None:
    story = Story().begin()
    (question,) = story.other()
    for _ in range(4):
        story.one.advance(STEP_PATIENCE - SECOND)
        assert isinstance(question, BlocksQuery)
        (question,) = story.says(BlocksAnswer(question.number, [], []))
    assert story.one.node.exchange.narrowing == 1


def test_a_connection_that_ends_loses_only_the_question_under_way() -> None:
    story = Story().begin()
    story.other()
    story.one.disconnect(2)
    assert story.one.node.exchange.narrowing == 0
    story.one.connect(2)
    assert story.talk.failures == 0
    story.sent()
    assert story.quiet_for() <= SOON + SOON // 8 + MOMENT
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)


def test_a_peer_that_cannot_be_asked_is_tried_less_and_less_often() -> None:
    story = Story().begin()
    waits = []
    for failures in range(1, 9):
        story.one.env.unreachable[2] = None
        story.other()
        assert story.talk.failures == failures
        assert story.one.node.exchange.narrowing == 0
        del story.one.env.unreachable[2]
        waits.append(story.quiet_for())
    assert waits[0] < 4 * SOON
    assert waits[4] > waits[2] > waits[0]
    assert waits[-1] <= INTERVAL + INTERVAL // 8 + MOMENT
    end_of(story)
    assert story.talk.failures == 0


def test_while_the_other_side_narrows_it_is_left_to_it() -> None:
    story = Story().begin()
    story.says(BlocksQuery(9, [], b""))
    assert story.other() == []
    assert story.one.env.counters.exchange_narrowed == 0
    assert story.quiet_for() <= INTERVAL + INTERVAL // 8 + MOMENT, "and looked at again"


def test_a_node_that_has_to_catch_up_narrows_all_the_same() -> None:
    story = Story().begin()
    story.one.node.catch_up.owe_all()
    story.says(BlocksQuery(9, [], b""))
    (question,) = story.other()
    assert isinstance(question, BlocksQuery)


def test_what_was_compared_in_a_narrowing_has_caught_up_and_nothing_else() -> None:
    story = Story()
    for member in (2, 3):
        story.one.node.catch_up.settle(member, [*range(8)])
    story.one.node.catch_up.forget(0)
    story.one.node.catch_up.forget(1)
    story.one.node.catch_up.settle(3, [0, 1])
    story.begin()
    question = story.other()
    while question:
        (asked,) = question
        assert isinstance(asked, BlocksQuery)
        unknown = [0] if 0 in asked.blocks else []
        question = story.says(BlocksAnswer(asked.number, [], unknown))
    assert story.one.node.catch_up.owes(0), "the peer could not say"
    assert not story.one.node.catch_up.owes(1)
    assert story.quiet_for() <= CHECK + CHECK // 8 + MOMENT, "and it looks again soon"


def test_a_timer_that_finds_no_next_round_sets_no_other() -> None:
    """Else it would ring at once, and again, for ever."""
    one = OneNode().connect()
    talk = one.node.exchange.talks[2]
    talk._due = talk._wakes_at = -1
    before = len(one.node.timers._heap)
    talk.on_timer()
    assert len(one.node.timers._heap) == before


@pytest.mark.parametrize("records", [1 << 60, -(1 << 60)])
def test_what_a_peer_says_of_its_records_neither_stops_nor_hastens_other_work(records: int) -> None:
    one = OneNode().connect()
    background = one.node.background
    before = background._tokens
    one.node.exchange._expect(records)
    assert before - 2 * KEYS_MAX * RECORD_TAKEN <= background._tokens <= before
