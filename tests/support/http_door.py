"""The HTTP door over one recorded node: bytes in, bytes out, time only when the test says so."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from kvorum.config import NodeConfig
from kvorum.server.connection import Connection
from kvorum.server.http import HttpDoor
from kvorum.server.http_connection import HttpConnection
from kvorum.server.loop import Turns
from tests.support.recording import OneNode

REPEATED = ("vary", "x-kvorum-trace")  # headers that are lists, an item a line


class Reply(NamedTuple):
    """One answer as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class FakeTransport:
    """Keeps what is written. A test may stop reading, and read on."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.closed = False
        self.eof = False
        self.unread = 0

    def write(self, data: bytes) -> None:
        assert not self.eof, "written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)


class FakeTimer:
    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Remembers timers; what threads hand over waits until the test asks for it."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []
        self.handed_over: list[Callable[[], None]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(seconds, call)
        self.timers.append(timer)
        return timer

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        self.handed_over.append(call)

    def ring(self, seconds: float) -> None:
        """Fire the timers that were set to ``seconds`` and have not been cancelled."""
        due = [timer for timer in self.timers if timer.seconds == seconds and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.call()


class FakeTurns:
    def __init__(self, one: OneNode) -> None:
        self.env = one.env
        self.node = one.node
        self.loop = FakeLoop()
        self.under_way = False
        self.arrived: list[tuple[Connection, bytes]] = []
        self.put_off: list[Connection] = []
        self.dirty: list[Connection] = []

    def begin(self) -> None:
        self.under_way = True

    def end(self) -> None:
        arrived, self.arrived = self.arrived, []
        for connection, data in arrived:
            if not connection.closed:
                connection.step(data)
        while self.put_off:
            put_off, self.put_off = self.put_off, []
            for connection in put_off:
                connection.go_on()
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for connection in dirty:
                connection.flush()
        self.under_way = False


class Client:
    """One connection to the door."""

    def __init__(self, doors: "Doors") -> None:
        self.doors = doors
        self.transport = FakeTransport()
        self.connection: HttpConnection = doors.door.accept()
        self.connection.connection_made(cast(Any, self.transport))

    def send(self, *chunks: bytes) -> "Client":
        for chunk in chunks:
            self.connection.data_received(chunk)
            self.doors.turns.end()
        return self

    def end(self) -> "Client":
        assert self.connection.eof_received()
        self.doors.turns.end()
        return self

    def take(self) -> list[Reply]:
        """Every answer since the last look."""
        replies, rest = parse_replies(self.transport.written)
        assert not rest, rest
        self.transport.written = b""
        return replies

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        self.send(request(method, path, body, **headers))
        (reply,) = self.take_for(method)
        return reply

    def take_for(self, method: str) -> list[Reply]:
        replies, rest = parse_replies(self.transport.written, method == "HEAD")
        assert not rest, rest
        self.transport.written = b""
        return replies

    def take_now(self) -> list[Reply]:
        """What is answered since, once the turn has ended."""
        self.doors.turns.end()
        return self.take()

    @property
    def ended(self) -> bool:
        """Whether the door has ended its side."""
        return self.transport.eof or self.transport.closed


class Doors:
    """A volatile node that is alone, or as it is given, with an HTTP door."""

    def __init__(
        self, one: OneNode | None = None, loopback: bool = True, config: NodeConfig | None = None
    ) -> None:
        self.one = one or OneNode(count=1, n=1, durable=False, config=config)
        self.turns = FakeTurns(self.one)
        self.door = HttpDoor(cast(Turns, self.turns), self.one.config, loopback)

    def client(self) -> Client:
        return Client(self)

    def pass_time(self, microseconds: int) -> None:
        self.one.env.now += microseconds
        self.one.env.wall += microseconds
        self.turns.loop.ring(1.0)
        self.turns.end()


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """A request as it stands on the wire; underscores in names of headers stand for dashes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def parse_replies(data: bytes, head_only: bool = False) -> tuple[list[Reply], bytes]:
    """The whole answers in ``data``, and what is left."""
    replies: list[Reply] = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        for line in lines:
            name, found, value = line.partition(": ")
            assert found, line
            key = name.lower()
            assert key not in headers or key in REPEATED, f"{name} stands there twice"
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        if int(status) in (100, 204, 304) or head_only:
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body, rest = _unchunked(rest)
        else:
            length = int(headers["content-length"])
            body, rest = rest[:length], rest[length:]
            assert len(body) == length
        replies.append(Reply(int(status), headers, body))
        data = rest
    return replies, data


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        chunk, end, data = data[:length], data[length : length + 2], data[length + 2 :]
        assert end == b"\r\n"
        if not length:
            return body, data
        body += chunk
