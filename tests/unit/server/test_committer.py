"""The committer's threads: group commit, moves into the engine, and what they do when it fails."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event

import pytest

from kvorum.server.committer import Committer
from kvorum.storage.buffer import Buffer
from kvorum.storage.engine import Capabilities, EngineFailed, EngineFull
from kvorum.storage.filesystem import LogFile
from kvorum.storage.log import Log
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.replay import replay
from tests.support.memory_filesystem import MemoryFile, MemoryFileSystem

SLOW = Capabilities("slow", durable=True, trusted=False, instant=False, copies=False)


class SlowEngine(MemoryEngine):
    """Commits off the loop, when the gate is open, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.capabilities = SLOW
        self.gate = Event()
        self.gate.set()
        self.failures: list[Exception] = []

    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        assert self.gate.wait(10)
        if self.failures:
            raise self.failures.pop()
        super().commit(drops, deletes, puts)


class GatedFile(MemoryFile):
    def sync(self) -> None:
        system = self._system
        assert isinstance(system, GatedFiles)
        assert system.gate.wait(10)
        super().sync()


class GatedFiles(MemoryFileSystem):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Event()
        self.gate.set()

    def create(self, name: str) -> LogFile:
        super().create(name)
        return GatedFile(self, self._names[name])


class Loop:
    """A loop that runs what the threads bring, one job at a time, and counts."""

    def __init__(self, engine: MemoryEngine, volatile: bool = False, freeze_bytes: int = 1000):
        self.jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.files = GatedFiles()
        self.engine = engine
        self.buffer = Buffer(engine, None, freeze_bytes, 10_000)
        if not volatile:
            found = replay(self.files, b"datadata", self.buffer.replayed)
            self.buffer.attach(Log(self.files, b"datadata", bytes, found))
        self.changes = 0
        self.committer = Committer(self.buffer, self.jobs.put, self.changed)

    def changed(self) -> None:
        self.changes += 1

    def turn(self, *keys: bytes) -> None:
        for key in keys:
            self.buffer.put(key, bytes(300))
        self.buffer.end_turn()
        self.committer.wake()

    def run_until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            self.jobs.get(timeout=10)()

    def settle(self) -> None:
        self.run_until(lambda: self.buffer.durable_position == self.buffer.position)


@pytest.fixture
def loops() -> Iterator[list[Loop]]:
    made: list[Loop] = []
    yield made
    for loop in made:
        loop.files.gate.set()
        if isinstance(loop.engine, SlowEngine):
            loop.engine.gate.set()
        loop.committer.stop()
        if loop.buffer.log is not None:
            loop.buffer.log.close()


def test_writes_that_arrive_during_a_sync_share_the_next(loops: list[Loop]) -> None:
    loop = Loop(SlowEngine(), freeze_bytes=1 << 20)
    loops.append(loop)
    loop.turn()
    loop.run_until(lambda: loop.changes == 1)  # the new segment itself
    before = loop.files.sync_count
    loop.files.gate.clear()
    loop.turn(b"first")
    for number in range(20):
        loop.turn(b"%d" % number)
    assert loop.buffer.durable_position == 0
    loop.files.gate.set()
    loop.settle()
    assert loop.files.sync_count - before == 2
    assert loop.buffer.durable_position == 21


def test_a_slow_disk_stalls_neither_turns_nor_reads(loops: list[Loop]) -> None:
    engine = SlowEngine()
    loop = Loop(engine)
    loops.append(loop)
    engine.gate.clear()
    loop.turn(b"a", b"b", b"c")
    loop.settle()
    loop.run_until(lambda: loop.committer._moving)
    loop.files.gate.clear()
    for number in range(10):
        loop.turn(b"%d" % number)
        assert loop.buffer.get(b"%d" % number) == bytes(300)
    assert loop.buffer.get(b"a") == bytes(300)
    assert engine.records == {}
    engine.gate.set()
    loop.files.gate.set()
    loop.run_until(lambda: b"9" in engine.records or b"0" in engine.records)


def test_overlays_reach_the_engine_with_checksums_and_free_the_log(loops: list[Loop]) -> None:
    loop = Loop(SlowEngine())
    loops.append(loop)
    count = 0
    while count < 40 or loop.buffer.retired_count < 5:
        # On a busy machine many turns share one overlay, so it may take more of them.
        loop.turn(b"%d" % count)
        loop.settle()
        count += 1
    loop.run_until(lambda: loop.buffer.frozen is None)
    loop.run_until(lambda: len(loop.files.names()) == 1)
    assert len(loop.engine.records) >= 20
    for number in range(count):
        assert loop.buffer.get(b"%d" % number) == bytes(300)


def test_a_full_engine_is_tried_again_until_there_is_space(loops: list[Loop]) -> None:
    engine = SlowEngine()
    engine.failures = [EngineFull("no space"), EngineFull("no space")]
    loop = Loop(engine)
    loops.append(loop)
    loop.turn(b"a", b"b", b"c")
    loop.run_until(lambda: loop.committer.engine_complaint != "")
    assert loop.committer.engine_complaint == "no space"
    loop.run_until(lambda: loop.buffer.retired_count == 1)
    assert loop.committer.engine_complaint == ""
    assert loop.buffer.refusal == ""


def test_a_broken_engine_ends_acknowledging_with_its_reason(loops: list[Loop]) -> None:
    engine = SlowEngine()
    engine.failures = [EngineFailed("broken page")]
    loop = Loop(engine)
    loops.append(loop)
    loop.turn(b"a", b"b", b"c")
    loop.run_until(lambda: loop.buffer.failed != "")
    assert loop.buffer.refusal == "the engine has failed: broken page"
    assert loop.buffer.get(b"a") == bytes(300)
    loop.committer.wake()
    assert not loop.committer._moving


def test_a_failed_sync_ends_acknowledging_with_its_reason(loops: list[Loop]) -> None:
    loop = Loop(SlowEngine())
    loops.append(loop)
    loop.turn()
    loop.run_until(lambda: loop.changes == 1)
    loop.files.fail_sync = True
    loop.turn(b"a")
    loop.run_until(lambda: loop.buffer.refusal != "")
    assert "could not be synced" in loop.buffer.refusal
    assert loop.buffer.durable_position == 0


def test_a_volatile_node_moves_on_the_loop(loops: list[Loop]) -> None:
    loop = Loop(MemoryEngine(), volatile=True)
    loops.append(loop)
    loop.turn(b"a", b"b", b"c")
    assert loop.engine.records == {}
    loop.run_until(lambda: loop.buffer.retired_count == 1)
    assert loop.engine.records == dict.fromkeys((b"a", b"b", b"c"), bytes(300))
    assert loop.buffer.durable_position == 0


def test_a_stop_takes_in_what_was_under_way(loops: list[Loop]) -> None:
    loop = Loop(SlowEngine(), freeze_bytes=1 << 20)
    loops.append(loop)
    loop.turn(b"a")
    loop.committer.stop()
    assert loop.buffer.begin_sync() is not None or loop.buffer.durable_position == 1
    loop.committer.wake()
    assert not loop.committer._moving


def test_a_stop_does_not_wait_for_space(loops: list[Loop]) -> None:
    engine = SlowEngine()
    engine.failures = [EngineFull("no space") for _ in range(1000)]
    loop = Loop(engine)
    loops.append(loop)
    loop.turn(b"a", b"b", b"c")
    loop.run_until(lambda: loop.committer.engine_complaint != "")
    loop.committer.stop()
    assert loop.buffer.frozen is not None
    assert loop.buffer.get(b"a") == bytes(300)
