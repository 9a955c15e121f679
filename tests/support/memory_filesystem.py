"""Files in memory whose unsynced bytes die in a crash, for the tests of log and store.

A crash keeps of every file what was synced and an arbitrary part of what was appended since,
possibly garbled at its end; of the folder it keeps the state of the last `sync_folder` and an
arbitrary number of the changes that followed, in their order. That is what the interface in
`kvorum.storage.filesystem` allows, and no kinder.
"""

import errno
from random import Random

from kvorum.storage.filesystem import FileSystem, LogFile


class _Node:
    """The content of one file, whatever its name is now."""

    def __init__(self, number: int, content: bytes = b"") -> None:
        self.number = number
        self.content = bytearray(content)
        self.synced = content


class MemoryFile(LogFile):
    def __init__(self, system: "MemoryFileSystem", node: _Node) -> None:
        self._system = system
        self._node = node
        self.closed = False

    def append(self, data: bytes) -> None:
        assert not self.closed, "append to a closed file"
        fitting = self._system.take_space(len(data))
        self._node.content += data[:fitting]
        if fitting < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, size: int) -> None:
        if self._system.fail_truncate:
            raise OSError(errno.EIO, "Input/output error")
        self._system.free_bytes += len(self._node.content) - size
        del self._node.content[size:]

    def size(self) -> int:
        return len(self._node.content)

    def sync(self) -> None:
        self._system.sync_count += 1
        if self._system.fail_sync:
            raise OSError(errno.EIO, "Input/output error")
        self._node.synced = bytes(self._node.content)

    def close(self) -> None:
        self.closed = True


class MemoryFileSystem(FileSystem):
    """One folder. ``free_bytes`` and the ``fail_*`` switches make it a bad disk."""

    def __init__(self, free_bytes: int = 1 << 40) -> None:
        self.free_bytes = free_bytes
        self.fail_sync = False
        self.fail_truncate = False
        self.sync_count = 0
        self.folder_number = 1
        self._next_number = 2
        self._names: dict[str, _Node] = {}
        self._history: list[dict[str, _Node]] = [{}]  # the synced state, then one per change

    def take_space(self, wanted: int) -> int:
        granted = min(wanted, self.free_bytes)
        self.free_bytes -= granted
        return granted

    def _new_node(self, content: bytes = b"") -> _Node:
        self._next_number += 1
        return _Node(self._next_number, content)

    def _changed(self) -> None:
        self._history.append(dict(self._names))

    def _find(self, name: str) -> _Node:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file", name)
        return self._names[name]

    def create(self, name: str) -> LogFile:
        if name in self._names:
            raise FileExistsError(errno.EEXIST, "File exists", name)
        self._names[name] = node = self._new_node()
        self._changed()
        return MemoryFile(self, node)

    def open(self, name: str) -> LogFile:
        return MemoryFile(self, self._find(name))

    def read(self, name: str) -> bytes:
        return bytes(self._find(name).content)

    def names(self) -> list[str]:
        return sorted(self._names)

    def rename(self, name: str, target: str) -> None:
        self._names[target] = self._find(name)
        del self._names[name]
        self._changed()

    def remove(self, name: str) -> None:
        self.free_bytes += len(self._find(name).content)
        del self._names[name]
        self._changed()

    def sync_folder(self) -> None:
        if self.fail_sync:
            raise OSError(errno.EIO, "Input/output error")
        self._history = [dict(self._names)]

    def inode(self, name: str) -> int:
        return self._find(name).number if name else self.folder_number

    # What a test does to the disk.

    def write(self, name: str, content: bytes) -> None:
        """Put a file there as if it had always been, synced."""
        node = self._names.get(name) or self._new_node()
        node.content = bytearray(content)
        node.synced = bytes(content)
        self._names[name] = node
        self._history = [dict(self._names)]

    def crash(self, random: Random, garble: bool = True) -> None:
        """Lose power: keep what was synced and an arbitrary part of the rest."""
        kept = self._history[random.randrange(len(self._history))]
        self._names = dict(kept)
        self._history = [dict(kept)]
        for name in sorted(self._names):
            node = self._names[name]
            content = bytes(node.content)
            if content.startswith(node.synced):
                size = random.randint(len(node.synced), len(content))
                content = content[:size]
                if garble and size > len(node.synced) and random.random() < 0.3:
                    at = random.randrange(len(node.synced), size)
                    content = content[:at] + bytes(size - at)
            elif random.random() < 0.5:
                content = node.synced
            node.content = bytearray(content)
            node.synced = content
        self.fail_sync = self.fail_truncate = False

    def copied(self) -> "MemoryFileSystem":
        """Return what ``cp -a`` of the folder would make: equal bytes, other inodes."""
        twin = MemoryFileSystem(self.free_bytes)
        twin.folder_number = self.folder_number + 1_000_000
        twin._next_number = self._next_number + 1_000_000
        for name in self.names():
            twin.write(name, self.read(name))
        return twin
