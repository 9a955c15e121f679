"""A node that only pretends, for what a real one does not do on request: to be silent, to break.

It speaks the clients' protocol on a real socket, is the only member of its cluster, and keeps
values in a dict without any of the promises of a store.
"""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kvorum.model.record import pack_value
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.topology import Member, Topology, encode_topology, make_topology
from kvorum.wire.codec import decode_control, encode
from kvorum.wire.framing import FrameReader
from kvorum.wire.kinds import CONTROL, HELLO, PUT
from kvorum.wire.messages import ControlRefused, StoreStart, TopologyAnswer, TopologyQuery, Welcome
from kvorum.wire.requests import (
    FOUND,
    UNKNOWN_TABLE,
    get_ok_frame,
    pack_ack,
    put_ok_frame,
)
from tests.support.members import ENTROPY
from tests.support.scripted import Asked

Answer = Callable[[Asked], bytes | None]


class FakeNode:
    """One listening socket and a thread for each connection; all gone when its block ends.

    ``answer`` may be replaced by a test: it is given each get and put, and returns the frame to
    send, nothing to stay silent, or raises ``ConnectionAbortedError`` to break the connection.
    """

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.put_ids: dict[bytes, bytes] = {}  # of the values
        self.asked: list[Asked] = []
        self.answer: Answer = self.honest
        self.nonce = b"nonce"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def topology(self) -> Topology:
        members = (Member(1, "fake", "127.0.0.1", self.port),)
        return make_topology(members, 1, 8, ENTROPY)

    def honest(self, asked: Asked) -> bytes:
        if asked.kind == PUT:
            self.keep(asked)
            return put_ok_frame(asked.number, 1, 1, pack_ack(1, 1, 0), b"context")
        value = self.values.get(asked.key)
        if value is None:
            return get_ok_frame(asked.number, 0, 1, b"\1\0", b"context", 0, b"")
        put_id = self.put_ids.get(asked.key, b"p" * 16)
        encoded = pack_value(b"d" * 16, 1, 0, put_id, False, b"", value)
        return get_ok_frame(asked.number, FOUND, 1, b"\1\0", b"context", 1, encoded)

    def keep(self, put: Asked) -> None:
        self.values[put.key] = put.value
        self.put_ids[put.key] = put.client + put.counter.to_bytes(8, "little")

    def break_connections(self) -> None:
        for connection in self._sockets:
            _shut(connection)
        self._sockets = []

    def stop_listening(self) -> None:
        _shut(self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop_listening()
        self.break_connections()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=target, args=given, name="fake-node")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                self._sockets.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        reader = FrameReader(1 << 30)
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    for payload in reader.feed(data):
                        reply = self._reply(payload)
                        if reply is not None:
                            connection.sendall(reply)
            except OSError:
                return

    def _reply(self, payload: bytes) -> bytes | None:
        if payload[0] == HELLO:
            start = StoreStart(b"storeid1", 1, self.nonce)
            return encode(
                Welcome(1, self.topology.cluster_id, 1, "fake", start, 0, topology_epoch=1)
            )
        if payload[0] == CONTROL:
            question = decode_control(payload)
            if isinstance(question, TopologyQuery):
                return encode(TopologyAnswer(question.request, encode_topology(self.topology)))
            number = getattr(question, "request", 0)
            return encode(ControlRefused(number, UNKNOWN_TABLE, "a fake node has no tables"))
        asked = Asked(payload)
        assert asked.table == DEFAULT_TABLE_ID
        self.asked.append(asked)
        return self.answer(asked)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.close()
