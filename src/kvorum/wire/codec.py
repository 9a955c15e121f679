"""Control messages to bytes and back.

Malformed bytes raise ``MessageInvalid`` here, are caught at the connection, and go no further.
"""

from typing import Final

import msgspec

from kvorum.wire.framing import frame
from kvorum.wire.kinds import CONTROL, HELLO, REJECT, WELCOME
from kvorum.wire.message import Message
from kvorum.wire.messages import Control, Hello, Reject, Welcome

_encode = msgspec.msgpack.Encoder().encode
_hello = msgspec.msgpack.Decoder(Hello)
_control: msgspec.msgpack.Decoder[Control] = msgspec.msgpack.Decoder(Control)
_reply: msgspec.msgpack.Decoder[Welcome | Reject] = msgspec.msgpack.Decoder(Welcome | Reject)

# What msgspec raises: text that is no UTF-8, and arrays nested without end, end up beside its own.
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_KINDS: Final = {Hello: HELLO, Welcome: WELCOME, Reject: REJECT}


class MessageInvalid(ValueError):
    """A payload that is no message of its kind."""


def encode(message: Message) -> bytes:
    """``message``, framed."""
    kind = _KINDS.get(type(message), CONTROL)
    return frame(bytes((kind,)) + _encode(message))


def decode_hello(payload: bytes) -> Hello:
    """The first payload of a connection that somebody opened to us."""
    if not payload or payload[0] != HELLO:
        raise MessageInvalid("a connection begins with a Hello")
    try:
        return _hello.decode(memoryview(payload)[1:])
    except _MALFORMED as error:
        raise MessageInvalid(f"the Hello is malformed: {error}") from error


def decode_reply(payload: bytes) -> Welcome | Reject:
    """The first payload that comes back on a connection that we opened."""
    if not payload or payload[0] not in (WELCOME, REJECT):
        raise MessageInvalid("the other side answered no Welcome; is it a kvorum node?")
    try:
        return _reply.decode(memoryview(payload)[1:])
    except _MALFORMED as error:
        raise MessageInvalid(f"the Welcome is malformed: {error}") from error


def decode_control(payload: bytes) -> Control:
    if not payload or payload[0] != CONTROL:
        raise MessageInvalid("a control message was expected")
    try:
        return _control.decode(memoryview(payload)[1:])
    except _MALFORMED as error:
        raise MessageInvalid(f"a control message is malformed: {error}") from error
