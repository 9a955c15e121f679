"""Files in memory whose unsynced bytes die in a power loss: the disk of a simulated machine.

A power loss keeps of every file what was synced and an arbitrary part of what was appended
since, possibly garbled at its end; of the folder it keeps the state of the last ``sync_folder``
and an arbitrary number of the changes that followed, in their order. That is what the interface
in ``kvorum.storage.filesystem`` allows, and no kinder.

A sync takes time, and covers only what had been written when it began: whoever runs it later
takes a ``Moment`` first and runs it ``as_of`` that. After a sync that failed, the bytes it
should have covered can still be read but will never be durable, as with pages that the kernel
has dropped from its list of dirty ones.
"""

import errno
from collections.abc import Callable
from random import Random

from kvorum.storage.filesystem import FileSystem, LogFile


class _Content:
    """The bytes of one file, whatever its name is now."""

    __slots__ = ("before", "bytes", "doomed", "number", "synced")

    def __init__(self, number: int, content: bytes = b"") -> None:
        self.number = number
        self.bytes = bytearray(content)
        self.synced = len(content)  # so many bytes of it are on disk
        self.before: bytes | None = None  # on disk still, though the file was cut back since
        self.doomed = -1  # bytes from here on can never become durable; -1: none

    def settle(self, size: int) -> None:
        """The first ``size`` bytes, or all that is left of them, are on disk from now on."""
        size = min(size, len(self.bytes))
        if self.doomed >= 0:
            size = min(size, self.doomed)
        self.synced = max(self.synced, size)
        self.before = None

    def cut(self, size: int) -> None:
        if size < self.synced:
            if self.before is None:
                self.before = bytes(self.bytes[: self.synced])
            self.synced = size
        if self.doomed >= size:
            self.doomed = -1
        del self.bytes[size:]


class Moment:
    """What a disk held at one time: the sizes of its files, and its folder's changes so far."""

    __slots__ = ("changes", "sizes")

    def __init__(self, changes: int, sizes: dict[int, int]) -> None:
        self.changes = changes
        self.sizes = sizes


