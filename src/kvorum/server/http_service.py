"""The HTTP API as a door of a running node: it listens, and stops in the node's order."""

import asyncio
import socket
from typing import Final

import structlog

from kvorum.client.addresses import Address
from kvorum.server.http import HttpDoor
from kvorum.server.running import Door, RunningNode, is_loopback

BACKLOG: Final = 1024


class HttpService(Door):
    """The HTTP API of one node, from its start to its stop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._door: HttpDoor | None = None
        self._server: asyncio.Server | None = None

    async def open(self, node: RunningNode, listening: socket.socket) -> None:
        door = self._door = HttpDoor(node.turns, node.config, is_loopback(self.address.host))
        self._server = await node.turns.loop.create_server(
            door.accept,  # type: ignore[arg-type]
            sock=listening,
            backlog=BACKLOG,
        )
        structlog.get_logger("kvorum").info("listening_http", address=str(self.address))

    def refuse(self) -> None:
        assert self._server is not None
        assert self._door is not None
        self._server.close()
        self._door.closing = True

    async def close(self) -> None:
        assert self._door is not None
        self._door.end_all()
