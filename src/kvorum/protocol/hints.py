"""The hints that this node holds: what it took for owners that did not answer.

Hints lie in an engine space of their own, under the record's key but for the first byte; one for
each key, whatever the number of puts and owners (``model/hint.py``). They are the durable work
list of ``handoff.py``. Beside them stands an index in memory, per owner and in order of age; it
is made anew at each start, by a walk in slices.

Hints are bounded in total and per owner. Past a bound a new hint is refused, and only that: the
coordinator looks for another fallback. A hint that grows is a new hint. (Architecture, section 5.)
"""

from collections.abc import Callable
from struct import error as StructError
from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.hint import Hint, OtherKey, decode_hint, hinted_holding, joined
from kvorum.model.holding import HEAD_BYTES, NO_OWN, checked_record_offset, own_dot, record_offset
from kvorum.model.record import RecordInvalid
from kvorum.model.ring import Ring
from kvorum.protocol.environment import Environment
from kvorum.protocol.minting import Minter
from kvorum.protocol.ports import HintKeeper
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store
from kvorum.wire.link import MALFORMED, NOT_TAKEN, OK, OVERLOADED

LOAD_SLICE: Final = 128  # hints looked at in one step of the walk at the start
FOREVER: Final = 1 << 60
BEYOND_HINTS: Final = b"\x03"


