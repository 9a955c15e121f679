"""Find the records in which two owners differ, and give each what it lacks. All the time.

The two nodes of a pair take turns in saying, as one hash, what they hold of all partitions that
both own. Equal: that was the round, one small message. Unequal: whoever has seen it narrows,
and keeps all that there is to keep (``narrowing.py``): it asks which blocks of leaves differ,
then which leaves, then shows what it has in these, and the other one answers, bounded piece by
bounded piece. Only differing records are sent, both ways, as ordinary puts that merge. An
exchange never deletes. (Dynamo paper, section 4.7.)

A node whose peer is gone in the middle has lost nothing but the question under way: the next
round begins anew, with less to do. Rounds come soon after a connection is made and after a
difference; else every ``exchange_interval_ms``.

All work but comparing two numbers is done in steps of the background's (``background.py``).
"""

from collections import deque
from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.merkle import Trees, spans_of
from kvorum.model.ring import Ring
from kvorum.protocol.background import RECORD_TAKEN, Background, Task
from kvorum.protocol.catch_up import CatchUp
from kvorum.protocol.environment import Environment, first_number
from kvorum.protocol.exchange_answers import Answerer
from kvorum.protocol.generations import Generations
from kvorum.protocol.narrowing import KEYS_MAX, Narrowing, Peer, Reading
from kvorum.protocol.timers import Timed, Timers
from kvorum.wire.exchange_messages import (
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    ExchangeDigest,
    Exchanging,
    LeavesQuery,
)
from kvorum.wire.messages import NOT_COMPARED, UNEQUAL

SOON: Final = 100_000  # from a connection, or a difference, to the next round
CHECK: Final = 500_000  # from the end of a narrowing to the round that looks whether all is well
STEP_PATIENCE: Final = 10_000_000  # without any answer a narrowing is given up
BLOCK_SHIFT: Final = 6  # a block has 64 leaves, or a partition's if that has fewer


class Talk(Timed):
    """What there is between this node and one peer. It outlives connections."""

    __slots__ = (
        "_due", "_exchange", "_wakes_at", "equal_since", "failures", "narrowing", "partitions",
        "peer", "spans",
    )  # fmt: skip

    def __init__(self, exchange: "Exchange", peer: Peer, partitions: list[int], shift: int) -> None:
        self._exchange = exchange
        self.peer = peer
        self.partitions = partitions
        self.spans = spans_of(partitions, shift)
        self.narrowing: Narrowing | None = None
        self.equal_since = NOT_COMPARED  # when an unbroken row of equal rounds began; or why not
        self.failures = 0  # narrowings in a row that broke off
        self._due = -1
        self._wakes_at = -1

    @property
    def equal_for(self) -> int:
        """Microseconds since all shared records were found equal, and nothing else since.

        Or ``UNEQUAL``, or ``NOT_COMPARED``.
        """
        since = self.equal_since
        return self._exchange.env.now - since if since >= 0 else since

    def due(self, time: int) -> None:
        """The next round is at ``time``."""
        self._due = time
        if self._wakes_at < 0 or self._wakes_at > time:
            self._wakes_at = time
            self._exchange.timers.wake(time, self)

    def sooner(self, time: int) -> None:
        if self._due < 0 or time < self._due:
            self.due(time)

    def on_timer(self) -> None:
        now = self._exchange.env.now
        if 0 <= self._wakes_at <= now:
            self._wakes_at = -1
        if 0 <= self._due <= now:
            self._due = -1
            self._exchange.on_due(self)
        elif self._due >= 0:
            self.due(self._due)


