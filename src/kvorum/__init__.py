"""An always-writable, replicated key-value store: Dynamo, complete, in Python.

``connect`` and ``aconnect`` give a client of a running cluster; all that a client can raise is
a ``KvorumError``.
"""

__version__ = "0.1.0.dev0"

from kvorum.client.asynchronous import AsyncClient
from kvorum.client.blocking import Client
from kvorum.client.store import Ack, AsideCopy, Found, LocalCopy, Sibling, Stored, TableDescription
from kvorum.errors import (
    BadContext,
    BadRequest,
    KvorumError,
    NoNodeReachable,
    OutcomeUnknown,
    Overloaded,
    QuorumNotMet,
    Refused,
    SiblingsError,
    TooLarge,
    TooManySiblings,
    UnknownTable,
)


def connect(
    addresses: str | list[str], *, timeout_seconds: float = 10.0, only_given: bool = False
) -> Client:
    """Connect to a cluster through one or several of its nodes, ``host:port`` each.

    The client may be shared between threads. ``timeout_seconds`` is how long one request may
    take, other nodes and all. Requests go to an owner of their key; with ``only_given`` they go
    to the nodes of ``addresses`` alone, which then forward what is not theirs.
    """
    return Client(
        addresses,
        timeout_seconds=timeout_seconds,
        only_given=only_given,
        software=f"kvorum {__version__}",
    )


def aconnect(
    addresses: str | list[str], *, timeout_seconds: float = 10.0, only_given: bool = False
) -> AsyncClient:
    """The same for asyncio: ``async with kvorum.aconnect(...) as client``."""
    return AsyncClient(
        addresses,
        timeout_seconds=timeout_seconds,
        only_given=only_given,
        software=f"kvorum {__version__}",
    )


__all__ = [
    "Ack",
    "AsideCopy",
    "AsyncClient",
    "BadContext",
    "BadRequest",
    "Client",
    "Found",
    "KvorumError",
    "LocalCopy",
    "NoNodeReachable",
    "OutcomeUnknown",
    "Overloaded",
    "QuorumNotMet",
    "Refused",
    "Sibling",
    "SiblingsError",
    "Stored",
    "TableDescription",
    "TooLarge",
    "TooManySiblings",
    "UnknownTable",
    "aconnect",
    "connect",
]
