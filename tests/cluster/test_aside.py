"""Copies that were set aside, as a person meets them: a real disk is put back to before a reap.

What it holds of deleted keys is listed, exported, put back by hand and discarded, through the
command line and with other nodes running.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.cli import main
from tests.cluster.test_faults_hints import wait_for
from tests.cluster.test_histories import SHORT
from tests.support.cluster import RunningCluster, running_cluster

GONE = [f"gone-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Node c has the disk of before all these keys were deleted and forgotten."""
    backup = tmp_path_factory.mktemp("backup") / "c"
    with running_cluster(engine="lmdb", config=SHORT, partitions=8) as running:
        with running.connect() as client:
            client.create_table("latest", resolution="lww")
            for table in ("default", "latest"):
                for key in GONE:
                    client.table(table).put(key, f"{table} {key}".encode(), w=3)
        node = running.processes["c"]
        assert node.stop() == 0
        shutil.copytree(node.data, backup)
        running.start_again("c")
        with running.connect() as client:
            for table in ("default", "latest"):
                for key in GONE:
                    client.table(table).delete(key, w=3)
            wait_for("all is reaped", lambda: reaped(running) == 2 * len(GONE), 60)
        assert node.stop() == 0
        shutil.rmtree(node.data)
        shutil.copytree(backup, node.data)
        running.start_again("c")
        wait_for("it is set aside", lambda: aside_at(running, "c") == 2 * len(GONE), 60)
        yield running


def reaped(cluster: RunningCluster) -> int:
    with cluster.connect() as client:
        return min(client.status(node).counters["reaped_records"] for node in "abc")


def aside_at(cluster: RunningCluster, node: str) -> int:
    with cluster.connect() as client:
        return client.status(node).records_aside


@pytest.fixture
def says(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> "Says":
    monkeypatch.setenv("KVORUM_NODES", ",".join(cluster.addresses))
    return Says(capfd)


class Says:
    """A person who types ``kvorum aside ...``."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.noted = ""

    def __call__(self, *arguments: str, code: int = 0, command: str = "aside") -> str:
        assert main.run([command, *arguments]) == code
        captured = self._captured.readouterr()
        self.noted = captured.err
        return captured.out


def test_what_is_set_aside_is_listed_and_exported(says: Says, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in says("list").splitlines()]
    assert lines[0] == ["node", "table", "key", "sort key", "values", "written at", "kept for"]
    listed = {(line[0], line[1], line[2], line[4]) for line in lines[1:]}
    assert listed == {("c", table, key, "1") for table in ("default", "latest") for key in GONE}
    assert len(says("list", "--limit", "5").splitlines()) == 6
    assert "more than 5" in says.noted
    assert json.loads(says("list", "--node", "a", "--json")) == {
        "copies": [], "more": False, "unanswered": {},
    }  # fmt: skip

    file = tmp_path / "copies.jsonl"
    assert says("export", str(file)).startswith(f"{2 * len(GONE)} copies written")
    documents = [json.loads(line) for line in file.read_text().splitlines()]
    values = {(one["table"], one["siblings"][0]["value"]["text"]) for one in documents}
    assert values == {
        (table, f"{table} {key}") for table in ("default", "latest") for key in GONE
    }  # fmt: skip
    says("export", str(file), code=2)
    assert "exists" in says.noted


def test_a_copy_is_put_back_as_a_sibling_and_never_twice(
    says: Says, cluster: RunningCluster
) -> None:
    key = GONE[0]
    with cluster.connect() as client:
        table = client.table("default")
        assert table.get(key, r=3).values == (), "a copy that was set aside is served"
        table.put(key, b"new", w=3)
        assert says("restore", key, "--keep") == "ok: 1 values put, 0 copies discarded\n"
        assert sorted(table.get(key, r=3).values) == [f"default {key}".encode(), b"new"]
        assert says("restore", key) == "ok: 0 values put, 1 copies discarded\n"
        assert len(table.get(key, r=3).values) == 2
    says("restore", key, code=3)
    assert "no node has set aside" in says.noted
    assert aside_at(cluster, "c") == 2 * len(GONE) - 1


def test_where_the_last_write_wins_nothing_is_put_over_a_value(
    says: Says, cluster: RunningCluster
) -> None:
    first, second = GONE[:2]
    with cluster.connect() as client:
        table = client.table("latest")
        table.put(first, b"new", w=3)
        says("restore", first, "--table", "latest", code=1)
        assert "the last write wins" in says.noted
        assert table.get(first, r=3).values == (b"new",)
        assert says("restore", second, "-t", "latest").startswith("ok: 1 values put")
        assert table.get(second, r=3).values == (f"latest {second}".encode(),)


def test_copies_are_discarded_for_good(says: Says, cluster: RunningCluster) -> None:
    before = aside_at(cluster, "c")
    assert says("discard", GONE[5]) == "ok: 1 copies discarded\n"
    assert GONE[5] in says("list")  # Of the other table.
    says("discard", code=2)
    says("discard", GONE[6], "--all", code=2)
    assert json.loads(says("discard", "--all", "--json"))["discarded"] == before - 1
    assert says("list") == "nothing is set aside\n"
    assert aside_at(cluster, "c") == 0


@pytest.fixture(scope="module")
def without_b(cluster: RunningCluster) -> Iterator[None]:
    cluster.processes["b"].kill()
    yield
    cluster.start_again("b")


def test_a_node_that_does_not_answer_is_named(says: Says, without_b: None, tmp_path: Path) -> None:
    assert list(json.loads(says("list", "--json"))["unanswered"]) == ["b"]
    exported = json.loads(says("export", str(tmp_path / "copies"), "--json"))
    assert list(exported["unanswered"]) == ["b"]
    says("list", "--node", "b", code=1)