class Exchange(Task):
    """This node's talks with all owners of its partitions."""

    __slots__ = (
        "_answerer", "_background", "_catch_up", "_generations", "_interval", "_me", "_number",
        "_reading", "_ready", "_spreads", "_trees", "env", "talks", "timers",
    )  # fmt: skip

    def __init__(
        self, env: Environment, ring: Ring, timers: Timers, background: Background,
        config: NodeConfig, generations: Generations, catch_up: CatchUp, reading: Reading,
        me: int,
    ) -> None:  # fmt: skip
        self.env = env
        self.timers = timers
        self._background = background
        self._generations = generations
        self._catch_up = catch_up
        self._reading = reading
        self._trees: Trees = reading.trees
        self._interval = config.exchange_interval_ms * 1000
        self._number = first_number(env)
        self._me = me
        self._spreads = 0
        self._ready: deque[Narrowing] = deque()  # narrowings that have something to do
        self._answerer = Answerer(reading, self._wake, self._expect)
        self.talks: dict[int, Talk] = {}
        shift = min(ring.shift, BLOCK_SHIFT)
        for member in ring.member_ids:
            if member == me:
                continue
            shared = [p for p in ring.partitions_of(me) if ring.is_owner(member, p)]
            if shared:
                peer = Peer(member, shift)
                self.talks[member] = Talk(self, peer, shared, ring.shift)

    def _wake(self) -> None:
        self._background.wake(self)

    def _expect(self, records: int) -> None:
        """So many records come, or have come, because of what was asked or answered here."""
        # What a peer says of it is bounded: it must neither stop this node's work nor speed it up.
        self._background.charge(min(max(records, 0), 2 * KEYS_MAX) * RECORD_TAKEN)

    # Rounds.

    def on_open(self, member: int) -> None:
        """A connection to ``member`` stands: it may have missed something, or we may."""
        talk = self.talks.get(member)
        if talk is not None:
            talk.failures = 0
            talk.sooner(self.env.now + self._spread(SOON))

    def on_lost(self, member: int) -> None:
        """The connection to ``member`` has ended, and with it whatever was under way."""
        talk = self.talks.get(member)
        if talk is not None:
            talk.equal_since = NOT_COMPARED
            self._drop(talk)
            self._answerer.forget(member)

    def on_due(self, talk: Talk) -> None:
        """Time for this node to begin a round, or to give up one that is stuck."""
        env = self.env
        narrowing = talk.narrowing
        if narrowing is not None:
            if env.now - narrowing.heard_at < STEP_PATIENCE:
                talk.due(narrowing.heard_at + STEP_PATIENCE)
                return
            self._drop(talk)
        member = talk.peer.member
        digest = self._digest(talk)
        waits = self._catch_up.waits_for(member)
        message = ExchangeDigest(self._reading.epoch, digest or 0, digest is not None, waits)
        if env.send(member, message):
            env.counters.exchange_rounds += 1
        # The other side answers with its own in half the time; were it silent, we go on.
        talk.due(env.now + self._spread(CHECK if waits and digest is None else 2 * self._interval))

    def _spread(self, time: int) -> int:
        """About ``time``, so that the rounds of many pairs do not fall together.

        Nobody could gain by knowing it, so it is mixed from member and count.
        """
        self._spreads += 1
        mixed = (self._me * 0x9E37_79B1 + self._spreads * 0x85EB_CA6B) & 0xFFFF_FFFF
        return time - time // 8 + mixed % (time // 4 + 1)

    def _digest(self, talk: Talk) -> int | None:
        """All we hold of what we share; None while that cannot be said."""
        if self._trees.stale_count and any(
            self._trees.first_stale(first, end) >= 0 for first, end in talk.spans
        ):
            return None
        owned = self._generations.owned
        if self._generations.unadopted and any(owned[p] < 0 for p in talk.partitions):
            return None
        return self._trees.digest(talk.spans)

    def on_message(self, member: int, message: Exchanging) -> None:
        talk = self.talks.get(member)
        if talk is None:
            return
        match message:
            case ExchangeDigest():
                self._on_digest(talk, message)
            case BlocksQuery() | LeavesQuery() | EntriesQuery():
                self._answerer.ask(talk.peer, message)
            case _:
                narrowing = talk.narrowing
                if narrowing is not None and narrowing.number == message.number:
                    narrowing.heard_at = self.env.now
                    if isinstance(message, EntriesAnswer):
                        self._expect(message.sent)
                    narrowing.on_answer(message)
                    self.go_on(narrowing)

    def _on_digest(self, talk: Talk, theirs: ExchangeDigest) -> None:
        env = self.env
        if theirs.epoch != self._reading.epoch:
            return  # Who shares what is not agreed upon; the newer topology will travel.
        digest = self._digest(talk)
        member = talk.peer.member
        if theirs.asks:
            env.send(member, ExchangeDigest(self._reading.epoch, digest or 0, digest is not None))
        if talk.narrowing is not None:
            return
        if theirs.known and theirs.digest == digest:
            env.counters.exchange_equal += 1
            if talk.equal_since < 0:
                talk.equal_since = env.now
            talk.failures = 0
            if self._catch_up.count:
                self._caught_up(talk, talk.partitions)
            talk.due(env.now + self._spread(self._interval))
            return
        if theirs.known and digest is not None:
            talk.equal_since = UNEQUAL
        if not theirs.asks:  # Whoever has to know narrows by itself.
            self._narrow(talk)

    # Narrowing.

    def _narrow(self, talk: Talk) -> None:
        env = self.env
        thorough = self._catch_up.waits_for(talk.peer.member)
        if self._answerer.serves(talk.peer.member) and not thorough:
            talk.sooner(env.now + self._interval)  # The other side is at it already.
            return
        self._number += 1
        narrowing = Narrowing(
            self._reading, talk.peer, self._number, talk.spans, thorough, self.go_on
        )
        talk.narrowing = narrowing
        env.counters.exchange_narrowed += 1
        talk.due(env.now + STEP_PATIENCE)
        self.go_on(narrowing)

    def go_on(self, narrowing: Narrowing) -> None:
        """The narrowing has something to do, now or after a pause."""
        talk = self.talks[narrowing.peer.member]
        if talk.narrowing is not narrowing:
            return
        if narrowing.pause_until > self.env.now:
            self.timers.wake(narrowing.pause_until, _Resume(self, narrowing))
            return
        if narrowing not in self._ready:
            self._ready.append(narrowing)
        self._wake()

    def step(self, allowance: int) -> int:
        cost = self._answerer.step(allowance)
        if cost:
            return cost
        while self._ready:
            narrowing = self._ready.popleft()
            talk = self.talks[narrowing.peer.member]
            if talk.narrowing is not narrowing:
                continue
            cost = narrowing.step(allowance)
            if narrowing.over:
                self._end(talk, narrowing)
            elif not narrowing.waiting:
                self.go_on(narrowing)
            return cost
        return 0

    def _end(self, talk: Talk, narrowing: Narrowing) -> None:
        env = self.env
        talk.narrowing = None
        if self._catch_up.count:
            self._caught_up(talk, narrowing.settled(talk.partitions))
        if narrowing.broken or narrowing.undelivered:
            talk.failures += 1
            talk.due(env.now + self._spread(min(SOON << talk.failures, self._interval)))
        elif narrowing.found or (narrowing.uncertain and self._catch_up.count):
            talk.failures = 0
            talk.due(env.now + self._spread(CHECK))
        else:
            talk.failures = 0
            talk.due(env.now + self._spread(self._interval))

    def _caught_up(self, talk: Talk, partitions: list[int]) -> None:
        done = self._catch_up.settle(talk.peer.member, partitions)
        if done:
            self.env.report("caught_up", partitions=done, still_behind=self._catch_up.count)

    def _drop(self, talk: Talk) -> None:
        if talk.narrowing is not None:
            talk.narrowing = None
            talk.failures += 1

    # For people.

    @property
    def narrowing(self) -> int:
        return sum(talk.narrowing is not None for talk in self.talks.values())


class _Resume(Timed):
    """A narrowing's pause is over."""

    __slots__ = ("_exchange", "_narrowing")

    def __init__(self, exchange: Exchange, narrowing: Narrowing) -> None:
        self._exchange = exchange
        self._narrowing = narrowing

    def on_timer(self) -> None:
        self._exchange.go_on(self._narrowing)
