"""Disks that are full or fail: the node says so, the other owners go on, nothing is lost."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import kvorum
from kvorum.client.blocking import Client
from tests.support.cluster import NodeFailed, RunningCluster, running_cluster
from tests.support.requirements import requires
from tests.support.shim import Shim

PATIENCE_SECONDS = 8.0
BALLAST = "ballast"


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


@contextmanager
def on_small_disk(cluster: RunningCluster, name: str, size: str) -> Iterator[Path]:
    """The node, started anew with its data on a file system of that size."""
    node = cluster.processes[name]
    node.stop()
    folder = cluster.data_dir(name)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        cluster.start_again(name)
        yield folder
    finally:
        node.kill()
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Leave no more than that many bytes free."""
    with (folder / BALLAST).open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        assert os.statvfs(folder).f_bavail == 0
        file.truncate(file.tell() - leave)


def status_says(cluster: RunningCluster, name: str, text: str) -> bool:
    with cluster.connect(name) as client:
        status = client.status(name)
    return not status.writable and text in status.unwritable_reason


@requires("tmpfs-mounts")
def test_a_full_disk() -> None:
    """The node refuses puts and says why; it reads; with room again it goes on by itself."""
    with running_cluster(engine="lmdb") as cluster, on_small_disk(cluster, "c", "4m") as folder:
        written: dict[str, bytes] = {}
        with cluster.connect() as client:
            table = client.table("default")

            def put_some(count: int) -> None:
                for _ in range(count):
                    key = f"key-{len(written)}"
                    stored = table.put(key, key.encode() * 100, retry=True)
                    assert len(stored.acks) >= 2
                    written[key] = key.encode() * 100

            put_some(20)
            fill(folder, leave=1 << 15)
            put_some(150)  # None of them fails although one of the owners has no space.
            wait_for("c says that it is full", lambda: status_says(cluster, "c", "No space left"))
            with Client(cluster.processes["c"].address, only_given=True) as to_c:
                with pytest.raises(kvorum.Overloaded, match=r"No space left.*nothing was written"):
                    to_c.table("default").put("to c", b"value")
                assert to_c.table("default").get("key-0").value == written["key-0"]
            put_some(50)
            (folder / BALLAST).unlink()
            wait_for("c writes again", lambda: cluster_writable(cluster, "c"))
            with Client(cluster.processes["c"].address, only_given=True) as to_c:
                assert "to c" not in written
                assert to_c.table("default").get("to c", r=3).values == ()
                to_c.table("default").put("to c", b"now", w=3)
        cluster.processes["c"].kill()
        cluster.start_again("c")
        with cluster.connect("c") as client:
            table = client.table("default")
            for key, value in written.items():
                assert table.get(key).value == value
            assert table.get("to c").value == b"now"


def cluster_writable(cluster: RunningCluster, name: str) -> bool:
    with cluster.connect(name) as client:
        return bool(client.status(name).writable)


@requires("tmpfs-mounts")
def test_a_node_that_is_started_on_a_full_disk() -> None:
    """It comes up as far as it can, or says why not; either way it keeps what it has."""
    with running_cluster(engine="lmdb") as cluster, on_small_disk(cluster, "c", "4m") as folder:
        with cluster.connect() as client:
            client.table("default").put("key", b"value", w=3)
        node = cluster.processes["c"]
        assert node.stop() == 0
        fill(folder)
        node.start()
        refused: NodeFailed | None = None
        try:
            cluster.wait_until_ready()
            with Client(node.address, only_given=True) as client:
                assert client.table("default").get("key", r=1).value == b"value"
            node.kill()
        except NodeFailed as failure:
            refused = failure
        if refused is not None:
            assert refused.exit_code == 2
            assert "No space left" in str(refused)
            assert "Traceback" not in str(refused)
        (folder / BALLAST).unlink()
        cluster.start_again("c")
        with Client(node.address, only_given=True) as client:
            assert client.table("default").get("key", r=1).value == b"value"
            client.table("default").put("another", b"value", w=3)


@requires("compiler")
def test_a_failed_sync_ends_all_acknowledging_until_a_restart(tmp_path: Path) -> None:
    with running_cluster(engine="lmdb") as cluster:
        shim = Shim(tmp_path)
        node = cluster.processes["c"]
        node.stop()
        with shim.loaded():
            cluster.start_again("c")
        with cluster.connect("c") as client:
            store_id = client.status("c").store_id
        with cluster.connect() as client:
            table = client.table("default")
            table.put("before", b"value", w=3, durability="all")
            shim.fail_syncs()
            for number in range(30):
                stored = table.put(f"key-{number}", b"value", retry=True, durability="one")
                assert len(stored.acks) >= 2
            text = "could not be synced"
            wait_for("c says that a sync failed", lambda: status_says(cluster, "c", text))
            shim.fail_syncs(False)  # That the next one would succeed proves nothing.
            with Client(node.address, only_given=True) as to_c:
                with pytest.raises(kvorum.Overloaded, match=text):
                    to_c.table("default").put("to c", b"value")
                assert to_c.table("default").get("before").value == b"value"
        with (
            cluster.connect(timeout_seconds=1.5) as client,
            pytest.raises((kvorum.OutcomeUnknown, kvorum.QuorumNotMet)),
        ):
            client.table("default").put("all three", b"value", w=3, durability="all")
        assert node.stop() == 0
        cluster.start_again("c")
        with cluster.connect("c") as client:
            status = client.status("c")
            assert status.writable
            assert not status.clean_start, "no clean stop may be claimed after a failed sync"
            assert status.store_id != store_id
            for number in range(30):
                assert client.table("default").get(f"key-{number}").value == b"value"
