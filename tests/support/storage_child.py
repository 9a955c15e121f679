"""A process that writes to a store until it is killed, and says what it was promised.

Run as ``python -m tests.support.storage_child FOLDER FIRST``. Batch ``n`` puts eight keys; a line
``os n`` means that its turn's write has returned, ``disk n`` that its sync has. The parent kills
it at some moment and looks for every batch of which it was told.
"""

import os
import sys
from collections.abc import Callable
from queue import SimpleQueue
from random import Random

from kvorum.server.committer import Committer
from kvorum.server.filesystem import DiskFolder
from kvorum.storage.lmdb import LmdbEngine
from kvorum.storage.store import Store, open_store

BATCH = 8


def open_there(path: str) -> tuple[DiskFolder, LmdbEngine, Store]:
    files = DiskFolder(path)
    files.lock()
    engine = LmdbEngine(os.path.join(path, "engine"), map_bytes=1 << 20)
    store = open_store(
        files,
        engine,
        cluster_id=b"cluster1",
        member_id=1,
        member_name="a",
        draw=os.urandom,
        freeze_bytes=60_000,
        limit_bytes=400_000,
    )
    return files, engine, store


def batch(number: int) -> dict[bytes, bytes]:
    """Half of the keys are the batch's own, half are shared by all and so overwritten."""
    random = Random(number)
    rows = {b"\x01own%08d-%d" % (number, k): random.randbytes(200) for k in range(BATCH // 2)}
    for k in range(BATCH // 2):
        rows[b"\x01shared%d" % k] = b"%08d" % number + random.randbytes(100)
    return rows


def write_for_ever(path: str, number: int) -> None:
    _, _, store = open_there(path)
    jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
    positions: list[tuple[int, int]] = []

    def tell() -> None:
        while positions and positions[0][0] <= store.durable_position:
            tell_line("disk", positions.pop(0)[1])

    committer = Committer(store.buffer, jobs.put, tell)
    while True:
        if store.writable:
            for key, holding in batch(number).items():
                store.put(key, holding)
            if store.end_turn():
                tell_line("os", number)
            positions.append((store.position, number))
            number += 1
            committer.wake()
        while not jobs.empty() or not store.writable:
            jobs.get()()


def tell_line(level: str, number: int) -> None:
    os.write(1, b"%s %d\n" % (level.encode(), number))


if __name__ == "__main__":
    write_for_ever(sys.argv[1], int(sys.argv[2]))
