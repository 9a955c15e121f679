"""A node in its part of keeping copies: what coordinators ask of it, and mending its own.

A replica keeps the received bytes as they are if they supersede its own record, and merges,
without minting, if not. It never refuses a merge for its size. Its own actor for the key stays
with the holding, whatever arrives. What is damaged here answers "failed here", not "not found",
and the next good record heals it.
"""

from struct import Struct
from struct import error as StructError
from typing import Final

from kvorum.model.holding import (
    HEAD_BYTES,
    NO_OWN,
    checked_record_offset,
    own_dot,
    plain_successor,
    record_offset,
    with_own,
)
from kvorum.model.record import LWW, RecordInvalid, supersedes_at
from kvorum.model.ring import Ring
from kvorum.model.siblings import merge
from kvorum.model.tables import TableRegistry
from kvorum.protocol.environment import Environment
from kvorum.protocol.generations import FIRST, NOT_READY, Generations
from kvorum.protocol.hints import Hints
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.minting import Minter
from kvorum.protocol.ports import Copies
from kvorum.storage.store import Store
from kvorum.wire.link import (
    ELSEWHERE,
    FAILED_HERE,
    HINT_BYTES,
    LATER,
    MALFORMED,
    NOT_TAKEN,
    NOTHING_BEHIND,
    OK,
    RECORD,
    RECORD_BEHIND,
    STALE_GENERATION,
    UNWRITABLE,
    Answers,
    unpack_hint,
)
from kvorum.wire.link import NOT_READY as PEER_NOT_READY

RECORDS: Final = 1  # the first byte of every record's engine key; this node's own lie elsewhere
NOT_NOW: Final = "ask again"  # the one cause that is gone by the next batch

_stale = Struct("<QQ")


