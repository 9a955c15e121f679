"""Where files and environment variables become settings.

A node's settings come from its TOML file (``--config FILE``), and over them from environment
variables, ``KVORUM_`` and the name in capitals. Which nodes a command talks to stands in
``--nodes`` or ``KVORUM_NODES``. Whatever is wrong is said with the file or variable, the key and
the reason.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from kvorum.client.addresses import Address, parse_address, parse_addresses
from kvorum.client.blocking import Client
from kvorum.config import NodeConfig, check_config
from kvorum.errors import BadRequest, SettingsInvalid
from kvorum.model.topology import Topology, TopologyInvalid, decode_topology

NODES_VARIABLE: Final = "KVORUM_NODES"
VARIABLE_PREFIX: Final = "KVORUM_"
DEFAULT_NODES: Final = "127.0.0.1:7401"
DEFAULT_ADMIN_PORT: Final = 7490
DEFAULT_TIMEOUT_SECONDS: Final = 10.0
DEFAULT_HTTP_PORT: Final = 7480

_FIELDS: Final = {field.name: field.type for field in msgspec.structs.fields(NodeConfig)}


def read_config(file: Path | None, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """A node's settings from its file, and over them those of the environment."""
    given: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        for key, setting in _read_toml(file).items():
            given[key] = _converted(f"{file}: {key}", key, setting, strict=True)
            origin[key] = f"{file}: "
    for key in _FIELDS:
        variable = VARIABLE_PREFIX + key.upper()
        if variable in environment:
            given[key] = _converted(variable, key, environment[variable], strict=False)
            origin[key] = f"{variable}: "
    config = NodeConfig(**given)
    try:
        check_config(config)
    except SettingsInvalid as error:
        # The text begins with the setting's name.
        key = str(error).partition(" ")[0]
        raise SettingsInvalid(f"{origin.get(key, 'settings: ')}{error}") from None
    return config


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{file}: not TOML: {error}") from None


def _converted(where: str, key: str, setting: object, *, strict: bool) -> Any:
    if key not in _FIELDS:
        raise SettingsInvalid(f"{where}: there is no such setting; see docs/reference/settings.md")
    try:
        return msgspec.convert(setting, _FIELDS[key], strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"{where}: {setting!r}: {error}") from None


def read_topology(file: Path) -> Topology:
    """The topology of a file; ``SettingsInvalid`` names the file and what is wrong."""
    try:
        return decode_topology(file.read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}") from None
    except TopologyInvalid as error:
        raise SettingsInvalid(f"{file}: {error}") from None


def read_admin_address(text: str) -> Address:
    """Where the administration port is to be."""
    try:
        return parse_address(text, DEFAULT_ADMIN_PORT)
    except BadRequest as error:
        raise SettingsInvalid(f"--admin: {error}") from None


def read_http_address(text: str) -> Address:
    """Where the HTTP API is to be served."""
    try:
        return parse_address(text, DEFAULT_HTTP_PORT)
    except BadRequest as error:
        raise SettingsInvalid(f"--http: {error}") from None


def connect_to(
    nodes: str, *, only_given: bool = False, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> Client:
    """A client of the nodes that ``--nodes`` or ``KVORUM_NODES`` names."""
    try:
        addresses = [str(address) for address in parse_addresses(nodes)]
    except BadRequest as error:
        raise SettingsInvalid(f"--nodes or {NODES_VARIABLE}: {error}") from None
    return Client(addresses, only_given=only_given, timeout_seconds=timeout_seconds)
