"""Clients that go on writing while a test harms the cluster, and know what was promised to them.

    with Writers(cluster, count=2) as writers:
        cluster.processes["b"].kill()
        time.sleep(1)
    writers.check_promises()

Every write has a key of its own, so that whatever was acknowledged must be read back as it is.
"""

import threading
import time
from itertools import pairwise
from types import TracebackType
from typing import Self

import kvorum
from kvorum.client.blocking import Client
from kvorum.client.store import DurabilityName
from tests.support.cluster import RunningCluster

PAUSE_SECONDS = 0.002


class Writers:
    """Threads with a client each; they write from the start of the block to its end."""

    def __init__(
        self, cluster: RunningCluster, count: int = 2, durability: DurabilityName = "one",
        w: int | None = None, timeout_seconds: float = 10.0, prefix: str = "key",
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._durability: DurabilityName = durability
        self._w = w
        self._timeout_seconds = timeout_seconds
        self._prefix = prefix
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,), name=f"writer-{number}")
            for number in range(count)
        ]
        self.written: dict[str, kvorum.Stored] = {}  # acknowledged
        self.failed: list[kvorum.KvorumError] = []
        self.ok_at: list[float] = []

    def _write(self, writer: int) -> None:
        with self._cluster.connect(timeout_seconds=self._timeout_seconds) as client:
            table = client.table("default")
            number = 0
            while not self._over.is_set():
                number += 1
                key = f"{self._prefix}-{writer}-{number}"
                try:
                    self.written[key] = table.put(
                        key, value_of(key), durability=self._durability, w=self._w, retry=True
                    )
                    self.ok_at.append(time.monotonic())
                except kvorum.KvorumError as error:
                    self.failed.append(error)
                self._over.wait(PAUSE_SECONDS)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int, seconds: float = 10.0) -> None:
        """Until so many writes more have been acknowledged."""
        wanted = len(self.written) + more
        deadline = time.monotonic() + seconds
        while len(self.written) < wanted:
            assert time.monotonic() < deadline, f"too few writes succeed: {self.failed[-3:]}"
            time.sleep(0.01)

    def longest_gap(self) -> float:
        """The longest time, in seconds, in which no write succeeded."""
        times = sorted(self.ok_at)
        return max(later - earlier for earlier, later in pairwise(times))

    def check_promises(self) -> None:
        """Every acknowledged write can be read, and each who acknowledged it at ``os`` has it."""
        assert self.written
        with self._cluster.connect() as client:
            keys = list(self.written)
            for key, found in zip(keys, client.table("default").get_many(keys), strict=True):
                assert found.values == (value_of(key),), f"{key} is lost: {self.written[key]}"
        for name, node in self._cluster.processes.items():
            promised = [
                key
                for key, stored in self.written.items()
                for ack in stored.acks
                if ack.member == node.member.id and ack.level != "memory"
            ]
            with Client(node.address, only_given=True) as client:
                found_here = client.table("default").get_many(promised, r=1)
            for key, found in zip(promised, found_here, strict=True):
                assert found.values == (value_of(key),), f"{name} acknowledged {key}, has it not"


def value_of(key: str) -> bytes:
    return key.encode() * 5
