"""The load of ``kvorum bench``: what one process of the generator does, and what it measures.

A closed loop: each connection keeps as many requests under way as the pipeline is deep, and sends
the next one when one is answered. So latency is measured under this load, and a slow answer holds
its successors back instead of being counted against them.

Each process has keys of its own and never two requests on one key, and writes with the context
it was given last; so the load makes no siblings.
"""

import asyncio
import os
import random
import time
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, NamedTuple

import uvloop
from hdrh.histogram import HdrHistogram

from kvorum.client.asynchronous import AsyncClient, AsyncTable
from kvorum.errors import KvorumError

LATENCY_MICROSECONDS_MAX: Final = 600_000_000
DIGITS: Final = 3
REPORT_SECONDS: Final = 0.25
ZIPF_EXPONENT: Final = 0.99
Kind = Literal["get", "put"]


class Load(NamedTuple):
    """What is to be done, as it travels to the processes of the generator."""

    addresses: list[str]
    table: str
    keys: int
    value_bytes: int
    read_share: float
    distribution: str
    connections: int  # of each process
    pipeline: int
    processes: int
    seconds: float


class Progress(NamedTuple):
    """What one process tells while it works; counts since the last time."""

    phase: str  # "load", "run" or "done"
    operations: int
    errors: int


class Measured(NamedTuple):
    """What one process has measured at the end."""

    gets: bytes  # encoded histograms of microseconds
    puts: bytes
    errors: dict[str, int]
    not_found: int
    siblings: int
    seconds: float
    cpu_seconds: float


def new_histogram() -> HdrHistogram:
    return HdrHistogram(1, LATENCY_MICROSECONDS_MAX, DIGITS)


def chooser(distribution: str, keys: int, dice: random.Random) -> Callable[[], int]:
    """A function that draws key indexes: all alike, or few of them most of the time."""
    if distribution == "uniform":
        return lambda: dice.randrange(keys)
    weights = list(accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(keys)))
    total = weights[-1]
    # The popular keys are spread over the key space, and so over the ring.
    order = list(range(keys))
    dice.shuffle(order)
    return lambda: order[min(bisect(weights, dice.random() * total), keys - 1)]


class Generator:
    """One process of the generator: its clients, its keys with their contexts, its histograms."""

    def __init__(self, load: Load, number: int, pipe: Connection) -> None:
        self.load = load
        self.pipe = pipe
        self.keys = [f"key{index:012d}" for index in range(number, load.keys, load.processes)]
        self.contexts: dict[int, bytes] = {}
        self.busy: set[int] = set()
        self.dice = random.Random(number + 1)
        self.choose = chooser(load.distribution, len(self.keys), self.dice)
        self.gets = new_histogram()
        self.puts = new_histogram()
        self.errors: dict[str, int] = {}
        self.not_found = 0
        self.siblings = 0
        self.operations = 0  # since the last report
        self.failures = 0
        self.ending = 0.0

    async def run(self) -> Measured:
        load = self.load
        clients = [AsyncClient(load.addresses) for _ in range(load.connections)]
        reporter: asyncio.Task[None] | None = None
        try:
            for client in clients:
                await client.connect()
            tables = [client.table(load.table) for client in clients]
            reporter = asyncio.create_task(self.report("load"))
            await self.fill(tables)
            reporter.cancel()
            self.tell("load")
            self.pipe.send(Progress("run", 0, 0))
            # All processes begin together: what is measured is one load.
            await asyncio.to_thread(self.pipe.recv)
            reporter = asyncio.create_task(self.report("run"))
            return await self.measure(tables)
        finally:
            if reporter is not None:
                reporter.cancel()
            for client in clients:
                await client.close()

    async def fill(self, tables: list[AsyncTable]) -> None:
        """Put every key once, so that gets find something and puts have contexts."""
        share = len(tables)
        await asyncio.gather(
            *[self.fill_slice(table, slot, share) for slot, table in enumerate(tables)]
        )

    async def fill_slice(self, table: AsyncTable, slot: int, share: int) -> None:
        indexes = range(slot, len(self.keys), share)
        chunk = 500
        for start in range(0, len(indexes), chunk):
            part = indexes[start : start + chunk]
            found = await table.get_many([self.keys[index] for index in part])
            stored = await table.put_many(
                [
                    (self.keys[index], self.value(), one.context)
                    for index, one in zip(part, found, strict=True)
                ],
                retry=True,
            )
            for index, one in zip(part, stored, strict=True):
                self.contexts[index] = one.context
            self.operations += len(part)

    def value(self) -> bytes:
        return os.urandom(self.load.value_bytes)

    async def measure(self, tables: list[AsyncTable]) -> Measured:
        cpu = time.process_time()
        start = time.perf_counter()
        self.ending = start + self.load.seconds
        await asyncio.gather(
            *[self.work(table) for table in tables for _ in range(self.load.pipeline)]
        )
        seconds = time.perf_counter() - start
        self.tell("run")
        return Measured(
            self.gets.encode(), self.puts.encode(), self.errors, self.not_found, self.siblings,
            seconds, time.process_time() - cpu,
        )  # fmt: skip

    async def work(self, table: AsyncTable) -> None:
        """One slot of the pipeline: a request, its answer, the next one."""
        read_share = self.load.read_share
        while time.perf_counter() < self.ending:
            index = self.free_key()
            self.busy.add(index)
            start = time.perf_counter()
            try:
                if self.dice.random() < read_share:
                    await self.get(table, index)
                    histogram = self.gets
                else:
                    await self.put(table, index)
                    histogram = self.puts
            except KvorumError as error:
                name = type(error).__name__
                self.errors[name] = self.errors.get(name, 0) + 1
                self.failures += 1
                await asyncio.sleep(0.01)  # A cluster that refuses is not to be stormed.
            else:
                histogram.record_value(max(1, int((time.perf_counter() - start) * 1_000_000)))
                self.operations += 1
            finally:
                self.busy.discard(index)

    def free_key(self) -> int:
        index = self.choose()
        while index in self.busy:
            index = (index + 1) % len(self.keys)
        return index

    async def get(self, table: AsyncTable, index: int) -> None:
        found = await table.get(self.keys[index])
        self.contexts[index] = found.context
        if not found.values:
            self.not_found += 1
        elif len(found.values) > 1:
            self.siblings += 1

    async def put(self, table: AsyncTable, index: int) -> None:
        stored = await table.put(self.keys[index], self.value(), context=self.contexts.get(index))
        self.contexts[index] = stored.context

    async def report(self, phase: str) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self.tell(phase)

    def tell(self, phase: str) -> None:
        self.pipe.send(Progress(phase, self.operations, self.failures))
        self.operations = 0
        self.failures = 0


def generate(load: Load, number: int, pipe: Connection) -> None:
    """What a process of the generator runs: all of one share of the load."""
    result: Any
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(Generator(load, number, pipe).run())
    except KvorumError as error:
        result = f"{type(error).__name__}: {error}"
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return  # Whoever started us is gone, or has no more use for us.
    pipe.send(result)
    pipe.close()
