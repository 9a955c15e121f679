"""Requests out of the bytes of one connection, each limit enforced before memory is spent.

httptools (llhttp) parses; what it lets through and is not plainly right is refused here, before
anything of a request is acted upon. The node is not called from within the parser: a broken
invariant in it must end the process, and the parser would swallow it.

Bounded are the head, by bytes and count; the body, by what its route takes and by what all bodies
together may have; and what stands around it, since a byte can be sent in a chunk of ten.
"""

from typing import TYPE_CHECKING, Final

import httptools

from kvorum.server.http_exchange import Exchange, Failure
from kvorum.server.http_headers import Headers, is_local_host
from kvorum.server.http_paths import TARGET_BYTES_MAX
from kvorum.server.http_problems import HttpProblem

if TYPE_CHECKING:
    from kvorum.server.http_connection import HttpConnection

HEADERS_MAX: Final = 64
LINE_BYTES: Final = 4  # of a header line, beside name and value
HOSTS_KNOWN_MAX: Final = 64
THROWN_AWAY_MAX: Final = 65_536
FINAL: Final = ("http_version", "unsupported", "too_large", "expectation_failed", "stopping")
FRAMING_BYTES: Final = 65_536  # what chunk heads may have beside ...
FRAMING_FACTOR: Final = 8  # ... so many bytes for each byte of the body
BODY_RATE: Final = 16_384  # bytes a second that a slow body must reach in the long run
REPEATABLE: Final = (b"accept", b"accept-encoding", b"if-none-match")
SINGLE: Final = (
    b"host", b"content-type", b"content-encoding", b"expect", b"x-kvorum-context",
    b"x-kvorum-put-id", b"x-kvorum-trace", b"content-length", b"transfer-encoding",
)  # fmt: skip