class Replica(Answers):
    """This node's own copies, towards coordinators and towards its own gets."""

    __slots__ = (
        "_buffer", "_current", "_dropped", "_env", "_generations", "_hints", "_holdings",
        "_large_bytes", "_minter", "_owned", "_refusal", "_ring", "_shift", "behind",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, generations: Generations,
        minter: Minter, hints: Hints, ring: Ring, tables: TableRegistry, large_bytes: int,
        behind: bytearray,
    ) -> None:  # fmt: skip
        super().__init__()
        self.behind = behind  # by partition: this node may lack what was acknowledged there
        self._env = env
        self._holdings = holdings
        self._generations = generations
        self._owned = generations.owned  # by partition; what is stamped otherwise is refused
        self._current = generations.current  # the same, also where it is a listed fallback
        self._hints = hints
        self._buffer = store.buffer
        self._minter = minter
        self._dropped = tables.dropped_ids
        self._large_bytes = large_bytes
        self._refusal = ""  # why nothing can be written in this batch
        self._ring = ring
        self._shift = ring.shift

    def begin(self) -> None:
        """A batch follows: what holds for all of it is looked at once."""
        self._refusal = self._buffer.refusal
        if not self._refusal and self._env.faults.hit("replica.answer_later"):
            self._refusal = NOT_NOW

    def position(self) -> int:
        """Also where nothing changed: what is held may still be on its way to the disk."""
        return self._buffer.position

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        if (
            self._refusal
            or key[0] != RECORDS
            or self._owned[(key[1] << 8 | key[2]) >> self._shift] != generation
            or (self._dropped and key[17:25] in self._dropped)
        ):
            return self._refuse(key, generation)
        counters = self._env.counters
        held = self._holdings.get(key)
        if held:
            follows = plain_successor(held, holding)
            if follows is not None:
                counters.replica_puts += 1
                kept, actors = follows
                self._holdings.rewrite(key, held, kept, actors)
                return OK
        try:
            offset = checked_record_offset(holding)
        except (RecordInvalid, StructError) as error:
            counters.replica_refusals += 1
            self.payload = str(error).encode()
            return MALFORMED
        if holding[4:HEAD_BYTES] != NO_OWN:
            # Under another store's actor, or ours of old, this store would mint its dots again.
            counters.replica_refusals += 1
            self.payload = b"a holding travels without its store's own actor"
            return MALFORMED
        counters.replica_puts += 1
        self._take(key, held, holding, offset)
        return OK

    def _take(self, key: bytes, held: bytes | None, holding: bytes, offset: int) -> None:
        generations = self._generations
        if generations.reaped_lately and generations.was_reaped(key, holding[offset:]):
            # All owners had this very version, and have let it go; but perhaps whoever sends it
            # was not told. Where a delete went it notes that itself; of a record that was made
            # leaner nobody but us can tell, and until a round comes the two would never agree.
            if held:
                self._holdings.doubt(key)
            return
        if not held:
            self._holdings.write(key, held, holding)
        elif held != holding:
            self._merge(key, held, holding, offset)

    def on_hint(self, key: bytes, body: bytes, epoch: int, generation: int) -> int:
        partition = self._ring.partition_of_engine_key(key)
        if (
            self._refusal
            or key[0] != RECORDS
            or self._current[partition] != generation
            or key[17:25] in self._dropped
        ):
            return self._refuse(key, generation, True)
        owner, w, disks = unpack_hint(body, 0)
        status = self._hints.take(key, owner, w, disks, body[HINT_BYTES:])
        if status != OK:
            self._env.counters.replica_refusals += 1
            self.payload = self._hints.refusal.encode()
        return status

    def _refuse(self, key: bytes, generation: int, as_fallback: bool = False) -> int:
        if self._refusal == NOT_NOW:
            self.payload = b""
            return LATER
        self._env.counters.replica_refusals += 1
        if self._refusal:
            self.payload = self._refusal.encode()
            return UNWRITABLE
        if key[0] != RECORDS:
            self.payload = b"the key is none of a record"
            return NOT_TAKEN
        partition = self._ring.partition_of_engine_key(key)
        held = self._current[partition] if as_fallback else self._owned[partition]
        if held == generation:
            self.payload = b"the table has been dropped"
            return NOT_TAKEN
        if held >= 0:
            return self._judge_generation(partition, held, generation)
        me = self._generations.me
        if self._ring.is_owner(me, partition) or (
            as_fallback and me in self._ring.fallbacks(partition)
        ):
            self.payload = b"this node has yet to learn where the partition stands"
            return PEER_NOT_READY
        self.payload = b"this node does not own the key's partition"
        return NOT_TAKEN

    def _judge_generation(self, partition: int, owned: int, generation: int) -> int:
        """What was read under another generation than ours."""
        if generation > owned:
            self._generations.ask(partition)
            self.payload = b""
            return LATER
        self._env.counters.stale_generations += 1
        self.generation = owned
        self.payload = _stale.pack(owned, self._generations.dropped.get(partition, FIRST))
        return STALE_GENERATION

    def has_dropped(self, key: bytes) -> bool:
        """Whether the key's table has been dropped, so that nothing may be kept under it."""
        return key[17:25] in self._dropped

    def keep(self, key: bytes, holding: bytes) -> None:
        """Merge a holding (without own actor), read under our generation, into ours."""
        self._take(key, self._holdings.get(key), holding, record_offset(holding))

    def _merge(self, key: bytes, held: bytes, holding: bytes, offset: int) -> None:
        own = own_dot(held)
        if held[HEAD_BYTES:offset] != holding[HEAD_BYTES:offset] or record_offset(held) != offset:
            # Two partition keys under one 192-bit keyed hash: beyond belief, so a damaged sender.
            self._env.report("key_mismatch", engine_key=key.hex())
            return
        if held[offset:] == holding[offset:]:
            return
        if own != NO_OWN:
            self._minter.check_received(own, holding[offset:])
        if supersedes_at(holding, offset, held, offset):
            kept = holding if own == NO_OWN else with_own(holding, own)
            self._holdings.write(key, held, kept)
            return
        if supersedes_at(held, offset, holding, offset):
            if holding[offset + 1] & LWW:
                self._env.counters.lww_dropped += 1
            return
        self._env.counters.replica_merges += 1
        merged = merge(held[offset:], holding[offset:])
        self._holdings.write(key, held, held[:offset] + merged)

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        self._env.counters.replica_gets += 1
        partition = (key[1] << 8 | key[2]) >> self._shift
        if key[0] == RECORDS and self._owned[partition] == generation:
            held = self._holdings.get(key)
        elif (
            key[0] == RECORDS
            and self._owned[partition] < 0 <= self._current[partition]
            and (self._current[partition] == generation)
        ):
            held = self._hints.holding(key)  # A fallback answers with what it keeps for owners.
        else:
            return self._refuse_get(key, generation)
        behind = self.behind[partition]
        if held is None:
            if not behind:
                return OK
            self.payload = b""
            self.generation = generation
            return NOTHING_BEHIND
        if not held:
            self.payload = b"the copy here is damaged"
            self._env.counters.replica_refusals += 1
            return FAILED_HERE
        record = held[HEAD_BYTES + (held[2] | held[3] << 8) :]
        if len(record) > self._large_bytes and not large:
            self.payload = b""
            return ELSEWHERE
        self.payload = record
        self.generation = generation
        return RECORD_BEHIND if behind else RECORD

    def _refuse_get(self, key: bytes, generation: int) -> int:
        # A refused log write does not stand in the way of reading.
        refusal, self._refusal = self._refusal, ""
        status = self._refuse(key, generation, True)
        self._refusal = refusal
        return status

    def read(self, key: bytes, partition_key: bytes) -> bytes | None:
        """The own record for a get: None if there is none, ``b""`` if it is damaged here."""
        held = self._holdings.get(key)
        if not held:
            return held
        offset = HEAD_BYTES + len(partition_key)
        if held[HEAD_BYTES:offset] != partition_key or held[2] | held[3] << 8 != len(partition_key):
            return b""
        return held[offset:]


