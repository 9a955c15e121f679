"""One narrowing: from "we differ somewhere" to the records in which two owners differ.

The asking side walks through the blocks of all that both own, some at a time. Of those that
differ it asks for the leaves, of leaves that differ for the keys, and then both sides have sent
what the other lacks. Each question is bounded, and the next one waits for its answer.

**Writes under way.** Under load two equal replicas differ at every moment, by what is on its way
to one of them. So a leaf that differs is looked at again after ``SECOND_LOOK``: since a leaf is
an XOR, what both looks have in common is seen. If mine XOR yours is the same both times, exactly
the same entries differ, and these are no writes under way. If it has changed, the leaf is
*restless* and is left for the next round; one that was restless in several rounds running is
narrowed all the same, lest a busy key hide its neighbours for ever. Sending a record that was
under way is harmless, it costs only itself.

A **thorough** narrowing, for catching up, leaves nothing for later: whatever differs is narrowed
at the first look. What could not be compared or delivered makes its partition *uncertain*.
"""

from collections.abc import Callable
from typing import Final

from kvorum.model.hashing import SORT_KEY_OFFSET, SPACE_RECORDS
from kvorum.model.merkle import LEAVES, Trees, entry_hash, leaf_of, leaf_start
from kvorum.model.ring import Ring
from kvorum.protocol.background import BYTES_SHIFT, RECORD_READ, RECORD_SENT
from kvorum.protocol.environment import Environment
from kvorum.protocol.generations import Generations
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.ports import Copies
from kvorum.protocol.shipment import Shipment
from kvorum.protocol.tree_scan import RowReader
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    LeavesAnswer,
    LeavesQuery,
)
from kvorum.wire.message import Message

BLOCKS_MAX: Final = 128  # of one question
LEAVES_MAX: Final = 512
KEYS_MAX: Final = 64
SECOND_LOOK: Final = 400_000  # from the first look at a leaf to the second
RESTLESS_MAX: Final = 6  # rounds in which a leaf has differed, each time otherwise
QUESTION_COST: Final = 30
READ_LEAST: Final = 100  # a question about keys reads for so many units at the least

Row = tuple[bytes, bytes]


class Peer:
    """What is kept of one peer from one narrowing to the next."""

    __slots__ = ("block_shift", "member", "restless")

    def __init__(self, member: int, block_shift: int) -> None:
        self.member = member
        self.block_shift = block_shift  # a block has so many bits of leaves
        self.restless: dict[int, int] = {}  # leaf -> rounds in which it differed otherwise


