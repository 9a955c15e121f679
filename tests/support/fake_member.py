"""Somebody in the place of a member that does not run: listens there and does as a test says."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from kvorum.wire.codec import encode
from kvorum.wire.messages import Welcome
from tests.support.cluster import RunningCluster
from tests.support.stranger import START

Answer = Callable[["FakeMember", socket.socket], None]


class FakeMember:
    """Takes every connection to the member's address and gives it to ``answer``, one thread each.

    A connection is kept open after ``answer`` has returned, until the block ends.
    """

    def __init__(self, cluster: RunningCluster, name: str, answer: Answer) -> None:
        self._cluster_id = cluster.topology.cluster_id
        self.member = cluster.processes[name].member
        self._answer = answer
        self._listener = socket.create_server((self.member.host, self.member.port))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def connection_count(self) -> int:
        """How many have come so far."""
        return len(self._connections)

    def welcome(self) -> bytes:
        """What the member itself would answer to whoever connects."""
        member = self.member
        return encode(Welcome(1, self._cluster_id, member.id, member.name, START, 0, None, False))

    def _start(self, target: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=target, args=given, name="fake-member")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._answer(self, connection)
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()


def says_nothing(member: FakeMember, connection: socket.socket) -> None:
    """Accept, and never answer."""


def welcomes_and_falls_silent(member: FakeMember, connection: socket.socket) -> None:
    """Shake hands like a member, and never answer anything that is asked."""
    connection.recv(1 << 14)
    connection.sendall(member.welcome())
    while connection.recv(1 << 16):
        pass
