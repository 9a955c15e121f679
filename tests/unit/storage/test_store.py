"""When a store keeps its id and when it must not; whose data directory it is."""

from random import Random
from zlib import crc32

import msgspec
import pytest

from kvorum.storage.engine import EngineFailed
from kvorum.storage.identity import CLEAN_STOP_FILE, IDENTITY_FILE, DirectoryRefused
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.replay import LogDamaged, segment_number
from kvorum.storage.store import MAX_STAMP, Store, open_store
from tests.support.memory_filesystem import MemoryFileSystem

CLUSTER = b"cluster1"


class Disk:
    """A data directory with its engine, and the dice for its ids."""

    def __init__(self) -> None:
        self.files = MemoryFileSystem()
        self.engine = MemoryEngine(durable=True)
        self.random = Random(1)

    def open(self, cluster: bytes = CLUSTER, member: int = 1, name: str = "a") -> Store:
        return open_store(
            self.files,
            self.engine,
            cluster_id=cluster,
            member_id=member,
            member_name=name,
            draw=self.random.randbytes,
        )


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_a_new_store_starts_at_one(disk: Disk) -> None:
    store = disk.open()
    assert store.start_count == 1
    assert not store.clean_start
    assert not store.volatile
    assert len(store.store_id) == len(store.nonce) == 8
    assert [store.next_stamp() for _ in range(3)] == [1, 2, 3]
    assert store.writable
    assert store.refusal == ""


def test_a_clean_stop_keeps_store_id_stamps_and_clock(disk: Disk) -> None:
    store = disk.open()
    store.put(b"\x01k", b"v")
    stamps = [store.next_stamp() for _ in range(5)]
    assert store.close_clean(last_clock=1234)
    again = disk.open()
    assert again.clean_start
    assert again.store_id == store.store_id
    assert again.start_count == 2
    assert again.nonce != store.nonce
    assert again.last_clock == 1234
    assert again.next_stamp() == stamps[-1] + 1
    assert again.get(b"\x01k") == b"v"


def test_a_start_that_wrote_nothing_is_as_clean(disk: Disk) -> None:
    first = disk.open()
    assert first.close_clean(1)
    for count in range(2, 6):
        store = disk.open()
        assert store.clean_start
        assert store.start_count == count
        assert store.close_clean(1)
    assert sum(segment_number(name) >= 0 for name in disk.files.names()) == 1


def test_an_unclean_stop_ends_the_incarnation(disk: Disk) -> None:
    store = disk.open()
    store.put(b"\x01k", b"v")
    store.end_turn()
    store.close_abruptly()
    again = disk.open()
    assert not again.clean_start
    assert again.store_id != store.store_id
    assert again.next_stamp() == 1
    assert again.start_count == 2
    assert again.get(b"\x01k") == b"v"


def test_the_marker_is_gone_before_the_first_write(disk: Disk) -> None:
    store = disk.open()
    assert store.close_clean(1)
    assert CLEAN_STOP_FILE in disk.files.names()
    second = disk.open()
    assert CLEAN_STOP_FILE not in disk.files.names()
    disk.files.crash(Random(0))
    assert CLEAN_STOP_FILE not in disk.files.names(), "and durably so"
    assert disk.open().store_id != second.store_id


def test_a_copied_directory_is_another_store(disk: Disk) -> None:
    store = disk.open()
    assert store.close_clean(1)
    disk.files = disk.files.copied()
    copy = disk.open()
    assert not copy.clean_start
    assert copy.store_id != store.store_id


def test_an_identity_file_put_back_is_another_store(disk: Disk) -> None:
    store = disk.open()
    assert store.close_clean(1)
    content = disk.files.read(IDENTITY_FILE)
    disk.files.remove(IDENTITY_FILE)
    disk.files.write(IDENTITY_FILE, content)
    assert disk.open().store_id != store.store_id


