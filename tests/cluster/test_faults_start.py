"""What stands in the way of a start: each time a clear text, an exit code, and nothing changed."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kvorum.cli.processes import free_ports
from kvorum.model.quorum import Durability
from kvorum.model.topology import ENTROPY_BYTES, Member, Topology, encode_topology, make_topology
from kvorum.storage.identity import Identity, _seal
from tests.support.cluster import running_cluster
from tests.support.requirements import requires

SETTINGS = 2
IN_USE = 6


def topology_of(*ports: int) -> Topology:
    members = tuple(
        Member(index + 1, "abc"[index], "127.0.0.1", port) for index, port in enumerate(ports)
    )
    return make_topology(
        members, 1, 8, os.urandom(ENTROPY_BYTES), default_durability=Durability.ONE
    )


def write_topology(folder: Path, topology: Topology, name: str = "topology.json") -> Path:
    file = folder / name
    file.write_bytes(encode_topology(topology))
    return file


def serve(topology: Path, data: Path, name: str = "a", *options: str) -> tuple[int, str]:
    """Run a node that cannot start; its exit code and what it said."""
    command = [sys.executable, "-m", "kvorum", "serve", "--name", name]
    command += ["--topology", str(topology), "--data", str(data), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    return done.returncode, " ".join(said.split())


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("lock", "lock.mdb")
    }


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Topology, Path]:
    """A topology of two nodes, and the data directory of the first after a clean stop."""
    folder = tmp_path_factory.mktemp("used")
    with running_cluster(nodes=1, engine="lmdb") as cluster:
        with cluster.connect() as client:
            client.table("default").put("key", b"value")
        assert cluster.processes["a"].stop() == 0
        shutil.copytree(cluster.data_dir("a"), folder / "data")
        return cluster.topology, folder / "data"


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        topology = write_topology(tmp_path, topology_of(port))
        code, said = serve(topology, tmp_path / "data")
    assert code == IN_USE
    assert f"port {port}" in said
    assert "in use" in said
    assert not (tmp_path / "data").exists()


def test_a_directory_that_a_running_node_has(tmp_path: Path) -> None:
    with running_cluster(nodes=1, engine="lmdb") as cluster:
        node = cluster.processes["a"]
        member = msgspec.structs.replace(cluster.topology.members[0], port=free_ports(1)[0])
        elsewhere = msgspec.structs.replace(cluster.topology, members=(member,))
        code, said = serve(write_topology(tmp_path, elsewhere), node.data)
        assert code == IN_USE
        assert str(node.data) in said.replace(" ", "")
        assert f"pid {node.pid}" in said
        with cluster.connect() as client:
            client.table("default").put("key", b"value")


def test_a_directory_of_another_node(tmp_path: Path, used: tuple[Topology, Path]) -> None:
    topology, data = used
    members = (
        msgspec.structs.replace(topology.members[0], id=2, name="b"),
        *topology.members[1:],
    )
    entries = tuple(msgspec.structs.replace(one, owners=(2,)) for one in topology.partitions)
    other = msgspec.structs.replace(topology, members=members, partitions=entries)
    before = content_of(data)
    code, said = serve(write_topology(tmp_path, other), data, "b")
    assert code == SETTINGS
    assert "belongs to node 'a' (id 1), but this is node 'b' (id 2)" in said
    assert content_of(data) == before


def test_a_directory_of_another_cluster(tmp_path: Path, used: tuple[Topology, Path]) -> None:
    _, data = used
    other = topology_of(*free_ports(1))
    before = content_of(data)
    code, said = serve(write_topology(tmp_path, other), data)
    assert code == SETTINGS
    assert f"but the topology is that of cluster {other.cluster_id.hex()}" in said
    assert content_of(data) == before


def test_a_directory_of_a_newer_version(tmp_path: Path, used: tuple[Topology, Path]) -> None:
    topology, original = used
    data = tmp_path / "data"
    shutil.copytree(original, data)
    identity = msgspec.json.decode((data / "store/identity").read_bytes().split(b"\n")[0])
    newer = msgspec.convert({**identity, "format": 99}, Identity)
    (data / "store/identity").write_bytes(_seal(newer))
    before = content_of(data)
    code, said = serve(write_topology(tmp_path, topology), data)
    assert code == SETTINGS
    assert "format 99, written by a newer kvorum" in said
    assert content_of(data) == before


def test_a_directory_whose_identity_is_damaged(tmp_path: Path, used: tuple[Topology, Path]) -> None:
    topology, original = used
    data = tmp_path / "data"
    shutil.copytree(original, data)
    identity = bytearray((data / "store/identity").read_bytes())
    identity[10] ^= 1
    (data / "store/identity").write_bytes(identity)
    before = content_of(data)
    code, said = serve(write_topology(tmp_path, topology), data)
    assert code == SETTINGS
    assert "damaged (wrong checksum)" in said
    assert content_of(data) == before


@pytest.mark.parametrize("kind", ["a file", "in a file", "read-only"])
def test_a_directory_that_cannot_be_written(tmp_path: Path, kind: str) -> None:
    topology = write_topology(tmp_path, topology_of(*free_ports(1)))
    (tmp_path / "file").write_bytes(b"")
    data = {"a file": tmp_path / "file", "in a file": tmp_path / "file/data"}.get(
        kind, Path("/proc/kvorum")
    )
    code, said = serve(topology, data)
    assert code == SETTINGS
    assert f"the data directory {data} cannot be used" in said


@requires("tmpfs-mounts")
def test_a_directory_on_a_file_system_that_is_read_only(
    tmp_path: Path, used: tuple[Topology, Path]
) -> None:
    topology, original = used
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(data)], check=True)
    try:
        shutil.copytree(original, data, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(data)], check=True)
        code, said = serve(write_topology(tmp_path, topology), data)
    finally:
        subprocess.run(["umount", str(data)], check=True)
    assert code == SETTINGS
    assert "cannot be used" in said
    assert "Read-only file system" in said


def test_an_unknown_name_and_a_missing_topology(tmp_path: Path) -> None:
    topology = write_topology(tmp_path, topology_of(*free_ports(1)))
    code, said = serve(topology, tmp_path / "data", "z")
    assert (code, "no node 'z'; it has a" in said) == (SETTINGS, True)
    code, said = serve(tmp_path / "nowhere.json", tmp_path / "data")
    assert (code, "nowhere.json" in said) == (SETTINGS, True)
    (tmp_path / "garbage.json").write_bytes(b"\xff{")
    code, said = serve(tmp_path / "garbage.json", tmp_path / "data")
    assert (code, "garbage.json" in said) == (SETTINGS, True)
