"""Control messages to bytes and back, and garbage that goes no further."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.wire.codec import (
    MessageInvalid,
    decode_control,
    decode_hello,
    decode_reply,
    encode,
)
from kvorum.wire.framing import LENGTH_BYTES, FrameReader
from kvorum.wire.kinds import CONTROL, HELLO, REJECT, WELCOME
from kvorum.wire.messages import (
    Hello,
    Ping,
    Reject,
    StoreStart,
    TableAnswer,
    TableQuery,
    Welcome,
)
from tests.golden.samples import CONTROL_MESSAGES

START = StoreStart(b"a store!", 3, b"a nonce!")
HELLO_MESSAGE = Hello(1, 1, "data", b"cluster!", 1, 2, START, 5, "kvorum", 7)
WELCOME_MESSAGE = Welcome(1, b"cluster!", 2, "b", START, 5)


def payload_of(framed: bytes) -> bytes:
    (payload,) = FrameReader().feed(framed)
    return payload


@pytest.mark.parametrize("message", CONTROL_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_control_message_survives_the_wire(message: object) -> None:
    assert decode_control(payload_of(encode(message))) == message  # type: ignore[arg-type]


def test_the_first_messages_have_kinds_of_their_own() -> None:
    assert decode_hello(payload_of(encode(HELLO_MESSAGE))) == HELLO_MESSAGE
    assert decode_reply(payload_of(encode(WELCOME_MESSAGE))) == WELCOME_MESSAGE
    reject = Reject("version", "this node speaks version 1, not 9")
    assert decode_reply(payload_of(encode(reject))) == reject
    kinds = [encode(each)[LENGTH_BYTES] for each in (HELLO_MESSAGE, WELCOME_MESSAGE, reject)]
    assert kinds == [HELLO, WELCOME, REJECT]
    assert encode(Ping(1, 2))[LENGTH_BYTES] == CONTROL


def test_fields_that_a_newer_node_adds_are_passed_over() -> None:
    newer = msgspec.msgpack.encode([10, 1, 2, "and", ["what", "not"]])
    assert decode_control(bytes((CONTROL,)) + newer) == Ping(1, 2)


def test_fields_that_an_older_node_lacks_take_their_defaults() -> None:
    older = msgspec.msgpack.encode([25, 9, []])
    assert decode_control(bytes((CONTROL,)) + older) == TableAnswer(9, [])


GARBAGE = {
    "nothing": b"",
    "only its kind": b"\x20",
    "an unknown tag": b"\x20" + msgspec.msgpack.encode([99, 1]),
    "too few fields": b"\x20" + msgspec.msgpack.encode([10, 1]),
    "a wrong type": b"\x20" + msgspec.msgpack.encode([10, "one", 2]),
    "bytes behind it": b"\x20" + msgspec.msgpack.encode([10, 1, 2]) + b"\0",
    "text that is no UTF-8": payload_of(encode(TableQuery(1, "abc"))).replace(b"abc", b"a\xffc"),
    "arrays without end": b"\x20\x94\x0a\x01\x02" + b"\x91" * 100_000,
    "four billion fields": b"\x20\xdd\xff\xff\xff\xff\x0a\x01\x02",
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_no_message(payload: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_control(payload)
    for kind, decode in ((HELLO, decode_hello), (WELCOME, decode_reply), (REJECT, decode_reply)):
        with pytest.raises(MessageInvalid):
            decode(bytes((kind,)) + payload[1:])


def test_a_message_of_another_kind_is_refused() -> None:
    for decode in (decode_hello, decode_reply):
        with pytest.raises(MessageInvalid):
            decode(payload_of(encode(Ping(1, 2))))
    with pytest.raises(MessageInvalid, match="a control message was expected"):
        decode_control(payload_of(encode(HELLO_MESSAGE)))
    with pytest.raises(MessageInvalid, match="is it a kvorum node"):
        decode_reply(b"HTTP/1.1 400 Bad Request")


@given(st.sampled_from(CONTROL_MESSAGES), st.data())
def test_a_mangled_message_is_refused_or_is_another_message(
    message: object, data: st.DataObject
) -> None:
    mangled = bytearray(payload_of(encode(message)))  # type: ignore[arg-type]
    for _ in range(data.draw(st.integers(1, 4))):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(mangled), len(mangled) - 1, len(mangled) // 2]))
    for decode in (decode_control, decode_hello, decode_reply):
        try:
            decode(bytes(mangled[:end]))
        except MessageInvalid:
            continue
