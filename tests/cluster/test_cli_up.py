"""``kvorum up``, ``serve``, ``bench`` and ``demo`` as a person starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvorum
from kvorum.cli import main
from kvorum.cli.processes import free_ports
from tests.support.cluster import running_cluster
from tests.support.ports import free_row

KVORUM = (sys.executable, "-m", "kvorum")
PATIENCE_SECONDS = 30


@contextmanager
def up(folder: Path, port: int, *options: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A running ``kvorum up`` and what it said when it was ready."""
    command = [*KVORUM, "up", "--json", "--data", str(folder), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a node outlived its kvorum up"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids_of(ready: Any) -> list[int]:
    return [node["pid"] for node in ready["nodes"].values()]


def test_up_is_stopped_by_ctrl_c_and_keeps_the_data(tmp_path: Path) -> None:
    port = free_row(3)
    for number in (1, 2):
        with up(tmp_path, port, "--partitions", "32") as (process, ready):
            with kvorum.connect(ready["addresses"]) as client:
                table = client.table("default")
                assert table.get("k").value == (None if number == 1 else b"v")
                table.put("k", b"v", context=table.get("k").context)
                assert client.status("a").clean_start == (number == 2)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 0
            wait_until_gone(pids_of(ready))
    assert (tmp_path / "a.log").read_text().count("stopped") == 2


def test_every_node_of_an_up_serves_http(tmp_path: Path) -> None:
    port = free_row(6)
    options = ("--engine", "memory", "--http-port", str(port + 3), "--admin-port", "0")
    with up(tmp_path, port, *options) as (_, ready):
        urls = [node["http"] for node in ready["nodes"].values()]
        assert urls == [f"http://127.0.0.1:{port + 3 + index}" for index in range(3)]
        for url in urls:
            with urllib.request.urlopen(f"{url}/tables/default", timeout=10) as answer:
                assert json.loads(answer.read())["durability"] == "none"


def test_no_node_outlives_an_up_that_is_killed(tmp_path: Path) -> None:
    with up(tmp_path, free_row(3), "--engine", "memory") as (process, ready):
        process.kill()
        process.wait()
        wait_until_gone(pids_of(ready))


def test_a_node_that_dies_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    with up(tmp_path, free_row(3)) as (process, ready):
        os.kill(ready["nodes"]["b"]["pid"], signal.SIGKILL)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"died": "b", "exit_code": -9}
        with kvorum.connect(ready["addresses"]) as client:
            assert len(client.table("default").put("k", b"v").acks) == 2
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 1


def test_a_busy_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_row(3)
    with socket.create_server(("127.0.0.1", port + 1)):
        assert main.run(["up", "--data", str(tmp_path), "--port", str(port)]) == 6
    assert f"port {port + 1} of 127.0.0.1, for node b" in capsys.readouterr().err


def test_serve_names_a_busy_port_and_a_busy_directory(tmp_path: Path) -> None:
    with running_cluster(nodes=1, engine="lmdb") as cluster:
        same = cluster.folder / "topology.json"
        elsewhere = tmp_path / "topology.json"
        port = str(cluster.topology.members[0].port)
        elsewhere.write_text(same.read_text().replace(port, str(free_ports(1)[0])))
        for topology, data, expected in (
            (same, tmp_path / "data", f"port {port}"),
            (elsewhere, cluster.data_dir("a"), "directory"),
        ):
            serve = [*KVORUM, "serve", "--name", "a", "--topology", str(topology)]
            done = subprocess.run(
                [*serve, "--data", str(data)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 6, done.stderr
            assert expected in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "z"], "no node 'z'"),
        (["--name", "a"], "--data"),
        (["--name", "far", "--data", "far"], "--allow-insecure-network"),
        (["--name", "a", "--data", "a", "--config", "none.toml"], "none.toml"),
    ],
)
def test_serve_says_what_is_wrong_and_ends_with_2(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    nodes = [f"--node=a=127.0.0.1:{free_ports(1)[0]}", "--node=far=192.0.2.1:7401"]
    assert main.run(["init", str(tmp_path / "topology.json"), *nodes]) == 0
    done = subprocess.run(
        [*KVORUM, "serve", "--topology", "topology.json", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_measures_and_leaves_nothing(tmp_path: Path) -> None:
    with running_cluster() as cluster:
        options = ["--seconds", "1", "--keys", "500", "--processes", "2", "--connections", "2"]
        done = subprocess.run(
            [*KVORUM, "bench", "--json", "--nodes", ",".join(cluster.addresses), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        measured = json.loads(done.stdout)
        assert measured["errors"] == {}
        assert measured["not_found"] == 0
        assert measured["siblings"] == 0
        assert measured["gets"]["operations"] > 50
        assert measured["puts"]["p50_us"] <= measured["puts"]["p99.9_us"]
        with cluster.connect() as client:
            assert [table.name for table in client.tables()] == ["default"]


def test_the_demo_loses_nothing() -> None:
    done = subprocess.run(
        [*KVORUM, "demo", "--json", "--records", "3000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["acknowledged"] == 3000
    assert (told["refused"], told["unknown"], told["lost"], told["differing"]) == (0, 0, 0, 0)
    assert told["siblings"] == 2
    assert told["while_down"] > 0
    # The killed node is whole again before anybody reads, so reading has nothing left to mend.
    assert told["exchanged"] >= told["missed"]
    assert told["whole_seconds"] > 0
    assert told["own_repairs"] + told["read_repairs"] <= told["while_down"]
