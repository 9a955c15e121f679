"""Reap generations: under which a store may say what it holds of a partition.

A tombstone that goes while an older copy of its key is on its way would let that copy come back.
So every holder of a partition, owners and listed fallbacks, keeps a durable **generation**, and
every message that carries a record carries the generation under which the record was *read*.
Whoever is at a higher one refuses it; the sender enters the higher one, reads again, and sends
again. What was read before a reap can therefore arrive nowhere after it.

Entering is one entry of the log, so whatever is written later lies behind it there. Beside the
generation stands the last one whose round *dropped* something. A store that never entered that
one was not asked before the drop (its disk was rolled back, or it comes out of a backup): its
copy is **set aside**, never served and never sent on, and the partition is filled again by the
other owners. A store that is new has no generation; it takes and serves nothing before it has
adopted the highest one that the other holders know. One that starts after an unclean stop waits
for the word of another holder, a second at most: should its disk have been rolled back, it must
not take writes first and set them aside after. (Architecture, deletes come back never.)

Rounds themselves, which raise generations, are ``reaping.py``'s affair.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.record import record_digest
from kvorum.model.ring import Ring
from kvorum.protocol.aside import Aside
from kvorum.protocol.environment import Environment
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.ports import HintKeeper
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store
from kvorum.wire.reaping_messages import GenerationQuery, GenerationState, GenerationStates

SPACE_GENERATIONS: Final = b"\x00gen"  # meta keys: generation and last drop, by partition
KEY_UNADOPTED: Final = b"\x00unadopted"  # meta key: bit map of partitions without a generation
FIRST: Final = 0  # the generation that every partition begins with
NOT_READY: Final = -1
ADOPTION_PATIENCE: Final = 1_000_000  # how long holders are waited for, once anybody has answered
CONFIRM_PATIENCE: Final = 1_000_000  # how long anybody is waited for after an unclean stop
ASK_PAUSE: Final = 20_000  # between two questions about one partition
ASIDE_SLICE: Final = 64  # records set aside at a time
ASIDE_INTERVAL: Final = 2_000

_state = Struct("<QQ")


def number_of(generation: int) -> int:
    return generation >> 16


def raised_by(generation: int) -> int:
    return generation & 0xFFFF


def make_generation(number: int, member: int) -> int:
    return number << 16 | member


class _SettingAside(Timed):
    """One partition's copy on its way out of use."""

    __slots__ = ("dropped", "generation", "generations", "partition")

    def __init__(
        self, generations: "Generations", partition: int, generation: int, dropped: int
    ) -> None:
        self.generations = generations
        self.partition = partition
        self.generation = generation  # to be entered when nothing is held any more
        self.dropped = dropped

    def on_timer(self) -> None:
        self.generations.set_aside_slice(self)


class _Confirming(Timed):
    """Wakes to go on without the others' word, where nobody gives it."""

    __slots__ = ("_generations",)

    def __init__(self, generations: "Generations") -> None:
        self._generations = generations

    def on_timer(self) -> None:
        self._generations.confirm_all()


