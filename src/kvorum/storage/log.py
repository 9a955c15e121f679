"""The checksummed log in front of every engine, and its group commit.

Entries collect in `pending` during a turn and are written as one frame when it ends; then they
have *level os*: they survive the process. A sync, run in any thread, makes everything written
by then durable at once, so all writes that arrived during one sync share the next (group
commit, no linger timer).

*Positions* count entries over all segments and runs; they are what acknowledgements are
compared with. Invariant: ``durable_position <= written_position``.

Segments and overlays go together: the log turns to a new segment when the overlay is frozen,
and the segments behind an overlay are removed, oldest first, once the engine holds it.

Failures. A write that fails (no space) is taken back to the last whole frame and tried again
at the end of the next turn; the entries stay pending. A *sync* that fails is final: the kernel
may have dropped the very pages, so a second sync that succeeds would prove nothing. `failed`
then says why, and no position moves again.
"""

from collections.abc import Callable
from typing import Final
from zlib import crc32

from kvorum.faults import NO_FAULTS, Faults
from kvorum.storage.filesystem import FileSystem, LogFile
from kvorum.storage.replay import (
    DELETE,
    DROP,
    FRAME_MAGIC,
    PUT,
    Replayed,
    entry_header,
    frame_fields,
    frame_header,
    pack_segment_header,
    segment_name,
)

__all__ = ["DELETE", "DROP", "PUT", "Log", "SyncTicket", "entry_header"]

_pack_frame: Final = frame_header.pack
_pack_fields: Final = frame_fields.pack


class SyncTicket:
    """One sync, begun on the loop, run anywhere, finished on the loop.

    Syncs the given files oldest first, then the folder if names in it have changed, then removes
    segments that are no longer needed, oldest first: a later one must never go before an earlier.
    """

    __slots__ = ("_files", "_folder", "_rotated", "_system", "position", "removable", "removed")

    def __init__(
        self,
        system: FileSystem,
        files: list[LogFile],
        position: int,
        folder: bool,
        removable: list[str],
    ) -> None:
        self._system = system
        self._files = files
        self._folder = folder
        self._rotated = len(files) > 1
        self.position = position
        self.removable = removable
        self.removed = 0

    @property
    def rotated(self) -> bool:
        """Whether this sync covered the end of a segment that the log has turned from."""
        return self._rotated

    def run(self) -> None:
        """Do it, in any thread; an `OSError` says that nothing may be taken for durable."""
        for file in self._files:
            file.sync()
        if self._folder:
            self._system.sync_folder()
        for name in self.removable:
            try:
                self._system.remove(name)
            except OSError:
                return  # Only space is at stake: it is tried again with the next sync.
            self.removed += 1


class Log:
    """The open end of the log. Made by the store after `replay` has read what was there."""

    def __init__(
        self,
        system: FileSystem,
        data_id: bytes,
        draw: Callable[[int], bytes],
        found: Replayed,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """Begin a new segment behind what a replay found. Raises `OSError`."""
        self._system = system
        self._data_id = data_id
        self._draw = draw
        self._faults = faults
        self.pending: list[bytes] = []  # header, key, value of each entry; written by the buffer
        self.written_position = found.position
        self.durable_position = found.position  # Replay has synced what it kept.
        self.failed = ""  # Why nothing will ever be acknowledged again.
        self.refused = ""  # Why the last write did not happen; cleared by one that does.
        self._closing: list[LogFile] = []  # Turned from, but not yet known to be synced.
        self._names = list(found.names)
        self._obsolete: list[str] = []
        self._in_flight = False
        self._folder_changed = False
        self.number = found.last_number
        self._salt = 0
        self._size = 0
        self._file = self._begin_segment()

    def _begin_segment(self) -> LogFile:
        number = self.number + 1
        name = segment_name(number)
        salt = int.from_bytes(self._draw(4), "little")
        header = pack_segment_header(number, salt, self.written_position + 1, self._data_id)
        file = self._system.create(name)
        try:
            file.append(header)
        except OSError:
            file.close()
            self._system.remove(name)
            raise
        self._folder_changed = True
        self._names.append(name)
        self.number = number
        self._salt = salt
        self._size = len(header)
        return file

    def write_pending(self, position: int) -> bool:
        """Write what is pending as one frame, its last entry being ``position``.

        Returns whether everything up to ``position`` is in the file; if not, `refused` or
        `failed` says why and the entries stay pending.
        """
        if self.failed:
            return False
        count = position - self.written_position
        if not count:
            self.refused = ""  # Whatever was refused, no entry waits for it.
            return True
        if not self._write_frame(b"".join(self.pending), count):
            return False
        self.pending.clear()
        self.written_position = position
        return True

    def _write_frame(self, body: bytes, count: int) -> bool:
        fields = _pack_fields(self.written_position + 1, self.durable_position, count)
        crc = crc32(body, crc32(fields, self._salt))
        first = self.written_position + 1
        frame = _pack_frame(FRAME_MAGIC, len(body), crc, first, self.durable_position, count) + body
        try:
            if self._faults.hit("log.write_refused"):
                raise OSError("a fault point")
            self._file.append(frame)
        except OSError as error:
            self._take_back(error)
            return False
        self._size += len(frame)
        self.refused = ""
        return True

    def _take_back(self, error: OSError) -> None:
        """Cut off what a failed write has left, so that the next frame follows a whole one."""
        self.refused = f"the log cannot be written: {error}"
        try:
            self._file.truncate(self._size)
        except OSError as second:
            self.failed = f"{self.refused}; nor cut back to its last whole frame: {second}"

    def begin_sync(self) -> SyncTicket | None:
        """Return what has to be synced now, or None: nothing to do, or one is under way."""
        if self._in_flight or self.failed:
            return None
        behind = self.written_position > self.durable_position
        if not (behind or self._folder_changed or self._obsolete or self._closing):
            return None
        self._in_flight = True
        files = [*self._closing, self._file]
        folder, self._folder_changed = self._folder_changed, False
        return SyncTicket(self._system, files, self.written_position, folder, list(self._obsolete))

    def finish_sync(self, ticket: SyncTicket, error: str) -> None:
        """Take the result of a ticket's run; ``error`` is empty if it went well."""
        self._in_flight = False
        if not error and self._faults.hit("log.sync_fails"):
            error = "a fault point"
        if error:
            self.failed = f"the log could not be synced: {error}"
            return
        if self.failed:
            return
        self.durable_position = ticket.position
        if ticket.removed:
            del self._obsolete[: ticket.removed]
            self._folder_changed = True
        if ticket.rotated:
            for file in self._closing:
                file.close()
            self._closing.clear()
            # Without this mark, damage at the end of the older segment would look like a tail
            # that a power loss has torn (see replay).
            self._write_frame(b"", 0)

    def rotate(self) -> bool:
        """Turn to a new segment; False if that is not possible now, and the old one goes on."""
        if self.failed or self._closing:
            return False
        try:
            file = self._begin_segment()
        except OSError as error:
            self.refused = f"no new log segment can be made: {error}"
            return False
        self._closing.append(self._file)
        self._file = file
        return True

    def retire_before(self, number: int) -> None:
        """Let every segment below ``number`` go: the engine holds what they hold."""
        last = segment_name(number)
        while self._names and self._names[0] < last:
            self._obsolete.append(self._names.pop(0))

    @property
    def bytes_written(self) -> int:
        """The size of the current segment."""
        return self._size

    def close(self) -> None:
        for file in self._closing:
            file.close()
        self._closing.clear()
        self._file.close()
