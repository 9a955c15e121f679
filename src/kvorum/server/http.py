"""The HTTP door: what all its connections share, and which request is whose.

HTTP requests become the very frames that native clients send, handed to the same node in the same
turn; its answers come back as frames and leave as HTTP. So both doors have the same rules, and
the node knows only one. (Architecture, section 8, rule 9: no ASGI server on the data path.)
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Final, TypeVar

import msgspec

from kvorum.config import NodeConfig
from kvorum.model.tables import TableSettings
from kvorum.server.http_answers import Answer, Names
from kvorum.server.http_batch import Batch
from kvorum.server.http_connection import HttpConnection
from kvorum.server.http_exchange import Exchange, Fixed, KeyGet, KeyPut
from kvorum.server.http_headers import Headers
from kvorum.server.http_listing import KeyListing
from kvorum.server.http_openapi import encode_openapi
from kvorum.server.http_paths import (
    BATCH,
    INDEX,
    KEY,
    KEYS,
    OPENAPI,
    TABLE,
    TABLES,
    Target,
    parse_query,
    parse_target,
)
from kvorum.server.http_problems import HttpProblem
from kvorum.server.http_put_ids import PutIds
from kvorum.server.http_tables import (
    JSON_FIELDS,
    TableChange,
    TableEnd,
    TableShow,
    TablesShow,
)
from kvorum.server.loop import Turns

LOOK_SECONDS: Final = 1.0
IDLE_AFTER: Final = 1_000_000  # until then a request may well be on its way
ALLOWED: Final = {
    INDEX: "GET, HEAD, OPTIONS",
    OPENAPI: "GET, HEAD, OPTIONS",
    TABLES: "GET, HEAD, OPTIONS",
    TABLE: "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
    KEYS: "GET, OPTIONS",
    KEY: "GET, HEAD, PUT, DELETE, OPTIONS",
    BATCH: "POST, OPTIONS",
}

T = TypeVar("T")


class HttpDoor:
    """What accepted HTTP connections share."""

    def __init__(self, turns: Turns, config: NodeConfig, loopback: bool) -> None:
        self.turns = turns
        self.config = config
        self.loopback = loopback  # nobody but this machine can have meant to come here
        self.closing = False
        self.hosts_known: dict[bytes, None] = {}  # Host headers that have been judged
        self.put_ids = PutIds(turns.env.entropy)
        self.names = Names(self._name_of)
        self._open: dict[HttpConnection, None] = {}
        self._body_bytes = 0  # of all requests that are arriving or under way
        self._date_second = -1
        self._date_line = b""
        self._looking: asyncio.TimerHandle | None = None
        self._threads: ThreadPoolExecutor | None = None
        index = {"kvorum": turns.node.software, "node": turns.node.name, "api": "/openapi.json"}
        self._index = Answer(200, JSON_FIELDS, msgspec.json.encode(index) + b"\n")
        self._openapi = Answer(200, JSON_FIELDS, encode_openapi(config))

    def _name_of(self, member: int) -> str:
        known = self.turns.node.ring.member(member)
        return known.name if known is not None else str(member)

    # Connections.

    def accept(self) -> HttpConnection:
        return HttpConnection(self)

    def on_open(self, connection: HttpConnection) -> None:
        if len(self._open) >= self.config.clients_max:
            self._make_room()
        self._open[connection] = None
        if self._looking is None:
            self._looking = self.turns.loop.call_later(LOOK_SECONDS, self._look)

    def _make_room(self) -> None:
        """End the connection that has been idle longest, or else one that dawdles.

        Not one that has only just come: its request is on its way. One that waits for its answer
        is the last to go, since it may not know then what became of what it has asked.
        """
        since = self.turns.env.now - IDLE_AFTER
        quiet = [each for each in self._open if not each.queue and each.active_at <= since]
        idle = [each for each in quiet if each.idle]
        candidates = idle or quiet or list(self._open)
        oldest = min(candidates, key=lambda connection: connection.active_at)
        self.turns.env.counters.overloads += 1
        oldest.cut_off(f"{len(self._open)} HTTP connections are open, which is the limit")

    def on_closed(self, connection: HttpConnection) -> None:
        self._open.pop(connection, None)

    def _look(self) -> None:
        self._looking = None
        if not self._open:
            return
        self.turns.begin()
        now = self.turns.env.now
        for connection in list(self._open):
            connection.look(now)
        self._looking = self.turns.loop.call_later(LOOK_SECONDS, self._look)

    def end_all(self) -> None:
        self.closing = True
        for connection in list(self._open):
            connection.end()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._threads is not None:
            self._threads.shutdown()

    @property
    def busy(self) -> bool:
        return any(connection.queue for connection in self._open)

    # What bodies take.

    def keep_body(self, size: int) -> bool:
        """Count ``size`` more bytes of bodies; False if that is too much."""
        if self._body_bytes + size > self.config.http_body_bytes_max:
            self.turns.env.counters.overloads += 1
            return False
        self._body_bytes += size
        return True

    def forget_body(self, size: int) -> None:
        self._body_bytes -= size

    # What exchanges ask.

    def date_line(self) -> bytes:
        second = self.turns.env.wall // 1_000_000
        if second != self._date_second:
            self._date_second = second
            self._date_line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._date_line

    def table_named(self, name: str) -> TableSettings | None:
        return self.turns.node.tables.registry.by_name(name)

    def table_id(self, name: bytes) -> bytes | None:
        settings = self.turns.node.tables.registry.by_name(name.decode("latin-1"))
        return None if settings is None else settings.id

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do ``work`` off the loop, and go on with what it returns."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="http-gzip")
        loop = self.turns.loop
        future = self._threads.submit(work)

        def on_done() -> None:
            self.turns.begin()
            then(future.result())

        future.add_done_callback(lambda _: loop.call_soon_threadsafe(on_done))

    # Requests.

    def exchange(
        self, connection: HttpConnection, method: bytes, url: bytes, headers: Headers
    ) -> Exchange:
        """The request whose head this is. Raises ``HttpProblem``."""
        target = parse_target(url)
        route = target.route
        reads = method == b"GET" or method == b"HEAD"
        if route == KEY:
            if reads:
                return KeyGet(connection, target, headers)
            if method == b"PUT" or method == b"DELETE":
                return KeyPut(connection, target, headers, method == b"DELETE")
        elif route == BATCH:
            if method == b"POST":
                return Batch(connection, target, headers)
        elif route == KEYS:
            if method == b"GET":
                return KeyListing(connection, target, headers)
        elif reads:
            return self._read(connection, target, headers)
        elif route == TABLE:
            if method == b"PUT" or method == b"PATCH":
                return TableChange(connection, target, headers, method == b"PUT")
            if method == b"DELETE":
                return TableEnd(connection, target, headers)
        allow = ALLOWED[route]
        if method == b"OPTIONS":
            return Fixed(connection, Answer(204, b"Allow: %b\r\n" % allow.encode()))
        shown = method.decode("latin-1")
        raise HttpProblem("method_not_allowed", f"{shown} is none of {allow}", allow)

    def _read(self, connection: HttpConnection, target: Target, headers: Headers) -> Exchange:
        if target.route == TABLES:
            return TablesShow(connection, target, headers)
        if target.route == TABLE:
            return TableShow(connection, target, headers)
        parse_query(target.query, ())
        return Fixed(connection, self._index if target.route == INDEX else self._openapi)