class RequestReader:
    """What the parser tells of one connection, request after request.

    Whole requests are appended to the connection's queue. After a request that ends the
    connection, by its own wish or by what is wrong with it, nothing more is looked at.
    """

    __slots__ = (
        "_connection", "_door", "_fresh", "_head_bytes", "_headers", "_in_head", "_parser",
        "_raw_bytes", "_request", "_url", "began", "body", "body_bytes", "body_bytes_max",
        "continue_wanted", "ended", "in_message",
    )  # fmt: skip

    def __init__(self, connection: "HttpConnection") -> None:
        self._connection = connection
        self._door = connection.door
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self.ended = False
        self.in_message = False  # a request has begun to arrive
        self.began = 0  # when it did
        self.continue_wanted = False  # its sender waits for a word before the body
        self._in_head = False
        self._fresh = False  # it began within the read that is being parsed
        self._raw_bytes = 0  # of the reads since then
        self._head_bytes = 0
        self._url = b""
        self._headers: Headers = {}
        self._request: Exchange | None = None
        self.body: bytes | bytearray = b""
        self.body_bytes = 0
        self.body_bytes_max = 0

    def feed(self, data: bytes) -> None:
        """Take in one read. Raises only what is a fault of ours."""
        parser = self._parser
        assert parser is not None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.ended = True  # Answered as if it had not asked for another protocol.
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            self._on_malformed(str(error))
        if self.in_message and not self.ended:
            if self._fresh:
                self._fresh = False  # Much of this read may have been requests before it.
            else:
                self._raw_bytes += len(data)
                self._check_bounds()

    def close(self) -> None:
        """Let go of the parser, which holds us as we hold it."""
        self.ended = True
        self._forget()
        self._parser = None

    def _on_malformed(self, text: str) -> None:
        if self.ended:
            return  # What follows the last request is nobody's.
        connection = self._connection
        env = connection.turns.env
        env.counters.bad_frames += 1
        env.report("bad_frames", peer=connection.peer_name(), reason=text)
        self.fail(HttpProblem("malformed", text))

    def fail(self, problem: HttpProblem) -> None:
        """Answer the request that is arriving, and take nothing more on this connection."""
        if self.ended:
            return
        failure = Failure(self._connection, problem)
        failure.close = True
        request = self._request
        if request is not None:
            failure.head_only = request.head_only
            failure.version_1_0 = request.version_1_0
        self.ended = True
        self._forget()
        self._connection.queue.append(failure)

    def _forget(self) -> None:
        """Nothing is arriving any more."""
        self.in_message = False
        self.continue_wanted = False
        self._request = None
        self.body = b""
        self._door.forget_body(self.body_bytes)
        self.body_bytes = 0

    def _check_bounds(self) -> None:
        """Bound what the parser gathers, or passes over, without telling us."""
        if self._in_head:
            limit = self._door.config.http_head_bytes_max
            if self._raw_bytes > limit:
                text = f"more than {limit} bytes, and no end of it"
                self.fail(HttpProblem("head_too_large", text))
        elif self._raw_bytes > FRAMING_BYTES + FRAMING_FACTOR * self.body_bytes:
            self.fail(HttpProblem("malformed", "the body has more framing than content"))

    def is_late(self, now: int) -> bool:
        """Whether the request that is arriving should be here by now."""
        patience = self._door.config.http_request_timeout_ms * 1000
        return now - self.began > patience + self.body_bytes * 1_000_000 // BODY_RATE

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.in_message = self._in_head = self._fresh = True
        self._raw_bytes = self._head_bytes = 0
        self._url = b""
        self._headers = {}
        self.began = self._connection.turns.env.now

    def on_url(self, url: bytes) -> None:
        self._url = url if not self._url else self._url + url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.ended or not self._in_head:
            return  # Trailers say nothing that we would heed.
        name = name.lower()
        headers = self._headers
        self._head_bytes += len(name) + len(value) + LINE_BYTES
        limit = self._door.config.http_head_bytes_max
        if len(headers) >= HEADERS_MAX or self._head_bytes > limit:
            text = f"more than {HEADERS_MAX} headers, or than {limit} bytes of them"
            self.fail(HttpProblem("head_too_large", text))
        elif name not in headers:
            headers[name] = value.strip()
        elif name in SINGLE:
            self.fail(HttpProblem("bad_header", f"{name.decode()} is given twice"))
        elif name in REPEATABLE:
            headers[name] += b", " + value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.ended:
            return
        parser = self._parser
        assert parser is not None
        headers = self._headers
        version = parser.get_http_version()
        method = parser.get_method()
        host = headers.setdefault(b"host", b"")
        length = 0
        chunked = False
        if len(headers) > 1:
            length = int(headers.get(b"content-length", b"0"))
            chunked = b"transfer-encoding" in headers
        has_body = chunked or length > 0
        upgrade = parser.should_upgrade()
        request: Exchange
        try:
            self._judge(version, method, host, chunked, has_body, upgrade)
            request = self._door.exchange(self._connection, method, self._url, headers)
            if has_body:
                self.body_bytes_max = request.body_bytes_max
                self._check_length(length)
                self.continue_wanted = b"expect" in headers and version == "1.1"
        except HttpProblem as problem:
            request = Failure(self._connection, problem)
            # A small body is read and thrown away, so that the connection can go on.
            request.body_bytes_max = self.body_bytes_max = THROWN_AWAY_MAX
            request.close = problem.code in FINAL or (
                has_body and (length > THROWN_AWAY_MAX or b"expect" in headers)
            )
        request.head_only = method == b"HEAD"
        request.version_1_0 = version == "1.0"
        self._request = request
        if request.close and isinstance(request, Failure):
            self.fail(request.problem)
        else:
            request.close = upgrade or not parser.should_keep_alive()

    def _judge(
        self, version: str, method: bytes, host: bytes, chunked: bool, has_body: bool, upgrade: bool
    ) -> None:
        """Refuse what the parser lets through and we do not understand for certain."""
        headers = self._headers
        door = self._door
        if version != "1.1" and version != "1.0":
            raise HttpProblem("http_version", f"HTTP/{version}")
        if len(self._url) > TARGET_BYTES_MAX:
            text = f"{len(self._url)} bytes; the limit is {TARGET_BYTES_MAX}"
            raise HttpProblem("uri_too_long", text)
        if not host:
            if version == "1.1":
                raise HttpProblem("bad_header", "Host is missing")
        elif host not in door.hosts_known:
            self._check_host(host)
        if chunked and (version == "1.0" or headers[b"transfer-encoding"].lower() != b"chunked"):
            raise HttpProblem("unsupported", "the only Transfer-Encoding is chunked, in HTTP/1.1")
        if method == b"CONNECT" or (upgrade and has_body):
            # The parser takes what follows for another protocol's, so there is no body.
            raise HttpProblem("unsupported", "no other protocol is spoken here")
        if len(headers) > 1 and headers.get(b"expect", b"100-continue").lower() != b"100-continue":
            raise HttpProblem("expectation_failed", "Expect is not 100-continue")
        if door.closing:
            raise HttpProblem("stopping", "the node is stopping")

    def _check_host(self, host: bytes) -> None:
        door = self._door
        if door.loopback and not is_local_host(host):
            shown = host[:100].decode("ascii", "backslashreplace")
            raise HttpProblem("misdirected", f"Host is {shown}")
        if len(door.hosts_known) < HOSTS_KNOWN_MAX:
            door.hosts_known[host] = None

    def _check_length(self, length: int) -> None:
        limit = self.body_bytes_max
        if not limit:
            raise HttpProblem("bad_body", "this request takes no body")
        if length > limit:
            text = f"the body has {length} bytes; the limit is {limit}"
            raise HttpProblem("too_large", text)

    def on_body(self, data: bytes) -> None:
        if self.ended:
            return
        size = self.body_bytes + len(data)
        if size > self.body_bytes_max:
            text = f"the body has more than {self.body_bytes_max} bytes, which is the limit"
            self.fail(HttpProblem("too_large", text))
            return
        if not self._door.keep_body(len(data)):
            text = "too many bytes of requests are arriving; nothing was written"
            self.fail(HttpProblem("overloaded", text))
            return
        if not self.body_bytes:
            self.body = data
        elif isinstance(self.body, bytearray):
            self.body += data
        else:
            self.body = bytearray(self.body)
            self.body += data
        self.body_bytes = size

    def on_message_complete(self) -> None:
        if self.ended:
            return
        request = self._request
        assert request is not None
        if self.body_bytes:
            request.body = bytes(self.body)
            request.body_bytes = self.body_bytes  # The request answers for them from now on.
            self.body_bytes = 0
            self.body = b""
        self.continue_wanted = False
        self.in_message = False
        self._request = None
        self._connection.queue.append(request)
        if request.close:
            self.ended = True