class Generations(Timed):
    """The generation of every partition that this node holds records or hints of.

    ``current`` and ``owned`` are looked at for every message: the generation of a partition, or
    ``NOT_READY`` if this node holds nothing of it (``owned``: if it is no owner of it), has not
    adopted one, or is setting its copy aside.
    """

    __slots__ = (
        "_asked",
        "_env",
        "_first_told_at",
        "_holdings",
        "_known",
        "_reaped",
        "_ring",
        "_setting_aside",
        "_shift",
        "_store",
        "_timers",
        "_told",
        "aside",
        "current",
        "dropped",
        "entries",
        "hints",
        "me",
        "on_set_aside",
        "owned",
        "unadopted", "unconfirmed",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, ring: Ring, timers: Timers,
        me: int,
    ) -> None:  # fmt: skip
        self._env = env
        self.hints: HintKeeper | None = None  # this node's, set once they are there
        self._store = store
        self._holdings = holdings
        self._ring = ring
        self._shift = ring.shift
        self._timers = timers
        self.me = me
        self._known: dict[int, int] = {}  # partition -> generation; FIRST is not listed
        self._setting_aside: dict[int, _SettingAside] = {}
        self._asked: dict[int, int] = {}  # partition -> when its holders were asked last
        self._told: dict[int, GenerationStates] = {}  # what each member told first
        self._first_told_at = -1
        self.on_set_aside: Callable[[int], None] = _nobody_asks
        self.dropped: dict[int, int] = {}  # partition -> the last generation that dropped
        self.entries = 0  # made since the start
        # Partition -> key -> digest of what was reaped under its present generation.
        self._reaped: dict[int, dict[bytes, bytes]] = {}
        self.aside = Aside(store)  # what was set aside, now or by an earlier run
        self.unadopted: dict[int, None] = {}
        self.unconfirmed: dict[int, None] = {}  # partitions whose other holders have yet to speak
        self.current = [NOT_READY] * ring.partitions
        self.owned = [NOT_READY] * ring.partitions
        self._load()

    def _load(self) -> None:
        store = self._store
        end = SPACE_GENERATIONS + b"\xff" * 3
        for key, encoded in store.scan(SPACE_GENERATIONS, end, self._ring.partitions + 1):
            partition = int.from_bytes(key[len(SPACE_GENERATIONS) :], "big")
            generation, dropped = _state.unpack(encoded)
            if generation:
                self._known[partition] = generation
            if dropped:
                self.dropped[partition] = dropped
        listed = store.get(KEY_UNADOPTED)
        alone = len(self._ring.member_ids) == 1
        for partition in range(self._ring.partitions):
            if self.me not in self._ring.preference_list(partition):
                continue
            if listed is not None:
                adopted = not listed[partition >> 3] >> (partition & 7) & 1
            else:
                # A store that was there before there were generations has the first one.
                adopted = alone or store.start_count > 1
            if not adopted:
                self.unadopted[partition] = None
            elif alone or store.clean_start or store.start_count == 1:
                self._open(partition)
            else:
                self.unconfirmed[partition] = None
        if self.unconfirmed:
            self._timers.wake(self._env.now + CONFIRM_PATIENCE, _Confirming(self))
        if self.unadopted and listed is None:
            self._keep_unadopted()

    def _open(self, partition: int) -> None:
        """The partition may be served, under its generation."""
        generation = self._known.get(partition, FIRST)
        self.current[partition] = generation
        if self._ring.is_owner(self.me, partition):
            self.owned[partition] = generation

    def _close(self, partition: int) -> None:
        self.current[partition] = self.owned[partition] = NOT_READY

    def partition_of(self, key: bytes) -> int:
        return (key[1] << 8 | key[2]) >> self._shift

    def of(self, key: bytes) -> int:
        """The generation under which a record of this key, read now, travels; or ``NOT_READY``."""
        return self.current[(key[1] << 8 | key[2]) >> self._shift]

    def ready(self, partition: int) -> bool:
        return self.current[partition] >= 0

    def known(self, partition: int) -> int:
        """The partition's generation here, whether or not it may be served."""
        return self._known.get(partition, FIRST)

    # Learning of a higher one.

    def enter(self, partition: int, generation: int, dropped: int) -> None:
        """Go on under a higher generation: one entry of the log, before anything else."""
        assert generation > self.known(partition)
        self._known[partition] = generation
        self.entries += 1
        self._reaped.pop(partition, None)
        self._keep(partition, dropped)
        self.unconfirmed.pop(partition, None)
        self._open(partition)

    def _keep(self, partition: int, dropped: int) -> None:
        if dropped > self.dropped.get(partition, FIRST):
            self.dropped[partition] = dropped
        state = _state.pack(self.known(partition), self.dropped.get(partition, FIRST))
        self._store.put(SPACE_GENERATIONS + partition.to_bytes(2, "big"), state)

    def note_drop(self, partition: int, generation: int) -> None:
        """The round of ``generation``, entered here, is going to drop something."""
        self._keep(partition, generation)

    def learn(self, partition: int, generation: int, dropped: int) -> bool:
        """Another holder stands at ``generation``; True if this node stands there too, now.

        Nothing is learned while nothing can be written: whoever tells will be asked again.
        """
        mine = self.known(partition)
        if generation < mine or partition in self.unadopted or partition in self._setting_aside:
            return False
        if not self._store.writable:
            return False
        if generation == mine:
            if dropped > self.dropped.get(partition, FIRST):
                self._keep(partition, dropped)
            return True
        if mine < dropped:
            self._set_aside(partition, generation, dropped)
            return False
        self.enter(partition, generation, dropped)
        return True

    def ask(self, partition: int) -> None:
        """Somebody has stamped a record with a generation above ours: ask who knows of it."""
        now = self._env.now
        if now - self._asked.get(partition, -ASK_PAUSE) < ASK_PAUSE:
            return
        self._asked[partition] = now
        for member in self._ring.preference_list(partition):
            if member != self.me:
                self._env.send(member, GenerationQuery(partition))

    def on_query(self, query: GenerationQuery) -> GenerationState | None:
        partition = query.partition
        if not 0 <= partition < self._ring.partitions:
            return None
        return self.state_of(partition)

    def state_of(self, partition: int) -> GenerationState:
        adopted = self.current[partition] >= 0
        dropped = self.dropped.get(partition, FIRST)
        return GenerationState(partition, self.known(partition), dropped, adopted)

    def on_state(self, state: GenerationState) -> None:
        if state.adopted and 0 <= state.partition < self._ring.partitions:
            self.learn(state.partition, state.generation, state.dropped)

    # Meeting another member.

    def states(self) -> GenerationStates:
        """Where this node stands with all partitions, for a member that it has connected to."""
        entered = [
            (partition, generation, self.dropped.get(partition, FIRST))
            for partition, generation in self._known.items()
        ]
        missing = {**self.unadopted, **dict.fromkeys(self._setting_aside)}
        return GenerationStates(entered, self._bit_map(missing) if missing else b"")

    def on_states(self, member: int, states: GenerationStates) -> None:
        missing = states.unadopted
        for partition, generation, dropped in states.entered:
            if 0 <= partition < self._ring.partitions and not _is_set(missing, partition):
                self.learn(partition, generation, dropped)
        for partition in list(self.unconfirmed):
            if not _is_set(missing, partition) and member in self._ring.preference_list(partition):
                self._confirm(partition)
        if self.unadopted:
            self._told[member] = states
            if self._first_told_at < 0:
                self._first_told_at = self._env.now
                self._timers.wake(self._env.now + ADOPTION_PATIENCE, self)
            self._adopt()

    def _confirm(self, partition: int) -> None:
        """Nothing speaks against this store's copy, so it may serve."""
        del self.unconfirmed[partition]
        self._open(partition)

    def confirm_all(self) -> None:
        """Nobody has spoken in time; a store that is alone goes on with what it has."""
        for partition in list(self.unconfirmed):
            self._confirm(partition)

    def on_timer(self) -> None:
        self._adopt()
        if self.unadopted:
            self._timers.wake(self._env.now + ADOPTION_PATIENCE, self)

    def _adopt(self) -> None:
        """Take on the highest generation that the other holders know, where they have told it.

        A holder that stays silent is waited for only so long: should it turn out to know of a
        later drop, this store never entered it, and what it took meanwhile is set aside.
        """
        if not self._store.writable:
            return
        waited = self._env.now - self._first_told_at >= ADOPTION_PATIENCE
        entered = {
            member: {each[0]: (each[1], each[2]) for each in states.entered}
            for member, states in self._told.items()
        }
        adopted: list[int] = []
        for partition in self.unadopted:
            others = [each for each in self._ring.preference_list(partition) if each != self.me]
            told = [each for each in others if each in self._told]
            sole = self._ring.owners(partition) == (self.me,)  # No other copy to be fetched.
            if len(told) == len(others) or (waited and (told or sole)):
                generation, dropped = max(
                    (entered[each].get(partition, (FIRST, FIRST)) for each in told),
                    default=(FIRST, FIRST),
                )
                adopted.append(partition)
                if generation:
                    self._known[partition] = generation
                    self._keep(partition, dropped)
        if adopted:
            for partition in adopted:
                del self.unadopted[partition]
                self._open(partition)
            self._keep_unadopted()
            self._env.report("generations_adopted", partitions=len(adopted))
        if not self.unadopted:
            self._told.clear()

    def _keep_unadopted(self) -> None:
        self._store.put(KEY_UNADOPTED, self._bit_map(self.unadopted))

    def _bit_map(self, partitions: dict[int, None]) -> bytes:
        bits = bytearray((self._ring.partitions + 7) >> 3)
        for partition in partitions:
            bits[partition >> 3] |= 1 << (partition & 7)
        return bytes(bits)

    # What was reaped a moment ago.

    def note_reaped(self, key: bytes, version: bytes) -> None:
        """This version of the key was reaped; it is not to be taken before the next entry."""
        self._reaped.setdefault(self.partition_of(key), {})[key] = version

    def was_reaped(self, key: bytes, record: bytes) -> bool:
        reaped = self._reaped.get(self.partition_of(key))
        return reaped is not None and reaped.get(key) == record_digest(record)

    @property
    def reaped_lately(self) -> bool:
        return bool(self._reaped)

    # Setting a copy aside.

    def _set_aside(self, partition: int, generation: int, dropped: int) -> None:
        self._close(partition)
        self.unconfirmed.pop(partition, None)
        self.on_set_aside(partition)
        aside = _SettingAside(self, partition, generation, dropped)
        self._setting_aside[partition] = aside
        self._env.report(
            "copy_set_aside", partition=partition, generation=self.known(partition),
            dropped=dropped,
        )  # fmt: skip
        self._timers.wake(self._env.now + ASIDE_INTERVAL, aside)

    def set_aside_slice(self, aside: _SettingAside) -> None:
        """Move some of the partition's records and hints away; enter when none are left."""
        if self._move_aside(aside.partition):
            self._timers.wake(self._env.now + ASIDE_INTERVAL, aside)
            return
        del self._setting_aside[aside.partition]
        self.on_set_aside(aside.partition)  # Once more: nothing has been filled in before.
        self.enter(aside.partition, aside.generation, aside.dropped)
        self._env.counters.partitions_set_aside += 1

    def _move_aside(self, partition: int) -> bool:
        """False if nothing is left to move."""
        store = self._store
        if not store.writable:
            return True
        lo, hi = self._ring.partition_range(partition)
        for space in (SPACE_RECORDS, SPACE_HINTS):
            end = space + hi[1:] if hi[:1] == SPACE_RECORDS else bytes((space[0] + 1,))
            try:
                rows = store.scan(space + lo[1:], end, ASIDE_SLICE)
            except EngineFailed:
                return True  # Who reads and writes meets it too, and says so.
            self.aside.take(rows)
            for key, held in rows:
                if space == SPACE_RECORDS:
                    self._holdings.forget(key, held)
                elif self.hints is not None:
                    self.hints.forget(SPACE_RECORDS + key[1:])
            if rows:
                self._env.counters.records_set_aside += len(rows)
                return True
            store.drop_range(space + lo[1:], end)  # What is damaged no scan has shown.
        return False

    @property
    def not_ready(self) -> int:
        """Partitions held here of which nothing is served: not adopted, unheard, or set aside."""
        return len(self.unadopted) + len(self.unconfirmed) + len(self._setting_aside)


def _nobody_asks(partition: int) -> None:
    """What becomes of a copy that is set aside matters to nobody here."""


def _is_set(bits: bytes, partition: int) -> bool:
    return partition >> 3 < len(bits) and bool(bits[partition >> 3] >> (partition & 7) & 1)