class DiskFile(LogFile):
    """One open file."""

    def __init__(self, system: "Disk", content: _Content) -> None:
        self._system = system
        self._content = content
        self.closed = False

    def append(self, data: bytes) -> None:
        assert not self.closed, "append to a closed file"
        if self._system.fail_append:
            self._content.bytes += data[: self._system.take_space(len(data) // 2)]
            raise OSError(errno.EIO, "Input/output error")
        fitting = self._system.take_space(len(data))
        self._content.bytes += data[:fitting]
        if fitting < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, size: int) -> None:
        if self._system.fail_truncate:
            raise OSError(errno.EIO, "Input/output error")
        self._system.free_bytes += len(self._content.bytes) - size
        self._content.cut(size)

    def size(self) -> int:
        return len(self._content.bytes)

    def sync(self) -> None:
        self._system.sync(self._content)

    def close(self) -> None:
        self.closed = True


class Disk(FileSystem):
    """One folder. ``free_bytes`` and the ``fail_*`` switches make it a bad disk."""

    def __init__(self, free_bytes: int = 1 << 40) -> None:
        self.free_bytes = free_bytes
        self.fail_sync = False
        self.fail_append = False
        self.fail_truncate = False
        self.sync_count = 0
        self.folder_number = 1
        self._next_number = 2
        self._names: dict[str, _Content] = {}
        self._history: list[dict[str, _Content]] = [{}]  # the synced state, then one per change
        self._forgotten = 0  # changes before the first of the history
        self._as_of: Moment | None = None

    def take_space(self, wanted: int) -> int:
        granted = min(wanted, max(self.free_bytes, 0))
        self.free_bytes -= granted
        return granted

    def _new_content(self, data: bytes = b"") -> _Content:
        self._next_number += 1
        return _Content(self._next_number, data)

    def _changed(self) -> None:
        self._history.append(dict(self._names))

    def _find(self, name: str) -> _Content:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file", name)
        return self._names[name]

    def create(self, name: str) -> LogFile:
        if name in self._names:
            raise FileExistsError(errno.EEXIST, "File exists", name)
        self._names[name] = content = self._new_content()
        self._changed()
        return DiskFile(self, content)

    def open(self, name: str) -> LogFile:
        return DiskFile(self, self._find(name))

    def read(self, name: str) -> bytes:
        return bytes(self._find(name).bytes)

    def names(self) -> list[str]:
        return sorted(self._names)

    def rename(self, name: str, target: str) -> None:
        self._names[target] = self._find(name)
        del self._names[name]
        self._changed()

    def remove(self, name: str) -> None:
        self.free_bytes += len(self._find(name).bytes)
        del self._names[name]
        self._changed()

    def sync(self, content: _Content) -> None:
        self.sync_count += 1
        if self.fail_sync:
            content.doomed = content.synced
            raise OSError(errno.EIO, "Input/output error")
        moment = self._as_of
        if moment is None:
            content.settle(len(content.bytes))
        else:
            content.settle(moment.sizes.get(content.number, len(content.bytes)))

    def sync_folder(self) -> None:
        if self.fail_sync:
            raise OSError(errno.EIO, "Input/output error")
        changes = self._forgotten + len(self._history) - 1
        if self._as_of is not None:
            changes = min(changes, max(self._as_of.changes, self._forgotten))
        self._history = self._history[changes - self._forgotten :]
        self._forgotten = changes

    def inode(self, name: str) -> int:
        return self._find(name).number if name else self.folder_number

    # Syncs that take time.

    def moment(self) -> Moment:
        """What a sync that begins now will cover."""
        sizes = {content.number: len(content.bytes) for content in self._names.values()}
        return Moment(self._forgotten + len(self._history) - 1, sizes)

    def as_of(self, moment: Moment, job: Callable[[], None]) -> None:
        """Run a job whose syncs began at ``moment`` and end now."""
        self._as_of = moment
        try:
            job()
        finally:
            self._as_of = None

    # What a test or a fault does to the disk.

    def write(self, name: str, content: bytes) -> None:
        """Put a file there as if it had always been, synced."""
        known = self._names.get(name)
        self._names[name] = fresh = self._new_content(content)
        if known is not None:
            fresh.number = known.number
        self._changed()
        self._forget_history()

    def flip(self, name: str, random: Random) -> int:
        """Flip one bit of a file where it lies; return which byte it is in."""
        content = self._find(name).bytes
        at = random.randrange(len(content))
        content[at] ^= 1 << random.randrange(8)
        return at

    def _forget_history(self) -> None:
        self._forgotten += len(self._history) - 1
        self._history = [dict(self._names)]

    def crash(self, random: Random, garble: bool = True) -> None:
        """Lose power: keep what was synced and an arbitrary part of the rest."""
        kept = self._history[random.randrange(len(self._history))]
        self._names = dict(kept)
        self._forget_history()
        for name in sorted(self._names):
            content = self._names[name]
            old = content.before
            if old is not None and random.random() < 0.5:
                content.bytes = bytearray(old)
            elif old is None:
                size = random.randint(content.synced, len(content.bytes))
                torn = bytes(content.bytes[:size])
                if garble and size > content.synced and random.random() < 0.3:
                    at = random.randrange(content.synced, size)
                    torn = torn[:at] + bytes(size - at)
                content.bytes = bytearray(torn)
            content.synced = len(content.bytes)
            content.before = None
            content.doomed = -1
        self.fail_sync = self.fail_truncate = False

    def copied(self) -> "Disk":
        """Return what ``cp -a`` of the folder would make: equal bytes, other inodes."""
        twin = Disk(self.free_bytes)
        twin.folder_number = self.folder_number + 1_000_000
        twin._next_number = self._next_number + 1_000_000
        for name in self.names():
            twin.write(name, self.read(name))
        return twin
