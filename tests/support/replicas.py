"""Replicas of one key without a network: the real minting and merging on a store of one dict.

What a test does to them is what happens to nodes: puts, gets, records sent from one to another,
copies dropped, disks wiped or rolled back, restarts clean and unclean, a copied directory.
"""

from typing import Any, cast

from kvorum.config import NodeConfig
from kvorum.counters import Counters
from kvorum.model.clock import HybridClock
from kvorum.model.context import check_context, context_of_record, context_of_seen
from kvorum.model.hashing import engine_key
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.merkle import Trees
from kvorum.model.quorum import Resolution
from kvorum.model.record import check_record, highest_clock
from kvorum.model.ring import Ring
from kvorum.model.siblings import context_after_put
from kvorum.model.tables import TableRegistry, TableSettings
from kvorum.protocol.environment import Environment
from kvorum.protocol.generations import Generations
from kvorum.protocol.hints import Hints
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.minting import MINTED, Minter
from kvorum.protocol.replica import Replica
from kvorum.protocol.timers import Timers
from kvorum.storage.store import Store
from tests.support.members import some_topology
from tests.support.records import HASH_KEY, TABLE_ID

PARTITION_KEY = b"alice"
KEY = engine_key(HASH_KEY, TABLE_ID, PARTITION_KEY, b"cart")
SIBLINGS = TableSettings("carts", TABLE_ID, 2, 2)
LWW = TableSettings("carts", TABLE_ID, 2, 2, Resolution.LWW)
NOBODY = b"\0" * 16


class StillEnvironment(Environment):
    """A world in which nothing happens but what the test does; its clock stands."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.wall = 1_000_000
        self.counters = Counters()
        self.reported: list[str] = []

    def report(self, event: str, **detail: Any) -> None:
        self.reported.append(event)


class OneStore:
    """A store as minting sees it: holdings, a store id, and stamps that count up.

    Ids come from a tape that all stores of a test share, so none is ever drawn twice.
    """

    def __init__(self, tape: list[int]) -> None:
        self._tape = tape
        self.buffer = None
        self.start_count = 2
        self.writable = True
        self.clean_start = False
        self.holdings: dict[bytes, bytes] = {}
        self.get = self.holdings.get
        self.put = self.holdings.__setitem__
        self.renew("new")

    def scan(self, lo: bytes, hi: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return [row for row in sorted(self.holdings.items()) if lo <= row[0] < hi][:limit]

    def renew(self, reason: str) -> None:
        self._tape.append(len(self._tape) + 1)
        self.store_id = self._tape[-1].to_bytes(8, "big")
        self.stamp = 0

    @property
    def upcoming_stamp(self) -> int:
        return self.stamp + 1

    def next_stamp(self) -> int:
        self.stamp += 1
        return self.stamp


class OneReplica:
    """One node's copy of the one key, from disk to disk."""

    def __init__(
        self, tape: list[int], minting: type[Minter] = Minter, table: TableSettings = SIBLINGS
    ) -> None:
        self.tape = tape
        self.minting = minting
        self.table = table
        self.environment = StillEnvironment()
        self.store = OneStore(tape)
        self._start()

    def _start(self) -> None:
        clock = HybridClock(0, 60_000_000)
        clock.extend_lease(1 << 62)
        store = cast(Store, self.store)
        ring = Ring(some_topology())
        holdings = Holdings(store, ring, Trees())
        self.minter = self.minting(self.environment, store, holdings, clock)
        generations = Generations(self.environment, store, holdings, ring, Timers(), 1)
        hints = Hints(self.environment, store, ring, self.minter, NodeConfig(), 1)
        self.replica = Replica(
            self.environment, store, holdings, generations, self.minter, hints, ring,
            TableRegistry(), 1 << 20, bytearray(ring.partitions),
        )  # fmt: skip

    @property
    def holding(self) -> bytes | None:
        return self.store.get(KEY)

    @property
    def record(self) -> bytes | None:
        holding = self.holding
        return None if holding is None else record_of(holding)

    def put(
        self, data: bytes, context: bytes = b"", tombstone: bool = False, put_id: bytes = NOBODY
    ) -> tuple[bytes, bytes]:
        """Mint a value; its dot, and the context that the writer gets back."""
        if context:
            check_context(KEY, context)
        outcome = self.minter.mint(
            KEY, PARTITION_KEY, self.table, context, tombstone, 0, put_id, b"", data
        )
        assert outcome == MINTED, self.minter.refusal
        check_record(self.minter.record)
        after = context_after_put(self.minter.record, self.minter.dot)
        return self.minter.dot, context_of_seen(KEY, after, self.minter.value_clock)

    def read(self) -> bytes:
        """The context of a get here; empty where there is nothing."""
        record = self.record
        return b"" if record is None else context_of_record(KEY, record, highest_clock(record))

    def receive(self, record: bytes | None) -> None:
        """Take a record that another replica sent."""
        if record is not None:
            self.replica.keep(KEY, pack_holding(NO_OWN, PARTITION_KEY, record))
            assert self.record is not None
            check_record(self.record)

    def drop(self) -> None:
        """Forget the copy; the caller has given it to another before."""
        self.store.holdings.pop(KEY, None)

    def wipe(self) -> None:
        """A new disk in place of the old one."""
        self.store = OneStore(self.tape)
        self._start()

    def restart(self, clean: bool, holding: bytes | None) -> None:
        """Stop and start, finding ``holding`` on the disk; after a clean stop the latest one."""
        store = OneStore(self.tape)
        if holding is not None:
            store.put(KEY, holding)
        if clean:
            store.store_id, store.stamp = self.store.store_id, self.store.stamp
            store.clean_start = True
        self.store = store
        self._start()
