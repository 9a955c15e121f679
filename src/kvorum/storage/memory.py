"""The engine of tests, of the simulator and of nodes that keep nothing.

With ``durable`` it stands for a disk: the simulator keeps the object across the crashes of a
node, and records carry checksums so that bits may be flipped in it. Without, it is the plain
memory of a volatile node and holds the buffer's bytes as they are.
"""

from itertools import islice
from typing import Final

from kvorum.storage.engine import (
    SCAN_BYTES,
    Capabilities,
    Engine,
    EngineFailed,
    EngineStats,
    Verified,
)
from kvorum.storage.order import KeyOrder

DURABLE = Capabilities("memory", durable=True, trusted=False, instant=True, copies=False)
SAMPLE: Final = 1000  # records that the size of all is estimated from
VOLATILE = Capabilities("memory", durable=False, trusted=True, instant=True, copies=False)


class MemoryEngine(Engine):
    """A dict, and an order over its keys that is worked out when somebody scans."""

    __slots__ = ("_order", "capabilities", "records")

    def __init__(self, durable: bool = False) -> None:
        self.capabilities = DURABLE if durable else VOLATILE
        self.records: dict[bytes, bytes] = {}  # open to fault injection; keys leave by `commit`
        self._order = KeyOrder(self.records)

    def get(self, key: bytes) -> bytes | None:
        return self.records.get(key)

    def scan(self, lo: bytes, hi: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        for key in self._order.between(lo, hi, limit):
            value = self.records[key]
            rows.append((key, value))
            size += len(value)
            if size > SCAN_BYTES:
                break
        return rows

    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        for lo, hi in drops:
            self._order.remove_between(lo, hi)
        if deletes:
            self._order.remove(deletes)
        self.records.update(puts)

    def copy(self, target: str) -> None:
        raise EngineFailed("a memory engine has nothing on disk to copy")

    def verify(self, after: bytes, limit: int) -> Verified:
        keys = self._order.between(after + b"\x00" if after else b"", b"\xff" * 8, limit)
        return Verified(len(keys), keys[-1] if len(keys) == limit else b"", [])

    def stats(self) -> EngineStats:
        records = self.records
        if not records:
            return EngineStats(0, 0, 0)
        some = list(islice(records.values(), SAMPLE))  # all would take long, in the loop
        return EngineStats(len(records), sum(map(len, some)) * len(records) // len(some), 0)

    def close(self) -> None:
        """Keep everything: whoever holds the object decides how long its contents live."""