class Reading:
    """This node's records and leaves, as exchange reads them."""

    __slots__ = (
        "_dropped", "_holdings", "_reader", "_ring", "copies", "env", "epoch", "generations",
        "trees",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, ring: Ring, holdings: Holdings,
        generations: Generations, copies: Copies, dropped: dict[bytes, None],
    ) -> None:  # fmt: skip
        self.env = env
        self._holdings = holdings
        self._reader = RowReader(store)
        self._ring = ring
        self._dropped = dropped  # ids of dropped tables: nobody is told of their records
        self.copies = copies
        self.generations = generations
        self.trees: Trees = holdings.trees
        self.epoch = ring.epoch

    def partition_of(self, leaf: int) -> int:
        return leaf >> self._ring.shift

    def is_known(self, first: int, end: int) -> bool:
        """Whether a run of leaves of one partition may be compared here and now."""
        trees = self.trees
        if trees.stale_count and trees.first_stale(first, end) >= 0:
            return False
        return self.generations.owned[self.partition_of(first)] >= 0

    def rows_of(
        self, leaves: list[int], start: bytes, end: bytes, allowance: int
    ) -> tuple[list[Row], bytes, int]:
        """Records of these leaves from ``start`` on: some, up to where these are all, the cost.

        ``leaves`` come in order. Raises ``EngineFailed``.
        """
        rows: list[Row] = []
        cost = 0
        most = max(allowance, READ_LEAST)
        for leaf in leaves:
            lo = max(start, leaf_start(leaf))
            hi = min(end, leaf_start(leaf + 1))
            if lo >= hi:
                continue
            if cost >= most:
                return rows, lo, cost
            limit = min(KEYS_MAX - len(rows), (most - cost) // RECORD_READ + 1)
            some, reached = self._reader.read(lo, hi, limit)
            rows += [row for row in some if row[0][17:25] not in self._dropped]
            cost += self._reader.cost
            if reached < hi:
                return rows, reached, cost
        return rows, end, cost

    def ship(self, shipment: Shipment, key: bytes, holding: bytes | None) -> int:
        """Put a record of ours into a shipment, if it may be told; return what that costs."""
        generation = self.generations.owned[self.partition_of(leaf_of(key))]
        if generation < 0:
            shipment.failed += 1
        if generation < 0 or not holding:
            return 1  # Gone or damaged meanwhile.
        self._holdings.notice(key, holding)  # The peer may lack it because it has reaped it.
        size = shipment.add(key, holding, generation)
        self.env.counters.exchange_sent += 1
        self.env.counters.exchange_bytes += size
        return RECORD_SENT + (size >> BYTES_SHIFT)

    def get(self, key: bytes) -> bytes | None:
        return None if self.hides(key) else self._holdings.get(key)

    def hides(self, key: bytes) -> bool:
        """Whether the key's table has been dropped: its records are on their way out."""
        return key[17:25] in self._dropped

    def shipment(self, member: int, done: Callable[[], None]) -> Shipment:
        return Shipment(self.env, self._ring, self.copies, member, done)


class Narrowing:
    """One walk through all that two nodes share; it ends by itself, or with its connection."""

    __slots__ = (
        "_again", "_allowance", "_blocks", "_differing", "_end", "_first_look", "_go_on",
        "_leaves", "_next", "_reading", "_second", "_shipment", "_start", "_suspects",
        "_thorough", "_values", "_wanted", "broken", "found", "heard_at", "number", "over",
        "pause_until", "peer", "uncertain", "undelivered", "waiting",
    )  # fmt: skip

    def __init__(
        self, reading: Reading, peer: Peer, number: int, spans: list[tuple[int, int]],
        thorough: bool, go_on: Callable[["Narrowing"], None],
    ) -> None:  # fmt: skip
        self._reading = reading
        self.peer = peer
        self.number = number
        self._thorough = thorough
        self._go_on = go_on
        shift = peer.block_shift
        self._blocks = [
            block for first, end in spans for block in range(first >> shift, end >> shift)
        ]
        self._blocks.reverse()  # taken from the end
        self._next: Callable[[], int] = self._ask_blocks
        self._allowance = 0  # what the step under way may cost, about
        self._differing: list[int] = []  # blocks whose leaves are still to be asked for
        self._suspects: dict[int, int] = {}  # leaf -> mine XOR theirs at the first look
        self._first_look = 0
        self._second = False  # this is the second look
        self._again: list[int] = []  # suspects still to be looked at again
        self._leaves: list[int] = []  # asked about, or to be compared key by key; in order
        self._values: list[int] = []  # what the question said of them; writes go on meanwhile
        self._start = b""  # how far they have been
        self._end = b""  # how far the question under way reaches
        self._wanted: list[bytes] = []
        self._shipment: Shipment | None = None
        self.heard_at = reading.env.now
        self.waiting = False  # for the peer's answer, or for what it is sent
        self.pause_until = 0
        self.uncertain: dict[int, None] = {}  # partitions not compared in whole
        self.found = 0  # records sent and taken, either way
        self.undelivered = 0
        self.over = False
        self.broken = False

    def settled(self, partitions: list[int]) -> list[int]:
        """Of these, those in which the peer holds nothing that was not brought here."""
        if self.broken:
            return []
        return [partition for partition in partitions if partition not in self.uncertain]

    def step(self, allowance: int) -> int:
        """Do the next piece; return its cost."""
        if self.over or self.waiting:
            return 1
        self._allowance = allowance
        try:
            return self._next()
        except EngineFailed:
            self._break_off()
            return QUESTION_COST

    def _break_off(self) -> None:
        self.over = self.broken = True

    def _ask(self, message: Message) -> None:
        """Send a question, and wait for its answer."""
        env = self._reading.env
        self.waiting = True
        self.heard_at = env.now
        if env.faults.hit("exchange.question_lost"):
            return
        if not env.send(self.peer.member, message):
            self._break_off()

    def _doubt(self, leaf: int) -> None:
        self.uncertain[self._reading.partition_of(leaf)] = None

    # Blocks.

    def _ask_blocks(self) -> int:
        reading = self._reading
        shift = self.peer.block_shift
        blocks: list[int] = []
        hashes: list[int] = []
        while self._blocks and len(blocks) < BLOCKS_MAX:
            block = self._blocks.pop()
            first = block << shift
            if reading.is_known(first, first + (1 << shift)):
                blocks.append(block)
                hashes.append(reading.trees.hash_of(first, first + (1 << shift)))
            else:
                self._doubt(first)
        if blocks:
            self._ask(BlocksQuery(self.number, blocks, packed(hashes)))
        else:
            self.over = True  # None are left, of which anything is known.
        return QUESTION_COST + BLOCKS_MAX // 2

    def on_answer(self, answer: BlocksAnswer | LeavesAnswer | EntriesAnswer) -> None:
        self.waiting = False
        if isinstance(answer, BlocksAnswer):
            shift = self.peer.block_shift
            for block in answer.unknown:
                if 0 <= block << shift < LEAVES:
                    self._doubt(block << shift)
            self._differing = [b for b in answer.differing if 0 <= b << shift < LEAVES]
            self._differing.sort(reverse=True)
            self._suspects = {}
            self._second = False
            self._first_look = self._reading.env.now
            self._next = self._ask_leaves
        elif isinstance(answer, LeavesAnswer):
            self._on_leaves(answer)
        else:
            self._on_keys(answer)

    # Leaves.

    def _ask_leaves(self) -> int:
        """The first look at the leaves of differing blocks."""
        shift = self.peer.block_shift
        leaves: list[int] = []
        while self._differing and len(leaves) + (1 << shift) <= max(LEAVES_MAX, 1 << shift):
            first = self._differing.pop() << shift
            leaves += range(first, first + (1 << shift))
        if leaves:
            self._look(leaves)
        elif self._thorough or not self._suspects:
            self._begin_keys(list(self._suspects))
        else:
            self._again = sorted(self._suspects, reverse=True)
            self._second = True
            self._next = self._look_again
            self.pause_until = self._first_look + SECOND_LOOK
        return QUESTION_COST + len(leaves) // 8

    def _look(self, leaves: list[int]) -> None:
        reading = self._reading
        known: list[int] = []
        for leaf in leaves:
            if reading.is_known(leaf, leaf + 1):
                known.append(leaf)
            else:
                self._doubt(leaf)
        self._leaves = known
        self._values = [reading.trees.leaves[leaf] for leaf in known]
        self._ask(LeavesQuery(self.number, known, packed(self._values)))

    def _look_again(self) -> int:
        leaves = self._again[-LEAVES_MAX:]
        if leaves:
            del self._again[-len(leaves) :]
            self._look(leaves)
        else:
            self._begin_keys([leaf for leaf, left in self._suspects.items() if left < 0])
        return QUESTION_COST + len(leaves) // 4

    def _on_leaves(self, answer: LeavesAnswer) -> None:
        mine = dict(zip(self._leaves, self._values, strict=True))
        theirs = unpacked(answer.values)
        for leaf in answer.unknown:
            if leaf in mine:
                self._doubt(leaf)
        differing = {
            leaf: mine[leaf] ^ their
            for leaf, their in zip(answer.differing, theirs, strict=False)
            if leaf in mine
        }
        if not self._second:
            self._suspects.update(differing)
            self._next = self._ask_leaves
            return
        for leaf in mine:
            self._judge(leaf, differing.get(leaf, 0))
        self._next = self._look_again

    def _judge(self, leaf: int, difference: int) -> None:
        """The second look: narrow what differs as before; -1 marks it."""
        restless = self.peer.restless
        if difference == self._suspects.get(leaf) or restless.get(leaf, 0) >= RESTLESS_MAX:
            restless.pop(leaf, None)
            if difference:
                self._suspects[leaf] = -1
        elif difference:
            restless[leaf] = restless.get(leaf, 0) + 1
            self._doubt(leaf)
        else:
            restless.pop(leaf, None)

    # Keys.

    def _begin_keys(self, leaves: list[int]) -> None:
        self._leaves = sorted(leaves)
        self._reading.env.counters.exchange_leaves += len(leaves)
        self._start = leaf_start(self._leaves[0]) if leaves else b""
        self._next = self._ask_keys if leaves else self._ask_blocks

    def _ask_keys(self) -> int:
        """Show the peer what we have in the next piece of the differing leaves."""
        leaves = self._leaves
        while leaves and leaf_start(leaves[0] + 1) <= self._start:
            del leaves[0]
        if not leaves:
            self._next = self._ask_blocks
            return 1
        some = leaves[:KEYS_MAX]
        rows, end, cost = self._reading.rows_of(
            some, self._start, leaf_start(some[-1] + 1), self._allowance
        )
        covered = [leaf for leaf in some if leaf_start(leaf) < end]
        self._end = end
        hashes = [entry_hash(key, holding) for key, holding in rows]
        keys = [key for key, _ in rows]
        self._ask(EntriesQuery(self.number, covered, self._start, end, keys, packed(hashes)))
        return QUESTION_COST + cost

    def _on_keys(self, answer: EntriesAnswer) -> None:
        self.found += answer.sent
        self._reading.env.counters.exchange_received += answer.sent
        if answer.failed:
            for leaf in self._leaves[:KEYS_MAX]:
                self._doubt(leaf)
        if not self._start < answer.end <= self._end:
            self._break_off()  # It would go on for ever.
            return
        self._start = answer.end
        self._wanted = [key for key in answer.wanted[: 2 * KEYS_MAX] if is_record_key(key)]
        self._next = self._send_wanted if self._wanted else self._ask_keys

    def _send_wanted(self) -> int:
        """Send the peer some of what it lacks; go on when it has answered for all of it."""
        reading = self._reading
        if self._shipment is None:
            self._shipment = reading.shipment(self.peer.member, self._shipped)
        cost = sent = 0
        for key in self._wanted:
            cost += reading.ship(self._shipment, key, reading.get(key))
            sent += 1
            if cost >= self._allowance:
                break
        del self._wanted[:sent]
        self.heard_at = reading.env.now
        if not self._wanted:
            self.waiting = True
            self._shipment.seal()
        return cost

    def _shipped(self) -> None:
        shipment = self._shipment
        if shipment is None or self.over:
            return
        self._shipment = None
        self.waiting = False
        self.heard_at = self._reading.env.now
        self.found += shipment.sent
        self.undelivered += shipment.failed
        self._next = self._ask_keys
        self._go_on(self)


def is_record_key(key: bytes) -> bool:
    """Whether a record can be held under this key, which a peer has named."""
    return key[:1] == SPACE_RECORDS and len(key) >= SORT_KEY_OFFSET


def packed(values: list[int]) -> bytes:
    return b"".join([value.to_bytes(8, "little") for value in values])


def unpacked(encoded: bytes) -> list[int]:
    return [int.from_bytes(encoded[at : at + 8], "little") for at in range(0, len(encoded) - 7, 8)]
