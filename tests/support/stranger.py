"""Whoever talks to a node without being a well-behaved client or member: raw bytes on a socket."""

import socket
from types import TracebackType
from typing import Self

from kvorum.model.topology import Topology
from kvorum.wire.codec import decode_reply, encode
from kvorum.wire.framing import FrameReader
from kvorum.wire.messages import ROLE_CLIENT, Hello, Reject, StoreStart, Welcome

PATIENCE_SECONDS = 5.0
START = StoreStart(b"stranger", 1, b"no nonce")


class Stranger:
    """One connection to a node. What a node has sent so far is kept, frame by frame."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self._reader = FrameReader(1 << 30)
        self._payloads: list[bytes] = []

    def send(self, *frames: bytes) -> None:
        """Send; a node that has hung up already is no error."""
        try:
            self.socket.sendall(b"".join(frames))
        except (ConnectionError, BrokenPipeError):
            return

    def next_payload(self) -> bytes | None:
        """The next frame's payload; None once the node has closed the connection."""
        while not self._payloads:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                return None
            if not data:
                return None
            self._payloads += self._reader.feed(data)
        return self._payloads.pop(0)

    def greet(self, hello: Hello) -> Welcome | Reject:
        """Shake hands; what the node answers."""
        self.send(encode(hello))
        payload = self.next_payload()
        assert payload is not None, "the node hung up without a word"
        return decode_reply(payload)

    def rest(self) -> bytes:
        """All bytes until the node hangs up; ``TimeoutError`` if it does not."""
        parts = []
        try:
            while data := self.socket.recv(1 << 16):
                parts.append(data)
        except ConnectionError:
            pass
        return b"".join(parts)

    def is_cut_off(self) -> bool:
        """Whether the node ends the connection, whatever it says before."""
        try:
            while self.next_payload() is not None:
                pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def client_hello() -> Hello:
    return Hello(1, 1, ROLE_CLIENT, software="stranger")


def member_hello(
    topology: Topology, member: int, target: int, role: str, start: StoreStart = START
) -> Hello:
    """What the member itself would say; use one that does not run, or it is taken for a copy."""
    return Hello(1, 1, role, topology.cluster_id, member, target, start, 0, "stranger", 1)
