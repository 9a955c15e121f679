"""Move a frozen overlay into the engine, slice by slice.

Slices are small because an engine's commit may hold up others for its whole length and gains
nothing beyond about a thousand records. Half-committed overlays do no harm: readers look in the
overlay first, and after a crash the log replays it. The server runs the steps in a thread, the
simulator and the tests with `drain`.
"""

from typing import Final
from zlib import crc32

from kvorum.storage.buffer import Buffer, Frozen, pack_crc
from kvorum.storage.engine import Engine

SLICE_RECORDS: Final = 1024
SLICE_BYTES: Final = 1 << 20
BUCKET_PREFIX_BYTES: Final = 2


class Commit:
    """The walk of one frozen overlay into the engine; a step that failed may be taken again."""

    __slots__ = ("_at", "_drops", "_engine", "_keys", "_overlay", "_trusted")

    def __init__(self, engine: Engine, frozen: Frozen) -> None:
        self._engine = engine
        self._overlay = frozen.overlay
        self._drops = list(frozen.drops)
        # Order is for engines that write pages; a dict gains nothing by it.
        instant = engine.capabilities.instant
        self._keys = list(frozen.overlay) if instant else sorted_in_parts(frozen.overlay)
        self._at = 0
        self._trusted = engine.capabilities.trusted

    @property
    def done(self) -> bool:
        return not self._drops and self._at >= len(self._keys)

    def step(self) -> None:
        """Commit one slice. Raises `EngineFull` or `EngineFailed` and then stays where it was."""
        if self._drops:
            self._step_drop()
            return
        deletes: list[bytes] = []
        puts: list[tuple[bytes, bytes]] = []
        at, size, keys, overlay = self._at, 0, self._keys, self._overlay
        while at < len(keys) and at - self._at < SLICE_RECORDS and size < SLICE_BYTES:
            key = keys[at]
            holding = overlay[key]
            at += 1
            if not holding:
                deletes.append(key)
            elif self._trusted:
                puts.append((key, holding))
            else:
                puts.append((key, pack_crc(crc32(holding, crc32(key))) + holding))
            size += len(key) + len(holding)
        self._engine.commit([], deletes, puts)
        self._at = at

    def _step_drop(self) -> None:
        """Drop the next thousand keys of the first range; a whole partition would take long."""
        lo, hi = self._drops[0]
        rows = self._engine.scan(lo, hi, SLICE_RECORDS)
        if rows:
            middle = rows[-1][0] + b"\0"
            self._engine.commit([(lo, middle)], [], [])
            self._drops[0] = (middle, hi)
        if not rows or middle >= hi:
            del self._drops[0]


def sorted_in_parts(overlay: dict[bytes, bytes]) -> list[bytes]:
    """Return the keys in order, sorted a few at a time.

    One `sort` of a hundred thousand keys would hold the interpreter, and with it the loop, for
    tens of milliseconds; this runs in the committer's thread and lets go in between.
    """
    buckets: dict[bytes, list[bytes]] = {}
    for key in overlay:
        prefix = key[:BUCKET_PREFIX_BYTES]
        bucket = buckets.get(prefix)
        if bucket is None:
            buckets[prefix] = [key]
        else:
            bucket.append(key)
    keys: list[bytes] = []
    for prefix in sorted(buckets):
        bucket = buckets[prefix]
        bucket.sort()
        keys += bucket
    return keys


def sync_now(buffer: Buffer) -> bool:
    """Sync the log on the spot; False if that failed (see `Buffer.refusal`)."""
    ticket = buffer.begin_sync()
    if ticket is None:
        return buffer.log is None or not buffer.log.failed
    error = ""
    try:
        ticket.run()
    except OSError as failure:
        error = str(failure) or type(failure).__name__
    buffer.finish_sync(ticket, error)
    return not error


def drain(buffer: Buffer) -> bool:
    """Move everything into the engine at once; False if log or engine do not allow it now.

    For tests, the simulator, and the store while it opens: it blocks. Raises `EngineFull` and
    `EngineFailed` with the overlay still frozen and nothing lost.
    """
    while True:
        frozen = buffer.frozen
        if frozen is None:
            if not buffer.end_turn():
                return False
            if not buffer.freeze():
                return buffer.empty and not buffer.refusal
            continue
        if buffer.committable is None and not sync_now(buffer):
            return False
        if buffer.committable is None:
            return False
        commit = Commit(buffer.engine, frozen)
        while not commit.done:
            commit.step()
        buffer.retire()
        sync_now(buffer)