def test_an_older_backup_of_the_files_is_another_store(disk: Disk) -> None:
    assert disk.open().close_clean(1)
    backup = {name: disk.files.read(name) for name in disk.files.names()}
    second = disk.open()
    assert second.clean_start
    assert second.close_clean(1)
    for name in disk.files.names():
        disk.files.remove(name)
    for name, content in backup.items():
        disk.files.write(name, content)
    third = disk.open()
    assert not third.clean_start
    assert third.store_id != second.store_id


@pytest.mark.parametrize("way", ["wiped", "rolled back"])
def test_an_engine_that_is_not_the_one_that_stopped_ends_the_incarnation(
    disk: Disk, way: str
) -> None:
    first = disk.open()
    first.put(b"\x01k", b"v")
    assert first.close_clean(1)
    older = dict(disk.engine.records)
    second = disk.open()
    assert second.clean_start
    assert second.close_clean(1)
    disk.engine.records.clear()
    if way == "rolled back":
        disk.engine.records.update(older)
    third = disk.open()
    assert not third.clean_start
    assert third.store_id != second.store_id


def test_a_damaged_marker_proves_nothing(disk: Disk) -> None:
    store = disk.open()
    assert store.close_clean(1)
    for content in (b"", b"garbage", disk.files.read(CLEAN_STOP_FILE)[:-3]):
        disk.files.write(CLEAN_STOP_FILE, content)
        again = disk.open()
        assert not again.clean_start
        assert again.close_clean(1)


def test_a_failed_sync_leaves_no_marker(disk: Disk) -> None:
    store = disk.open()
    store.put(b"\x01k", b"v")
    disk.files.fail_sync = True
    assert not store.close_clean(1)
    disk.files.fail_sync = False
    assert CLEAN_STOP_FILE not in disk.files.names()
    assert disk.open().store_id != store.store_id


def test_a_full_disk_leaves_no_marker(disk: Disk) -> None:
    store = disk.open()
    store.put(b"\x01k", bytes(1000))
    disk.files.free_bytes = 100
    assert not store.close_clean(1)
    disk.files.free_bytes = 1 << 30
    assert not disk.open().clean_start
    store = disk.open()
    disk.files.free_bytes = 10
    assert not store.close_clean(1), "no room for the marker itself"


def test_a_log_cut_after_a_clean_stop_is_damage(disk: Disk) -> None:
    store = disk.open()
    store.put(b"\x01k", b"v")
    assert store.close_clean(1)
    name = next(name for name in disk.files.names() if segment_number(name) >= 0)
    disk.files.write(name, disk.files.read(name)[:-1])
    names = disk.files.names()
    with pytest.raises(LogDamaged, match="move it away"):
        disk.open()
    assert disk.files.names() == names, "nothing was changed"


def test_another_cluster_and_another_node_are_named(disk: Disk) -> None:
    disk.open().close_clean(1)
    with pytest.raises(DirectoryRefused, match=r"belongs to cluster 636c757374657231.*'a'"):
        disk.open(cluster=b"cluster2")
    with pytest.raises(DirectoryRefused, match=r"node 'a' \(id 1\), but this is node 'b' \(id 2\)"):
        disk.open(member=2, name="b")
    renamed = disk.open(name="alpha")
    assert renamed.clean_start, "a refusal changes nothing, and names are for people"
    assert renamed.identity.name == "alpha"


def test_a_newer_format_is_refused_by_name(disk: Disk) -> None:
    disk.open().close_clean(1)
    body = disk.files.read(IDENTITY_FILE).split(b"\n")[0].replace(b'"format":1', b'"format":7')
    disk.files.write(IDENTITY_FILE, body + b"\n%08x\n" % crc32(body))
    with pytest.raises(DirectoryRefused, match="format 7, written by a newer kvorum"):
        disk.open()


def test_every_flipped_bit_of_the_identity_is_refused(disk: Disk) -> None:
    disk.open().close_clean(1)
    content = disk.files.read(IDENTITY_FILE)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        disk.files.write(IDENTITY_FILE, bytes(flipped))
        with pytest.raises(DirectoryRefused, match=r"damaged|newer"):
            disk.open()


