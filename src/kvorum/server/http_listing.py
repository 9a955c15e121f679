"""``GET /tables/NAME/keys``: the keys of a table as they come, page by page of the node's.

The answer is one JSON document, written in pieces: a piece for each page, and the next page is
asked for only when the last one has been taken by the peer. It ends with a cursor, from which
another request goes on, also where something came between.
"""

import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kvorum.model.hashing import SPACE_RECORDS
from kvorum.protocol.listing import PAGE_KEYS_MAX
from kvorum.server.http_answers import answer_problem
from kvorum.server.http_exchange import (
    GZIP_LEVEL,
    STATUS_LINES,
    Exchange,
    unknown_table,
)
from kvorum.server.http_headers import (
    Headers,
    accepts_gzip,
    decode_base64url,
    encode_context,
)
from kvorum.server.http_json import bytes_document
from kvorum.server.http_paths import Target, parse_query, whole_number
from kvorum.server.http_problems import REFUSALS, HttpProblem, problem_document
from kvorum.wire.codec import encode
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.listing_messages import KeysAnswer, KeysQuery
from kvorum.wire.messages import Control, ControlRefused

if TYPE_CHECKING:
    from kvorum.server.http_connection import HttpConnection

LIMIT_DEFAULT: Final = 1000
LIMIT_MAX: Final = 100_000
CURSOR_BYTES_MAX: Final = 2048
FIELDS: Final = b"Content-Type: application/json\r\nCache-Control: no-cache\r\n"
GZIP_WINDOW: Final = 31  # zlib's word for a gzip stream


class KeyListing(Exchange):
    """One listing. It writes by itself, so nothing else of its connection is under way."""

    __slots__ = (
        "_begun", "_counted", "_limit", "_number", "_packer", "_prefix", "_start", "_table",
        "_target", "_waiting",
    )  # fmt: skip

    def __init__(self, connection: "HttpConnection", target: Target, headers: Headers) -> None:
        super().__init__(connection)
        found = parse_query(target.query, ("prefix", "after", "limit"))
        self._prefix = found.get("prefix", b"")
        self._limit = whole_number("limit", found, 1, LIMIT_MAX, LIMIT_DEFAULT)
        self._start = b""
        if "after" in found:
            self._start = SPACE_RECORDS + _cursor(found["after"])
        self.gzip = accepts_gzip(headers.get(b"accept-encoding"))
        self._packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW) if self.gzip else None
        self._target = target
        self._table = b""
        self._counted = 0
        self._number = 0
        self._begun = False  # the head is written: what goes wrong now stands in the document
        self._waiting = False  # for the peer to read

    def begin(self) -> None:
        table = self.door.table_id(self._target.table)
        if table is None:
            self.finish(unknown_table(self._target.table))
            return
        self._table = table
        self._ask()

    def _ask(self) -> None:
        connection = self.connection
        self._number = number = connection.ask(self)
        limit = min(self._limit - self._counted, PAGE_KEYS_MAX)
        query = KeysQuery(number, self._table, self._prefix, self._start, limit)
        connection.turns.node.on_client(connection, encode(query)[LENGTH_BYTES:])

    def on_message(self, message: Control) -> None:
        if isinstance(message, ControlRefused):
            code = REFUSALS.get(message.code, "bad_request")
            if not self._begun:
                self.finish(answer_problem(code, message.text))
            else:
                self._end(problem_document(code, message.text))
            return
        assert isinstance(message, KeysAnswer)
        self._start = message.start
        self._write_keys(message)
        if message.text:
            self._end(problem_document("quorum_not_met", message.text))
        elif not message.start or self._counted >= self._limit:
            self._end(None)
        elif self.connection.paused:
            self._waiting = True
        else:
            self._ask()

    def on_writable(self) -> None:
        if self._waiting:
            self._waiting = False
            self._ask()

    def _write_keys(self, message: KeysAnswer) -> None:
        parts: list[bytes] = []
        if not self._begun:
            self._begun = True
            self._write_head()
            parts.append(b'{"keys":[')
        for key, sort_key in message.keys:
            document: dict[str, Any] = {"key": bytes_document(key)}
            if sort_key:
                document["sort_key"] = bytes_document(sort_key)
            parts.append(b",\n" if self._counted else b"\n")
            parts.append(msgspec.json.encode(document))
            self._counted += 1
        self._write(b"".join(parts), False)

    def _write_head(self) -> None:
        fields = FIELDS + b"Vary: Accept-Encoding\r\n"
        if self._packer is not None:
            fields += b"Content-Encoding: gzip\r\n"
        if self.version_1_0:
            self.close = True  # It ends where the connection ends.
        else:
            fields += b"Transfer-Encoding: chunked\r\n"
        if self.close or self.door.closing:
            self.close = True
            fields += b"Connection: close\r\n"
        self.connection.write(STATUS_LINES[200] + self.door.date_line() + fields + b"\r\n")

    def _write(self, data: bytes, at_end: bool) -> None:
        packer = self._packer
        if packer is not None:
            data = packer.compress(data)
            data += packer.flush() if at_end else packer.flush(zlib.Z_SYNC_FLUSH)
        if not self.version_1_0:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data += b"0\r\n\r\n" if at_end else b""
        if data:
            self.connection.write(data)

    def _end(self, problem: dict[str, Any] | None) -> None:
        ending: dict[str, Any] = {"cursor": None}
        if self._start:
            ending["cursor"] = encode_context(self._start[len(SPACE_RECORDS) :]).decode()
        if problem is not None:
            ending["problem"] = problem
        self._write(b"\n]," + msgspec.json.encode(ending)[1:] + b"\n", True)
        self.done = True
        if not self.connection.advancing:
            self.connection.advance()

    def cancel(self) -> None:
        super().cancel()
        self.connection.calls.pop(self._number, None)


def _cursor(text: bytes) -> bytes:
    position = decode_base64url(text)
    if position is None or not 0 < len(position) <= CURSOR_BYTES_MAX:
        raise HttpProblem("bad_query", "after: the cursor of an earlier listing")
    return position
