"""What a kept sample says, read by today's code: plain data that stands beside it in the index."""

from typing import Any

import msgspec

from kvorum.model.context import check_context, context_clock, context_seen
from kvorum.model.hint import decode_hint
from kvorum.model.holding import checked_record_offset, own_dot, partition_key_of
from kvorum.model.record import Value, check_record, head_of, split_values
from kvorum.model.siblings import seen_of
from kvorum.model.topology import decode_topology
from kvorum.model.version import Seen
from kvorum.wire import kinds, requests
from kvorum.wire.codec import decode_control, decode_hello, decode_reply
from kvorum.wire.framing import FrameReader
from kvorum.wire.link import Answers, Asker, BatchServer, Link
from tests.golden.samples import KEY

Said = dict[str, Any]


def read(name: str, body: bytes) -> Said:
    """The fields of the sample ``kind/name``."""
    said: Said = plain(READERS[name.partition("/")[0]](body))
    return said


def plain(what: Any) -> Any:
    """JSON's own types: bytes as hex, structs by field name."""
    if isinstance(what, bytes):
        return what.hex()
    if isinstance(what, msgspec.Struct):
        fields = {each: plain(getattr(what, each)) for each in what.__struct_fields__}
        return {"is": type(what).__name__, **fields}
    if isinstance(what, list | tuple):
        return [plain(each) for each in what]
    if isinstance(what, dict):
        return {key: plain(each) for key, each in what.items()}
    return what


def payload_of(framed: bytes) -> bytes:
    (payload,) = FrameReader(1 << 24).feed(framed)
    return payload


def read_message(framed: bytes) -> Any:
    payload = payload_of(framed)
    if payload[0] == kinds.HELLO:
        return decode_hello(payload)
    if payload[0] in (kinds.WELCOME, kinds.REJECT):
        return decode_reply(payload)
    return decode_control(payload)


def cut(body: bytes, *lengths: int) -> list[bytes]:
    """``body`` in pieces of these lengths, and the rest."""
    pieces = []
    for length in lengths:
        pieces.append(body[:length])
        body = body[length:]
    return [*pieces, body]


def read_request(framed: bytes) -> Said:
    payload = payload_of(framed)
    if payload[0] == kinds.PUT:
        head = requests.unpack_put(payload, 0)
        rest = cut(payload[requests.PUT_HEAD_BYTES :], head[2], head[8], head[10], head[7])
    elif payload[0] == kinds.GET:
        head = requests.unpack_get(payload, 0)
        rest = cut(payload[requests.GET_HEAD_BYTES :], head[2])
    elif payload[0] == kinds.PUT_OK:
        head = requests.unpack_put_ok(payload, 0)
        rest = cut(payload[requests.PUT_OK_HEAD_BYTES :], requests.ACK_BYTES * head[2])
    elif payload[0] == kinds.GET_OK:
        head = requests.unpack_get_ok(payload, 0)
        rest = cut(payload[requests.GET_OK_HEAD_BYTES :], 2 * head[5], head[6])
    else:
        head = requests.unpack_failure(payload, 0)
        rest = [payload[requests.FAILURE_HEAD_BYTES :]]
    return {"head": head, "rest": rest}


class _Answered(Asker):
    def __init__(self, told: list[Any]) -> None:
        super().__init__()
        self.wants_disk = True
        self.told = told

    def on_ok(self, peer: int) -> None:
        self.told.append("ok")

    def on_disk(self, peer: int) -> None:
        self.told.append("on disk")

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        self.told.append([generation, record])

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        self.told.append([status, payload])


class _Asked(Answers):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def position(self) -> int:
        return 0

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        self.asked.append(["put", key, holding, epoch, generation])
        return 0

    def on_hint(self, key: bytes, body: bytes, epoch: int, generation: int) -> int:
        self.asked.append(["hint", key, body, epoch, generation])
        return 0

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        self.asked.append(["get", key, epoch, generation])
        return 0


def read_link(framed: bytes) -> Any:
    """A batch as the answering end reads it; answers and marks as the asking end does."""
    payload = payload_of(framed)
    if payload[0] == kinds.BATCH:
        asked = _Asked()
        server = BatchServer(asked, False)
        server.on_batch(payload)
        return {"asked": asked.asked, "wants a mark": server.mark(0) != b""}
    told: list[Any] = []
    link = Link(2, [], 1 << 20, 1 << 20)
    link.open(0)
    link.put(KEY, b"holding", 4, 5, _Answered(told))
    link.get(KEY, 4, 0, _Answered(told))
    link.get(KEY[:33], 4, 0, _Answered(told))
    link.take(0)
    if payload[0] == kinds.ANSWERS:
        link.on_answers(payload, 10)
    else:
        link.on_answers(bytes((kinds.ANSWERS, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0)), 10)
        told.clear()
        link.on_mark(payload)
    return {"told": told}


def read_seen(seen: Seen) -> Said:
    return {actor.hex(): runs for actor, runs in seen.runs.items()}


def read_record(record: bytes) -> Said:
    check_record(record)
    values = [Value(each) for each in split_values(record)]
    return {
        "flags": head_of(record)[1],
        "seen": read_seen(seen_of(record)),
        "values": [{name: getattr(one, name) for name in Value.__slots__} for one in values],
    }


def read_context(context: bytes) -> Said:
    check_context(KEY, context)
    return {"clock": context_clock(context), "seen": read_seen(context_seen(context))}


def read_holding(holding: bytes) -> Said:
    offset = checked_record_offset(holding)
    return {
        "own": own_dot(holding),
        "partition key": partition_key_of(holding),
        "record": read_record(holding[offset:]),
    }


def read_hint(encoded: bytes) -> Said:
    hint = decode_hint(encoded)
    return {
        "w": hint.w,
        "disks": hint.disks,
        "created": hint.created,
        "owners": hint.owners,
        "holding": read_holding(hint.holding),
    }


READERS = {
    "message": read_message,
    "request": read_request,
    "link": read_link,
    "record": read_record,
    "context": read_context,
    "holding": read_holding,
    "hint": read_hint,
    "topology": decode_topology,
}
