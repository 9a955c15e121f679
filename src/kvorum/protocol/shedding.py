"""Making room for hints: let go of those that owners do not need any more to keep a promise.

A hint is part of what was promised to a writer, so it may go only when owners, asked, durably
hold a version that covers it, in the number and durability that the hint carries; the owner that
it waits for is then mended by its exchange with those. So shedding costs time and never a write.
Where only hints are left that nobody covers, nothing is shed, and new ones are refused.
(Architecture, section 5.)

An owner answers as of its disk: what it holds at the question it says when that has been synced.
"""

from collections import deque
from itertools import islice
from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.holding import HEAD_BYTES, record_of
from kvorum.model.record import LWW, order_of, supersedes, values_offset
from kvorum.model.ring import Ring
from kvorum.protocol.environment import Environment, first_number
from kvorum.protocol.generations import Generations
from kvorum.protocol.hints import Hints
from kvorum.protocol.holdings import Holdings
from kvorum.storage.store import Store
from kvorum.wire.handoff_messages import CoverAnswer, CoverQuery

ASKED_AT_ONCE: Final = 64  # hints in one question
PATIENCE: Final = 1_000_000  # for answers
PAUSE: Final = 5_000_000  # after all hints were asked about and none could go
NEARLY_FULL: Final = 7  # eighths of a bound at which room is made
ORDER_BYTES: Final = 24  # dot and clock of an lww record's value

MISSING: Final = 0  # the owner holds nothing that covers it, or may not say
HELD: Final = 1  # it does, and keeps nothing on a disk
ON_DISK: Final = 2


def claim_of(record: bytes) -> bytes:
    """What a record says without its values: enough to find out whether another covers it."""
    end = values_offset(record)
    return record[: end + ORDER_BYTES] if record[1] & LWW else record[:end]


def is_covered(claim: bytes, record: bytes) -> bool:
    if claim[1] & LWW:
        return order_of(record) >= order_of(claim)
    return supersedes(record, claim)


class Asked:
    """One hint that owners have been asked about."""

    __slots__ = ("holding", "states")

    def __init__(self, holding: bytes) -> None:
        self.holding = holding
        self.states: dict[int, int] = {}  # owner -> what it said


