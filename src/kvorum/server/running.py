"""A node that runs, as those see it who serve something beside its native port.

A *door* is such a service: its port is taken before the node's data is opened, since a port is
free or not at once; it opens when the node listens and closes when the node has let go of its
last request. What a door serves is handed in by the command line: the server knows none.
"""

import socket
from dataclasses import dataclass
from typing import Final

from kvorum.client.addresses import Address
from kvorum.config import NodeConfig
from kvorum.model.topology import Member
from kvorum.server.datadir import OpenedData
from kvorum.server.listener import Listener
from kvorum.server.loop import Turns
from kvorum.wire.messages import StatusAnswer

LOOPBACK: Final = ("localhost", "::1")


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


@dataclass(slots=True)
class RunningNode:
    """One node from its start to its stop."""

    member: Member
    config: NodeConfig
    turns: Turns
    listener: Listener
    opened: OpenedData

    def status(self) -> StatusAnswer:
        """All that the node knows of itself, as of its last turn."""
        return self.turns.node.status(0)

    @property
    def stopping(self) -> bool:
        return self.listener.closing


class Door:
    """One service beside the native port."""

    address: Address  # where it wants to listen

    async def open(self, node: RunningNode, listening: socket.socket) -> None:
        """Serve on a socket that is bound and does not listen yet."""
        raise NotImplementedError

    def refuse(self) -> None:
        """The node is stopping: take nothing new, but go on with what is under way."""

    async def close(self) -> None:
        """Stop serving, soon; whoever waits for an answer may wait for it a little longer."""
        raise NotImplementedError
