"""The write buffer: overlay, log and engine as one ordered map with one write path.

A put is a dict store in the *active overlay* plus an entry for the log; it is visible at once,
survives the process after the turn's write, and a power loss after the next sync. When the
overlay has grown enough it is *frozen*, the log turns to a new segment, a committer moves the
frozen overlay into the engine, and the segments behind it go. Reads look in the active overlay,
then in the frozen one, then in the engine. (Dynamo paper, section 5: the buffered write; safe
here because of the log.)

Order of the layers: a drop of a range empties the active overlay of it and masks everything
below; so within one layer the drops come first and the records second, and replay or commit may
apply them in just that order.

The engine is never ahead of the synced log: a frozen overlay may only be committed once
``durable_position`` has passed it (`commit.drain` and the server's committer see to that).
Replay overwrites and never merges, so entries that the engine already holds do no harm.

Reads are synchronous and stay on the loop, so no overlay can be retired in the middle of one.
(A read that left the loop would have to look again after any retirement.)

A record in the engine carries a CRC over key and holding. A record that fails it, or that the
engine cannot read, is *quarantined*: ``get`` returns ``b""`` for it ("failed here", not "not
found"), scans leave it out, and the next put under its key heals it.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from kvorum.storage.engine import SCAN_BYTES, Engine, EngineFailed
from kvorum.storage.log import DELETE, DROP, PUT, Log, SyncTicket, entry_header
from kvorum.storage.order import KeyOrder

DELETED: Final = b""  # in an overlay: this key is gone, whatever lies below
QUARANTINED: Final = b""  # from `get`: something is here and may not be served
QUARANTINE_MAX: Final = 4096  # keys remembered; the count goes on

DEFAULT_FREEZE_BYTES: Final = 8 << 20
DEFAULT_LIMIT_BYTES: Final = 64 << 20
ENTRY_OVERHEAD_BYTES: Final = 160  # what a dict slot and two bytes objects cost beyond their bytes

_pack_entry = entry_header.pack
_crc_field = Struct("<I")
_unpack_crc = _crc_field.unpack_from
pack_crc: Final = _crc_field.pack
CRC_BYTES: Final = 4


class Frozen:
    """An overlay that takes no more writes and is on its way into the engine."""

    __slots__ = ("bytes", "drops", "next_segment", "order", "overlay", "position")

    def __init__(
        self,
        overlay: dict[bytes, bytes],
        order: KeyOrder,
        drops: list[tuple[bytes, bytes]],
        position: int,
        size: int,
        next_segment: int,
    ) -> None:
        self.overlay = overlay
        self.order = order
        self.drops = drops
        self.position = position  # of its last entry; durable before it may be committed
        self.bytes = size
        self.next_segment = next_segment  # the log's segments below this hold it


class BufferStats(NamedTuple):
    """Sizes and counts for status and metrics."""

    overlay_records: int
    frozen_records: int
    bytes: int
    limit_bytes: int
    position: int
    written_position: int
    durable_position: int
    quarantined: int
    retired_overlays: int


def _covered(drops: list[tuple[bytes, bytes]], key: bytes) -> bool:
    return any(lo <= key < hi for lo, hi in drops)


class Buffer:
    """An ordered map from engine keys to holdings; the loop's own, never touched by a thread.

    ``log`` is None on a volatile node: positions still count, and none is ever durable.
    """

    __slots__ = (
        "_active",
        "_active_bytes",
        "_drops",
        "_engine_get",
        "_fresh_quarantine",
        "_frozen_bytes",
        "_order",
        "_pending",
        "_quarantine",
        "_trusted",
        "durable_position",
        "engine",
        "failed",
        "freeze_bytes",
        "frozen",
        "limit_bytes",
        "log",
        "position",
        "quarantine_count",
        "retired_count",
        "written_position",
    )

    def __init__(
        self,
        engine: Engine,
        log: Log | None,
        freeze_bytes: int = DEFAULT_FREEZE_BYTES,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        self.engine = engine
        self.log = log
        self.freeze_bytes = freeze_bytes
        self.limit_bytes = limit_bytes
        self._engine_get = engine.get
        self._trusted = engine.capabilities.trusted
        self._active: dict[bytes, bytes] = {}
        self._order = KeyOrder(self._active)
        self._drops: list[tuple[bytes, bytes]] = []
        self._active_bytes = 0
        self._frozen_bytes = 0
        self._pending: list[bytes] | None = None
        self.frozen: Frozen | None = None
        self.position = 0
        self.written_position = 0
        self.durable_position = 0
        if log is not None:
            self._pending = log.pending
            self.position = log.written_position
            self.written_position = log.written_position
            self.durable_position = log.durable_position
        self.failed = ""  # Why the engine takes nothing any more; the log has its own.
        self._quarantine: dict[bytes, None] = {}
        self._fresh_quarantine: list[bytes] = []
        self.quarantine_count = 0
        self.retired_count = 0

    # Writing.

    def put(self, key: bytes, holding: bytes) -> None:
        """Store a holding (never empty); visible at once, written when the turn ends."""
        self._active[key] = holding
        self.position += 1
        self._active_bytes += len(key) + len(holding) + ENTRY_OVERHEAD_BYTES
        pending = self._pending
        if pending is not None:
            pending += (_pack_entry(PUT, len(key), len(holding)), key, holding)

    def delete(self, key: bytes) -> None:
        """Forget a key entirely; a client's delete is a put of a tombstone and not this."""
        self._active[key] = DELETED
        self._log_entry(DELETE, key, b"")

    def drop_range(self, lo: bytes, hi: bytes) -> None:
        """Forget every key with ``lo <= key < hi`` as one entry of the log."""
        self._order.remove_between(lo, hi)
        self._drops.append((lo, hi))
        self._log_entry(DROP, lo, hi)

    def _log_entry(self, operation: int, key: bytes, value: bytes) -> None:
        self.position += 1
        self._active_bytes += len(key) + len(value) + ENTRY_OVERHEAD_BYTES
        if self._pending is not None:
            self._pending += (_pack_entry(operation, len(key), len(value)), key, value)

    def replayed(self, operation: int, key: bytes, value: bytes) -> None:
        """Take one entry that is already in the log; given to `replay` when the store opens."""
        if operation == PUT:
            self._active[key] = value
        elif operation == DELETE:
            self._active[key] = DELETED
        else:
            self._order.remove_between(key, value)
            self._drops.append((key, value))
        self._active_bytes += len(key) + len(value) + ENTRY_OVERHEAD_BYTES

    def attach(self, log: Log) -> None:
        """Go on with an opened log, after every entry of it has been given to `replayed`."""
        self.log = log
        self._pending = log.pending
        self.position = self.written_position = log.written_position
        self.durable_position = log.durable_position

    # Reading.

    def reader(self) -> Callable[[bytes], bytes | None]:
        """`get`, by the shortest way, for whoever binds it once."""
        return self.get

    def get(self, key: bytes) -> bytes | None:
        """Return the holding, None if there is none, or ``b""`` if it is quarantined."""
        holding = self._active.get(key)
        if holding is not None:
            return holding or None
        if self._drops and _covered(self._drops, key):
            return None
        frozen = self.frozen
        if frozen is not None:
            holding = frozen.overlay.get(key)
            if holding is not None:
                return holding or None
            if frozen.drops and _covered(frozen.drops, key):
                return None
        try:
            stored = self._engine_get(key)
        except EngineFailed:
            return self._set_aside(key)
        if stored is None or self._trusted:
            return stored
        holding = stored[4:]
        if len(stored) < 5 or crc32(holding, crc32(key)) != _unpack_crc(stored)[0]:
            return self._set_aside(key)
        return holding

    def scan(self, lo: bytes, hi: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` (key, holding) rows of ``lo <= key < hi``, in order.

        As with an engine, the list ends early once its values pass `SCAN_BYTES`; so go on from the
        last key plus a zero byte until a list is empty. Quarantined records are left out. Raises
        `EngineFailed`.
        """
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        while lo < hi and len(rows) < limit:
            some, lo = self._scan_once(lo, hi, limit - len(rows))
            for row in some:
                rows.append(row)
                size += len(row[1])
                if size > SCAN_BYTES:
                    return rows
        return rows

    def _scan_once(
        self, lo: bytes, hi: bytes, limit: int
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Merge the layers over as much of the range as all of them have been asked for.

        Returns the rows and the key before which nothing is left to find.
        """
        below = self.engine.scan(lo, hi, limit)
        end = hi
        if len(below) == limit or sum(len(stored) for _, stored in below) > SCAN_BYTES:
            end = below[-1][0] + b"\0"  # There may be more below than we were given.
        active = self._order.between(lo, end, limit)
        if len(active) == limit:
            end = active[-1] + b"\0"
        frozen = self.frozen
        frozen_keys: list[bytes] = []
        if frozen is not None:
            frozen_keys = frozen.order.between(lo, end, limit)
            if len(frozen_keys) == limit:
                end = frozen_keys[-1] + b"\0"
        merged = dict(below if self._trusted else self._checked(below))
        if frozen is not None:
            _mask(merged, frozen.drops)
            for key in frozen_keys:
                merged[key] = frozen.overlay[key]
        _mask(merged, self._drops)
        for key in active:
            merged[key] = self._active[key]
        keys = [key for key in merged if key < end and merged[key]]
        keys.sort()
        if len(keys) > limit:
            del keys[limit:]
            end = keys[-1] + b"\0"
        return [(key, merged[key]) for key in keys], end

    def _checked(self, below: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Strip the checksums of an engine's rows; what fails is set aside if nothing hides it."""
        good = []
        for key, stored in below:
            holding = stored[4:]
            if len(stored) < 5 or crc32(holding, crc32(key)) != _unpack_crc(stored)[0]:
                if not self._hidden(key):
                    self._set_aside(key)
            else:
                good.append((key, holding))
        return good

    def _hidden(self, key: bytes) -> bool:
        """Whether what the engine has under a key is no longer what a reader would see."""
        if key in self._active or _covered(self._drops, key):
            return True
        frozen = self.frozen
        return frozen is not None and (key in frozen.overlay or _covered(frozen.drops, key))

    # Quarantine.

    def _set_aside(self, key: bytes) -> bytes:
        if key not in self._quarantine:
            self.quarantine_count += 1
            if len(self._quarantine) >= QUARANTINE_MAX:
                del self._quarantine[next(iter(self._quarantine))]
            self._quarantine[key] = None
            self._fresh_quarantine.append(key)
            del self._fresh_quarantine[:-QUARANTINE_MAX]
        return QUARANTINED

    def take_quarantined(self) -> list[bytes]:
        """Return the keys set aside since the last call, for healing and for the operator's log."""
        fresh, self._fresh_quarantine = self._fresh_quarantine, []
        return fresh

    def quarantined(self) -> list[bytes]:
        """Return the keys that are set aside now and have not been healed by a later write."""
        return [key for key in self._quarantine if not self._hidden(key)]

    def scrub(self, after: bytes, limit: int) -> bytes:
        """Check the checksums of up to ``limit`` engine records behind ``after``.

        Returns where to go on, or ``b""`` at the end; `take_quarantined` tells what was found.
        """
        rows = self.engine.scan(after + b"\0" if after else b"", b"\xff" * 8, limit)
        if not self._trusted:
            self._checked(rows)
        return rows[-1][0] if rows else b""

    # The end of a turn, syncs and the way into the engine.

    @property
    def bytes(self) -> int:
        """What was written since the last retired overlay, with what memory costs beside it."""
        return self._active_bytes + self._frozen_bytes

    @property
    def full(self) -> bool:
        """Whether the hard bound is reached: no further put until the engine has caught up."""
        return self._active_bytes + self._frozen_bytes >= self.limit_bytes

    @property
    def refusal(self) -> str:
        """Why puts are to be refused now, or ``""``."""
        log = self.log
        if log is not None and (log.failed or log.refused):
            return log.failed or log.refused
        if self.failed:
            return self.failed
        if self._active_bytes + self._frozen_bytes >= self.limit_bytes:
            return "the write buffer is full: the engine does not keep up or has no space"
        return ""

    def end_turn(self) -> bool:
        """Write the turn's entries to the log; False if they could not be (see `refusal`)."""
        log = self.log
        if log is None:
            return True
        if log.write_pending(self.position):
            self.written_position = self.position
            return True
        return False

    def begin_sync(self) -> SyncTicket | None:
        """Return what has to be synced, to be run in any thread, or None."""
        return self.log.begin_sync() if self.log is not None else None

    def finish_sync(self, ticket: SyncTicket, error: str) -> None:
        """Take the result of a ticket on the loop; ``error`` is empty if it went well."""
        assert self.log is not None
        self.log.finish_sync(ticket, error)
        self.durable_position = self.log.durable_position

    @property
    def empty(self) -> bool:
        """Whether the engine holds everything."""
        return self.frozen is None and not self._active and not self._drops

    @property
    def wants_freeze(self) -> bool:
        """Whether the active overlay is large enough to be moved and the way is free."""
        return self._active_bytes >= self.freeze_bytes and self.frozen is None

    def freeze(self) -> bool:
        """Turn the active overlay into the frozen one, between two turns; False if impossible."""
        if self.frozen is not None or self.empty:
            return False
        if self.log is not None and (
            self.written_position < self.position or not self.log.rotate()
        ):
            return False
        number = self.log.number if self.log is not None else 0
        self.frozen = Frozen(
            self._active, self._order, self._drops, self.position, self._active_bytes, number
        )
        self._frozen_bytes = self._active_bytes
        self._active = {}
        self._order = KeyOrder(self._active)
        self._drops = []
        self._active_bytes = 0
        return True

    @property
    def committable(self) -> Frozen | None:
        """The frozen overlay, once the log that holds it is durable."""
        frozen = self.frozen
        if frozen is None or (self.log is not None and self.durable_position < frozen.position):
            return None
        return frozen

    def retire(self) -> Frozen:
        """Let the frozen overlay go, after the commit of all of it has returned.

        Returns it, so that the caller may take it apart off the loop.
        """
        frozen = self.frozen
        assert frozen is not None
        self.frozen = None
        self._frozen_bytes = 0
        self.retired_count += 1
        if self._quarantine:
            self._quarantine = {
                key: None
                for key in self._quarantine
                if key not in frozen.overlay and not _covered(frozen.drops, key)
            }
        if self.log is not None:
            self.log.retire_before(frozen.next_segment)
        return frozen

    def fail(self, reason: str) -> None:
        """The engine takes nothing any more: refuse writes from now on, and say why."""
        self.failed = reason

    def stats(self) -> BufferStats:
        return BufferStats(
            len(self._active),
            len(self.frozen.overlay) if self.frozen is not None else 0,
            self.bytes,
            self.limit_bytes,
            self.position,
            self.written_position,
            self.durable_position,
            self.quarantine_count,
            self.retired_count,
        )


def _mask(rows: dict[bytes, bytes], drops: list[tuple[bytes, bytes]]) -> None:
    if drops:
        for key in [key for key in rows if _covered(drops, key)]:
            del rows[key]
