"""``POST /tables/NAME/batch``: many gets, puts and deletes at once, each with its own outcome.

The requests are independent of each other and done in no promised order, a window of them at a
time. What a request would have answered alone stands in its result, in their order: the status,
and in JSON what else would be headers and body. The batch itself is answered 200 whatever became
of them.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from kvorum.client.answers import decode_failure, decode_found, decode_stored
from kvorum.client.store import Found
from kvorum.server.http_answers import Answer, Names, etag_of, sibling_document
from kvorum.server.http_exchange import Exchange, unknown_table
from kvorum.server.http_headers import (
    Headers,
    PutId,
    accepts_gzip,
    encode_context,
    require_json,
)
from kvorum.server.http_json import (
    Operation,
    decode_batch,
    json_bytes,
    json_key,
    operation_content_type,
    operation_context,
    operation_options,
    operation_put_id,
)
from kvorum.server.http_paths import Target, parse_options
from kvorum.server.http_problems import REFUSALS, HttpProblem, problem_document
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.kinds import GET_OK, PUT_OK, UNKNOWN
from kvorum.wire.requests import READ_FIRST, TOMBSTONE, get_frame, put_frame

if TYPE_CHECKING:
    from kvorum.server.http_connection import HttpConnection
    from kvorum.server.http_put_ids import Series

BODY_BYTES_MAX: Final = 4 << 20
ANSWER_BYTES_MAX: Final = 16 << 20  # what gets bring together; the rest must be asked for again
WINDOW: Final = 64
GET_WINDOW: Final = 8  # to begin with, since a get may bring little or much
LARGE_ANSWER: Final = 65_536


class _Open:
    """One request of a batch that the node has been asked."""

    __slots__ = ("index", "is_get", "put_id", "series")

    def __init__(self, index: int, is_get: bool) -> None:
        self.index = index
        self.is_get = is_get
        self.put_id: PutId | None = None
        self.series: Series | None = None


class Batch(Exchange):
    __slots__ = (
        "_bytes", "_next", "_open", "_operations", "_results", "_table", "_target", "_timeout_ms",
        "_window",
    )  # fmt: skip

    def __init__(self, connection: "HttpConnection", target: Target, headers: Headers) -> None:
        super().__init__(connection)
        require_json(headers)
        self.body_bytes_max = BODY_BYTES_MAX
        self.gzip = accepts_gzip(headers.get(b"accept-encoding"))
        self._timeout_ms = parse_options(target.query, ("timeout_ms",)).timeout_ms
        self._target = target
        self._table = b""
        self._operations: list[Operation] = []
        self._results: list[dict[str, Any]] = []
        self._open: dict[int, _Open] = {}  # by native number
        self._next = 0  # the first operation that has not been begun
        self._bytes = 0
        self._window = GET_WINDOW

    def begin(self) -> None:
        table = self.door.table_id(self._target.table)
        if table is None:
            self.finish(unknown_table(self._target.table))
            return
        try:
            self._operations = decode_batch(self.body)
        except HttpProblem as problem:
            self.refuse(problem)
            return
        self._table = table
        self._results = [{} for _ in self._operations]
        self.limit_time(self._timeout_ms)
        self._go_on()

    def _go_on(self) -> None:
        """Begin what the window has room for; an answer may come before the call returns."""
        while self._next < len(self._operations) and len(self._open) < WINDOW and not self.done:
            index = self._next
            operation = self._operations[index]
            if operation.op == "get" and len(self._open) >= self._window:
                break
            self._next = index + 1
            try:
                if operation.op == "get":
                    self._begin_get(index, operation)
                else:
                    self._begin_put(index, operation)
            except HttpProblem as problem:
                self._results[index] = _problem(problem.code, problem.detail)
        if self._next == len(self._operations) and not self._open and not self.done:
            self._finish_batch()

    def _begin_get(self, index: int, operation: Operation) -> None:
        if self._bytes > ANSWER_BYTES_MAX:
            text = f"the answers have {self._bytes} bytes; get this in another batch"
            raise HttpProblem("too_large", text)
        key = _key(operation)
        sort_key = json_key("sort_key", operation.sort_key)
        for name in ("value", "context", "put_id", "w", "durability", "ttl_seconds"):
            if getattr(operation, name) is not msgspec.UNSET:
                raise HttpProblem("bad_body", f"{name} means nothing to a get")
        options = operation_options(operation)
        connection = self.connection
        number = connection.ask(self)
        self._open[number] = _Open(index, True)
        frame = get_frame(number, 0, self._table, key, sort_key, options.r, options.sloppy)
        connection.turns.node.on_client(connection, frame[LENGTH_BYTES:])

    def _begin_put(self, index: int, operation: Operation) -> None:
        key = _key(operation)
        sort_key = json_key("sort_key", operation.sort_key)
        context = operation_context(operation)
        options = operation_options(operation)
        content_type = operation_content_type(operation)
        if operation.r is not msgspec.UNSET:
            raise HttpProblem("bad_body", f"r means nothing to a {operation.op}")
        value = b""
        flags = 0
        if operation.op == "delete":
            flags = TOMBSTONE if context else TOMBSTONE | READ_FIRST
            if operation.value is not msgspec.UNSET or content_type or options.ttl:
                raise HttpProblem("bad_body", "a delete has no value, type or time to live")
        elif isinstance(operation.value, msgspec.UnsetType):
            raise HttpProblem("bad_body", "a put has a value")
        else:
            value = json_bytes("value", operation.value)
        connection = self.connection
        given = operation_put_id(operation)
        number = connection.ask(self)
        opened = self._open[number] = _Open(index, False)
        put_ids = self.door.put_ids
        lowest_open = 0
        if given is not None:
            opened.put_id = given
        else:
            opened.put_id, opened.series = put_ids.issue(connection.turns.node.peering.steady)
            lowest_open = put_ids.lowest_open(opened.series)
        client, counter, first_sent = opened.put_id
        frame = put_frame(
            number, flags, self._table, key, sort_key, context, value, content_type, client,
            counter, first_sent, lowest_open, options.w, options.durability, options.sloppy,
            options.ttl,
        )  # fmt: skip
        connection.turns.node.on_client(connection, frame[LENGTH_BYTES:])

    def on_answer(self, number: int, frame: bytes) -> None:
        opened = self._open.pop(number)
        payload = frame[LENGTH_BYTES:]
        if opened.is_get:
            self._bytes += len(payload)
            # Many small ones at a time; of large ones hardly more than one.
            self._window = min(2 * self._window, WINDOW) if len(payload) < LARGE_ANSWER else 2
            self._results[opened.index] = get_result(payload, self.door.names)
        else:
            assert opened.put_id is not None
            self._close_id(opened, payload[0] != UNKNOWN)
            result = put_result(payload, opened.put_id, self.door.names)
            self._results[opened.index] = result
        self._go_on()

    def on_timeout(self) -> None:
        text = f"not within {self._timeout_ms} ms"
        for number, opened in self._open.items():
            self.connection.calls.pop(number, None)
            self._close_id(opened, False)
            code = "timed_out" if opened.is_get else "outcome_unknown"
            put_id = "" if opened.put_id is None else str(opened.put_id)
            self._results[opened.index] = _problem(code, text, put_id)
        self._open.clear()
        for index in range(self._next, len(self._operations)):
            self._results[index] = _problem("overloaded", f"{text}: it was not begun")
        self._next = len(self._operations)
        self._finish_batch()

    def _finish_batch(self) -> None:
        body = msgspec.json.encode({"results": self._results}) + b"\n"
        fields = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
        self._operations = []
        self._results = []
        self._next = 0
        self.finish(Answer(200, fields, body, compressible=True))

    def _close_id(self, opened: _Open, settled: bool) -> None:
        if opened.series is None or opened.put_id is None:
            return
        if settled:
            self.door.put_ids.settle(opened.put_id, opened.series)
        else:
            self.door.put_ids.doubt(opened.series)

    def cancel(self) -> None:
        super().cancel()
        for opened in self._open.values():
            self._close_id(opened, True)  # Its caller has gone without knowing it.
        self._open.clear()


def _key(operation: Operation) -> bytes:
    key = json_key("key", operation.key)
    if not key:
        raise HttpProblem("bad_body", "the key is empty")
    return key


def get_result(payload: bytes, names: Names) -> dict[str, Any]:
    if payload[0] != GET_OK:
        return _failure(payload, "timed_out", "")
    found = decode_found(payload)
    result: dict[str, Any] = {"status": 200}
    siblings = found.siblings
    if not found.values:
        code, text = ("deleted", "the key was deleted") if found.known else (
            "not_found", "there is no value",
        )  # fmt: skip
        result = _problem(code, text)
    elif len(found.values) == 1:
        only = next(sibling for sibling in siblings if sibling.value is not None)
        result |= sibling_document(only)
        if len(siblings) > 1:
            result["concurrent_delete"] = True
    else:
        result["status"] = 300
        result["siblings"] = [sibling_document(sibling) for sibling in siblings]
    if found.known:
        _describe(result, found, names)
    return result


def _describe(result: dict[str, Any], found: Found, names: Names) -> None:
    result["context"] = encode_context(found.context).decode()
    if found.values:
        dots = b"".join(sibling.dot for sibling in found.siblings)
        result["etag"] = etag_of(found.context, dots).decode()
    result["replicas"] = [names.of(member) for member in found.replicas]
    result["coordinator"] = names.of(found.coordinator)
    if found.may_miss_acknowledged:
        result["may_miss_acknowledged"] = True


def put_result(payload: bytes, put_id: PutId, names: Names) -> dict[str, Any]:
    if payload[0] != PUT_OK:
        return _failure(payload, "outcome_unknown", str(put_id))
    stored = decode_stored(payload, b"")
    return {
        "status": 204,
        "context": encode_context(stored.context).decode(),
        "put_id": str(put_id),
        "acks": [
            {"node": names.of(ack.member), "level": ack.level, "fallback": ack.fallback}
            for ack in stored.acks
        ],
        "w": stored.w,
        "coordinator": names.of(stored.coordinator),
    }


def _failure(payload: bytes, unknown: str, put_id: str) -> dict[str, Any]:
    code, text = decode_failure(payload)
    if payload[0] == UNKNOWN:
        return _problem(unknown, text, put_id)
    return _problem(REFUSALS.get(code, "bad_request"), text, put_id)


def _problem(code: str, text: str, put_id: str = "") -> dict[str, Any]:
    problem = problem_document(code, text, put_id)
    return {"status": problem["status"], "problem": problem}
