"""All that a node may ask of the world.

The server, the simulator and the unit tests each bring an ``Environment``; the protocol cannot
tell which. Every call returns at once and none calls back into the node: sending only queues,
so no method of a component is ever re-entered and each handler runs to its end.

Data for peers goes into links (``wire/link.py``), one for each peer and a second for large
values; the driver empties them at the end of its turn.
"""

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from kvorum.counters import Counters
from kvorum.faults import NO_FAULTS, Faults
from kvorum.wire.link import Link
from kvorum.wire.message import Message

if TYPE_CHECKING:
    from random import Random


LATENCIES_KEPT: Final = 2048  # of answered requests, the latest


class ClientPort:
    """One connection of a client, or of a node that forwards: where answers go."""

    __slots__ = ("closed", "in_flight")

    def __init__(self) -> None:
        self.closed = False
        self.in_flight = 0  # requests taken and not yet answered

    def send(self, frame: bytes) -> None:
        """Queue an answer; it leaves at the end of the turn, or never."""
        raise NotImplementedError


class Environment:
    """The world as one node sees it."""

    now: int  # microseconds of a steady clock, set by the driver once per turn
    wall: int  # microseconds of the wall clock, set with ``now``
    random: "Random"
    counters: Counters
    faults: Faults = NO_FAULTS  # where this world lets the node fail; the real one nowhere
    links: dict[int, Link]  # member -> link, for every other member of the topology
    large_links: dict[int, Link]
    large_bytes: int  # what is longer travels on the large links
    latencies: deque[int]  # of requests answered here, microseconds; ``background.py`` reads them

    def entropy(self, size: int) -> bytes:
        """Random bytes for ids that must never come twice."""
        raise NotImplementedError

    def send(self, target: int, message: Message) -> bool:
        """Queue a control message; False if there is no control connection now."""
        raise NotImplementedError

    def forward(self, target: int) -> ClientPort | None:
        """The connection that carries forwarded requests to ``target``; None while there is none.

        Asking makes the driver open one.
        """
        raise NotImplementedError

    def drop_peer(self, target: int) -> None:
        """The connections to ``target`` are of no more use: end them and make new ones."""
        raise NotImplementedError

    def report(self, event: str, **detail: Any) -> None:
        """Tell the operator's log and the trace; nothing in the core waits for it."""
        raise NotImplementedError

    def stop(self, reason: str) -> None:
        """End this node after the turn: going on would harm the cluster."""
        raise NotImplementedError


def first_number(env: Environment) -> int:
    """From where a start numbers what other members answer later, on connections of their own.

    They may still owe such answers to the start before, and send them to this one, which must
    not take them for answers to its own questions.
    """
    return env.wall & 0x7FFF_FFFF