class OwnCopies(Copies):
    """This node's own copies, towards the requests that it coordinates."""

    __slots__ = ("_generations", "_holdings", "_replica", "_store")

    def __init__(
        self, replica: Replica, store: Store, holdings: Holdings, generations: Generations
    ) -> None:
        self._replica = replica
        self._store = store
        self._holdings = holdings
        self._generations = generations

    def mend(self, key: bytes, holding: bytes, generation: int) -> None:
        """Merge what a get has brought, if it may be kept and anything can be written now.

        A get may have begun before its table was dropped, or before a reap; what it brings then
        is let go.
        """
        partition = self._generations.partition_of(key)
        if (
            self._generations.owned[partition] == generation
            and self._store.writable
            and not self._replica.has_dropped(key)
        ):
            self._replica.keep(key, holding)

    def read_again(self, key: bytes, stale: bytes) -> tuple[bytes | None, int]:
        generation, learned = _learn(self._generations, key, stale)
        if not learned:
            return b"", generation
        held = self._holdings.get(key)
        if not held or self._replica.has_dropped(key):
            return held and b"", generation
        return with_own(held, NO_OWN), generation


class HintedCopies(Copies):
    """What this node keeps for owners, towards the requests that it coordinates in their stead."""

    __slots__ = ("_generations", "_hints", "_replica")

    def __init__(self, replica: Replica, hints: Hints, generations: Generations) -> None:
        self._replica = replica
        self._hints = hints
        self._generations = generations

    def mend(self, key: bytes, holding: bytes, generation: int) -> None:
        """Hints are not mended: the owners are, when they are back."""

    def read_again(self, key: bytes, stale: bytes) -> tuple[bytes | None, int]:
        generation, learned = _learn(self._generations, key, stale)
        if not learned:
            return b"", generation
        held = self._hints.holding(key)
        if not held or self._replica.has_dropped(key):
            return held and b"", generation
        return with_own(held, NO_OWN), generation


def _learn(generations: Generations, key: bytes, stale: bytes) -> tuple[int, bool]:
    """Enter the generation that a peer has told; the one to go on under, and whether it is ours."""
    if len(stale) != _stale.size:
        return FIRST, False
    told, dropped = _stale.unpack(stale)
    partition = generations.partition_of(key)
    generations.learn(partition, told, dropped)
    generation = generations.current[partition]
    if generation < told or generation == NOT_READY:
        return told, False
    return generation, True
