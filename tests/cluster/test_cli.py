"""The commands that talk to a cluster, against a real one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.cli import main
from tests.support.cluster import RunningCluster, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster() as running:
        yield running


class Terminal:
    """A person at a terminal whose KVORUM_NODES is the cluster."""

    def __init__(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self._captured = capfdbinary
        self.said = b""
        self.noted = ""

    def types(self, *arguments: str) -> int:
        code = main.run(arguments)
        captured = self._captured.readouterr()
        self.said = captured.out
        self.noted = captured.err.decode()
        return code

    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.said)
        return document


@pytest.fixture
def terminal(
    cluster: RunningCluster,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Terminal:
    monkeypatch.setenv("KVORUM_NODES", ",".join(cluster.addresses))
    return Terminal(capfdbinary)


def test_put_get_delete(terminal: Terminal) -> None:
    assert terminal.types("put", "alice", "book") == 0
    assert terminal.said.startswith(b"ok: ")
    assert terminal.types("get", "alice") == 0
    assert terminal.said == b"book\n"
    assert terminal.types("put", "alice", "pen") == 0
    assert terminal.types("get", "alice", "--raw") == 0
    assert terminal.said == b"pen"
    assert terminal.types("delete", "alice") == 0
    assert terminal.types("get", "alice") == 3
    assert "was deleted" in terminal.noted
    assert terminal.types("delete", "alice") == 3
    assert terminal.types("get", "nobody") == 3
    assert "has no value" in terminal.noted


def test_siblings_are_all_shown_and_merged_by_a_put(terminal: Terminal) -> None:
    assert terminal.types("put", "cart", "book", "--blind") == 0
    assert terminal.types("put", "cart", "pen", "--blind") == 0
    assert terminal.types("get", "cart") == 0
    assert sorted(terminal.said.split()) == [b"book", b"pen"]
    assert "2 siblings" in terminal.noted
    assert terminal.types("get", "cart", "--one") == 5
    assert terminal.types("get", "cart", "--raw") == 5
    assert terminal.types("put", "cart", "book,pen") == 0
    assert "in place of 2 siblings" in terminal.noted
    assert terminal.types("get", "cart", "--one") == 0
    assert terminal.said == b"book,pen\n"


def test_a_context_from_json_is_taken_back(terminal: Terminal) -> None:
    terminal.types("put", "note", "1")
    assert terminal.types("get", "note", "--json") == 0
    context = str(terminal.document()["context"])
    terminal.types("put", "note", "2", "--blind")
    assert terminal.types("put", "note", "3", "--context", context) == 0
    terminal.types("get", "note")
    assert sorted(terminal.said.split()) == [b"2", b"3"]
    assert terminal.types("get", "other", "--json") == 3
    assert terminal.types("put", "other", "x", "--context", context) == 1
    assert "context" in terminal.noted
    assert terminal.types("delete", "note", "--context", context) == 0


def test_a_context_that_is_garbage_is_refused(terminal: Terminal) -> None:
    assert terminal.types("put", "k", "v", "--context", "AAAA") == 1
    assert terminal.types("put", "k", "v", "--context", "not base64") == 2


def test_values_from_files_and_bytes_that_are_no_text(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(bytes(range(256)))
    assert terminal.types("put", "blob", "--file", str(file)) == 0
    assert terminal.types("get", "blob", "--raw") == 0
    assert terminal.said == bytes(range(256))
    assert terminal.types("get", "blob", "--json") == 0
    assert terminal.document()["values"] != []
    assert terminal.types("put", "00ff", "x", "--hex-key", "--sort-key", "01") == 0
    assert terminal.types("get", "00ff", "--hex-key", "--sort-key", "01") == 0
    assert terminal.types("get", "00ff", "--hex-key") == 3


def test_bad_requests_are_refused_with_the_reason(terminal: Terminal) -> None:
    for arguments, expected in (
        (("get", "k", "--table", "none"), "none"),
        (("get", "k", "--r", "9"), "r=9"),
        (("put", "k", "v", "--w", "9"), "w=9"),
        (("put", "", "v"), "key is empty"),
        (("put", "k" * 3000, "v"), "3000"),
        (("put", "k", "v", "--durability", "one"), "disk"),
        (("get", "k", "--table", "none", "--json"), '"kind": "UnknownTable"'),
    ):
        assert terminal.types(*arguments) == 1, arguments
        assert expected in terminal.noted, arguments


def test_tables_from_beginning_to_end(terminal: Terminal) -> None:
    create = ("table", "create", "logs", "--resolution", "lww", "--r", "1", "--ttl", "60")
    assert terminal.types(*create) == 0
    assert terminal.types(*create) == 0
    assert terminal.types("table", "create", "logs", "--r", "2") == 1
    assert terminal.types("table", "list") == 0
    assert b"logs\t1\t2\tlww\tnone\tyes\t60\t\n" in terminal.said
    assert terminal.types("table", "set", "logs", "--w", "3", "--strict", "--json") == 0
    described = terminal.document()
    assert (described["r"], described["w"], described["sloppy"]) == (1, 3, False)
    assert terminal.types("put", "k", "v", "--table", "logs") == 0
    assert terminal.types("table", "show", "logs") == 0
    assert b"r, w\t1, 3 of n=3" in terminal.said
    assert terminal.types("table", "drop", "logs") == 0
    assert terminal.types("table", "show", "logs") == 1
    assert terminal.types("get", "k", "--table", "logs") == 1
    assert terminal.types("table", "drop", "default", "--yes") == 1


def test_explain_shows_what_each_owner_holds(terminal: Terminal) -> None:
    terminal.types("put", "where", "here", "--w", "3")
    assert terminal.types("explain", "where") == 0
    text = terminal.said.decode()
    assert text.count("\tcurrent\t") == 3 or text.count("\tcurrent") == 3
    assert "every owner is current" in text
    assert terminal.types("explain", "where", "--json") == 0
    document = terminal.document()
    assert sorted(str(owner) for owner in document["owners"]) == ["a", "b", "c"]
    assert terminal.types("explain", "nothing here") == 0
    assert b"nobody who answered holds anything" in terminal.said


def test_status_names_nodes_and_partitions(terminal: Terminal) -> None:
    assert terminal.types("status", "--counters") == 0
    text = terminal.said.decode()
    assert "64 partitions: 64 with all of 3 owners up" in text
    assert "puts and deletes taken from clients" in text
    assert terminal.types("status", "--json") == 0
    assert terminal.document()["partitions_by_owners_up"] == [0, 0, 0, 64]


def test_status_shows_what_each_node_believes_of_each_other(terminal: Terminal) -> None:
    assert terminal.types("status", "--members") == 0
    lines = terminal.said.decode().splitlines()
    believed = [line.split("\t")[:3] for line in lines if "\talive\t" in line]
    assert believed == [[one, other, "alive"] for one in "abc" for other in "abc" if one != other]


def test_a_put_that_nobody_confirms_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    with running_cluster(nodes=2, n=2) as cluster:
        nodes = ["--nodes", cluster.processes["a"].address]
        assert main.run(["put", "k", "1", *nodes]) == 0
        cluster.processes["b"].pause()
        assert main.run(["put", "k", "2", "--blind", "--timeout", "1", "--json", *nodes]) == 4
        said = json.loads(capsys.readouterr().err)
        assert said["error"] == "outcome unknown"
        assert len(said["put_id"]) == 32
        assert main.run(["table", "create", "carts", "--json", *nodes]) == 0
        assert json.loads(capsys.readouterr().out)["unreached"] == ["b"], "by name, not by number"
        cluster.processes["b"].resume()


def test_explain_shows_who_is_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with running_cluster() as cluster:
        nodes = ["--nodes", ",".join(cluster.addresses)]
        cluster.processes["b"].kill()
        assert main.run(["put", "k", "v", *nodes]) == 0
        capsys.readouterr()
        assert main.run(["status", *nodes]) == 0
        assert "b\t" + cluster.processes["b"].address + "\tno answer" in capsys.readouterr().out
        assert main.run(["explain", "k", *nodes]) == 0
        assert "without an answer: b" in capsys.readouterr().out
        # Exchange begins a tenth of a second after a connection: whoever looks must be quick.
        for attempt in range(10):
            cluster.start_again("b")
            assert main.run(["explain", "k", *nodes]) == 0
            shown = capsys.readouterr().out
            if "behind: b" in shown:
                break
            assert "every owner is current" in shown
            cluster.processes["b"].kill()
            assert main.run(["put", "k", f"v{attempt}", *nodes]) == 0
            capsys.readouterr()
        assert "behind: b" in shown
        assert main.run(["get", "k", "--r", "3", *nodes]) == 0
