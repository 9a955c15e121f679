"""What log, buffer and store promise, tried against every cut, every flip and any crash."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvorum.storage.commit import Commit, drain
from kvorum.storage.engine import EngineFull
from kvorum.storage.log import DELETE, DROP, PUT, Log, SyncTicket, entry_header
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.replay import LogDamaged, replay, segment_name
from kvorum.storage.store import Store, open_store
from tests.support.memory_filesystem import MemoryFileSystem

DATA_ID = b"datadata"
Entry = tuple[int, bytes, bytes]

entries = st.tuples(
    st.sampled_from([PUT, PUT, PUT, DELETE, DROP]), st.binary(max_size=8), st.binary(max_size=30)
)
turns = st.lists(st.lists(entries, min_size=1, max_size=4), min_size=1, max_size=5)


def written(frames: list[list[Entry]]) -> tuple[MemoryFileSystem, list[int]]:
    """Return a log of these frames and the size of the file after each."""
    files = MemoryFileSystem()
    log = Log(files, DATA_ID, lambda size: b"\x5a" * size, replay(files, DATA_ID, ignore))
    sizes = [log.bytes_written]
    for frame in frames:
        for operation, key, value in frame:
            log.pending += (entry_header.pack(operation, len(key), len(value)), key, value)
        assert log.write_pending(log.written_position + len(frame))
        sizes.append(log.bytes_written)
    log.close()
    return files, sizes


def ignore(operation: int, key: bytes, value: bytes) -> None:
    pass


def read_back(content: bytes) -> list[Entry]:
    files = MemoryFileSystem()
    files.write(segment_name(0), content)
    found: list[Entry] = []
    replay(files, DATA_ID, lambda *entry: found.append(entry))
    return found


@settings(max_examples=25)
@given(turns)
def test_a_log_cut_anywhere_gives_back_its_whole_frames(frames: list[list[Entry]]) -> None:
    files, sizes = written(frames)
    content = files.read(segment_name(0))
    for cut in range(len(content) + 1):
        whole = sum(size <= cut for size in sizes[1:])
        expected = [entry for frame in frames[:whole] for entry in frame]
        assert read_back(content[:cut]) == expected
        padded = content[:cut] + bytes(len(content) - cut)  # the size was saved, the bytes not
        whole = sum(padded[:size] == content[:size] for size in sizes[1:])
        assert read_back(padded) == [entry for frame in frames[:whole] for entry in frame]


@settings(max_examples=10)
@given(turns)
def test_a_flipped_bit_costs_the_last_frame_or_the_start(frames: list[list[Entry]]) -> None:
    """In the last frame it looks like a torn tail; before it, it is damage. Never anything else."""
    files, sizes = written(frames)
    content = files.read(segment_name(0))
    without_last = [entry for frame in frames[:-1] for entry in frame]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = read_back(bytes(flipped))
        except LogDamaged:
            assert bit // 8 < sizes[-2], "the last frame alone may pass for torn"
        else:
            assert bit // 8 >= sizes[-2]
            assert found == without_last


@given(st.binary(max_size=200), turns)
def test_a_value_that_looks_like_a_log_does_not_make_a_torn_tail_damage(
    noise: bytes, frames: list[list[Entry]]
) -> None:
    """Another segment's frames inside a value have another salt."""
    other, _ = written(frames)
    evil = noise + other.read(segment_name(0))
    files = MemoryFileSystem()
    log = Log(files, DATA_ID, lambda size: b"\x11" * size, replay(files, DATA_ID, ignore))
    log.pending += (entry_header.pack(PUT, 1, len(evil)), b"k", evil)
    assert log.write_pending(1)
    log.close()
    assert read_back(files.read(segment_name(0))[:-1]) == []


keys = st.sampled_from([b"\x01%d" % number for number in range(12)])
values = st.binary(min_size=1, max_size=40)