class Shedding:
    """Asks owners about the hints here, and answers others about the records here."""

    __slots__ = (
        "_asked", "_bytes_max", "_cursors", "_env", "_generations", "_hints",
        "_holdings", "_number", "_owing", "_paused_until", "_per_peer_max", "_ring", "_shed_any",
        "_store", "_waiting", "asked_at",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, hints: Hints,
        generations: Generations, ring: Ring, config: NodeConfig,
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._holdings = holdings
        self._hints = hints
        self._generations = generations
        self._ring = ring
        self._bytes_max = config.hint_bytes_max
        self._per_peer_max = config.hint_bytes_per_peer_max
        self._number = first_number(env)
        self._asked: dict[bytes, Asked] = {}  # the hints of the question that is open
        self._waiting: dict[int, list[bytes]] = {}  # owner -> the keys it has been asked about
        self.asked_at = 0  # when the last question was asked
        self._cursors: dict[int, int] = {}  # owner -> how many of its hints were asked about
        self._shed_any = False
        self._paused_until = -1
        self._owing: deque[tuple[int, int, CoverAnswer]] = deque()  # log position, member, answer

    # Asking.

    def look(self) -> None:
        """See whether room is needed; some times a second."""
        now = self._env.now
        if self._waiting and now - self.asked_at >= PATIENCE:
            self._judge()
        if self._waiting or now < self._paused_until or not self._store.writable:
            return
        owner = self._crowded()
        if owner:
            self._ask(owner)

    def _crowded(self) -> int:
        """The owner whose hints take too much room; 0: there is room enough."""
        hints = self._hints
        if not hints.bytes or not hints.loaded:
            return 0
        owner = max(hints.owed_bytes, key=lambda member: (hints.owed_bytes[member], member))
        if hints.bytes * 8 >= self._bytes_max * NEARLY_FULL:
            return owner
        if hints.owed_bytes[owner] * 8 >= self._per_peer_max * NEARLY_FULL:
            return owner
        return owner if hints.refused_at + PATIENCE >= self._env.now else 0

    def _ask(self, owner: int) -> None:
        """Ask about the next of an owner's hints, the oldest first."""
        keys = self._hints.owed[owner]
        begin = self._cursors.get(owner, 0)
        chosen = list(islice(keys, begin, begin + ASKED_AT_ONCE))
        if not chosen:
            self._cursors[owner] = 0
            if not self._shed_any:
                self._paused_until = self._env.now + PAUSE
            self._shed_any = False
            return
        self._cursors[owner] = begin + len(chosen)
        questions: dict[int, tuple[list[bytes], list[bytes]]] = {}
        for key in chosen:
            hint = self._hints.hint(key)
            if hint is None:
                continue  # Handoff gives damaged ones up.
            self._asked[key] = Asked(hint.holding)
            claim = claim_of(record_of(hint.holding))
            for member in self._ring.owners_of_engine_key(key):
                asked, claims = questions.setdefault(member, ([], []))
                asked.append(key)
                claims.append(claim)
        self._number += 1
        for member, (asked, claims) in questions.items():
            if self._env.send(member, CoverQuery(self._number, asked, claims)):
                self._waiting[member] = asked
        self.asked_at = self._env.now
        if not self._waiting:
            self._asked.clear()

    def on_answer(self, member: int, answer: CoverAnswer) -> None:
        keys = self._waiting.get(member)
        if answer.number != self._number or keys is None or len(keys) != len(answer.states):
            return
        del self._waiting[member]
        for key, state in zip(keys, answer.states, strict=True):
            self._asked[key].states[member] = state
        if not self._waiting:
            self._judge()
            self.look()

    def _judge(self) -> None:
        """Let go of what is covered, as it was promised, and has not grown since."""
        asked, self._asked = self._asked, {}
        self._waiting.clear()
        if not self._store.writable:
            return
        shed = 0
        for key, one in asked.items():
            hint = self._hints.hint(key)
            if hint is None or hint.holding[HEAD_BYTES:] != one.holding[HEAD_BYTES:]:
                continue
            held = sum(state >= HELD for state in one.states.values())
            on_disk = sum(state == ON_DISK for state in one.states.values())
            if held >= hint.w and on_disk >= hint.disks:
                self._hints.shed(key)
                shed += 1
        if shed:
            self._shed_any = True
            for owner, cursor in self._cursors.items():
                self._cursors[owner] = max(cursor - shed, 0)

    # Answering.

    def on_query(self, member: int, query: CoverQuery) -> CoverAnswer | None:
        """Say what is covered here; if it is not on the disk yet, as soon as it is."""
        store = self._store
        if len(query.keys) != len(query.claims) or not store.writable:
            return None
        state = HELD if store.volatile else ON_DISK
        states = bytes(
            state if self._covers(key, claim) else MISSING
            for key, claim in zip(query.keys, query.claims, strict=True)
        )
        answer = CoverAnswer(query.number, states)
        if store.volatile or store.durable_position >= store.position or not any(states):
            return answer
        self._owing.append((store.position, member, answer))
        return None

    def _covers(self, key: bytes, claim: bytes) -> bool:
        partition = self._ring.partition_of_engine_key(key)
        if self._generations.owned[partition] < 0:
            return False
        held = self._holdings.get(key)
        if not held:
            return False
        record = record_of(held)
        return (record[1] ^ claim[1]) & LWW == 0 and is_covered(claim, record)

    def on_durable(self) -> None:
        """More of our log is on disk."""
        owing = self._owing
        position = self._store.durable_position
        while owing and owing[0][0] <= position:
            _, member, answer = owing.popleft()
            self._env.send(member, answer)
