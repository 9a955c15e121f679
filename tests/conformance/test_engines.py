"""Every engine keeps the promises of `kvorum.storage.engine`, or it is no engine of ours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvorum.storage.engine import MAX_KEY_BYTES, SCAN_BYTES, Engine, EngineFailed
from kvorum.storage.lmdb import LmdbEngine
from kvorum.storage.memory import MemoryEngine

Open = Callable[[Path], Engine]


def open_memory(folder: Path) -> Engine:
    return MemoryEngine(durable=True)


def open_lmdb(folder: Path) -> Engine:
    return LmdbEngine(str(folder), map_bytes=1 << 20)


OPENERS: dict[str, Open] = {"memory": open_memory, "lmdb": open_lmdb}
BASE = b"\x01" + b"p" * 509  # 510 bytes: the longest key that LMDB keeps as itself


@pytest.fixture(params=sorted(OPENERS))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    opened = OPENERS[request.param](tmp_path / "engine")
    yield opened
    opened.close()


def put(engine: Engine, *rows: tuple[bytes, bytes]) -> None:
    engine.commit([], [], sorted(rows))


def everything(engine: Engine, limit: int = 1000) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    lo = b""
    while rows := engine.scan(lo, b"\xff" * 4, limit):
        assert len(rows) <= limit
        found += rows
        lo = rows[-1][0] + b"\0"
    return found


def test_an_engine_gives_back_what_was_committed(engine: Engine) -> None:
    put(engine, (b"a", b"1"), (b"b", b""), (b"\0", bytes(100_000)))
    assert engine.get(b"a") == b"1"
    assert engine.get(b"b") == b""
    assert engine.get(b"\0") == bytes(100_000)
    assert engine.get(b"c") is None


def test_drops_come_before_deletes_and_deletes_before_puts(engine: Engine) -> None:
    put(engine, (b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4"))
    engine.commit([(b"a", b"c")], [b"c", b"d", b"nothing"], [(b"b", b"new"), (b"d", b"new")])
    assert everything(engine) == [(b"b", b"new"), (b"d", b"new")]


def test_a_range_excludes_its_upper_bound_and_may_be_empty(engine: Engine) -> None:
    put(engine, *[(bytes([n]), b"x") for n in range(10)])
    assert [key for key, _ in engine.scan(b"\x02", b"\x05", 100)] == [b"\x02", b"\x03", b"\x04"]
    assert engine.scan(b"\x05", b"\x05", 100) == []
    assert engine.scan(b"\x05", b"\x02", 100) == []
    engine.commit([(b"\x05", b"\x02"), (b"\x03", b"\x03")], [], [])
    assert len(everything(engine)) == 10
    engine.commit([(b"\x00", b"\xff")], [], [])
    assert everything(engine) == []


def test_a_scan_is_bounded_in_rows_and_in_bytes(engine: Engine) -> None:
    put(engine, *[(bytes([n]), bytes(SCAN_BYTES // 3)) for n in range(10)])
    assert len(engine.scan(b"", b"\xff", 2)) == 2
    assert 1 <= len(engine.scan(b"", b"\xff", 100)) <= 5
    assert len(everything(engine)) == 10


LONG_KEYS = [
    BASE[:-1],
    BASE,
    BASE + b"\0",
    BASE + b"\0\0",
    BASE + b"\x01",
    BASE + b"z" * (MAX_KEY_BYTES - len(BASE)),
    BASE + b"\xff" * 5,
    BASE[:-1] + b"q",
    BASE[:-1] + b"q" + b"\0" * 300,
    b"\x02",
]


def test_long_keys_stand_in_exact_order_among_short_ones(engine: Engine) -> None:
    put(engine, *[(key, b"value of %d" % len(key)) for key in LONG_KEYS])
    expected = sorted(LONG_KEYS)
    for limit in (1, 2, 3, 100):
        assert [key for key, _ in everything(engine, limit)] == expected
    for key in LONG_KEYS:
        assert engine.get(key) == b"value of %d" % len(key)
        assert engine.get(key + b"\0\0\0") is None
    for lo in expected:
        for hi in expected:
            wanted = [key for key in expected if lo <= key < hi]
            assert [key for key, _ in engine.scan(lo, hi, 100)] == wanted


@pytest.mark.parametrize("cut", range(len(LONG_KEYS)))
def test_ranges_of_long_keys_are_dropped_exactly(engine: Engine, cut: int) -> None:
    expected = sorted(LONG_KEYS)
    put(engine, *[(key, b"x") for key in expected])
    engine.commit([(expected[cut], expected[-1])], [], [])
    assert [key for key, _ in everything(engine)] == expected[:cut] + expected[-1:]
    engine.commit([], expected[:cut], [])
    assert [key for key, _ in everything(engine)] == expected[-1:]


def test_long_keys_are_overwritten_in_place(engine: Engine) -> None:
    key = BASE + b"tail"
    for value in (b"1", b"2", b""):
        put(engine, (key, value), (key + b"more", b"stays"))
        assert engine.get(key) == value
    engine.commit([], [key], [])
    assert everything(engine) == [(key + b"more", b"stays")]


def test_verify_walks_everything_in_slices(engine: Engine) -> None:
    put(engine, *[(b"\x01%03d" % n, b"x") for n in range(100)])
    seen, after = 0, b""
    while True:
        report = engine.verify(after, 7)
        assert report.records <= 7
        assert report.complaints == []
        seen += report.records
        if not report.resume:
            break
        after = report.resume
    assert seen == 100
    assert engine.stats().records == 100


def test_a_copy_is_complete_or_refused(engine: Engine, tmp_path: Path) -> None:
    rows = [(b"\x01%03d" % n, b"x" * n) for n in range(100)] + [(BASE + b"long", b"too")]
    put(engine, *rows)
    target = tmp_path / "copy"
    if not engine.capabilities.copies:
        with pytest.raises(EngineFailed):
            engine.copy(str(target))
        return
    engine.copy(str(target))
    put(engine, (b"\x01later", b"x"))
    twin = OPENERS[engine.capabilities.name](target)
    assert everything(twin) == sorted(rows)
    twin.close()
    with pytest.raises(EngineFailed):
        engine.copy(str(target))


keys = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(LONG_KEYS),
    st.builds(lambda tail: BASE + tail, st.binary(max_size=3)),
)
values = st.one_of(st.binary(max_size=20), st.just(bytes(5_000)))


class EngineAgainstDict(RuleBasedStateMachine):
    """Whatever is committed, an engine answers as a dict would, also after it was reopened."""

    name = ""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(mkdtemp(prefix="kvorum-engine-"))
        self.engine = OPENERS[self.name](self.folder)
        self.model: dict[bytes, bytes] = {}

    @rule(
        drops=st.lists(st.tuples(keys, keys), max_size=1),
        deletes=st.lists(keys, max_size=3, unique=True),
        puts=st.dictionaries(keys, values, max_size=6),
    )
    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: dict[bytes, bytes],
    ) -> None:
        self.engine.commit(drops, deletes, sorted(puts.items()))
        for lo, hi in drops:
            self.model = {key: self.model[key] for key in self.model if not lo <= key < hi}
        for key in deletes:
            self.model.pop(key, None)
        self.model.update(puts)

    @rule(many=st.integers(min_value=65, max_value=200), prefix=st.binary(min_size=1, max_size=2))
    def commit_many(self, many: int, prefix: bytes) -> None:
        puts = {prefix + b"%05d" % n: b"x" for n in range(many)}
        self.engine.commit([], [], sorted(puts.items()))
        self.model.update(puts)

    @rule(many=st.integers(min_value=65, max_value=200))
    def delete_many(self, many: int) -> None:
        gone = sorted(self.model)[:many]
        self.engine.commit([], gone, [])
        for key in gone:
            del self.model[key]

    @rule(lo=keys, hi=keys, limit=st.integers(min_value=1, max_value=5))
    def scan(self, lo: bytes, hi: bytes, limit: int) -> None:
        wanted = [(key, self.model[key]) for key in sorted(self.model) if lo <= key < hi]
        assert self.engine.scan(lo, hi, limit) == wanted[:limit]

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        assert self.engine.get(key) == self.model.get(key)

    @rule()
    def reopen(self) -> None:
        if self.name != "memory":
            self.engine.close()
            self.engine = OPENERS[self.name](self.folder)

    @invariant()
    def holds_the_same(self) -> None:
        if hasattr(self, "model"):
            assert self.engine.stats().records >= min(1, len(self.model))

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            assert everything(self.engine, 50) == sorted(self.model.items())
            self.engine.close()
            rmtree(self.folder, ignore_errors=True)


class MemoryAgainstDict(EngineAgainstDict):
    name = "memory"


class LmdbAgainstDict(EngineAgainstDict):
    name = "lmdb"


TestMemoryAgainstDict = MemoryAgainstDict.TestCase
TestLmdbAgainstDict = LmdbAgainstDict.TestCase
TestMemoryAgainstDict.settings = settings(max_examples=60, stateful_step_count=30)
TestLmdbAgainstDict.settings = settings(max_examples=40, stateful_step_count=30)