class Hints(HintKeeper):
    """All hints of one store. Keys are those of records; the space byte is changed in here."""

    __slots__ = (
        "_by_partition", "_bytes_max", "_bytes_per_peer_max", "_env", "_load_from", "_me",
        "_minter", "_ring", "_shift", "_store", "bytes", "loaded", "on_crowded", "owed",
        "owed_bytes", "refusal", "refused_at",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, ring: Ring, minter: Minter, config: NodeConfig,
        me: int,
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._ring = ring
        self._shift = ring.shift
        self._minter = minter
        self._me = me
        self._bytes_max = config.hint_bytes_max
        self._bytes_per_peer_max = config.hint_bytes_per_peer_max
        self._by_partition: dict[int, dict[bytes, int]] = {}  # key -> bytes that it takes
        self.owed: dict[int, dict[bytes, int]] = {}  # owner -> key -> since when, oldest first
        self.owed_bytes: dict[int, int] = {}
        self.bytes = 0
        self.refusal = ""  # why the last hint was not taken
        self.refused_at = -FOREVER  # when one last found no room
        self.on_crowded: Callable[[], None] = _nobody_looks
        self._load_from = SPACE_HINTS
        self.loaded = False

    # What is held.

    def holding(self, key: bytes) -> bytes | None:
        """The holding hinted under a key; None if there is none, empty if it is damaged."""
        stored = self._store.get(SPACE_HINTS + key[1:])
        return hinted_holding(stored) if stored else stored

    def read(self, key: bytes, partition_key: bytes) -> bytes | None:
        """The record hinted under a key, for a get that this node coordinates as a fallback."""
        held = self.holding(key)
        if not held:
            return held
        offset = record_offset(held)
        return held[offset:] if held[HEAD_BYTES:offset] == partition_key else b""

    def hint(self, key: bytes) -> Hint | None:
        """The hint under a key, if there is a good one."""
        stored = self._store.get(SPACE_HINTS + key[1:])
        return decode_hint(stored) if stored else None

    def holds(self, key: bytes) -> bool:
        """Whether a hint is held under a key, be it a damaged one."""
        return self._store.get(SPACE_HINTS + key[1:]) is not None

    def keys_of(self, partition: int) -> list[bytes]:
        """The keys of all hints for one partition."""
        if self.loaded:
            return list(self._by_partition.get(partition, ()))
        low, high = self._ring.partition_range(partition)
        low = SPACE_HINTS + low[1:]
        high = BEYOND_HINTS if high == SPACE_HINTS else SPACE_HINTS + high[1:]
        keys: list[bytes] = []
        while rows := self._store.scan(low, high, LOAD_SLICE):
            keys += [SPACE_RECORDS + key[1:] for key, _ in rows]
            low = rows[-1][0] + b"\0"
        return keys

    @property
    def count(self) -> int:
        return sum(map(len, self._by_partition.values()))

    def oldest(self, owner: int) -> int:
        """Since when the oldest hint for an owner has waited, wall clock; 0: none does."""
        for created in self.owed.get(owner, {}).values():
            return created
        return 0

    # Taking.

    def take(self, key: bytes, owner: int, w: int, disks: int, holding: bytes) -> int:
        """Keep a coordinator's record for an owner; a status, with ``refusal`` saying why."""
        partition = (key[1] << 8 | key[2]) >> self._shift
        if owner not in self._ring.owners(partition):
            self.refusal = f"member {owner} does not own the key's partition"
            return NOT_TAKEN
        if self._me not in self._ring.fallbacks(partition):
            self.refusal = "this node is no listed fallback of the key's partition"
            return NOT_TAKEN
        try:
            checked_record_offset(holding)
        except (RecordInvalid, StructError) as error:
            self.refusal = str(error)
            return MALFORMED
        if holding[4:HEAD_BYTES] != NO_OWN:
            self.refusal = "a holding travels without its store's own actor"
            return MALFORMED
        stored = self._store.get(SPACE_HINTS + key[1:])
        made = Hint(w, disks, self._env.wall, (owner,), holding)
        if stored:
            held = decode_hint(stored)
            own = own_dot(held.holding)
            if own != NO_OWN:
                self._minter.check_received(own, holding[record_offset(holding) :])
            try:
                made = joined(held, made)
            except OtherKey:
                self._env.report("key_mismatch", engine_key=key.hex())
                self.refusal = "another key has the same hash; this key cannot be stored"
                return NOT_TAKEN
        elif stored is not None:
            made.owners = tuple(sorted({*self._owed_by_index(key), owner}))
        encoded = made.encode()
        if not self.has_room(key, made.owners, len(encoded)):
            self._env.counters.hints_refused += 1
            self.refused_at = self._env.now
            self.on_crowded()
            self.refusal = "no more hints fit here; the owners they are for have been away too long"
            return OVERLOADED
        self._env.counters.hints_taken += 1
        if encoded != stored:
            self._write(key, made.owners, made.created, encoded)
            self._env.faults.crash("hint.before_ack")
        return OK

    def keep_minted(self, key: bytes, w: int, disks: int, holding: bytes) -> None:
        """Keep what this node has minted as a fallback: owed to every owner.

        ``holding``, with its own actor, is the hint's, with a write more.
        """
        partition = (key[1] << 8 | key[2]) >> self._shift
        created = self._env.wall
        owners = tuple(sorted(self._ring.owners(partition)))
        held = self.hint(key)
        if held is not None:
            w, disks = max(w, held.w), max(disks, held.disks)
            created = min(created, held.created)
        self._env.counters.hints_taken += 1
        encoded = Hint(w, disks, created, owners, holding).encode()
        self._write(key, owners, created, encoded)

    def has_room(self, key: bytes, owners: tuple[int, ...], size: int) -> bool:
        """Whether a hint of ``size`` bytes may stand under ``key``, whatever does now."""
        partition = (key[1] << 8 | key[2]) >> self._shift
        size += len(key)
        before = self._by_partition.get(partition, {}).get(key, 0)
        if size <= before and all(key in self.owed.get(owner, {}) for owner in owners):
            return True
        if self.bytes + size - before > self._bytes_max:
            return False
        for owner in owners:
            had = before if key in self.owed.get(owner, {}) else 0
            if self.owed_bytes.get(owner, 0) + size - had > self._bytes_per_peer_max:
                return False
        return True

    def _owed_by_index(self, key: bytes) -> list[int]:
        return [owner for owner, keys in self.owed.items() if key in keys]

    # Letting go.

    def settle(self, key: bytes, owner: int, holding: bytes) -> bool:
        """The owner durably has what ``holding`` says; False if more has come in meanwhile."""
        held = self.hint(key)
        if held is None or owner not in held.owners:
            return True
        if held.holding[HEAD_BYTES:] != holding[HEAD_BYTES:]:
            return False
        self._env.faults.crash("hint.before_drop")
        self._env.counters.hints_handed += 1
        held.owners = tuple(other for other in held.owners if other != owner)
        if held.owners:
            self._write(key, held.owners, held.created, held.encode())
        else:
            self.forget(key)
        return True

    def give_up(self, key: bytes) -> None:
        """Let go of a hint that is damaged; nobody can say any more what was owed to whom.

        Exchange mends the owners that it was for, without being told.
        """
        self._env.counters.hints_damaged += 1
        self.forget(key)

    def shed(self, key: bytes) -> None:
        """Let go of a hint that owners cover, though the one it waits for does not have it."""
        self._env.counters.hints_shed += 1
        self._env.faults.crash("hint.before_shed")
        self.forget(key)

    def forget(self, key: bytes) -> None:
        """Let go of a hint altogether."""
        self._store.delete(SPACE_HINTS + key[1:])
        self._account(key, (), 0, 0)

    def _write(self, key: bytes, owners: tuple[int, ...], created: int, encoded: bytes) -> None:
        self._store.put(SPACE_HINTS + key[1:], encoded)
        self._account(key, owners, created, len(key) + len(encoded))

    def _account(self, key: bytes, owners: tuple[int, ...], created: int, size: int) -> None:
        """Keep the index as the store is: ``size`` bytes under ``key``, owed to ``owners``."""
        partition = (key[1] << 8 | key[2]) >> self._shift
        sizes = self._by_partition.setdefault(partition, {})
        before = sizes.pop(key, 0)
        if size:
            sizes[key] = size
        elif not sizes:
            del self._by_partition[partition]
        self.bytes += size - before
        for owner in dict.fromkeys((*self._ring.owners(partition), *owners)):
            keys = self.owed.setdefault(owner, {})
            had = key in keys
            if owner in owners:
                if not had:
                    keys[key] = created
                change = size - before if had else size
            else:
                if had:
                    del keys[key]
                change = -before if had else 0
            self.owed_bytes[owner] = self.owed_bytes.get(owner, 0) + change

    # The start.

    def load(self) -> None:
        """Take the next slice of what the store holds into the index, until ``loaded``."""
        try:
            rows = self._store.scan(self._load_from, BEYOND_HINTS, LOAD_SLICE)
        except EngineFailed:
            return  # Whoever reads and writes meets it too, and says so; tried again later.
        for stored_key, stored in rows:
            hint = decode_hint(stored)
            key = SPACE_RECORDS + stored_key[1:]
            self._account(key, hint.owners, hint.created, len(key) + len(stored))
        if rows:
            self._load_from = rows[-1][0] + b"\0"
            return
        self.loaded = True
        for owner, keys in self.owed.items():
            self.owed[owner] = dict(sorted(keys.items(), key=_age_of))


def _nobody_looks() -> None:
    """Nobody can make room yet."""


def _age_of(item: tuple[bytes, int]) -> tuple[int, bytes]:
    return item[1], item[0]
