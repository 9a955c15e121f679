"""Data directories that were copied, restored or rolled back: no dot is ever given out twice.

The store id tells stores apart: whoever may lack something that was written under it draws a new
one, and of two that run as one member the second stops. (Architecture, dots are never reused.)
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kvorum.cli.processes import free_ports
from kvorum.client.blocking import Client
from kvorum.model.topology import encode_topology
from tests.support.cluster import RunningCluster, running_cluster

KEYS = [f"key-{number}" for number in range(20)]


def store_of(cluster: RunningCluster, name: str) -> bytes:
    with cluster.connect(name) as client:
        return client.status(name).store_id


def write_all(cluster: RunningCluster, text: str) -> None:
    """Replace every key's value through node a, on all three owners."""
    with Client(cluster.processes["a"].address, only_given=True) as client:
        table = client.table("default")
        for key in KEYS:
            found = table.get(key, r=3)
            table.put(key, f"{key} {text}".encode(), context=found.context, w=3)


def add_to_all(cluster: RunningCluster, text: str) -> None:
    """Put a sibling beside every key's value through node a, on all three owners."""
    with Client(cluster.processes["a"].address, only_given=True) as client:
        for key in KEYS:
            client.table("default").put(key, f"{key} {text}".encode(), w=3)


def check_all(cluster: RunningCluster, *texts: str) -> None:
    """Exactly these are alive under every key, whoever is asked, and all dots differ."""
    with cluster.connect() as client:
        for key in KEYS:
            found = client.table("default").get(key, r=3)
            assert sorted(found.values) == sorted(f"{key} {text}".encode() for text in texts)
            assert len({one.dot for one in found.siblings}) == len(texts)


def dots_under(cluster: RunningCluster, store_id: bytes) -> list[bytes]:
    """The dots alive that were minted under a store id."""
    with cluster.connect() as client:
        return [
            one.dot
            for key in KEYS
            for one in client.table("default").get(key, r=3).siblings
            if one.dot[:8] == store_id
        ]


def test_a_copy_that_is_started_in_the_originals_place(tmp_path: Path) -> None:
    with running_cluster(engine="lmdb") as cluster:
        node = cluster.processes["a"]
        write_all(cluster, "one")
        original = store_of(cluster, "a")
        assert node.stop() == 0
        shutil.copytree(node.data, tmp_path / "copy")
        shutil.rmtree(node.data)
        shutil.copytree(tmp_path / "copy", node.data)
        cluster.start_again("a")
        assert store_of(cluster, "a") != original
        add_to_all(cluster, "two")
        check_all(cluster, "one", "two")
        assert len(dots_under(cluster, original)) == len(KEYS), "only those of before"


def test_a_backup_that_is_restored(tmp_path: Path) -> None:
    """It has forgotten writes that the others have; it mints none of their dots again."""
    with running_cluster(engine="lmdb") as cluster:
        node = cluster.processes["a"]
        write_all(cluster, "one")
        original = store_of(cluster, "a")
        assert node.stop() == 0
        shutil.copytree(node.data, tmp_path / "backup")
        cluster.start_again("a")
        assert store_of(cluster, "a") == original, "a clean stop keeps the id"
        add_to_all(cluster, "two")
        forgotten = dots_under(cluster, original)
        node.kill()
        shutil.rmtree(node.data)
        shutil.copytree(tmp_path / "backup", node.data)
        cluster.start_again("a")
        renewed = store_of(cluster, "a")
        assert renewed != original
        add_to_all(cluster, "three")
        check_all(cluster, "one", "two", "three")
        assert sorted(dots_under(cluster, original)) == sorted(forgotten)
        write_all(cluster, "four")
        check_all(cluster, "four")


def test_a_backup_that_is_restored_in_place(tmp_path: Path) -> None:
    """File by file over the old ones, so that folder and inodes are the same."""
    with running_cluster(engine="lmdb") as cluster:
        node = cluster.processes["a"]
        write_all(cluster, "one")
        original = store_of(cluster, "a")
        assert node.stop() == 0
        shutil.copytree(node.data, tmp_path / "backup")
        cluster.start_again("a")
        add_to_all(cluster, "two")
        assert node.stop() == 0
        shutil.rmtree(node.data / "engine")
        for file in (node.data / "store").iterdir():
            if not (tmp_path / "backup/store" / file.name).exists():
                file.unlink()
        shutil.copytree(tmp_path / "backup", node.data, dirs_exist_ok=True)
        cluster.start_again("a")
        assert store_of(cluster, "a") != original
        add_to_all(cluster, "three")
        check_all(cluster, "one", "two", "three")


@contextmanager
def second_process(cluster: RunningCluster, data: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process as member a, on another port, with a topology changed accordingly."""
    first, *others = cluster.topology.members
    moved = msgspec.structs.replace(first, port=free_ports(1)[0])
    topology = msgspec.structs.replace(cluster.topology, members=(moved, *others))
    file = data.with_suffix(".json")
    file.write_bytes(encode_topology(topology))
    command = [sys.executable, "-m", "kvorum", "serve", "--name", "a"]
    process = subprocess.Popen(
        [*command, "--topology", str(file), "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said_at_its_end(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=30)
    return " ".join(output.split())


def test_a_copy_that_runs_beside_the_original_stops(tmp_path: Path) -> None:
    with running_cluster(engine="lmdb") as cluster:
        node = cluster.processes["a"]
        write_all(cluster, "one")
        original = store_of(cluster, "a")
        assert node.stop() == 0
        shutil.copytree(node.data, tmp_path / "copy")
        cluster.start_again("a")
        with second_process(cluster, tmp_path / "copy") as copy:
            said = said_at_its_end(copy)
            assert copy.returncode == 6
        assert "another process is running as member 1; two must never do so" in said
        assert "Is a copy of this node's data directory in use? Stop one of the two" in said
        assert "Traceback" not in said
        assert node.running
        assert store_of(cluster, "a") == original
        add_to_all(cluster, "two")
        check_all(cluster, "one", "two")


def test_the_very_same_directory_cannot_be_used_twice() -> None:
    with running_cluster(engine="lmdb") as cluster:
        write_all(cluster, "one")
        node = cluster.processes["a"]
        with second_process(cluster, node.data) as second:
            said = said_at_its_end(second)
            assert second.returncode == 6
        assert f"in use by another process (pid {node.pid})" in said
        add_to_all(cluster, "two")
        check_all(cluster, "one", "two")


def test_a_wiped_directory() -> None:
    """An empty disk under an old name: a new store, refilled by reads, that mints nothing twice."""
    with running_cluster(engine="lmdb") as cluster:
        node = cluster.processes["a"]
        write_all(cluster, "one")
        original = store_of(cluster, "a")
        node.kill()
        shutil.rmtree(node.data)
        cluster.start_again("a")
        assert store_of(cluster, "a") != original
        add_to_all(cluster, "two")
        check_all(cluster, "one", "two")
