"""Frames out of a byte stream, whatever its chunks.

A frame is ``u32 length`` (little-endian, of what follows) and a payload whose first byte is its
kind. ``FrameReader`` gives payloads; it keeps what is incomplete and refuses a length beyond
its limit before any memory is spent on it.
"""

from struct import Struct
from typing import Final

LENGTH_BYTES: Final = 4
HANDSHAKE_BYTES_MAX: Final = 16384

_length = Struct("<I")
pack_length = _length.pack
_unpack_length = _length.unpack_from


class FrameInvalid(ValueError):
    """Bytes that cannot be a frame of ours; the connection they came on is of no more use."""


def frame(payload: bytes) -> bytes:
    return pack_length(len(payload)) + payload


class FrameReader:
    """The payloads of one connection's frames, in order.

    Until ``payload_bytes_max`` is raised after the handshake, only small frames pass.
    """

    __slots__ = ("_chunks", "_have", "_need", "_tail", "payload_bytes_max")

    def __init__(self, payload_bytes_max: int = HANDSHAKE_BYTES_MAX) -> None:
        self.payload_bytes_max = payload_bytes_max
        self._tail = b""  # less than one frame
        self._chunks: list[bytes] = []  # of one large frame, joined once
        self._have = 0
        self._need = 0  # bytes of the large frame, its length included; 0: none under way

    def feed(self, data: bytes) -> list[bytes]:
        """Take in what has arrived; return the payloads that are now whole.

        Raises ``FrameInvalid`` for a length of nought or beyond the limit.
        """
        if not self._tail and not self._need and len(data) > LENGTH_BYTES:
            whole: int = len(data) - LENGTH_BYTES
            if whole == _unpack_length(data, 0)[0] and whole <= self.payload_bytes_max:
                return [data[LENGTH_BYTES:]]  # One frame and nothing else, as nearly always.
        if self._need:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks = []
            self._need = 0
        elif self._tail:
            data = self._tail + data
        payloads: list[bytes] = []
        position = 0
        size = len(data)
        while size - position >= LENGTH_BYTES:
            length: int = _unpack_length(data, position)[0]
            if length > self.payload_bytes_max or length == 0:
                raise FrameInvalid(
                    f"a frame announces {length} bytes; 1 to {self.payload_bytes_max} are allowed"
                )
            end = position + LENGTH_BYTES + length
            if end > size:
                if length > 65536:
                    self._chunks = [data[position:]]
                    self._have = size - position
                    self._need = LENGTH_BYTES + length
                    self._tail = b""
                    return payloads
                break
            payloads.append(data[position + LENGTH_BYTES : end])
            position = end
        self._tail = data[position:] if position < size else b""
        return payloads
