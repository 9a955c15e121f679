"""Counting leaves anew: after an unclean stop, where a record was damaged, and now and then.

The write path keeps the leaves of the hash trees (``model/merkle.py``) up to date, and a clean
stop hands them to the next start. After an unclean one nobody knows which write they have last
seen, so a background task reads all records once and counts, while writes go on. When nothing is
stale it goes on as a **scrub**, one block of leaves at a time and all of them in
``scrub_interval_s``: every record is read and its checksum looked at, and a leaf that has come
out wrong is put right, counted and told.

A record that is found damaged makes its leaf stale. Counted without it, the leaf differs from
the other owners', and exchange brings the record back.
"""

from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.hashing import SPACE_RECORDS
from kvorum.model.merkle import LEAF_BYTES, LEAVES, NO_LEAF, Trees, leaf_of, leaf_start
from kvorum.protocol.background import BYTES_SHIFT, RECORD_READ, Background, Task
from kvorum.protocol.environment import Environment
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store

ROWS_MAX: Final = 64  # records read in one step
READ_BYTES: Final = 64 << 10  # of one step, about
STEP_LEAVES: Final = 4_096  # settled in one step at the most; most are empty where rows are few
SCRUB_LEAVES: Final = 64  # of one block of the scrub
STEP_COST: Final = 10
LEAVES_SHIFT: Final = 8  # 256 empty leaves settled cost one unit


class RowReader:
    """Reads records in slices of bounded rows and, as far as sizes can be foreseen, bytes."""

    __slots__ = ("_row_bytes", "_store", "cost")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._row_bytes = 256  # of a holding, on average lately
        self.cost = 0  # of the last read

    def read(self, lo: bytes, hi: bytes, most: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Some records from ``lo`` on, and the key up to which these are all; ``EngineFailed``."""
        limit = max(1, min(most, READ_BYTES // self._row_bytes))
        rows = self._store.scan(lo, hi, limit)
        size = 0
        for _, holding in rows:
            size += len(holding)
        if rows:
            self._row_bytes += (size // len(rows) - self._row_bytes) // 4 + 1
        self.cost = STEP_COST + len(rows) * RECORD_READ + (size >> BYTES_SHIFT)
        # The store ends a list early where values are large, too.
        full = len(rows) >= limit or size > READ_BYTES
        return rows, rows[-1][0] + b"\0" if full else hi


class TreeScan(Task, Timed):
    """Keeps the leaves of one store right."""

    __slots__ = (
        "_at", "_background", "_env", "_holdings", "_pause", "_quarantines", "_reader",
        "_scrub_at", "_store", "_timers", "_until", "trees",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, background: Background,
        timers: Timers, config: NodeConfig, leaves: bytes,
    ) -> None:  # fmt: skip
        """``leaves`` is what the last clean stop has left, or empty."""
        self._env = env
        self._store = store
        self._holdings = holdings
        self._background = background
        self._timers = timers
        self._pause = max(config.scrub_interval_s * 1_000_000 * SCRUB_LEAVES // LEAVES, 1_000)
        self._reader = RowReader(store)
        self._quarantines = 0
        self._scrub_at = 0  # the leaf with which the scrub goes on
        self._at = b""  # where the scan stands; empty: none is under way
        self._until = b""
        self.trees: Trees = holdings.trees
        if len(leaves) == LEAVES * LEAF_BYTES:
            self.trees.load(leaves)
        elif store.start_count > 1 and not store.volatile:
            self.trees.spoil_all()
            background.wake(self)
        timers.wake(env.now + self._pause, self)

    def encoded(self) -> bytes:
        """The leaves, for the next start after a clean stop; empty if not all are known."""
        return bytes(self.trees.encoded(0, LEAVES)) if not self.trees.stale_count else b""

    def look_for_damage(self) -> None:
        """Find out whether records were set aside as damaged since the last look."""
        buffer = self._store.buffer
        if buffer.quarantine_count != self._quarantines:
            self._quarantines = buffer.quarantine_count
            for key in buffer.quarantined():
                if key[:1] == SPACE_RECORDS:
                    self.trees.spoil(leaf_of(key))
        if self.trees.stale_count:
            self._background.wake(self)

    def on_timer(self) -> None:
        """The next block of the scrub is due; or a pause after trouble is over."""
        if not self._at and not self.trees.stale_count:
            self._begin(self._scrub_at, self._scrub_at + SCRUB_LEAVES)
            self._scrub_at = (self._scrub_at + SCRUB_LEAVES) % LEAVES
        self._background.wake(self)
        self._timers.wake(self._env.now + self._pause, self)

    def _begin(self, first: int, end: int) -> None:
        self._at = leaf_start(first)
        self._until = leaf_start(min(end, LEAVES))
        self.trees.begin_scan(first)

    def step(self, allowance: int) -> int:
        trees = self.trees
        if not self._at or (trees.stale_count and not trees.stale[self._leaf]):
            stale = trees.first_stale(0) if trees.stale_count else NO_LEAF
            if stale == NO_LEAF:
                return 0
            self._begin(stale, LEAVES)
        try:
            end = min(self._until, leaf_start(min(self._leaf + STEP_LEAVES, LEAVES)))
            rows, end = self._reader.read(
                self._at, end, min(ROWS_MAX, allowance // RECORD_READ + 1)
            )
        except EngineFailed:
            # Who reads and writes meets it too, and says so. This can wait for the next timer.
            self._at = b""
            return 0
        if self._store.buffer.quarantine_count != self._quarantines:
            # This very read has met a damaged record, which the leaf still has: count it anew.
            self.look_for_damage()
            self._at = b""
            return self._reader.cost
        leaves = self._leaf
        wrong = trees.scanned(rows, end)
        if wrong:
            self._env.counters.leaves_mended += wrong
            self._env.report("leaves_mended", count=wrong, first_leaf=leaves)
        notice = self._holdings.notice
        for key, holding in rows:
            notice(key, holding)
        self._env.counters.records_scanned += len(rows)
        self._at = end if end < self._until else b""
        settled = (leaf_of(end + b"\0\0") if self._at else LEAVES) - leaves
        return self._reader.cost + (min(settled, STEP_LEAVES) >> LEAVES_SHIFT)

    @property
    def _leaf(self) -> int:
        """The leaf in which the scan stands."""
        return leaf_of(self._at + b"\0\0")
