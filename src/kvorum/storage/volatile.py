"""The write path of a node that keeps nothing: straight into the memory engine.

An overlay in front of an engine buys durability and batches for a disk. Where there is no log
and the engine is a dict, it would only hold everything twice for a while and look in three
places for what lies in one.
"""

from collections.abc import Callable

from kvorum.storage.buffer import Buffer
from kvorum.storage.memory import MemoryEngine


class VolatileBuffer(Buffer):
    """A buffer that is always empty. Positions count, and none is ever durable."""

    __slots__ = ("_records",)

    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__(engine, None)
        self._records = engine.records

    def put(self, key: bytes, holding: bytes) -> None:
        self._records[key] = holding
        self.position += 1

    def delete(self, key: bytes) -> None:
        self.engine.commit([], [key], [])
        self.position += 1

    def drop_range(self, lo: bytes, hi: bytes) -> None:
        self.engine.commit([(lo, hi)], [], [])
        self.position += 1

    def get(self, key: bytes) -> bytes | None:
        return self._records.get(key)

    def reader(self) -> Callable[[bytes], bytes | None]:
        return self._records.get
