"""Requests about tables: listed, shown, created, changed, dropped.

They are the clients' control messages; the node answers them as it answers any client.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from kvorum.model.tables import LONGEST_TTL_SECONDS
from kvorum.server.http_answers import Answer, answer_problem
from kvorum.server.http_exchange import Exchange
from kvorum.server.http_headers import Headers, accepts_gzip, refuse_conditions, require_json
from kvorum.server.http_json import TableWish, decode_wish, given_number, table_document
from kvorum.server.http_paths import Target, parse_query
from kvorum.server.http_problems import REFUSALS, HttpProblem
from kvorum.wire.codec import encode
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.messages import (
    Control,
    ControlRefused,
    TableAnswer,
    TableCreate,
    TableDrop,
    TableList,
    TableQuery,
    TableSet,
)

if TYPE_CHECKING:
    from kvorum.server.http_connection import HttpConnection

WISH_BYTES_MAX: Final = 65_536
JSON_FIELDS: Final = b"Content-Type: application/json\r\nCache-Control: no-cache\r\n"

Question = TableList | TableQuery | TableCreate | TableSet | TableDrop


class TableRequest(Exchange):
    """One question about tables."""

    __slots__ = ("_existed", "name")

    def __init__(self, connection: "HttpConnection", name: bytes) -> None:
        super().__init__(connection)
        self.name = name.decode("utf-8", "backslashreplace")
        self._existed = False

    def begin(self) -> None:
        try:
            question = self.question()
        except HttpProblem as problem:
            self.refuse(problem)
            return
        connection = self.connection
        question.request = connection.ask(self)
        connection.turns.node.on_client(connection, encode(question)[LENGTH_BYTES:])

    def question(self) -> Question:
        raise NotImplementedError

    def on_message(self, message: Control) -> None:
        if isinstance(message, TableAnswer):
            self.finish(self.answer(message))
            return
        assert isinstance(message, ControlRefused)
        code = REFUSALS.get(message.code, "bad_request")
        if code == "bad_request" and self._existed:
            code = "table_exists"
        self.finish(answer_problem(code, message.text))

    def answer(self, message: TableAnswer) -> Answer:
        return self.json(200, self.documents(message)[0])

    def documents(self, message: TableAnswer) -> list[dict[str, Any]]:
        unreached = [self.door.names.of(member) for member in message.unreached]
        conflicts = dict.fromkeys(message.conflicts)
        return [
            table_document(settings, unreached, settings.name in conflicts)
            for settings in message.tables
        ]

    @staticmethod
    def json(status: int, document: object) -> Answer:
        body = msgspec.json.encode(document) + b"\n"
        return Answer(status, JSON_FIELDS, body, compressible=True)


class TablesShow(TableRequest):
    """GET /tables."""

    __slots__ = ()

    def __init__(self, connection: "HttpConnection", target: Target, headers: Headers) -> None:
        super().__init__(connection, b"")
        parse_query(target.query, ())
        self.gzip = accepts_gzip(headers.get(b"accept-encoding"))
        self.safe = True

    def question(self) -> Question:
        return TableList(0)

    def answer(self, message: TableAnswer) -> Answer:
        return self.json(200, {"tables": self.documents(message)})


class TableShow(TableRequest):
    """GET /tables/NAME; where two tables carry the name, that which all requests use."""

    __slots__ = ()

    def __init__(self, connection: "HttpConnection", target: Target, headers: Headers) -> None:
        super().__init__(connection, target.table)
        parse_query(target.query, ())
        self.safe = True

    def question(self) -> Question:
        return TableQuery(0, self.name)


class TableChange(TableRequest):
    """PUT creates a table, PATCH changes its settings."""

    __slots__ = ("_creates",)

    def __init__(
        self, connection: "HttpConnection", target: Target, headers: Headers, creates: bool
    ) -> None:
        super().__init__(connection, target.table)
        parse_query(target.query, ())
        refuse_conditions(headers)
        self.body_bytes_max = WISH_BYTES_MAX
        self._creates = creates
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or int(length):
            require_json(headers)

    def question(self) -> Question:
        wish = decode_wish(self.body)
        self._existed = self._creates and self.door.table_named(self.name) is not None
        if self._creates:
            return TableCreate(
                0, self.name, *_quorums(wish), _text(wish.resolution), _text(wish.durability),
                _flag(wish.sloppy), _ttl(wish, 0), *_bounds(wish),
            )  # fmt: skip
        if wish.resolution is not msgspec.UNSET:
            raise HttpProblem("bad_body", "the resolution of a table is fixed when it is created")
        return TableSet(
            0, self.name, *_quorums(wish), _text(wish.durability), _flag(wish.sloppy),
            _ttl(wish, -1), *_bounds(wish),
        )  # fmt: skip

    def answer(self, message: TableAnswer) -> Answer:
        created = self._creates and not self._existed
        return self.json(201 if created else 200, self.documents(message)[0])


class TableEnd(TableRequest):
    """DELETE /tables/NAME; ``id`` says which, where two tables carry the name."""

    __slots__ = ("_table_id",)

    def __init__(self, connection: "HttpConnection", target: Target, headers: Headers) -> None:
        super().__init__(connection, target.table)
        refuse_conditions(headers)
        digits = parse_query(target.query, ("id",)).get("id", b"").decode("latin-1")
        try:
            self._table_id = bytes.fromhex(digits)
        except ValueError:
            self._table_id = b"?"
        if len(self._table_id) not in (0, 8) or len(digits) not in (0, 16):
            raise HttpProblem("bad_query", "id: 16 hexadecimal digits, as GET /tables shows them")

    def question(self) -> Question:
        return TableDrop(0, self.name, self._table_id)

    def answer(self, message: TableAnswer) -> Answer:
        return Answer(204, b"")


def _quorums(wish: TableWish) -> tuple[int, int]:
    return given_number("r", wish.r, 1, 254), given_number("w", wish.w, 1, 254)


def _bounds(wish: TableWish) -> tuple[int, int]:
    siblings = given_number("max_siblings", wish.max_siblings, 1, 10_000)
    return siblings, given_number("max_record_bytes", wish.max_record_bytes, 1024, 1 << 30)


def _ttl(wish: TableWish, otherwise: int) -> int:
    return given_number("ttl_seconds", wish.ttl_seconds, 0, LONGEST_TTL_SECONDS, otherwise)


def _text(given: str | msgspec.UnsetType) -> str:
    return given if isinstance(given, str) else ""


def _flag(given: bool | msgspec.UnsetType) -> bool | None:
    return given if isinstance(given, bool) else None
