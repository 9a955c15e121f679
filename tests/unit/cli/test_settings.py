"""Settings from files and the environment; what is wrong is named with its place."""

from pathlib import Path

import pytest

from kvorum.cli.settings import connect_to, read_config, read_topology
from kvorum.config import NodeConfig
from kvorum.errors import SettingsInvalid


def test_without_file_and_environment_everything_is_at_its_default() -> None:
    assert read_config(None, {}) == NodeConfig()


def test_the_environment_stands_above_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("request_timeout_ms = 1_000\nclients_max = 7\n")
    config = read_config(file, {"KVORUM_REQUEST_TIMEOUT_MS": "2000", "KVORUM_NODES": "x:1"})
    assert (config.request_timeout_ms, config.clients_max) == (2000, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("request_timeout_ms = 'soon'\n", "node.toml: request_timeout_ms: 'soon': Expected `int`"),
        ("request_timeout_ms = 0\n", "node.toml: request_timeout_ms must be above 0"),
        ("request_timeout = 5\n", "node.toml: request_timeout: there is no such setting"),
        ("request_timeout_ms\n", "node.toml: not TOML"),
    ],
)
def test_a_bad_file_is_named_with_key_and_reason(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        read_config(file, {})
    assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"none\.toml: No such file"):
        read_config(tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("much", "KVORUM_CLIENTS_MAX: 'much': Expected `int`"),
        ("-1", "KVORUM_CLIENTS_MAX: clients_max must be above 0, not -1"),
    ],
)
def test_a_bad_variable_is_named_with_the_reason(text: str, expected: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read_config(None, {"KVORUM_CLIENTS_MAX": text})
    assert expected in str(caught.value)


def test_a_topology_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "topology.json"
    with pytest.raises(SettingsInvalid, match=r"topology\.json: No such file"):
        read_topology(file)
    file.write_text("{")
    with pytest.raises(SettingsInvalid, match=r"topology\.json: not JSON"):
        read_topology(file)


def test_a_bad_address_is_a_matter_of_settings() -> None:
    with pytest.raises(SettingsInvalid, match="KVORUM_NODES: address 'host:none'"):
        connect_to("host:none")
