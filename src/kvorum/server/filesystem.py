"""Real files for the log and the identity: one folder, locked against a second process."""

import fcntl
import os
from typing import Final

from kvorum.storage.engine import StorageError
from kvorum.storage.filesystem import FileSystem, LogFile

LOCK_FILE: Final = "lock"
INODE_MASK: Final = (1 << 63) - 1


class DirectoryInUse(StorageError):
    """Another process runs on this data directory."""


class DiskFile(LogFile):
    """A file descriptor at the end of a file."""

    __slots__ = ("_descriptor", "_size")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def append(self, data: bytes) -> None:
        descriptor, offset = self._descriptor, self._size
        written = os.pwrite(descriptor, data, offset)
        if written < len(data):  # The disk is filling up; the next call says so.
            view = memoryview(data)
            while written < len(data):
                written += os.pwrite(descriptor, view[written:], offset + written)
        self._size = offset + written

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._size = size

    def size(self) -> int:
        return self._size

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class DiskFolder(FileSystem):
    """A folder on disk, made if it is missing. `lock` it before anything else."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(path, mode=0o700, exist_ok=True)
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = -1

    def lock(self) -> None:
        """Keep every other process out until `close`; `DirectoryInUse` if one is in already."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(LOCK_FILE, flags, 0o600, dir_fd=self._folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DirectoryInUse(
                f"the data directory {self.path} is in use by another process"
                + (f" (pid {owner})" if owner else "")
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._lock = descriptor

    def create(self, name: str) -> LogFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return DiskFile(os.open(name, flags, 0o600, dir_fd=self._folder))

    def open(self, name: str) -> LogFile:
        return DiskFile(os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._folder))

    def read(self, name: str) -> bytes:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def names(self) -> list[str]:
        with os.scandir(self._folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())

    def rename(self, name: str, target: str) -> None:
        os.replace(name, target, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._folder)

    def sync_folder(self) -> None:
        os.fsync(self._folder)

    def inode(self, name: str) -> int:
        if not name:
            return os.fstat(self._folder).st_ino
        # Inode numbers are used again soon, and a copy over a file in place keeps its number;
        # neither brings back the time of the last change.
        found = os.stat(name, dir_fd=self._folder)
        return (found.st_ino << 40 ^ found.st_ctime_ns) & INODE_MASK

    def close(self) -> None:
        """Let go of the folder and the lock."""
        for descriptor in (self._lock, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._folder = -1
