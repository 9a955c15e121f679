"""The command tree without a cluster: usage, exit codes, and errors in one form."""

import json
from pathlib import Path

import pytest

import kvorum
from kvorum.cli import main, outcome
from kvorum.cli.processes import NodeFailed
from kvorum.errors import (
    KvorumError,
    NoNodeReachable,
    OutcomeUnknown,
    QuorumNotMet,
    SettingsInvalid,
    SiblingsError,
)
from kvorum.model.topology import decode_topology
from kvorum.server.datadir import InUse


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuorumNotMet("too few"), 1),
        (NoNodeReachable("nobody"), 1),
        (outcome.CommandFailed("lost"), 1),
        (SettingsInvalid("wrong"), 2),
        (outcome.NotFound("nothing"), 3),
        (OutcomeUnknown("perhaps", b"id"), 4),
        (SiblingsError((b"a", b"b"), b""), 5),
        (InUse("taken"), 6),
        (outcome.PortInUse("taken"), 6),
        (NodeFailed("node a ended", 6), 6),
        (NodeFailed("node a ended", 2), 2),
        (NodeFailed("node a ended", -9), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert outcome.exit_code_of(error) == code


def test_an_error_in_json_says_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome.report(OutcomeUnknown("perhaps", b"\x01"), as_json=True) == 4
    assert json.loads(capsys.readouterr().err) == {
        "error": "outcome unknown",
        "kind": "OutcomeUnknown",
        "message": "perhaps",
        "exit_code": 4,
        "put_id": "01",
    }


def test_an_error_for_people_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    error: KvorumError = SiblingsError((b"a", b"b"), b"")
    assert outcome.report(error, as_json=False) == 5
    assert capsys.readouterr().err.startswith("kvorum: siblings: the key has 2 values")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"kvorum {kvorum.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["get"],
        ["get", "k", "--r", "0"],
        ["put", "k"],
        ["put", "k", "v", "--file", "f"],
        ["put", "k", "--file", "/nonexistent/file"],
        ["put", "k", "v", "--blind", "--context", "AA"],
        ["put", "k", "v", "--durability", "some"],
        ["get", "k", "--nodes", "host:99999"],
        ["get", "zz", "--hex-key"],
        ["bench", "--distribution", "normal"],
        ["bench", "--keys", "5"],
        ["table", "drop", "t", "--id", "zz"],
        ["serve", "--name", "a", "--topology", "/nonexistent/topology.json"],
        ["up", "--config", "/nonexistent/node.toml"],
    ],
)
def test_wrong_usage_and_settings_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    assert capsys.readouterr().err


def test_nobody_at_the_address_is_a_refusal_that_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["get", "k", "--nodes", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1: Connection refused" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kvorum.cli.talk.connect_to", interrupted)
    assert main.run(["get", "k"]) == 130


def test_init_writes_a_topology_and_judges_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topology.json"
    nodes = [f"--node={name}=127.0.0.1:{7401 + at},zone={name}" for at, name in enumerate("abcd")]
    assert main.run(["init", str(file), *nodes, "--partitions", "64", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    topology = decode_topology(file.read_bytes())
    assert (topology.n, len(topology.partitions), len(topology.members)) == (3, 64, 4)
    assert said["cluster"] == topology.cluster_id.hex()
    assert said["placement"]["zone_violations"] == 0


def test_init_never_overwrites_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topology.json"
    file.write_text("precious")
    assert main.run(["init", str(file), "--node", "a=127.0.0.1:7401"]) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_text() == "precious"
    assert main.run(["init", str(file), "--node", "a=127.0.0.1:7401", "--force"]) == 0
    assert decode_topology(file.read_bytes()).n == 1


@pytest.mark.parametrize(
    "node", ["a", "a=127.0.0.1", "a=127.0.0.1:x", "A b=127.0.0.1:1", "a=h:1,weight=0"]
)
def test_init_names_a_bad_member(
    node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topology.json"
    assert main.run(["init", str(file), "--node", node]) == 2
    assert "kvorum: settings: " in capsys.readouterr().err
    assert not file.exists()


def test_up_refuses_data_of_another_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topology.json"
    assert main.run(["init", str(file), "--node", "a=127.0.0.1:7401"]) == 0
    for arguments, expected in (
        (["--nodes", "3"], "--nodes 1"),
        (["--nodes", "1", "--port", "7501"], "--port 7401"),
        (["--nodes", "1", "--engine", "memory"], "--engine memory"),
    ):
        assert main.run(["up", "--data", str(tmp_path), *arguments]) == 2
        assert expected in capsys.readouterr().err
