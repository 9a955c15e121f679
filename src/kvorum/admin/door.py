"""The administration port, served by uvicorn inside the node's process and on its loop.

On the same loop, so that what it shows is the node's own state, read between two turns without
locks, and so that ``/health/live`` answers if and only if the loop turns. The price is that a
request here and the data path take turns; scraping costs the loop about a millisecond.

uvicorn listens to no signals here: the node does, and closes this door in its own order. The
parser is h11, which bounds what a request's head may be; connections are bounded in number, and
one that does not send a whole request in time, or does not take its answer, is ended.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import h11
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
ANSWER_SECONDS: Final = 60.0  # for an answer to be worked out and taken
CLOSE_SECONDS: Final = 2
DAWDLES_SECONDS: Final = 1.0  # until then a request may well be on its way
HEAD_BYTES_MAX: Final = 32 << 10


class AdminConnection(H11Protocol):
    """A connection that has only so long for each request to arrive whole, and to be read.

    Where there are too many, one gives way to the newcomer, so whoever asks at once is answered,
    however many others dawdle: the one whose request is awaited longest, but not one that has
    only just come; else one that does not take its answer, else the oldest.
    """

    _patience: asyncio.TimerHandle | None = None
    _waits_since = 0.0  # for a whole request
    _given_up = False

    # asyncio declares a BaseTransport, and gives every TCP connection a Transport.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        if len(self.connections) > CONNECTIONS_MAX:
            self._make_room()
        self._be_patient(REQUEST_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._patience is None:
            self._be_patient(REQUEST_SECONDS)
        super().data_received(data)
        if not self._is_waiting():
            self._be_patient(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        self._stop_waiting()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # To close it would be to wait for one that may not read.

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; silently if an answer has begun, since there is only one."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True  # An answer that is being worked out comes too late.
            self.cycle.message_event.set()

    def _is_waiting(self) -> bool:
        """Whether it is the other side's turn to send."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _make_room(self) -> None:
        others = [
            each
            for each in self.connections
            if isinstance(each, AdminConnection) and each is not self and not each._given_up
        ]
        since = self.loop.time() - DAWDLES_SECONDS
        slow = [each for each in others if each._is_waiting() and each._waits_since <= since]
        slow = slow or [each for each in others if each.flow.write_paused] or others
        if slow:
            min(slow, key=lambda each: each._waits_since)._give_up()

    def _be_patient(self, seconds: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._given_up = True
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
            http=AdminConnection,
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
