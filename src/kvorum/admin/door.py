"""The administration port, served by uvicorn inside the node's process and on its loop.

On the same loop, so that what it shows is the node's own state, read between two turns without
locks, and so that ``/health/live`` answers if and only if the loop turns. The price is that a
request here and the data path take turns; scraping costs the loop about a millisecond.

uvicorn listens to no signals here: the node does, and closes this door in its own order. The
parser is h11, which bounds what a request's head may be; connections are bounded in number, and
one that does not send a whole request in time is ended.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kvorum.admin.cluster import Cluster
from kvorum.admin.service import make_service
from kvorum.client.addresses import Address
from kvorum.server.running import Door, RunningNode

CONNECTIONS_MAX: Final = 200
IDLE_SECONDS: Final = 30
REQUEST_SECONDS: Final = 20.0  # for a whole request to arrive
CLOSE_SECONDS: Final = 2
HEAD_BYTES_MAX: Final = 32 << 10


class _Connection(H11Protocol):
    """A connection that has only so long for each request to arrive whole."""

    _patience: asyncio.TimerHandle | None = None

    # asyncio declares a BaseTransport, and gives every TCP connection a Transport.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._be_patient()

    def data_received(self, data: bytes) -> None:
        if self._patience is None:
            self._be_patient()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.more_body:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _be_patient(self) -> None:
        self._patience = self.loop.call_later(REQUEST_SECONDS, self._on_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _on_patience(self) -> None:
        self._patience = None
        self.transport.abort()


class _Server(uvicorn.Server):
    """A server whose end is decided by the node, not by signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminDoor(Door):
    """The administration port of one node."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._cluster: Cluster | None = None

    async def open(self, node: RunningNode, listening: socket.socket) -> None:
        core = node.turns.node
        self._cluster = Cluster(node.member.address, f"{core.software} admin of {core.name}")
        members = core.ring.topology.members
        names = [self.address.host, *(member.host for member in members)]
        config = uvicorn.Config(
            make_service(node, self._cluster, names),
            loop="none",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listening]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0)
        if self._serving.done():
            self._serving.result()
        structlog.get_logger("kvorum").info("administration_port", address=str(self.address))

    async def close(self) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._cluster is not None:
            await self._cluster.close()
