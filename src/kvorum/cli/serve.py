"""``kvorum serve``: run one node of a cluster in this process."""

from pathlib import Path
from typing import Annotated

import typer

from kvorum.cli.options import AdminAddress, EngineChoice, HttpAddress
from kvorum.cli.settings import (
    read_admin_address,
    read_config,
    read_http_address,
    read_topology,
)
from kvorum.server.process import run_node
from kvorum.server.running import Door


def serve(
    name: Annotated[str, typer.Option(help="Which member of the topology this node is.")],
    topology: Annotated[
        Path, typer.Option(metavar="FILE", help="The topology, as kvorum init wrote it.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the node keeps its data; made if missing."),
    ] = None,
    engine: Annotated[
        EngineChoice, typer.Option(help="lmdb; or memory, which forgets all when it stops.")
    ] = EngineChoice.lmdb,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings as TOML; see docs/reference/settings.md."),
    ] = None,
    http: HttpAddress = None,
    admin: AdminAddress = None,
    allow_insecure_network: Annotated[
        bool,
        typer.Option(
            "--allow-insecure-network",
            help="Listen beyond this machine although anybody there could read and write.",
        ),
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON document a line.")
    ] = False,
    parent_fd: Annotated[
        int,
        typer.Option(
            "--parent-fd", hidden=True, help="Stop when this file descriptor comes to its end."
        ),
    ] = -1,
) -> None:
    """Run one node until SIGTERM or Ctrl-C stops it cleanly.

    It listens on the address that the topology has for it. Settings can also be given as
    environment variables, KVORUM_ and the setting's name in capitals.
    """
    code = run_node(
        topology=read_topology(topology),
        name=name,
        data=data,
        engine=engine.value,
        config=read_config(config),
        doors=_doors(http, admin),
        allow_insecure_network=allow_insecure_network,
        log_json=log_json,
        parent_fd=parent_fd,
    )
    if code:
        raise typer.Exit(code)


def _doors(http: str | None, admin: str | None) -> list[Door]:
    """What is served beside the native port."""
    # Imported only now: a node without these ports, and every other command, starts without
    # their libraries.
    doors: list[Door] = []
    if http is not None:
        from kvorum.server.http_service import HttpService

        doors.append(HttpService(read_http_address(http)))
    if admin is not None:
        from kvorum.admin.door import AdminDoor

        doors.append(AdminDoor(read_admin_address(admin)))
    return doors
