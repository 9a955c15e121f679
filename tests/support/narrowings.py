"""One narrowing of member 1 with member 2, whose part a test plays."""

from typing import Final

from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.merkle import LEAVES, Trees, leaf_start
from kvorum.model.record import first_record
from kvorum.protocol.narrowing import (
    Narrowing,
    Peer,
    Reading,
    packed,
)
from kvorum.protocol.replica import OwnCopies
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    ExchangeMessage,
    LeavesAnswer,
    LeavesQuery,
)
from kvorum.wire.link import OP_PUT
from tests.support.recording import OneNode
from tests.support.records import dot, value

SHIFT: Final = 6
SIZE = 1 << SHIFT
TWO_BLOCKS = [(0, 2 * SIZE)]
LEAF = SIZE + 6  # of the second block
EVERYTHING = [(0, LEAVES)]
PARTITION = LEAVES // 8
BOOK = first_record(value(dot(8, 1), b"book"))
HELD = pack_holding(NO_OWN, b"alice", BOOK)
STEPS_MAX = 2_000
PLENTY: Final = 1 << 20  # units that a step may cost: more than any does


def key_in(leaf: int, number: int = 0) -> bytes:
    return leaf_start(leaf) + b"%036d" % number


class NarrowingStory:
    """Member 1 narrows with member 2."""

    def __init__(
        self, spans: list[tuple[int, int]] | None = None, thorough: bool = False,
        peer: Peer | None = None, one: OneNode | None = None,
    ) -> None:  # fmt: skip
        self.one = one or OneNode().connect()
        node = self.one.node
        copies = OwnCopies(node.replica, self.one.store, node.holdings, node.generations)
        dropped = node.tables.registry.dropped_ids
        self.reading = Reading(
            self.one.env, self.one.store, self.one.ring, node.holdings, node.generations, copies,
            dropped,
        )  # fmt: skip
        self.peer = peer or Peer(2, SHIFT)
        self.went_on = 0
        self.narrowing = Narrowing(
            self.reading, self.peer, 7, TWO_BLOCKS if spans is None else spans, thorough, self.go_on
        )

    def go_on(self, narrowing: Narrowing) -> None:
        assert narrowing is self.narrowing
        self.went_on += 1

    @property
    def trees(self) -> Trees:
        return self.one.node.holdings.trees

    def hold(self, *keys: bytes) -> "NarrowingStory":
        for key in keys:
            self.one.node.holdings.write(key, self.one.store.get(key), HELD)
        return self

    def question(self) -> ExchangeMessage | None:
        """Step until it has asked something; None if it is over first."""
        narrowing = self.narrowing
        self.one.env.sent.clear()
        for _ in range(STEPS_MAX):
            if narrowing.over:
                return None
            if narrowing.pause_until > self.one.env.now:
                self.one.env.now = narrowing.pause_until
            assert narrowing.step(PLENTY) > 0
            if narrowing.waiting:
                ((member, message),) = self.one.env.sent
                assert member == 2
                assert isinstance(message, ExchangeMessage)
                return message
        raise AssertionError("it neither asks nor ends")

    def asks_blocks(self) -> BlocksQuery:
        question = self.question()
        assert isinstance(question, BlocksQuery)
        return question

    def asks_leaves(self) -> LeavesQuery:
        question = self.question()
        assert isinstance(question, LeavesQuery)
        return question

    def asks_keys(self) -> EntriesQuery:
        question = self.question()
        assert isinstance(question, EntriesQuery)
        return question

    def blocks(self, differing: list[int], unknown: list[int] | None = None) -> "NarrowingStory":
        self.narrowing.on_answer(BlocksAnswer(7, differing, unknown or []))
        return self

    def leaves(
        self, differing: dict[int, int], unknown: list[int] | None = None
    ) -> "NarrowingStory":
        answer = LeavesAnswer(7, [*differing], packed([*differing.values()]), unknown or [])
        self.narrowing.on_answer(answer)
        return self

    def entries(
        self, end: bytes, wanted: list[bytes] | None = None, sent: int = 0, failed: int = 0
    ) -> "NarrowingStory":
        self.narrowing.on_answer(EntriesAnswer(7, end, wanted or [], sent, failed))
        return self

    def to_keys(self, *leaves: int) -> EntriesQuery:
        """The peer has something else in these leaves of the second block, or in ``LEAF``."""
        differing = dict.fromkeys(leaves or (LEAF,), 1)
        self.asks_blocks()
        self.blocks([1])
        self.asks_leaves()
        self.leaves(differing)
        self.asks_leaves()
        self.leaves(differing)
        return self.asks_keys()

    def sent(self) -> list[bytes]:
        return [entry.key for entry in self.one.asked(2) if entry.op == OP_PUT]
