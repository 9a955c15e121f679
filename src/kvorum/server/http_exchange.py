"""One HTTP request, from its last byte to its answer.

An exchange is made while the request is parsed, begins when it is its turn, asks the node under
numbers of its connection, and is done once its whole answer stands in ``output``. It lives until
the answer is written, or its connection ends.
"""

import gzip
from asyncio import TimerHandle
from typing import TYPE_CHECKING, Final

from kvorum.server.http_answers import (
    Answer,
    answer_get,
    answer_problem,
    answer_put,
    trace_lines,
)
from kvorum.server.http_headers import (
    Headers,
    PutId,
    accepts,
    accepts_gzip,
    decode_context,
    parse_put_id,
    refuse_conditions,
    stored_content_type,
    wants_trace,
)
from kvorum.server.http_paths import (
    DELETE_OPTIONS,
    PUT_OPTIONS,
    READ_OPTIONS,
    Options,
    Target,
    parse_options,
)
from kvorum.server.http_problems import REFUSALS, HttpProblem
from kvorum.wire.framing import LENGTH_BYTES, frame
from kvorum.wire.messages import Control, ControlRefused
from kvorum.wire.requests import READ_FIRST, TOMBSTONE, get_frame, put_frame
from kvorum.wire.trace_messages import TraceAnswer

if TYPE_CHECKING:
    from kvorum.server.http import HttpDoor
    from kvorum.server.http_connection import HttpConnection
    from kvorum.server.http_put_ids import Series

STATUS_LINES: Final[dict[int, bytes]] = {
    code: b"HTTP/1.1 %d %b\r\n" % (code, reason)
    for code, reason in {
        200: b"OK", 201: b"Created", 204: b"No Content", 300: b"Multiple Choices",
        304: b"Not Modified", 400: b"Bad Request", 404: b"Not Found",
        405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
        411: b"Length Required",
        413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type",
        417: b"Expectation Failed", 421: b"Misdirected Request",
        431: b"Request Header Fields Too Large", 501: b"Not Implemented",
        503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
    }.items()
}  # fmt: skip
GZIP_BYTES_MIN: Final = 1024
GZIP_INLINE_BYTES_MAX: Final = 32_768  # more is compressed in a thread, the loop must go on
GZIP_LEVEL: Final = 1
PACKED_TYPES: Final = (b"image/", b"video/", b"audio/", b"application/zip", b"application/gzip")
JSON_TYPE: Final = b"application/json"
MULTIPART_TYPE: Final = b"multipart/mixed"


