"""The whole cluster, asked over the native protocol by way of this node.

The page and the command line see the same answers because they come the same way. Connections
are made when somebody asks first; a node that asks nothing of others on behalf of people keeps
none. However many pages are open, the cluster is asked for its status once in a while only.
"""

import asyncio
from typing import Final

from kvorum.admin.status import Statuses
from kvorum.client.asynchronous import AsyncClient
from kvorum.model.topology import Topology

STATUS_TIMEOUT_SECONDS: Final = 1.5  # a node that is there but mute must not hide the others
TIMEOUT_SECONDS: Final = 10.0
FRESH_SECONDS: Final = 0.5


class Cluster:
    """Clients of the cluster, connected when they are first wanted."""

    def __init__(self, address: str, software: str) -> None:
        self._address = address
        self._software = software
        self._clients: dict[float, AsyncClient] = {}  # by how long their answers may take
        self._connecting = asyncio.Lock()
        self._asking: asyncio.Task[tuple[Topology, Statuses]] | None = None
        self._asked_at = 0.0

    async def statuses(self) -> tuple[Topology, Statuses]:
        """What each node says of itself now, or said a moment ago."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at > FRESH_SECONDS):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        # Whoever gives up waiting must not end it for the others.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> tuple[Topology, Statuses]:
        client = await self._connected(STATUS_TIMEOUT_SECONDS)
        statuses = await client.statuses()
        return client.topology, statuses

    async def client(self) -> AsyncClient:
        """A client for everything else. Raises ``KvorumError`` if no node can be reached."""
        return await self._connected(TIMEOUT_SECONDS)

    async def _connected(self, timeout_seconds: float) -> AsyncClient:
        async with self._connecting:
            client = self._clients.get(timeout_seconds)
            if client is None:
                made = AsyncClient(
                    self._address, timeout_seconds=timeout_seconds, software=self._software
                )
                client = self._clients[timeout_seconds] = await made.connect()
            return client

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        for client in self._clients.values():
            await client.close()
