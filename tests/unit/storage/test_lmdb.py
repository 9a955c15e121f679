"""LMDB's traps: a map that ends, a file cut short, a flipped bit, a disk without space."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from kvorum.server.filesystem import DiskFolder
from kvorum.storage.commit import drain
from kvorum.storage.engine import EngineFailed, EngineFull
from kvorum.storage.lmdb import LmdbEngine, check_data_file
from kvorum.storage.store import Store, open_store
from tests.support.requirements import requires


def rows(first: int, count: int, size: int = 1000) -> list[tuple[bytes, bytes]]:
    return [(b"\x01%06d" % number, bytes(size)) for number in range(first, first + count)]


def test_the_map_grows_while_commits_go_on(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path), map_bytes=1 << 18)
    for first in range(0, 4000, 500):
        engine.commit([], [], rows(first, 500))
        assert engine.get(b"\x01%06d" % first) == bytes(1000)
    assert engine.stats().allotted_bytes > 4 << 20
    engine.close()
    engine = LmdbEngine(str(tmp_path), map_bytes=1 << 18)  # smaller than the file: no matter
    assert engine.stats().records == 4000
    engine.commit([], [], rows(4000, 500))
    engine.close()


def test_a_commit_larger_than_the_map_is_done_once(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path), map_bytes=1 << 18)
    engine.commit([], [], rows(0, 3000))
    assert engine.stats().records == 3000
    engine.close()


def test_the_last_size_of_the_map_is_full_and_survived(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path), map_bytes=1 << 18, last_map_bytes=1 << 20)
    engine.commit([], [], rows(0, 100))
    for _ in range(2):
        with pytest.raises(EngineFull, match="limit of 1048576 bytes"):
            engine.commit([], [b"\x01000001"], rows(100, 2000))
    assert engine.get(b"\x01000001") == bytes(1000), "nothing of it was done"
    engine.commit([], [b"\x01000001"], [])
    assert engine.stats().records == 99
    engine.close()


def test_every_cut_of_the_data_file_is_a_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    engine = LmdbEngine(str(folder))
    engine.commit([], [], rows(0, 500))
    engine.close()
    data = folder / "data.mdb"
    content = data.read_bytes()
    check_data_file(str(data))
    for size in (1, 100, 4096, 5000, 8192, 65536, len(content) - 4096, len(content) - 1):
        data.write_bytes(content[:size])
        with pytest.raises(EngineFailed, match=r"cut short|no LMDB file"):
            LmdbEngine(str(folder))
    data.write_bytes(content)
    engine = LmdbEngine(str(folder))
    assert engine.stats().records == 500
    engine.close()


def test_a_file_that_is_no_lmdb_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"#!/bin/sh\n" * 2000)
    with pytest.raises(EngineFailed, match="no LMDB file"):
        LmdbEngine(str(tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EngineFailed, match="cannot be opened"):
        LmdbEngine(str(tmp_path / "file" / "engine"))


def test_a_commit_that_lmdb_refuses_is_a_failure(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path))
    with pytest.raises(EngineFailed, match="cannot commit"):
        engine.commit([], [], [(b"", b"x")])
    engine.close()
    with pytest.raises(EngineFailed):
        engine.get(b"k")


def open_there(path: Path) -> tuple[DiskFolder, LmdbEngine, Store]:
    files = DiskFolder(str(path))
    files.lock()
    engine = LmdbEngine(str(path / "engine"))
    store = open_store(
        files,
        engine,
        cluster_id=b"cluster1",
        member_id=1,
        member_name="a",
        draw=Random(5).randbytes,
    )
    return files, engine, store


def test_a_flipped_bit_in_the_file_is_never_served(tmp_path: Path) -> None:
    """In our bytes it is quarantined; every other record is untouched."""
    files, engine, store = open_there(tmp_path)
    values = {b"\x01%04d" % number: Random(number).randbytes(300) for number in range(200)}
    for key, value in values.items():
        store.put(key, value)
    assert drain(store.buffer)
    assert store.close_clean(1)
    engine.close()
    files.close()
    data = tmp_path / "engine" / "data.mdb"
    content = data.read_bytes()
    random = Random(8)
    for number in random.sample(range(200), 12):
        key = b"\x01%04d" % number
        flipped = bytearray(values[key])
        flipped[random.randrange(300)] ^= 1 << random.randrange(8)
        # LMDB never overwrites a page in use, so older copies of this one may be in the file.
        data.write_bytes(content.replace(values[key], flipped))
        files, engine, store = open_there(tmp_path)
        assert store.get(key) == b""
        assert store.buffer.take_quarantined() == [key]
        assert {other: store.get(other) for other in values if other != key} == {
            other: values[other] for other in values if other != key
        }
        assert store.close_clean(1)
        engine.close()
        files.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@requires("tmpfs-mounts")
def test_a_full_disk_is_survived_and_left_behind(small_disk: Path) -> None:
    files, engine, store = open_there(small_disk)
    written = 0
    while store.writable and written < 10_000:
        store.put(b"\x01%06d" % written, bytes(1000))
        store.end_turn()
        written += 1
    assert "No space left" in store.refusal
    kept = store.written_position
    for number in range(written):
        assert store.get(b"\x01%06d" % number) == bytes(1000)
    assert kept == written - 1
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert store.end_turn()
    assert store.writable
    assert drain(store.buffer)
    assert store.close_clean(1)
    engine.close()
    files.close()
    files, engine, store = open_there(small_disk)
    assert store.clean_start
    assert len(store.scan(b"\x01", b"\x02", 100_000)) == written
    assert store.close_clean(1)
    engine.close()
    files.close()


@requires("tmpfs-mounts")
def test_an_engine_without_space_says_full_and_goes_on_later(small_disk: Path) -> None:
    engine = LmdbEngine(str(small_disk / "engine"))
    engine.commit([], [], rows(0, 100))
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(8 << 20))
    for _ in range(3):
        with pytest.raises(EngineFull, match="no space"):
            engine.commit([], [], rows(100, 1000))
        assert engine.get(b"\x01000099") == bytes(1000)
    ballast.unlink()
    engine.commit([], [], rows(100, 1000))
    assert engine.stats().records == 1100
    engine.close()