class StoreAgainstDict(RuleBasedStateMachine):
    """One store with crashes of process and power at any point, against a history of dicts.

    ``history[p]`` is the content after position ``p``. After a crash the store must stand at
    some position between what was promised and what was written, with exactly that content.
    """

    @initialize(seed=st.integers(min_value=0, max_value=1 << 32))
    def begin(self, seed: int) -> None:
        self.random = Random(seed)
        self.files = MemoryFileSystem()
        self.engine = MemoryEngine(durable=True)
        self.store: Store = self.open()
        self.history: dict[int, dict[bytes, bytes]] = {0: {}}
        self.ticket: SyncTicket | None = None
        self.ran = False
        self.commit: Commit | None = None
        self.actors: set[tuple[bytes, int]] = set()

    def open(self) -> Store:
        return open_store(
            self.files,
            self.engine,
            cluster_id=b"cluster1",
            member_id=1,
            member_name="a",
            draw=self.random.randbytes,
        )

    @property
    def now(self) -> dict[bytes, bytes]:
        return self.history[self.store.position]

    def note(self, content: dict[bytes, bytes]) -> None:
        self.history[self.store.position] = content

    @rule(key=keys, value=values)
    def put(self, key: bytes, value: bytes) -> None:
        before = self.now
        self.store.put(key, value)
        self.note({**before, key: value})

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        before = self.now
        self.store.delete(key)
        self.note({other: before[other] for other in before if other != key})

    @rule(lo=keys, hi=keys)
    def drop(self, lo: bytes, hi: bytes) -> None:
        before = self.now
        self.store.drop_range(lo, hi)
        self.note({key: before[key] for key in before if not lo <= key < hi})

    @rule()
    def stamp(self) -> None:
        stamp = self.store.next_stamp()
        actor = (self.store.store_id, stamp)
        assert actor not in self.actors, "an actor is never given out twice"
        self.actors.add(actor)

    @invariant()
    def gives_back_what_was_written(self) -> None:
        if hasattr(self, "history"):
            content = self.now
            for number in range(12):
                key = b"\x01%d" % number
                assert self.store.get(key) == content.get(key)

    @rule(lo=keys, hi=keys, limit=st.integers(min_value=1, max_value=5))
    def scan(self, lo: bytes, hi: bytes, limit: int) -> None:
        content = self.now
        wanted = [(key, content[key]) for key in sorted(content) if lo <= key < hi]
        found: list[tuple[bytes, bytes]] = []
        while some := self.store.scan(lo, hi, limit):
            assert len(some) <= limit
            found += some
            lo = some[-1][0] + b"\0"
        assert found == wanted

    @rule()
    def end_turn(self) -> None:
        if self.store.end_turn():
            assert self.store.written_position == self.store.position

    @rule()
    def begin_sync(self) -> None:
        if self.ticket is None:
            self.ticket = self.store.buffer.begin_sync()
            self.ran = False

    @precondition(lambda self: self.ticket is not None)
    @rule()
    def run_sync(self) -> None:
        assert self.ticket is not None
        if not self.ran:
            self.ticket.run()
            self.ran = True

    @precondition(lambda self: self.ticket is not None and self.ran)
    @rule()
    def finish_sync(self) -> None:
        assert self.ticket is not None
        self.store.buffer.finish_sync(self.ticket, "")
        self.ticket = None

    @rule(turn_first=st.booleans())
    def freeze(self, turn_first: bool) -> None:
        if turn_first:
            self.store.end_turn()
        self.store.buffer.freeze()

    @rule(steps=st.integers(min_value=1, max_value=4))
    def commit_slices(self, steps: int) -> None:
        for _ in range(steps):
            frozen = self.store.buffer.committable
            if frozen is None:
                return
            if self.commit is None:
                self.commit = Commit(self.engine, frozen)
            if not self.commit.done:
                self.commit.step()
            else:
                self.store.buffer.retire()
                self.commit = None

    @rule()
    def drain_all(self) -> None:
        if self.ticket is None and self.commit is None:
            drain(self.store.buffer)

    @rule(size=st.integers(min_value=0, max_value=200))
    def fill_disk(self, size: int) -> None:
        self.files.free_bytes = size
        self.store.end_turn()
        self.files.free_bytes = 1 << 40

    @rule()
    def kill(self) -> None:
        """The process dies, its files stay as they are."""
        promised = self.store.written_position
        self.restart(promised)

    @rule()
    def lose_power(self) -> None:
        promised = self.store.durable_position
        self.files.crash(self.random)
        self.restart(promised)

    @rule()
    def stop_cleanly(self) -> None:
        if self.ticket is not None:
            self.run_sync()
            self.finish_sync()
        self.commit = None
        store_id, position, content = self.store.store_id, self.store.position, self.now
        assert self.store.close_clean(77)
        self.store = self.open()
        self.ticket = None
        assert self.store.clean_start
        assert self.store.store_id == store_id
        assert self.store.last_clock == 77
        assert self.store.position == position
        self.history = {position: content}

    def restart(self, promised: int) -> None:
        newest = self.store.written_position
        old_id = self.store.store_id
        self.store = self.open()
        self.ticket = self.commit = None
        assert not self.store.clean_start
        assert self.store.store_id != old_id
        position = self.store.position
        assert promised <= position <= newest
        assert self.store.durable_position == position
        content = self.history[position]
        assert {key: self.store.get(key) for key in content} == content
        assert self.store.scan(b"\x01", b"\x02", 100) == sorted(content.items())
        self.history = {position: content}


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(max_examples=80, stateful_step_count=40)


