"""The few file operations that the log and the identity need, as an interface.

The server brings real files, the simulator and the tests bring files whose unsynced bytes die
in a crash. One `FileSystem` is one folder; names are plain file names within it. Everything is
synchronous and raises `OSError`. `LogFile.sync` and `FileSystem.sync_folder` are the only slow
calls, and with `remove` the only ones that may come from another thread than the loop's.

What a crash may do, and what log and identity are written against: bytes appended since the
last `sync` may be missing in whole or from some point on, or be garbage; creations, renames and
removals since the last `sync_folder` may be undone, the latest first.
"""


class LogFile:
    """An open file that only grows at its end, or is cut back there."""

    def append(self, data: bytes) -> None:
        """Write all of it at the end. After an `OSError` a part of it may be in the file."""
        raise NotImplementedError

    def truncate(self, size: int) -> None:
        """Cut the file back to ``size`` bytes; later appends go on from there."""
        raise NotImplementedError

    def size(self) -> int:
        raise NotImplementedError

    def sync(self) -> None:
        """Return when everything appended before the call is on disk. Any thread."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class FileSystem:
    """One folder of files."""

    def create(self, name: str) -> LogFile:
        """Make a new, empty file; `FileExistsError` if the name is taken."""
        raise NotImplementedError

    def open(self, name: str) -> LogFile:
        """Open an existing file for appending; `FileNotFoundError` if there is none."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """Return the whole content; `FileNotFoundError` if there is none."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return the names of all files in the folder, sorted."""
        raise NotImplementedError

    def rename(self, name: str, target: str) -> None:
        """Give a file another name, atomically replacing whatever bears it."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Unlink a file. Any thread."""
        raise NotImplementedError

    def sync_folder(self) -> None:
        """Return when creations, renames and removals are on disk. Any thread."""
        raise NotImplementedError

    def inode(self, name: str) -> int:
        """Return the number that a copy of this file would not share; ``""`` is the folder."""
        raise NotImplementedError

    def replace(self, name: str, data: bytes) -> None:
        """Put a small file in place, durably: afterwards it holds the old content or the new."""
        draft = name + ".new"
        if draft in self.names():
            self.remove(draft)
        file = self.create(draft)
        try:
            file.append(data)
            file.sync()
        finally:
            file.close()
        self.rename(draft, name)
        self.sync_folder()