class Exchange:
    """What all requests have in common."""

    __slots__ = (
        "_timer", "body", "body_bytes", "body_bytes_max", "close", "connection", "done", "door",
        "gzip", "head_only", "output", "safe", "version_1_0",
    )  # fmt: skip

    def __init__(self, connection: "HttpConnection") -> None:
        self.connection = connection
        self.door: HttpDoor = connection.door
        self.safe = False  # it only reads, so others that do may be under way meanwhile
        self.head_only = False
        self.version_1_0 = False
        self.gzip = False  # where it is worth it
        self.close = False  # the connection ends after the answer
        self.body = b""
        self.body_bytes = 0
        self.body_bytes_max = 0
        self.done = False
        self.output = b""
        self._timer: TimerHandle | None = None

    def begin(self) -> None:
        raise NotImplementedError

    def on_answer(self, number: int, frame: bytes) -> None:
        """The node's answer to what was asked under ``number``."""
        raise NotImplementedError

    def on_message(self, message: Control) -> None:
        """The node's answer in a control message."""
        raise NotImplementedError

    def on_timeout(self) -> None:
        """The caller's own time limit has passed."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """The peer has read what was written; for whoever writes in pieces."""

    def cancel(self) -> None:
        """Its connection ends, or it is done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def limit_time(self, timeout_ms: int) -> None:
        """A timer of its own only for who asks for one; the node has its own limit for all."""
        if timeout_ms:
            loop = self.connection.turns.loop
            self._timer = loop.call_later(timeout_ms / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self.done:
            self.connection.turns.begin()
            self.on_timeout()

    def refuse(self, problem: HttpProblem) -> None:
        self.finish(answer_problem(problem.code, problem.detail, allow=problem.allow))

    def finish(self, answer: Answer) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        status, fields, body, _, compressible = answer
        if compressible and len(body) >= GZIP_BYTES_MIN and not fields.startswith(_PACKED_STARTS):
            if self.gzip:
                self._compress(answer)
                return
            fields += b"Vary: Accept-Encoding\r\n"  # Whoever keeps it must know that it could be.
        self._finish(status, fields, body)

    def _compress(self, answer: Answer) -> None:
        fields = answer.fields + b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        body = answer.body
        if len(body) <= GZIP_INLINE_BYTES_MAX:
            self._finish(answer.status, fields, gzip.compress(body, GZIP_LEVEL, mtime=0))
        else:
            self.door.in_thread(
                lambda: gzip.compress(body, GZIP_LEVEL, mtime=0),
                lambda packed: self._finish(answer.status, fields, packed),
            )

    def _finish(self, status: int, fields: bytes, body: bytes) -> None:
        if self.close or self.door.closing:
            ending = b"Connection: close\r\n\r\n"
        elif self.version_1_0:
            ending = b"Connection: keep-alive\r\n\r\n"
        else:
            ending = b"\r\n"
        if status == 204 or status == 304:
            self.output = STATUS_LINES[status] + self.door.date_line() + fields + ending
        else:
            self.output = b"%b%b%bContent-Length: %d\r\n%b%b" % (
                STATUS_LINES[status], self.door.date_line(), fields, len(body), ending,
                b"" if self.head_only else body,
            )  # fmt: skip
        self.body = b""
        self.done = True
        connection = self.connection
        if not connection.advancing:
            connection.advance()


_PACKED_STARTS: Final = tuple(b"Content-Type: " + kind for kind in PACKED_TYPES)


class Failure(Exchange):
    """A request that was refused while it was read."""

    __slots__ = ("problem",)

    def __init__(self, connection: "HttpConnection", problem: HttpProblem) -> None:
        super().__init__(connection)
        self.problem = problem
        self.safe = True

    def begin(self) -> None:
        self.refuse(self.problem)


class Fixed(Exchange):
    """A request whose answer stands from the start."""

    __slots__ = ("_answer",)

    def __init__(self, connection: "HttpConnection", answer: Answer) -> None:
        super().__init__(connection)
        self._answer = answer
        self.safe = True

    def begin(self) -> None:
        self.finish(self._answer)


class KeyRequest(Exchange):
    """A request on one key: it has a table, perhaps a time limit, and one native request."""

    __slots__ = ("_number", "_steps", "options", "target", "traced")

    def __init__(self, connection: "HttpConnection", target: Target, options: Options) -> None:
        super().__init__(connection)
        self.target = target
        self.options = options
        self.traced = False  # the caller wants to be told the steps
        self._number = 0
        self._steps = b""  # as header lines

    def ask_node(self, frame: bytes) -> None:
        connection = self.connection
        node = connection.turns.node
        if self.traced:
            node.on_traced(connection, self._number, frame[LENGTH_BYTES:])
        else:
            node.on_client(connection, frame[LENGTH_BYTES:])

    def on_message(self, message: Control) -> None:
        """How a traced request went, or why it cannot be traced now."""
        if isinstance(message, TraceAnswer):
            self._steps = trace_lines(message.events, self.door.names)
            self.on_answer(self._number, frame(message.answer))
            return
        assert isinstance(message, ControlRefused)
        self.finish(answer_problem(REFUSALS[message.code], message.text))

    def _finish(self, status: int, fields: bytes, body: bytes) -> None:
        super()._finish(status, fields + self._steps, body)

    def give_up(self) -> None:
        """Take no answer any more."""
        self.connection.calls.pop(self._number, None)


class KeyGet(KeyRequest):
    __slots__ = ("_condition", "_wants_json")

    def __init__(self, connection: "HttpConnection", target: Target, headers: Headers) -> None:
        super().__init__(connection, target, parse_options(target.query, READ_OPTIONS))
        self.safe = True
        if len(headers) > 1:
            refuse_conditions(headers, (b"if-match",))
            self._condition = headers.get(b"if-none-match")
            self._wants_json = accepts(headers.get(b"accept"), JSON_TYPE, MULTIPART_TYPE)
            self.gzip = accepts_gzip(headers.get(b"accept-encoding"))
            self.traced = wants_trace(headers)
        else:  # Host alone.
            self._condition = None
            self._wants_json = False

    def begin(self) -> None:
        target = self.target
        options = self.options
        connection = self.connection
        table = self.door.table_id(target.table)
        if table is None:
            self.finish(unknown_table(target.table))
            return
        self._number = number = connection.ask(self)
        if options.timeout_ms:
            self.limit_time(options.timeout_ms)
        self.ask_node(
            get_frame(number, 0, table, target.key, target.sort_key, options.r, options.sloppy)
        )

    def on_answer(self, number: int, frame: bytes) -> None:
        answer = answer_get(frame, self.door.names, self._condition, self._wants_json)
        if self.gzip or self._timer is not None or len(answer[2]) >= GZIP_BYTES_MIN:
            self.finish(answer)
        else:
            self._finish(answer[0], answer[1], answer[2])

    def on_timeout(self) -> None:
        self.give_up()
        self.finish(answer_problem("timed_out", f"not within {self.options.timeout_ms} ms"))


class KeyPut(KeyRequest):
    """A put, or a delete, which is a put of a tombstone."""

    __slots__ = ("_content_type", "_context", "_flags", "_given_id", "_put_id", "_series")

    def __init__(
        self, connection: "HttpConnection", target: Target, headers: Headers, is_delete: bool
    ) -> None:
        known = DELETE_OPTIONS if is_delete else PUT_OPTIONS
        super().__init__(connection, target, parse_options(target.query, known))
        self._context = b""
        self._given_id: PutId | None = None
        self._content_type = b""
        if len(headers) > 1:
            refuse_conditions(headers)
            if b"x-kvorum-context" in headers:
                self._context = decode_context(headers[b"x-kvorum-context"])
            if b"x-kvorum-put-id" in headers:
                self._given_id = parse_put_id(headers[b"x-kvorum-put-id"])
            self.traced = wants_trace(headers)
        self._flags = 0
        if is_delete:
            self._flags = TOMBSTONE if self._context else TOMBSTONE | READ_FIRST
        else:
            if b"content-length" not in headers and b"transfer-encoding" not in headers:
                text = "a PUT says how long its value is; Content-Length: 0 writes an empty one"
                raise HttpProblem("length_required", text)
            self._content_type = stored_content_type(headers)
            self.body_bytes_max = connection.door.config.value_bytes_max
        self._put_id: PutId
        self._series: Series | None = None

    def begin(self) -> None:
        target = self.target
        options = self.options
        connection = self.connection
        table = self.door.table_id(target.table)
        if table is None:
            self.finish(unknown_table(target.table))
            return
        self._number = number = connection.ask(self)
        if options.timeout_ms:
            self.limit_time(options.timeout_ms)
        put_ids = self.door.put_ids
        lowest_open = 0
        if self._given_id is not None:
            self._put_id = self._given_id
        else:
            self._put_id, self._series = put_ids.issue(connection.turns.node.peering.steady)
            lowest_open = put_ids.lowest_open(self._series)
        client, counter, first_sent = self._put_id
        self.ask_node(put_frame(
            number, self._flags, table, target.key, target.sort_key, self._context, self.body,
            self._content_type, client, counter, first_sent, lowest_open, options.w,
            options.durability, options.sloppy, options.ttl,
        ))  # fmt: skip

    def on_answer(self, number: int, frame: bytes) -> None:
        answer = answer_put(frame, self.door.names, str(self._put_id))
        self._close_id(answer.settled)
        self.finish(answer)

    def on_timeout(self) -> None:
        self.give_up()
        self._close_id(False)
        text = f"not within {self.options.timeout_ms} ms"
        self.finish(answer_problem("outcome_unknown", text, str(self._put_id)))

    def _close_id(self, settled: bool) -> None:
        series = self._series
        if series is not None:
            self._series = None
            if settled:
                self.door.put_ids.settle(self._put_id, series)
            else:
                self.door.put_ids.doubt(series)

    def cancel(self) -> None:
        super().cancel()
        if not self.done:
            # The caller was told nothing, nor of the id; nobody can ask again.
            self._close_id(True)


def unknown_table(name: bytes) -> Answer:
    shown = name[:128].decode("utf-8", "backslashreplace")
    return answer_problem("unknown_table", f"there is no table {shown!r}")
