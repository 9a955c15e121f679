"""The simulator's disk, under the names that the storage tests know it by."""

from kvorum.simulator.disk import Disk as MemoryFileSystem
from kvorum.simulator.disk import DiskFile as MemoryFile

__all__ = ["MemoryFile", "MemoryFileSystem"]
