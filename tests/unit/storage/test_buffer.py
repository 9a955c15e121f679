"""The write buffer: what a reader sees, layer by layer, and what happens to bad records."""

import pytest

from kvorum.storage.buffer import Buffer
from kvorum.storage.commit import Commit, drain, sorted_in_parts, sync_now
from kvorum.storage.engine import SCAN_BYTES, EngineFailed, EngineFull
from kvorum.storage.log import Log
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.replay import replay
from tests.support.memory_filesystem import MemoryFileSystem

DATA_ID = b"datadata"


def durable(
    files: MemoryFileSystem | None = None,
    engine: MemoryEngine | None = None,
    freeze_bytes: int = 8 << 20,
    limit_bytes: int = 64 << 20,
) -> Buffer:
    files = files or MemoryFileSystem()
    buffer = Buffer(engine or MemoryEngine(durable=True), None, freeze_bytes, limit_bytes)
    buffer.attach(Log(files, DATA_ID, bytes, replay(files, DATA_ID, buffer.replayed)))
    return buffer


class FullEngine(MemoryEngine):
    """An engine that has space for so many commits and then none until it is given more."""

    def __init__(self, commits: int) -> None:
        super().__init__(durable=True)
        self.commits = commits

    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        if not self.commits:
            raise EngineFull("no space")
        self.commits -= 1
        super().commit(drops, deletes, puts)


def rows(buffer: Buffer, limit: int = 100) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    lo = b""
    while some := buffer.scan(lo, b"\xff", limit):
        assert len(some) <= limit
        found += some
        lo = some[-1][0] + b"\0"
    return found


def test_a_put_is_seen_at_once_and_durable_after_a_sync() -> None:
    buffer = durable()
    buffer.put(b"k", b"v")
    assert buffer.get(b"k") == b"v"
    assert (buffer.position, buffer.written_position, buffer.durable_position) == (1, 0, 0)
    assert buffer.end_turn()
    assert (buffer.position, buffer.written_position, buffer.durable_position) == (1, 1, 0)
    assert sync_now(buffer)
    assert (buffer.position, buffer.written_position, buffer.durable_position) == (1, 1, 1)


def test_a_volatile_buffer_counts_and_is_never_durable() -> None:
    buffer = Buffer(MemoryEngine(), None)
    buffer.put(b"k", b"v")
    assert buffer.end_turn()
    assert buffer.begin_sync() is None
    assert (buffer.position, buffer.written_position, buffer.durable_position) == (1, 0, 0)
    assert drain(buffer)
    assert buffer.engine.get(b"k") == b"v", "memory needs no checksum"
    assert buffer.get(b"k") == b"v"
    assert rows(buffer) == [(b"k", b"v")]
    assert buffer.scrub(b"", 10) == b"k"


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_each_layer_hides_the_one_below(moves: int) -> None:
    buffer = durable()
    for key in (b"a", b"b", b"c", b"d"):
        buffer.put(key, b"old " + key)
    assert drain(buffer)
    buffer.put(b"b", b"new b")
    buffer.delete(b"c")
    buffer.end_turn()
    if moves:
        assert buffer.freeze()
    buffer.put(b"d", b"new d")
    buffer.delete(b"b")
    if moves == 2:
        assert drain(buffer)
    assert [buffer.get(key) for key in (b"a", b"b", b"c", b"d", b"e")] == [
        b"old a",
        None,
        None,
        b"new d",
        None,
    ]
    for limit in (1, 2, 100):
        assert rows(buffer, limit) == [(b"a", b"old a"), (b"d", b"new d")]


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_a_dropped_range_masks_everything_written_before_it(moves: int) -> None:
    buffer = durable()
    for number in range(10):
        buffer.put(b"%d" % number, b"old")
    assert drain(buffer)
    buffer.put(b"3", b"frozen")
    buffer.end_turn()
    if moves > 0:
        buffer.freeze()
    buffer.put(b"4", b"active")
    buffer.drop_range(b"2", b"6")
    buffer.put(b"5", b"later")
    buffer.end_turn()
    if moves > 1:
        assert drain(buffer)
    if moves > 2:
        assert sorted(buffer.engine.scan(b"", b"\xff", 100))[2][0] == b"5"
    assert [row[0] for row in rows(buffer)] == [b"0", b"1", b"5", b"6", b"7", b"8", b"9"]
    assert buffer.get(b"3") is None
    assert buffer.get(b"4") is None
    assert buffer.get(b"5") == b"later"


def test_a_frozen_drop_masks_the_engine_until_it_is_there() -> None:
    buffer = durable()
    buffer.put(b"a", b"1")
    assert drain(buffer)
    buffer.drop_range(b"a", b"b")
    buffer.end_turn()
    assert buffer.freeze()
    assert buffer.get(b"a") is None
    assert rows(buffer) == []
    assert buffer.engine.get(b"a") is not None
    assert drain(buffer)
    assert buffer.engine.get(b"a") is None