def test_a_log_without_identity_is_nobodys(disk: Disk) -> None:
    disk.open().close_clean(1)
    disk.files.remove(IDENTITY_FILE)
    with pytest.raises(DirectoryRefused, match="no identity file"):
        disk.open()


def test_an_engine_without_identity_is_nobodys(disk: Disk) -> None:
    disk.open().close_clean(1)
    disk.files = MemoryFileSystem()
    with pytest.raises(DirectoryRefused, match="belong to another data directory"):
        disk.open()


def test_an_engine_of_another_directory_is_refused(disk: Disk) -> None:
    disk.open().close_clean(1)
    other = Disk()
    other.random = Random(2)
    other.open().close_clean(1)
    disk.engine = other.engine
    with pytest.raises(DirectoryRefused, match="another data directory"):
        disk.open()


def test_renewal_is_durable_before_it_counts(disk: Disk) -> None:
    store = disk.open()
    store.next_stamp()
    old = store.store_id
    store.renew("met its own id alive elsewhere")
    assert store.store_id != old
    assert store.renewals == ["met its own id alive elsewhere"]
    assert store.next_stamp() == 1
    disk.files.crash(Random(0))
    stored = msgspec.json.decode(disk.files.read(IDENTITY_FILE).split(b"\n")[0])
    assert bytes.fromhex(stored["store"]) == store.store_id


def test_a_renewal_that_cannot_be_kept_changes_nothing(disk: Disk) -> None:
    store = disk.open()
    old = store.store_id
    disk.files.fail_sync = True
    with pytest.raises(OSError, match="Input/output"):
        store.renew("for a test")
    assert store.store_id == old


def test_used_up_stamps_renew(disk: Disk) -> None:
    store = disk.open()
    old = store.store_id
    store._next_stamp = MAX_STAMP
    assert store.upcoming_stamp == MAX_STAMP
    assert store.next_stamp() == MAX_STAMP
    assert store.upcoming_stamp == 0
    assert store.store_id == old
    assert store.next_stamp() == 1
    assert store.store_id != old
    assert store.next_stamp() == 2


def test_a_volatile_store_is_new_each_time() -> None:
    random = Random(3)
    ids = []
    for _ in range(2):
        store = open_store(
            None,
            MemoryEngine(),
            cluster_id=CLUSTER,
            member_id=1,
            member_name="a",
            draw=random.randbytes,
        )
        assert store.volatile
        store.put(b"\x01k", b"v")
        store.end_turn()
        assert (store.position, store.written_position, store.durable_position) == (1, 0, 0)
        assert store.get(b"\x01k") == b"v"
        store.renew("alone at the start")
        ids.append(store.store_id)
        assert not store.close_clean(1)
    assert ids[0] != ids[1]


def test_a_durable_engine_wants_a_directory_and_a_volatile_one_none(disk: Disk) -> None:
    with pytest.raises(DirectoryRefused, match="needs a data directory"):
        open_store(
            None,
            disk.engine,
            cluster_id=CLUSTER,
            member_id=1,
            member_name="a",
            draw=disk.random.randbytes,
        )
    disk.engine = MemoryEngine(durable=False)
    with pytest.raises(DirectoryRefused, match="takes no data directory"):
        disk.open()


def test_a_directory_that_cannot_be_written_is_named(disk: Disk) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(13, "Permission denied", name)

    disk.files.create = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(DirectoryRefused, match="not writable"):
        disk.open()


def test_an_engine_that_fails_at_the_start_is_not_survived(disk: Disk) -> None:
    class Broken(MemoryEngine):
        def commit(
            self,
            drops: list[tuple[bytes, bytes]],
            deletes: list[bytes],
            puts: list[tuple[bytes, bytes]],
        ) -> None:
            raise EngineFailed("broken page")

    disk.engine = Broken(durable=True)
    with pytest.raises(EngineFailed):
        disk.open()
