"""A node in its part of keeping copies: what coordinators ask of it, and mending its own.

A replica keeps the received bytes as they are if they supersede its own record, and merges,
without minting, if not. It never refuses a merge for its size. Its own actor for the key stays
with the holding, whatever arrives. What is damaged here answers "failed here", not "not found",
and the next good record heals it.
"""

from struct import error as StructError
from typing import Final

from kvorum.model.hashing import table_of_engine_key
from kvorum.model.holding import (
    HEAD_BYTES,
    NO_OWN,
    check_holding,
    own_dot,
    record_offset,
    with_own,
)
from kvorum.model.record import LWW, RecordInvalid, check_layout, supersedes
from kvorum.model.ring import Ring
from kvorum.model.siblings import merge
from kvorum.model.tables import TableRegistry
from kvorum.protocol.environment import Environment
from kvorum.protocol.minting import Minter
from kvorum.protocol.ports import Mender
from kvorum.storage.store import Store
from kvorum.wire.link import (
    ELSEWHERE,
    FAILED_HERE,
    MALFORMED,
    NOT_TAKEN,
    OK,
    RECORD,
    UNWRITABLE,
    Answers,
    record_payload,
)

NO_GENERATION: Final = 0  # no reap round has been entered yet


class Replica(Answers):
    """This node's own copies, towards coordinators and towards its own gets."""

    __slots__ = (
        "_buffer", "_env", "_large_bytes", "_me", "_minter", "_partition_key_bytes_max",
        "_store", "_tables", "ring",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, minter: Minter, ring: Ring, tables: TableRegistry,
        me: int, large_bytes: int, partition_key_bytes_max: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self._env = env
        self._store = store
        self._buffer = store.buffer
        self._minter = minter
        self._tables = tables
        self._me = me
        self._large_bytes = large_bytes
        self._partition_key_bytes_max = partition_key_bytes_max
        self.ring = ring

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        counters = self._env.counters
        problem = self._why_not(key, holding)
        if problem:
            counters.replica_refusals += 1
            return problem
        counters.replica_puts += 1
        self.keep(key, holding)
        # Also when nothing changed: what is held may still be on its way to the disk.
        self.position = self._buffer.position
        return OK

    def _why_not(self, key: bytes, holding: bytes) -> int:
        """A refusal's status, with ``payload`` set; or ``OK``."""
        refusal = self._buffer.refusal
        if refusal:
            self.payload = refusal.encode()
            return UNWRITABLE
        if self._me not in self.ring.owners_of_engine_key(key):
            self.payload = b"this node does not own the key's partition"
            return NOT_TAKEN
        table = self._tables.by_id(table_of_engine_key(key))
        if table is not None and table.dropped:
            self.payload = b"the table has been dropped"
            return NOT_TAKEN
        text = check_holding(holding, self._partition_key_bytes_max)
        if not text:
            try:
                check_layout(holding, record_offset(holding))
            except (RecordInvalid, StructError) as error:
                text = str(error)
        if text:
            self.payload = text.encode()
            return MALFORMED
        return OK

    def keep(self, key: bytes, holding: bytes) -> bool:
        """Merge a received holding (without own actor) into ours; True if that changed ours."""
        held = self._store.get(key)
        if not held:
            self._store.put(key, holding)
            return True
        if held == holding:
            return False
        own = own_dot(held)
        offset = record_offset(holding)
        record = holding[offset:]
        ours = held[offset:]
        if record_offset(held) != offset or held[HEAD_BYTES:offset] != holding[HEAD_BYTES:offset]:
            # Two partition keys under one 192-bit keyed hash: beyond belief, so a damaged sender.
            self._env.report("key_mismatch", engine_key=key.hex())
            return False
        if own != NO_OWN:
            self._minter.check_received(own, record)
        if record == ours:
            return False
        if supersedes(record, ours):
            self._store.put(key, holding if own == NO_OWN else with_own(holding, own))
            return True
        if supersedes(ours, record):
            if record[1] & LWW:
                self._env.counters.lww_dropped += 1
            return False
        self._env.counters.replica_merges += 1
        merged = merge(ours, record)
        if merged == ours:
            return False
        self._store.put(key, held[:offset] + merged)
        return True

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        self._env.counters.replica_gets += 1
        held = self._store.get(key)
        if held is None:
            return OK
        if not held:
            self.payload = b"the copy here is damaged"
            self._env.counters.replica_refusals += 1
            return FAILED_HERE
        record = held[record_offset(held) :]
        if len(record) > self._large_bytes and not large:
            self.payload = b""
            return ELSEWHERE
        self.payload = record_payload(NO_GENERATION, record)
        return RECORD

    def read(self, key: bytes, partition_key: bytes) -> bytes | None:
        """The own record for a get: None if there is none, ``b""`` if it is damaged here."""
        held = self._store.get(key)
        if not held:
            return held
        offset = record_offset(held)
        if held[HEAD_BYTES:offset] != partition_key:
            return b""
        return held[offset:]


class OwnCopy(Mender):
    """This node's own copies, towards the gets that it coordinates."""

    __slots__ = ("_replica", "_store")

    def __init__(self, replica: Replica, store: Store) -> None:
        self._replica = replica
        self._store = store

    def mend(self, key: bytes, holding: bytes) -> None:
        """Merge what a get has brought, if anything can be written now."""
        if self._store.writable:
            self._replica.keep(key, holding)
