"""The answering side of exchange: bounded answers, within the background's budget.

A peer has one question at a time; a new one takes the place of an old one, whose asker has given
it up. What a question about keys shows to be lacking is sent in pieces, each as large as the
budget allows; the answer comes when all that was sent has been answered.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from kvorum.model.merkle import LEAVES, entry_hash, leaf_of
from kvorum.protocol.narrowing import (
    BLOCKS_MAX,
    KEYS_MAX,
    LEAVES_MAX,
    QUESTION_COST,
    Peer,
    Reading,
    is_record_key,
    packed,
    unpacked,
)
from kvorum.protocol.shipment import Shipment
from kvorum.storage.engine import EngineFailed
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    LeavesAnswer,
    LeavesQuery,
)

Question = BlocksQuery | LeavesQuery | EntriesQuery
SERVED_LATELY: Final = 2_000_000  # after a question, its asker is taken to be narrowing still


class Serving:
    """Records on their way to a peer because of one of its questions about keys."""

    __slots__ = ("_answerer", "end", "left", "number", "peer", "shipment", "wanted")

    def __init__(self, answerer: "Answerer", peer: Peer, number: int, end: bytes) -> None:
        self._answerer = answerer
        self.peer = peer
        self.number = number
        self.end = end  # up to where both sides have been compared
        self.wanted: list[bytes] = []
        self.left: list[bytes] = []  # keys still to be sent
        self.shipment: Shipment = answerer.reading.shipment(peer.member, self.shipped)

    def shipped(self) -> None:
        self._answerer.finish(self)


class Answerer:
    """Answers the questions of all peers."""

    __slots__ = ("_asked_at", "_expect", "_questions", "_sending", "_serving", "_wake", "reading")

    def __init__(
        self, reading: Reading, wake: Callable[[], None], expect: Callable[[int], None]
    ) -> None:
        """``expect`` is told of how many records will come."""
        self.reading = reading
        self._wake = wake
        self._expect = expect
        self._questions: dict[int, tuple[Peer, Question]] = {}  # by member, the oldest first
        self._serving: dict[int, Serving] = {}
        self._sending: deque[Serving] = deque()  # those that have keys left to send
        self._asked_at: dict[int, int] = {}

    def ask(self, peer: Peer, question: Question) -> None:
        self._serving.pop(peer.member, None)  # What is left to send for the last one is not sent.
        self._questions[peer.member] = (peer, question)
        self._asked_at[peer.member] = self.reading.env.now
        self._wake()

    def serves(self, member: int) -> bool:
        """Whether this peer is narrowing with us now."""
        asked_at = self._asked_at.get(member)
        return asked_at is not None and self.reading.env.now - asked_at < SERVED_LATELY

    def forget(self, member: int) -> None:
        """The connection has ended."""
        self._questions.pop(member, None)
        self._serving.pop(member, None)
        self._asked_at.pop(member, None)

    def step(self, allowance: int) -> int:
        """Send for a question, or answer one; return the cost, or 0 if there is none."""
        while self._sending:
            serving = self._sending[0]
            if self._serving.get(serving.peer.member) is serving:
                return self._send(serving, allowance)
            self._sending.popleft()  # Its asker has given it up.
        if not self._questions:
            return 0
        member = next(iter(self._questions))
        peer, question = self._questions.pop(member)
        if isinstance(question, BlocksQuery):
            return self._answer_blocks(peer, question)
        if isinstance(question, LeavesQuery):
            return self._answer_leaves(peer, question)
        try:
            return self._answer_keys(peer, question, allowance)
        except EngineFailed:
            return QUESTION_COST  # The asker goes without an answer, and gives up.

    def _answer_blocks(self, peer: Peer, question: BlocksQuery) -> int:
        reading = self.reading
        shift = peer.block_shift
        differing: list[int] = []
        unknown: list[int] = []
        blocks = question.blocks[:BLOCKS_MAX]
        for block, hash_there in zip(blocks, unpacked(question.hashes), strict=False):
            first = block << shift
            if not 0 <= first < LEAVES:
                continue
            end = first + (1 << shift)
            if not reading.is_known(first, end):
                unknown.append(block)
            elif reading.trees.hash_of(first, end) != hash_there:
                differing.append(block)
        reading.env.send(peer.member, BlocksAnswer(question.number, differing, unknown))
        return QUESTION_COST + len(blocks) // 2

    def _answer_leaves(self, peer: Peer, question: LeavesQuery) -> int:
        reading = self.reading
        differing: list[int] = []
        values: list[int] = []
        unknown: list[int] = []
        leaves = question.leaves[:LEAVES_MAX]
        for leaf, there in zip(leaves, unpacked(question.values), strict=False):
            if not 0 <= leaf < LEAVES:
                continue
            if not reading.is_known(leaf, leaf + 1):
                unknown.append(leaf)
            elif reading.trees.leaves[leaf] != there:
                differing.append(leaf)
                values.append(reading.trees.leaves[leaf])
        answer = LeavesAnswer(question.number, differing, packed(values), unknown)
        reading.env.send(peer.member, answer)
        return QUESTION_COST + len(leaves) // 4

    def _answer_keys(self, peer: Peer, question: EntriesQuery, allowance: int) -> int:
        """Find out what the asker lacks or has otherwise, and what we want of it."""
        reading = self.reading
        leaves = sorted(leaf for leaf in question.leaves[:KEYS_MAX] if 0 <= leaf < LEAVES)
        theirs = dict(zip(question.keys[:KEYS_MAX], unpacked(question.hashes), strict=False))
        rows, end, cost = reading.rows_of(leaves, question.start, question.end, allowance)
        serving = Serving(self, peer, question.number, end)
        self._serving[peer.member] = serving
        for key, holding in rows:
            hash_there = theirs.pop(key, None)
            if hash_there == entry_hash(key, holding):
                continue
            if hash_there is not None:
                serving.wanted.append(key)
            serving.left.append(key)
        serving.wanted += [key for key in theirs if self._lacks(key, leaves, end)]
        self._expect(len(serving.wanted))
        self._sending.append(serving)
        return QUESTION_COST + cost

    def _send(self, serving: Serving, allowance: int) -> int:
        """Send some of what the asker lacks, each record as it is now."""
        reading = self.reading
        cost = sent = 0
        for key in serving.left:
            try:
                holding = reading.get(key)
            except EngineFailed:
                del self._serving[serving.peer.member]
                return cost or QUESTION_COST  # The asker goes without an answer, and gives up.
            cost += reading.ship(serving.shipment, key, holding)
            sent += 1
            if cost >= allowance:
                break
        del serving.left[:sent]
        self._asked_at[serving.peer.member] = reading.env.now
        if not serving.left:
            self._sending.popleft()
            serving.shipment.seal()
        return cost or 1

    def _lacks(self, key: bytes, leaves: list[int], end: bytes) -> bool:
        return (
            is_record_key(key)
            and key < end
            and leaf_of(key) in leaves
            and not self.reading.hides(key)
        )

    def finish(self, serving: Serving) -> None:
        """What was sent has been answered: so is the question."""
        member = serving.peer.member
        if self._serving.get(member) is not serving:
            return
        del self._serving[member]
        shipment = serving.shipment
        self._asked_at[member] = self.reading.env.now
        answer = EntriesAnswer(
            serving.number, serving.end, serving.wanted, shipment.sent, shipment.failed
        )
        self.reading.env.send(member, answer)