def walk(seed: int, steps: int) -> None:
    """Take the machine's rules in an order drawn from ``seed``, favouring the rare corners."""
    random = Random(seed)
    key = lambda: b"\x01%d" % random.randrange(12)  # noqa: E731
    run = StoreAgainstDict()
    run.begin(seed)
    moves = [
        (12, lambda: run.put(key(), random.randbytes(random.randint(1, 20)))),
        (3, lambda: run.delete(key())),
        (3, lambda: run.drop(*sorted((key(), key())))),
        (2, lambda: run.stamp()),
        (3, lambda: run.scan(key(), key(), random.randint(1, 5))),
        (6, lambda: run.end_turn()),
        (4, lambda: run.begin_sync()),
        (4, lambda: run.run_sync() if run.ticket is not None else None),
        (4, lambda: run.finish_sync() if run.ticket is not None and run.ran else None),
        (4, lambda: run.freeze(random.random() < 0.7)),
        (6, lambda: run.commit_slices(random.randint(1, 4))),
        (1, lambda: run.drain_all()),
        (1, lambda: run.fill_disk(random.randrange(200))),
        (1, lambda: run.kill()),
        (2, lambda: run.lose_power()),
        (1, lambda: run.stop_cleanly()),
    ]
    weights = [weight for weight, _ in moves]
    for _, move in random.choices(moves, weights, k=steps):
        move()
        run.gives_back_what_was_written()


def test_a_store_survives_long_walks_among_crashes() -> None:
    """Longer and more crowded than what hypothesis draws; a failing seed is in the message."""
    for seed in range(300):
        try:
            walk(seed, 150)
        except Exception as error:
            raise AssertionError(f"walk({seed}, 150) failed: {error!r}") from error


@given(st.integers(min_value=0, max_value=10_000))
def test_an_engine_without_space_at_the_start_costs_nothing(seed: int) -> None:
    random = Random(seed)
    files = MemoryFileSystem()
    engine = MemoryEngine(durable=True)
    store = reopen(files, engine, random)
    for number in range(random.randrange(1, 20)):
        store.put(b"\x01%d" % number, random.randbytes(10))
    store.end_turn()
    content = store.scan(b"\x01", b"\x02", 100)
    full = _NoSpace(durable=True)
    full.records.update(engine.records)
    with pytest.raises(OSError, match="free some"):
        reopen(files, full, random)  # Nothing in the log may count as durable from memory alone.
    last = reopen(files, engine, random)
    assert last.scan(b"\x01", b"\x02", 100) == content


class _NoSpace(MemoryEngine):
    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        raise EngineFull("no space")


def reopen(files: MemoryFileSystem, engine: MemoryEngine, random: Random) -> Store:
    return open_store(
        files,
        engine,
        cluster_id=b"cluster1",
        member_id=1,
        member_name="a",
        draw=random.randbytes,
    )
