"""Connections that others open to us: clients, and members of the cluster.

The first frame is a ``Hello``; until it has been judged nothing else is looked at, and whoever
does not send one within some seconds is cut off. The role in it says what may follow.
"""

from typing import Final

from kvorum.config import NodeConfig
from kvorum.server.connection import Connection
from kvorum.server.loop import Turns
from kvorum.wire.codec import decode_control, decode_hello, encode
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.kinds import BATCH
from kvorum.wire.link import BatchServer
from kvorum.wire.messages import (
    ROLE_CLIENT,
    ROLE_CONTROL,
    ROLE_DATA,
    ROLE_FORWARD,
    ROLE_LARGE,
    Hello,
    Reject,
)

HELLO_PATIENCE: Final = 5.0  # seconds
HTTP_STARTS: Final = (b"GET ", b"PUT ", b"POST", b"HEAD", b"DELE", b"OPTI")
HTTP_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This is kvorum's native port, which does not speak HTTP.\n"
)

_STRANGER: Final = 0
_CLIENT: Final = 1
_BATCHES: Final = 2
_CONTROL: Final = 3


class Listener:
    """What accepted connections share."""

    def __init__(self, turns: Turns, config: NodeConfig) -> None:
        self.turns = turns
        self.config = config
        self.open: dict[Accepted, None] = {}
        self.client_count = 0
        self.closing = False

    def accept(self) -> "Accepted":
        return Accepted(self)

    def end_all(self) -> None:
        self.closing = True
        for connection in list(self.open):
            connection.end()


class Accepted(Connection):
    """One accepted connection, from its first byte to its end."""

    __slots__ = ("_batches", "_hello", "_listener", "_role", "_timer", "_unread")

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.turns, listener.config.client_output_bytes_max)
        self._listener = listener
        self._role = _STRANGER
        self._hello: Hello | None = None
        self._batches: BatchServer | None = None
        self._timer = listener.turns.loop.call_later(HELLO_PATIENCE, self._on_patience)
        self._unread = 0  # bytes that waited to be read when they were last looked at

    def on_open(self) -> None:
        self._listener.open[self] = None

    def take(self, payloads: list[bytes]) -> None:
        role = self._role
        if role == _CLIENT:
            node = self.turns.node
            for payload in payloads:
                node.on_client(self, payload)
                if self.closed:
                    return
        elif role == _BATCHES:
            batches = self._batches
            assert batches is not None
            for payload in payloads:
                if payload[0] != BATCH:
                    raise FrameInvalid(f"a data connection carried a frame of kind {payload[0]}")
                self.send(batches.on_batch(payload))
                if self.closed:
                    return
            self.mark(self.turns.node.store.durable_position)  # Nothing may have been left to sync.
        elif payloads:
            if role == _CONTROL:
                self._take_control(payloads)
            else:
                self._greet(payloads[0])
                if not self.closed and len(payloads) > 1:
                    self.take(payloads[1:])

    def _take_control(self, payloads: list[bytes]) -> None:
        assert self._hello is not None
        node = self.turns.node
        for payload in payloads:
            reply = node.on_control(self._hello.member, decode_control(payload))
            if reply is not None:
                self.send(encode(reply))

    def _greet(self, payload: bytes) -> None:
        """Judge the Hello; from here on the connection is what its role says."""
        listener = self._listener
        node = self.turns.node
        hello = decode_hello(payload)
        answer = node.peering.on_hello(hello)
        if not isinstance(answer, Reject) and hello.role == ROLE_CLIENT:
            if listener.client_count >= listener.config.clients_max:
                text = f"{listener.client_count} clients are connected, which is the limit"
                answer = Reject("busy", text)
            elif listener.closing:
                answer = Reject("busy", "this node is stopping")
        self.send(encode(answer))
        if isinstance(answer, Reject):
            self.end()
            return
        self._timer.cancel()
        self._hello = hello
        config = listener.config
        if hello.role in (ROLE_CLIENT, ROLE_FORWARD):
            self._role = _CLIENT
            self.reader.payload_bytes_max = config.client_frame_bytes_max
            listener.client_count += 1
        else:
            self.reader.payload_bytes_max = config.frame_bytes_max
            self.output_bytes_max = config.peer_queue_bytes_max
            if hello.role == ROLE_CONTROL:
                self._role = _CONTROL
                assert hello.start is not None
                node.peering.on_control_open(hello.member, hello.start)
            else:
                assert hello.role in (ROLE_DATA, ROLE_LARGE)
                self._role = _BATCHES
                self._batches = BatchServer(node.replica, hello.role == ROLE_LARGE)
                self.turns.batch_clients[self] = None

    @property
    def speaks_for_the_log(self) -> bool:
        return self._role in (_BATCHES, _CONTROL)

    def mark(self, durable_position: int) -> None:
        assert self._batches is not None
        frame = self._batches.mark(durable_position)
        if frame:
            self.send(frame)

    def on_invalid(self, text: str, data: bytes) -> None:
        if self._role != _STRANGER:
            return
        if data[:4] in HTTP_STARTS:
            self.send(HTTP_ANSWER)
        else:
            self.send(encode(Reject("malformed", f"{text}; this is a kvorum node's native port")))

    def on_closed(self) -> None:
        self._timer.cancel()
        listener = self._listener
        listener.open.pop(self, None)
        if self._role == _CLIENT:
            listener.client_count -= 1
        elif self._role == _BATCHES:
            self.turns.batch_clients.pop(self, None)
        elif self._role == _CONTROL:
            assert self._hello is not None
            assert self._hello.start is not None
            peering = self.turns.node.peering
            peering.on_control_closed(self._hello.member, self._hello.start.nonce)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._role != _STRANGER and self.transport is not None:
            self._unread = self.transport.get_write_buffer_size()
            self._arm_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._role != _STRANGER:
            self._timer.cancel()

    def _arm_unread(self) -> None:
        self._timer.cancel()
        patience = self._listener.config.unread_timeout_ms / 1000
        self._timer = self.turns.loop.call_later(patience, self._on_unread)

    def _on_unread(self) -> None:
        """Cut off who has read nothing for so long; who reads slowly may go on."""
        transport = self.transport
        if self.closed or transport is None:
            return
        unread = transport.get_write_buffer_size()
        if unread >= self._unread:
            self.turns.begin()
            self.cut_off("it does not read its answers")
        else:
            self._unread = unread
            self._arm_unread()

    def _on_patience(self) -> None:
        if not self.closed:
            self.turns.begin()
            self.turns.env.counters.handshakes_refused += 1
            self.send(encode(Reject("malformed", "no Hello came within 5 seconds")))
            self.end()