def test_a_scan_fills_its_list_from_all_layers() -> None:
    buffer = durable()
    for number in range(0, 30, 3):
        buffer.put(b"%02d" % number, b"engine")
    assert drain(buffer)
    for number in range(1, 30, 3):
        buffer.put(b"%02d" % number, b"frozen")
    buffer.delete(b"00")
    buffer.end_turn()
    buffer.freeze()
    for number in range(2, 60, 3):
        buffer.put(b"%02d" % number, b"active")
    buffer.delete(b"01")
    expected = [b"%02d" % n for n in range(2, 30)] + [b"%02d" % n for n in range(32, 60, 3)]
    for limit in range(1, 50):
        assert [key for key, _ in buffer.scan(b"", b"\xff", limit)] == expected[:limit]


def test_a_scan_is_bounded_in_bytes() -> None:
    buffer = durable()
    for number in range(6):
        buffer.put(b"%d" % number, bytes(SCAN_BYTES // 2))
        if number == 2:
            assert drain(buffer)
    found = buffer.scan(b"", b"\xff", 100)
    assert 3 <= len(found) < 6
    assert [key for key, _ in rows(buffer)] == [b"%d" % number for number in range(6)]


def test_the_engine_is_never_ahead_of_the_synced_log() -> None:
    buffer = durable()
    buffer.put(b"a", b"1")
    assert not buffer.freeze(), "not before the turn's write"
    buffer.end_turn()
    assert buffer.freeze()
    assert not buffer.freeze(), "one at a time"
    assert buffer.committable is None
    assert sync_now(buffer)
    assert buffer.committable is buffer.frozen


def test_segments_go_with_their_overlay() -> None:
    files = MemoryFileSystem()
    buffer = durable(files)
    for _ in range(3):
        buffer.put(b"a", b"1")
        assert drain(buffer)
    assert files.names() == ["log-00000003.kvl"]


def test_the_hard_bound_pushes_back_until_the_engine_has_caught_up() -> None:
    engine = FullEngine(0)
    buffer = durable(engine=engine, freeze_bytes=1000, limit_bytes=4000)
    while not buffer.full:
        assert buffer.refusal == ""
        buffer.put(b"key %d" % buffer.position, bytes(300))
        buffer.end_turn()
    assert "write buffer is full" in buffer.refusal
    assert buffer.wants_freeze
    with pytest.raises(EngineFull):
        drain(buffer)
    assert buffer.get(b"key 0") == bytes(300)
    assert buffer.full
    engine.commits = 100
    assert drain(buffer)
    assert buffer.refusal == ""
    assert buffer.bytes == 0
    assert buffer.get(b"key 0") == bytes(300)


def test_a_refused_log_write_is_taken_up_by_a_later_turn() -> None:
    files = MemoryFileSystem(free_bytes=300)
    buffer = durable(files)
    buffer.put(b"a", bytes(1000))
    assert not buffer.end_turn()
    assert "No space left" in buffer.refusal
    assert not buffer.freeze()
    assert not drain(buffer)
    files.free_bytes = 5000
    assert buffer.end_turn()
    assert buffer.refusal == ""
    assert drain(buffer)


def test_a_failed_sync_ends_acknowledging_for_good() -> None:
    files = MemoryFileSystem()
    buffer = durable(files)
    buffer.put(b"a", b"1")
    buffer.end_turn()
    files.fail_sync = True
    assert not sync_now(buffer)
    files.fail_sync = False
    assert "could not be synced" in buffer.refusal
    assert not sync_now(buffer)
    assert not drain(buffer)
    assert buffer.durable_position == 0
    assert buffer.get(b"a") == b"1", "reads go on"


def test_a_failed_engine_is_told_and_refuses() -> None:
    buffer = durable()
    buffer.fail("the engine has failed: broken page")
    assert buffer.refusal == "the engine has failed: broken page"


def damage(buffer: Buffer, key: bytes, bit: int = 0) -> None:
    assert isinstance(buffer.engine, MemoryEngine)
    stored = bytearray(buffer.engine.records[key])
    stored[bit // 8] ^= 1 << bit % 8
    buffer.engine.records[key] = bytes(stored)


def test_every_flipped_bit_is_quarantined_and_never_served() -> None:
    buffer = durable()
    buffer.put(b"k", b"value")
    buffer.put(b"l", b"other")
    assert drain(buffer)
    for bit in range(8 * (4 + 5)):
        damage(buffer, b"k", bit)
        assert buffer.get(b"k") == b""
        assert rows(buffer) == [(b"l", b"other")]
        damage(buffer, b"k", bit)
    assert buffer.get(b"k") == b"value"


def test_a_record_under_the_wrong_key_is_quarantined() -> None:
    buffer = durable()
    buffer.put(b"k", b"value")
    buffer.put(b"l", b"other")
    assert drain(buffer)
    assert isinstance(buffer.engine, MemoryEngine)
    buffer.engine.records[b"k"] = buffer.engine.records[b"l"]
    assert buffer.get(b"k") == b""


@pytest.mark.parametrize("stored", [b"", b"abcd", b"abc"])
def test_a_stump_of_a_record_is_quarantined(stored: bytes) -> None:
    buffer = durable()
    assert isinstance(buffer.engine, MemoryEngine)
    buffer.engine.records[b"k"] = stored
    assert buffer.get(b"k") == b""
    assert rows(buffer) == []


def test_a_quarantine_is_told_once_and_healed_by_the_next_put() -> None:
    buffer = durable()
    buffer.put(b"k", b"value")
    assert drain(buffer)
    damage(buffer, b"k")
    for _ in range(3):
        assert buffer.get(b"k") == b""
    assert buffer.take_quarantined() == [b"k"]
    assert buffer.take_quarantined() == []
    assert buffer.quarantined() == [b"k"]
    assert buffer.quarantine_count == 1
    buffer.put(b"k", b"healed")
    assert buffer.get(b"k") == b"healed"
    assert buffer.quarantined() == []
    assert drain(buffer)
    assert buffer.get(b"k") == b"healed"
    damage(buffer, b"k")
    assert buffer.get(b"k") == b""
    assert buffer.quarantine_count == 2, "it may rot again"


def test_a_hidden_record_that_rots_troubles_nobody() -> None:
    buffer = durable()
    buffer.put(b"k", b"value")
    assert drain(buffer)
    damage(buffer, b"k")
    buffer.put(b"k", b"new")
    buffer.end_turn()
    assert rows(buffer) == [(b"k", b"new")]
    buffer.freeze()
    assert rows(buffer) == [(b"k", b"new")]
    assert buffer.quarantine_count == 0


def test_a_scrub_finds_what_nobody_reads() -> None:
    buffer = durable()
    for number in range(10):
        buffer.put(b"%d" % number, b"value")
    assert drain(buffer)
    damage(buffer, b"7")
    after, steps = b"", 0
    while after := buffer.scrub(after, 3):
        steps += 1
    assert steps == 4
    assert buffer.take_quarantined() == [b"7"]


def test_what_the_engine_cannot_read_is_quarantined() -> None:
    class Broken(MemoryEngine):
        def get(self, key: bytes) -> bytes | None:
            raise EngineFailed("broken page")

    buffer = Buffer(Broken(), None)
    assert buffer.get(b"k") == b""
    assert buffer.take_quarantined() == [b"k"]


def test_the_quarantine_is_bounded() -> None:
    buffer = durable()
    assert isinstance(buffer.engine, MemoryEngine)
    for number in range(5000):
        buffer.engine.records[b"%d" % number] = b"rotten"
        buffer.get(b"%d" % number)
    assert buffer.quarantine_count == 5000
    assert len(buffer.quarantined()) == len(buffer.take_quarantined()) == 4096


def test_large_overlays_move_in_slices() -> None:
    class Counting(MemoryEngine):
        sizes: list[int] = []

        def commit(
            self,
            drops: list[tuple[bytes, bytes]],
            deletes: list[bytes],
            puts: list[tuple[bytes, bytes]],
        ) -> None:
            self.sizes.append(len(drops) + len(deletes) + len(puts))
            super().commit(drops, deletes, puts)

    engine = Counting(durable=True)
    buffer = durable(engine=engine)
    for number in range(2500):
        buffer.put(b"%04d" % number, b"x")
    assert drain(buffer)
    assert engine.sizes == [1024, 1024, 452]
    engine.sizes.clear()
    buffer.drop_range(b"0", b"9")
    for number in range(4):
        buffer.put(b"%04d" % number, bytes(700_000))
    assert drain(buffer)
    assert engine.sizes == [1, 1, 1, 2, 2]
    assert len(rows(buffer)) == 4


def test_a_commit_that_found_no_space_goes_on_where_it_stood() -> None:
    engine = FullEngine(1)
    buffer = durable(engine=engine)
    for number in range(2000):
        buffer.put(b"%04d" % number, b"x")
    buffer.end_turn()
    buffer.freeze()
    sync_now(buffer)
    assert buffer.committable is not None
    commit = Commit(engine, buffer.committable)
    commit.step()
    for _ in range(3):
        with pytest.raises(EngineFull):
            commit.step()
    engine.commits = 9
    commit.step()
    assert commit.done
    assert engine.commits == 8
    assert len(engine.records) == 2000


def test_keys_sorted_in_parts_are_sorted() -> None:
    keys = [b"\x01" + bytes([n * 7 % 256, n % 5]) for n in range(2000)] + [b"\x01", b"\0", b"\x02a"]
    overlay = dict.fromkeys(keys, b"x")
    assert sorted_in_parts(overlay) == sorted(overlay)


def test_stats_say_what_is_where() -> None:
    buffer = durable()
    buffer.put(b"a", b"1")
    buffer.end_turn()
    buffer.freeze()
    buffer.put(b"b", b"2")
    stats = buffer.stats()
    assert (stats.overlay_records, stats.frozen_records) == (1, 1)
    assert (stats.position, stats.written_position, stats.durable_position) == (2, 1, 0)
    assert stats.bytes == 2 * (2 + 160)
