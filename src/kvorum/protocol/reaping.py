"""Deletes go by proof: this node's part in reap rounds, its own and those of others.

A few times a minute an owner looks at the deletes and overgrown records that were noted in its
partitions and raises a round for some of them (``reap_round.py``). Every holder answers rounds:
it enters the generation, which makes everything on its way under an older one worthless, and
states in the same step what it holds of the keys asked for. The statement leaves when the entry
is on the disk, so nothing that it rests on can be lost again.

Whoever does not answer blocks the round of its partitions, and of no others, until it is back or
removed from the membership; ``blockers`` tells. (Architecture, deletes come back never; the
rules were attacked with models, whose counterexamples are tests now.)
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.holding import NO_OWN, own_dot, record_offset
from kvorum.model.reaping import is_gone, without_actors
from kvorum.model.record import record_digest
from kvorum.model.ring import Ring
from kvorum.model.version import ACTOR_BYTES
from kvorum.protocol.environment import Environment
from kvorum.protocol.generations import Generations, make_generation, number_of
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.ports import Strays
from kvorum.protocol.reap_round import ASKING, COMMITTING, RESERVING, STATING, Round
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.store import Store
from kvorum.wire.message import Message
from kvorum.wire.reaping_messages import (
    GenerationQuery,
    GenerationState,
    KeyStatement,
    ReapCommit,
    ReapCommitted,
    ReapDrop,
    Reaped,
    ReapRaise,
    ReapStatement,
)

SPACE_RAISED: Final = b"\x00raised"  # meta keys: the last generation raised here, by partition
KEYS_MAX: Final = 64  # of one round; a statement is made in one step
ROUNDS_MAX: Final = 16  # of this node at a time
ROUND_PATIENCE: Final = 5_000_000
RANK_PAUSE: Final = 4_000_000  # how long each owner leaves it to those before it in the list
PAUSE_MAX: Final = 64  # intervals between two rounds of a partition that prove nothing


class Reaping(Timed):
    """Raises rounds and answers them."""

    __slots__ = (
        "_blocked", "_env", "_expired_by", "_generations", "_holdings", "_interval", "_me",
        "_noticed_at", "_paused_until", "_pauses", "_pending", "_ring", "_rounds", "_store",
        "_strays", "_timers",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, generations: Generations,
        strays: Strays, ring: Ring, timers: Timers, config: NodeConfig,
        expired_by: Callable[[], int],
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._holdings = holdings
        self._generations = generations
        self._strays = strays
        self._expired_by = expired_by  # what expired before this wall clock may go
        self._ring = ring
        self._timers = timers
        self._me = generations.me
        self._interval = config.reap_interval_ms * 1000
        self._rounds: dict[int, Round] = {}
        self._noticed_at: dict[int, int] = {}  # partition -> since when it has something to reap
        self._paused_until: dict[int, int] = {}
        self._pauses: dict[int, int] = {}  # partition -> intervals of its last pause
        # What may be told, or done, when the log is on the disk up to a position.
        self._pending: deque[tuple[int, int, Message]] = deque()
        self._blocked: dict[int, list[int]] = {}  # partition -> who kept its last round from it
        timers.wake(env.now + self._interval, self)

    # Raising.

    def on_timer(self) -> None:
        self._timers.wake(self._env.now + self._interval, self)
        for round_ in list(self._rounds.values()):
            if self._env.now - round_.started_at > ROUND_PATIENCE:
                self._blocked[round_.partition] = list(round_.awaited)
                self._end(round_, proven=False)
        if not self._store.writable:
            return
        notes = dict.fromkeys([*self._holdings.unreaped, *self._holdings.overgrown])
        for partition in notes:
            if len(self._rounds) >= ROUNDS_MAX:
                break
            if partition not in self._rounds and self._is_due(partition):
                self._begin(partition)

    def _is_due(self, partition: int) -> bool:
        """Whether it is on this node, and now, to raise a round for what is noted there."""
        now = self._env.now
        if self._generations.owned[partition] < 0:
            return False
        since = self._noticed_at.setdefault(partition, now)
        if now < self._paused_until.get(partition, 0):
            return False
        before_us = 0
        for owner in self._ring.owners(partition):
            if owner == self._me:
                break
            if self._env.links[owner].connected:
                before_us += 1
        return now - since >= before_us * RANK_PAUSE

    def _begin(self, partition: int) -> None:
        keys = self._candidates(partition)
        if not keys:
            self._noticed_at.pop(partition, None)
            self._blocked.pop(partition, None)
            return
        others = [each for each in self._ring.preference_list(partition) if each != self._me]
        missing = [each for each in others if not self._env.links[each].connected]
        if missing:
            self._blocked[partition] = missing
            return
        round_ = Round(
            partition, self._ring.partition_epoch(partition), keys, self._ring.owners(partition),
            others, self._env.now,
        )  # fmt: skip
        self._rounds[partition] = round_
        self._env.counters.reap_rounds += 1
        for member in others:
            self._env.send(member, GenerationQuery(partition))
        if not others:
            self._reserve(round_)

    def _candidates(self, partition: int) -> list[bytes]:
        """Some keys of the partition that a round may prove something of."""
        keys: list[bytes] = []
        expired_by = self._expired_by()
        noted = self._holdings.unreaped.get(partition, {})
        for key in list(noted):
            record = self._record(key)
            if record is None or not is_gone(record, expired_by):
                del noted[key]  # Whatever makes it go one day notes it again.
            elif len(keys) < KEYS_MAX:
                keys.append(key)
        if not noted:
            self._holdings.unreaped.pop(partition, None)
        overgrown = self._holdings.overgrown.get(partition, {})
        for key in list(overgrown):
            if self._record(key) is None:
                del overgrown[key]
            elif len(keys) < KEYS_MAX:
                keys.append(key)
        if not overgrown:
            self._holdings.overgrown.pop(partition, None)
        return list(dict.fromkeys(keys))

    @property
    def blockers(self) -> dict[int, int]:
        """Member -> partitions whose last round it kept from proving anything."""
        found: dict[int, int] = {}
        for members in self._blocked.values():
            for member in members:
                found[member] = found.get(member, 0) + 1
        return found

    def _record(self, key: bytes) -> bytes | None:
        held = self._holdings.get(key)
        return held[record_offset(held) :] if held else None

    def on_state(self, member: int, state: GenerationState) -> None:
        """A holder says where it stands; ``generations`` has learned from it already."""
        round_ = self._rounds.get(state.partition)
        if round_ is None:
            return
        if not state.adopted:
            self._blocked[state.partition] = [member]
            self._end(round_, proven=False)
        elif round_.phase == ASKING:
            round_.highest = max(round_.highest, state.generation)
            if round_.heard(member):
                self._reserve(round_)
        elif state.generation > round_.generation:
            self._end(round_, proven=False)  # Somebody else has raised a higher one.

    def _reserve(self, round_: Round) -> None:
        """Draw the round's generation, and keep it: it must never be raised twice."""
        partition = round_.partition
        if not self._generations.ready(partition) or not self._store.writable:
            self._end(round_, proven=False)
            return
        key = SPACE_RAISED + partition.to_bytes(2, "big")
        last = int.from_bytes(self._store.get(key) or b"", "big")
        highest = max(round_.highest, self._generations.known(partition), last)
        round_.generation = make_generation(number_of(highest) + 1, self._me)
        self._store.put(key, round_.generation.to_bytes(8, "big"))
        round_.next_phase(RESERVING, [])
        self._when_durable(self._me, self._raise_of(round_))

    def _raise_of(self, round_: Round) -> ReapRaise:
        dropped = self._generations.dropped.get(round_.partition, 0)
        return ReapRaise(round_.partition, round_.generation, dropped, round_.epoch, round_.keys)

    def _on_reserved(self, partition: int, generation: int) -> None:
        round_ = self._rounds.get(partition)
        if round_ is None or round_.generation != generation:
            return
        if (
            self._generations.known(partition) >= generation
            or not self._generations.ready(partition)
            or not self._store.writable
        ):
            self._end(round_, proven=False)
            return
        round_.next_phase(STATING, [*round_.others, self._me])
        asked = self._raise_of(round_)
        for member in round_.others:
            self._env.send(member, asked)
        self._state(self._me, asked)

    def on_met(self, member: int) -> None:
        """A connection is new: what its member had stated before may be lost with its disk."""
        for round_ in list(self._rounds.values()):
            if member in round_.others:
                self._end(round_, proven=False)

    # Stating.

    def on_raise(self, member: int, asked: ReapRaise) -> Message | None:
        """Enter the generation and state; silence where that cannot be done blocks the round."""
        partition = asked.partition
        generations = self._generations
        if (
            not 0 <= partition < self._ring.partitions
            or not generations.ready(partition)
            or not self._store.writable
            or asked.epoch != self._ring.partition_epoch(partition)
            or len(asked.keys) > KEYS_MAX
        ):
            return None
        if asked.generation <= generations.known(partition):
            return generations.state_of(partition)
        if generations.known(partition) < asked.dropped:
            generations.learn(partition, asked.generation, asked.dropped)  # Sets our copy aside.
            return None
        own = self._rounds.get(partition)
        if own is not None:
            self._end(own, proven=False)
        self._state(member, asked)
        return None

    def _state(self, raiser: int, asked: ReapRaise) -> None:
        """Enter, and in the same step read what is stated: all of it lies before the entry."""
        self._generations.enter(asked.partition, asked.generation, asked.dropped)
        self._env.faults.crash("reap.before_state")
        expired_by = self._expired_by()
        is_owner = self._generations.owned[asked.partition] >= 0
        keys = [self._statement_of(key, is_owner, expired_by) for key in asked.keys]
        statement = ReapStatement(asked.partition, asked.generation, asked.epoch, keys)
        self._when_durable(raiser, statement)

    def _statement_of(self, key: bytes, is_owner: bool, expired_by: int) -> KeyStatement:
        stray = self._strays.holds(key)
        held = self._holdings.get(key) if is_owner else None
        if not held:
            return KeyStatement(b"", stray=stray)
        record = held[record_offset(held) :]
        own = own_dot(held)
        minting = own[:ACTOR_BYTES] if own[:8] == self._store.store_id else b""
        goes = is_gone(record, expired_by)
        return KeyStatement(record_digest(record), goes, minting, stray)

    def on_statement(self, member: int, statement: ReapStatement) -> None:
        round_ = self._rounds.get(statement.partition)
        if (
            round_ is None
            or round_.phase != STATING
            or statement.generation != round_.generation
            or statement.epoch != round_.epoch
            or len(statement.keys) != len(round_.keys)
        ):
            return
        round_.statements[member] = statement.keys
        if not round_.heard(member):
            return
        round_.judge([self._record(key) for key in round_.keys])
        if not round_.reaped:
            self._end(round_, proven=False)
            return
        self._env.faults.crash("reap.before_commit")
        round_.next_phase(COMMITTING, [*round_.others, self._me])
        commit = ReapCommit(round_.partition, round_.generation)
        for other in round_.others:
            self._env.send(other, commit)
        self.on_commit(self._me, commit)

    # Dropping.

    def on_commit(self, member: int, commit: ReapCommit) -> None:
        """Write down that this generation's round drops; only its raiser may say so."""
        if (
            commit.generation & 0xFFFF == member
            and 0 <= commit.partition < self._ring.partitions
            and self._generations.current[commit.partition] == commit.generation
            and self._store.writable
        ):
            self._generations.note_drop(commit.partition, commit.generation)
            answer = ReapCommitted(commit.partition, commit.generation)
            self._when_durable(member, answer)

    def on_committed(self, member: int, committed: ReapCommitted) -> None:
        round_ = self._rounds.get(committed.partition)
        if (
            round_ is None
            or round_.phase != COMMITTING
            or round_.generation != committed.generation
            or not round_.heard(member)
        ):
            return
        drop = ReapDrop(round_.partition, round_.generation, round_.epoch, round_.reaped)
        for owner in round_.owners:
            if owner != self._me and not self._env.faults.hit("reap.drop_lost"):
                self._env.send(owner, drop)
        self.on_drop(self._me, drop)
        self._end(round_, proven=True)

    def on_drop(self, member: int, drop: ReapDrop) -> None:
        """Let go of exactly these versions, if we still stand where the round left us."""
        partition = drop.partition
        generations = self._generations
        if (
            drop.generation & 0xFFFF != member
            or not 0 <= partition < self._ring.partitions
            or generations.owned[partition] != drop.generation
            or generations.dropped.get(partition) != drop.generation
            or drop.epoch != self._ring.partition_epoch(partition)
            or not self._store.writable
        ):
            return
        for reaped in drop.reaped:
            if generations.partition_of(reaped.key) == partition:
                self._apply(reaped)

    def _apply(self, reaped: Reaped) -> None:
        key = reaped.key
        held = self._holdings.get(key)
        if not held:
            return
        offset = record_offset(held)
        if record_digest(held[offset:]) != reaped.version:
            return
        counters = self._env.counters
        if reaped.retired:
            kept = without_actors(held[offset:], reaped.retired)
            if own_dot(held)[:ACTOR_BYTES] in reaped.retired:
                held_head = held[:4] + NO_OWN + held[20:offset]
            else:
                held_head = held[:offset]
            self._holdings.write(key, held, held_head + kept)
            self._holdings.done(self._holdings.overgrown, key)  # As lean as can be.
            counters.retired_actors += len(reaped.retired)
        else:
            self._holdings.forget(key, held)
            counters.reaped_records += 1
        self._generations.note_reaped(key, reaped.version)

    # Ends.

    def _end(self, round_: Round, proven: bool) -> None:
        partition = round_.partition
        self._rounds.pop(partition, None)
        if len(round_.statements) > len(round_.others):
            self._blocked.pop(partition, None)
            overgrown = self._holdings.overgrown.get(partition, {})
            for key in round_.keys:
                overgrown.pop(key, None)  # Done, or as lean as can be: the next write notes it.
        if proven:
            self._pauses.pop(partition, None)
            self._paused_until.pop(partition, None)
            return
        self._env.counters.reap_rounds_void += 1
        pause = min(2 * self._pauses.get(partition, 0) or 1, PAUSE_MAX)
        self._pauses[partition] = pause
        jitter = self._env.random.randrange(self._interval)
        self._paused_until[partition] = self._env.now + pause * self._interval + jitter

    # The disk.

    def _when_durable(self, target: int, message: Message) -> None:
        self._pending.append((self._store.position, target, message))
        self.on_durable()

    def on_durable(self) -> None:
        """More of the log is on disk: say what rested on it. A volatile store gives what it has."""
        position = self._store.position if self._store.volatile else self._store.durable_position
        pending = self._pending
        while pending and pending[0][0] <= position:
            _, target, message = pending.popleft()
            if target != self._me:
                self._env.send(target, message)
            elif isinstance(message, ReapRaise):
                self._on_reserved(message.partition, message.generation)
            elif isinstance(message, ReapStatement):
                self.on_statement(self._me, message)
            elif isinstance(message, ReapCommitted):
                self.on_committed(self._me, message)
