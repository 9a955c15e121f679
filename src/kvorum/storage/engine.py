"""What a storage engine promises, so that one write path serves all of them.

An engine is an ordered map from bytes to bytes that survives its process, and knows nothing
of versions, tables, checksums or partitions: keys are opaque (1 to `MAX_KEY_BYTES` bytes,
ordered bytewise), values are opaque. Above it stands `buffer.Buffer`, which adds the log, the
overlay and our own CRC; nobody else writes to an engine.

Threads: `commit` is only ever called by one thread at a time; `get` and `scan` may run in
another thread at the same moment and see the state before or after a commit, never a part of
one. `copy` may run in a third thread while both go on.

Deliberately not here: iterators (one that lived across turns would pin old pages), snapshots,
asynchronous reads, and any write besides `commit`.
"""

from typing import Final, NamedTuple

MAX_KEY_BYTES: Final = 1 + 32 + 1024  # space, location and table, the longest sort key
SCAN_BYTES: Final = 4 << 20  # a scan ends after the row that brings it past this many value bytes


class StorageError(Exception):
    """Something below the protocol failed; the text says what and where."""


class EngineFull(StorageError):
    """The commit found no room and changed nothing; the same commit may succeed later."""


class EngineFailed(StorageError):
    """The engine cannot go on: an I/O error, a damaged page. Nothing more may be acknowledged."""


class Capabilities(NamedTuple):
    """What may be expected of one engine; asked by the buffer, the committer and the tests."""

    name: str
    durable: bool  # a commit that returned survives a power loss
    trusted: bool  # values cannot rot, so the buffer adds no checksum
    instant: bool  # commits cost microseconds, so they are made on the loop
    copies: bool  # `copy` works


class EngineStats(NamedTuple):
    """Sizes for people and metrics; approximate, cheap to ask for."""

    records: int
    used_bytes: int
    allotted_bytes: int  # what the engine may grow to before it has to ask for more; 0 if no matter


class Verified(NamedTuple):
    """One slice of a verification: how many records, where to go on, what was wrong."""

    records: int
    resume: bytes  # give this as ``after`` of the next slice; empty when the walk is done
    complaints: list[str]


class Engine:
    """An ordered, atomic, possibly durable map. Subclasses are thin plug-ins."""

    capabilities: Capabilities

    def get(self, key: bytes) -> bytes | None:
        """Return the value under a key, or None."""
        raise NotImplementedError

    def scan(self, lo: bytes, hi: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` (key, value) rows with ``lo <= key < hi``, in key order.

        The list also ends with the row that brings its values past `SCAN_BYTES`, and for no other
        reason. Whoever walks a range goes on from the last key plus a zero byte until a list is
        empty.
        """
        raise NotImplementedError

    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        """Apply the drops of ranges ``[lo, hi)``, then the deletes, then the puts, as one.

        Either all of it is there afterwards or nothing; on a durable engine it is on disk when
        this returns. ``puts`` should come in key order (it is faster), each key once. Raises
        `EngineFull` or `EngineFailed`, both with nothing changed.
        """
        raise NotImplementedError

    def copy(self, target: str) -> None:
        """Write a consistent copy of one moment to a new place while reads and commits go on."""
        raise NotImplementedError

    def verify(self, after: bytes, limit: int) -> Verified:
        """Walk up to ``limit`` records behind ``after`` (empty: from the start) and check order.

        Checksums are the buffer's affair (`Buffer.scrub`); this finds what the engine itself can
        know: rows out of order, pages that cannot be read.
        """
        raise NotImplementedError

    def stats(self) -> EngineStats:
        """Return sizes, cheaply."""
        raise NotImplementedError

    def close(self) -> None:
        """Release everything; further calls fail."""
        raise NotImplementedError
