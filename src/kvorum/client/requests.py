"""One request of a user: what is asked, how it is written to a node, and what came of it.

A request is made and checked here, given to a session, and done when it has its result or its
error. What depends on the node that it is sent to (its number, the put's time on that node's
clock) is filled in by ``frame`` at each sending.
"""

from collections.abc import Iterable
from typing import Final, Generic, TypeVar, cast

from kvorum.client.answers import AnswerInvalid, decode_found, decode_stored
from kvorum.client.contact import Contact
from kvorum.client.store import AsideCopy, Found, Key, Stored
from kvorum.errors import BadRequest, KvorumError, TooLarge
from kvorum.model.quorum import Durability
from kvorum.model.tables import DEFAULT_TABLE, DEFAULT_TABLE_ID
from kvorum.wire.aside_messages import (
    ASIDE_PAGE_MAX,
    AsideAnswer,
    AsideDiscard,
    AsideDiscarded,
    AsideQuery,
    AsideQuestion,
)
from kvorum.wire.codec import encode
from kvorum.wire.kinds import GET_OK, PUT_OK
from kvorum.wire.messages import (
    LOCAL_KEYS_MAX,
    Control,
    ExplainAnswer,
    ExplainQuery,
    LocalAnswer,
    LocalQuery,
    StatusAnswer,
    StatusQuery,
    TableAnswer,
    TableCreate,
    TableDrop,
    TableList,
    TableQuery,
    TableSet,
    TopologyAnswer,
    TopologyQuery,
)
from kvorum.wire.requests import DEFAULT, READ_FIRST, TOMBSTONE, get_frame, put_frame
from kvorum.wire.trace_messages import TraceAnswer, TraceQuery

KEY_BYTES_MAX: Final = 0xFFFF  # what a frame can say; nodes allow less, by their settings
QUORUM_MAX: Final = 254
VALUE_BYTES_MAX: Final = 1 << 30
ATTEMPT_TIMEOUT: Final = 1_000_000  # a get goes to the next node after this
PUT_ATTEMPT_TIMEOUT: Final = 500_000  # a put with retry: no mute node stops writes for a second
LONGEST_TTL_SECONDS: Final = 100 * 366 * 86_400

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Control)
Question = (
    TopologyQuery | TableQuery | TableList | TableCreate | TableSet | TableDrop | StatusQuery
    | ExplainQuery | TraceQuery | LocalQuery | AsideQuestion
)  # fmt: skip


class Waiter:
    """Whoever wants to know that a request is done. It takes note, and calls nobody."""

    __slots__ = ()

    def settled(self) -> None:
        raise NotImplementedError


class Request(Generic[T]):
    """What every request has: its key, its deadlines, and where it has been so far.

    It is open from ``Session.submit`` until ``done``; then it has a result or an error, for good.
    """

    __slots__ = (
        "attempt_deadline", "attempt_timeout", "contact", "deadline", "done", "doubtful",
        "elsewhere_until", "error", "number", "partition_key", "refusal", "repeatable", "result",
        "resume_at", "sent_at", "sequence", "submitted_at", "table", "table_asked", "table_id",
        "target", "timeout", "to_owner", "tried", "waiter",
    )  # fmt: skip

    def __init__(self, table: str, partition_key: bytes, repeatable: bool = True) -> None:
        self.repeatable = repeatable  # in doubt, it may be sent to another node
        self.table = table  # empty: about no table
        self.partition_key = partition_key  # empty: any node will do
        self.table_id = DEFAULT_TABLE_ID if table == DEFAULT_TABLE else b""
        self.table_asked = False  # the table's id has been asked for once more
        self.target = 0  # the one member that can answer; 0: any
        self.timeout = 0  # 0: the session's
        self.sequence = 0
        self.submitted_at = 0
        self.deadline = 0
        self.attempt_deadline = 0
        self.attempt_timeout = ATTEMPT_TIMEOUT
        self.resume_at = 0  # not to be sent again before this
        self.elsewhere_until = 0  # refused, it waits so long for others to be reached; 0: not
        self.sent_at = -1
        self.contact: Contact | None = None  # where an answer is awaited from
        self.number = 0  # under which it was sent there
        self.to_owner = False
        self.tried: list[Contact] = []
        self.refusal: KvorumError | None = None  # the last one, should nobody else do better
        self.doubtful = False  # some node may have done it without our knowing
        self.done = False
        self.result: T | None = None
        self.error: KvorumError | None = None
        self.waiter: Waiter | None = None

    def frame(self, number: int, contact: Contact, lowest_open: int) -> bytes:
        raise NotImplementedError

    def read(self, payload: bytes) -> T:
        """The result, out of an answer that is no control message."""
        raise AnswerInvalid(f"an answer of kind {payload[0]:#x} to a question")

    def take(self, message: Control) -> T:
        """The result, out of a control message."""
        raise AnswerInvalid(f"{type(message).__name__} is no answer to a put or get")

    def finish(self, result: T) -> None:
        self.result = result
        self._settle()

    def fail(self, error: KvorumError) -> None:
        self.error = error
        self._settle()

    def _settle(self) -> None:
        self.done = True
        self.contact = None
        self.tried = []
        if self.waiter is not None:
            self.waiter.settled()

    def outcome(self) -> T:
        """The result, or the error raised."""
        assert self.done
        if self.error is not None:
            raise self.error
        return cast(T, self.result)

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory while it is open, roughly."""
        return len(self.partition_key)


class Get(Request[Found]):
    __slots__ = ("r", "sloppy", "sort_key")

    def __init__(self, table: str, partition_key: bytes, sort_key: bytes, r: int, sloppy: int):
        Request.__init__(self, table, partition_key)
        self.sort_key = sort_key
        self.r = r
        self.sloppy = sloppy

    def frame(self, number: int, contact: Contact, lowest_open: int) -> bytes:
        return get_frame(
            number, 0, self.table_id, self.partition_key, self.sort_key, self.r, self.sloppy
        )

    def read(self, payload: bytes) -> Found:
        if payload[0] != GET_OK:
            raise AnswerInvalid(f"an answer of kind {payload[0]:#x} to a get")
        return decode_found(payload)


class Put(Request[Stored]):
    """A put or a delete, under one put id wherever it is sent."""

    __slots__ = (
        "client_id", "content_type", "context", "counter", "durability", "first_sent",
        "first_sent_at", "first_sent_to", "flags", "held", "sloppy", "sort_key", "ttl",
        "value", "w",
    )  # fmt: skip

    def __init__(
        self, table: str, partition_key: bytes, sort_key: bytes, value: bytes, context: bytes,
        flags: int, content_type: bytes, w: int, durability: int, sloppy: int, ttl: int,
        retry: bool,
    ) -> None:  # fmt: skip
        Request.__init__(self, table, partition_key, retry)
        self.attempt_timeout = PUT_ATTEMPT_TIMEOUT
        self.sort_key = sort_key
        self.value = value
        self.context = context
        self.flags = flags
        self.content_type = content_type
        self.w = w
        self.durability = durability
        self.sloppy = sloppy
        self.ttl = ttl
        self.held = False  # stays open after an unknown outcome, to be asked for again
        self.client_id = b""
        self.counter = 0
        self.first_sent_at = -1  # on our clock
        self.first_sent = 0  # on the clock of the node that it was sent to
        self.first_sent_to = b""  # that node's incarnation

    @property
    def put_id(self) -> bytes:
        return self.client_id + self.counter.to_bytes(8, "little")

    @property
    def size(self) -> int:
        return len(self.partition_key) + len(self.value)

    def frame(self, number: int, contact: Contact, lowest_open: int) -> bytes:
        if self.first_sent_to != contact.incarnation:
            if self.first_sent_at < 0:
                self.first_sent_at = self.sent_at
            self.first_sent = max(0, self.first_sent_at + contact.clock_offset)
            self.first_sent_to = contact.incarnation
        return put_frame(
            number, self.flags, self.table_id, self.partition_key, self.sort_key, self.context,
            self.value, self.content_type, self.client_id, self.counter, self.first_sent,
            lowest_open, self.w, self.durability, self.sloppy, self.ttl,
        )  # fmt: skip

    def read(self, payload: bytes) -> Stored:
        if payload[0] != PUT_OK:
            raise AnswerInvalid(f"an answer of kind {payload[0]:#x} to a put")
        return decode_stored(payload, self.put_id)


class Ask(Request[Answer]):
    """A control message to a node and the one that answers it."""

    __slots__ = ("answer_type", "question")

    def __init__(
        self, question: Question, answer_type: type[Answer], table: str = "", key: bytes = b""
    ) -> None:
        # A table created at two nodes that do not hear each other would be two tables.
        changes = isinstance(question, TableCreate | TableSet | TableDrop) or (
            isinstance(question, TraceQuery) and question.put
        )
        Request.__init__(self, table, key, not changes)
        self.question = question
        self.answer_type = answer_type

    def frame(self, number: int, contact: Contact, lowest_open: int) -> bytes:
        self.question.request = number
        if isinstance(self.question, ExplainQuery | TraceQuery | LocalQuery):
            self.question.table_id = self.table_id
        return encode(self.question)

    def take(self, message: Control) -> Answer:
        if not isinstance(message, self.answer_type):
            raise AnswerInvalid(
                f"{type(message).__name__} is no answer to {type(self.question).__name__}"
            )
        return message


def make_get(table: str, key: Key, sort_key: Key, r: int | None, sloppy: bool | None) -> Get:
    return Get(table, key_bytes(key), sort_key_bytes(sort_key), quorum("r", r), _sloppy(sloppy))


def make_put(
    table: str, key: Key, value: bytes, context: bytes | None, sort_key: Key,
    ttl_seconds: float | None, w: int | None, durability: str | None, sloppy: bool | None,
    content_type: str, retry: bool,
) -> Put:  # fmt: skip
    if not isinstance(value, bytes):
        raise BadRequest(f"a value is bytes, not {type(value).__name__}")
    if len(value) > VALUE_BYTES_MAX:
        raise TooLarge(f"the value has {len(value)} bytes; {VALUE_BYTES_MAX} is the most")
    kind = content_type.encode()
    if len(kind) > 255:
        raise TooLarge(f"the content type has {len(kind)} bytes; 255 are allowed")
    return Put(
        table, key_bytes(key), sort_key_bytes(sort_key), value, _context(context), 0, kind,
        quorum("w", w), _durability(durability), _sloppy(sloppy), ttl_microseconds(ttl_seconds),
        retry,
    )  # fmt: skip


def make_delete(
    table: str, key: Key, context: bytes | None, sort_key: Key, w: int | None,
    durability: str | None, sloppy: bool | None, retry: bool,
) -> Put:  # fmt: skip
    flags = TOMBSTONE if context is not None else TOMBSTONE | READ_FIRST
    return Put(
        table, key_bytes(key), sort_key_bytes(sort_key), b"", _context(context), flags, b"",
        quorum("w", w), _durability(durability), _sloppy(sloppy), 0, retry,
    )  # fmt: skip


def ask_topology() -> Ask[TopologyAnswer]:
    return Ask(TopologyQuery(0), TopologyAnswer)


def ask_table(name: str) -> Ask[TableAnswer]:
    return Ask(TableQuery(0, table_name(name)), TableAnswer)


def ask_tables() -> Ask[TableAnswer]:
    return Ask(TableList(0), TableAnswer)


def ask_status(member: int) -> Ask[StatusAnswer]:
    ask = Ask(StatusQuery(0), StatusAnswer)
    ask.target = member
    return ask


def ask_explain(table: str, key: Key, sort_key: Key) -> Ask[ExplainAnswer]:
    question = ExplainQuery(0, b"", key_bytes(key), sort_key_bytes(sort_key))
    return Ask(question, ExplainAnswer, table_name(table), question.partition_key)


def ask_local(table: str, keys: Iterable[Key], sort_key: Key, member: int) -> Ask[LocalAnswer]:
    pairs = [(key_bytes(key), sort_key_bytes(sort_key)) for key in keys]
    if len(pairs) > LOCAL_KEYS_MAX:
        raise TooLarge(f"{len(pairs)} keys; {LOCAL_KEYS_MAX} may be looked up at once")
    ask = Ask(LocalQuery(0, b"", pairs), LocalAnswer, table_name(table))
    ask.target = member
    return ask


def ask_aside(member: int, start: bytes, limit: int) -> Ask[AsideAnswer]:
    ask = Ask(AsideQuery(0, start, limit), AsideAnswer)
    ask.target = member
    return ask


def ask_discard(member: int, copies: Iterable[AsideCopy]) -> Ask[AsideDiscarded]:
    named = [(copy.position, copy.digest) for copy in copies]
    if len(named) > ASIDE_PAGE_MAX:
        raise TooLarge(f"{len(named)} copies; {ASIDE_PAGE_MAX} may be discarded at once")
    ask = Ask(AsideDiscard(0, named), AsideDiscarded)
    ask.target = member
    return ask


def ask_trace(
    table: str, key: Key, sort_key: Key, value: bytes | None, context: bytes | None,
    needed: int | None, client_id: bytes,
) -> Ask[TraceAnswer]:  # fmt: skip
    question = TraceQuery(
        0, b"", key_bytes(key), sort_key_bytes(sort_key), value is not None, value or b"",
        _context(context), quorum("w" if value is not None else "r", needed), client_id,
    )  # fmt: skip
    return Ask(question, TraceAnswer, table_name(table), question.partition_key)


def ask_create(
    name: str, r: int | None, w: int | None, resolution: str | None, durability: str | None,
    sloppy: bool | None, ttl_seconds: int | None, max_siblings: int | None,
    max_record_bytes: int | None,
) -> Ask[TableAnswer]:  # fmt: skip
    if resolution not in (None, "siblings", "lww"):
        raise BadRequest(f"resolution {resolution!r}: must be siblings or lww")
    _durability(durability)
    question = TableCreate(
        0, table_name(name), quorum("r", r), quorum("w", w), resolution or "", durability or "",
        sloppy, whole("ttl_seconds", ttl_seconds, 0), whole("max_siblings", max_siblings, 1),
        whole("max_record_bytes", max_record_bytes, 1),
    )  # fmt: skip
    return Ask(question, TableAnswer)


def ask_set(
    name: str, r: int | None, w: int | None, durability: str | None, sloppy: bool | None,
    ttl_seconds: int | None, max_siblings: int | None, max_record_bytes: int | None,
) -> Ask[TableAnswer]:  # fmt: skip
    _durability(durability)
    ttl = -1 if ttl_seconds is None else whole("ttl_seconds", ttl_seconds, 0)
    question = TableSet(
        0, table_name(name), quorum("r", r), quorum("w", w), durability or "", sloppy, ttl,
        whole("max_siblings", max_siblings, 1), whole("max_record_bytes", max_record_bytes, 1),
    )  # fmt: skip
    return Ask(question, TableAnswer)


def ask_drop(name: str, table_id: bytes | None) -> Ask[TableAnswer]:
    return Ask(TableDrop(0, table_name(name), table_id or b""), TableAnswer)


def key_bytes(key: Key) -> bytes:
    encoded = _key("key", key)
    if not encoded:
        raise BadRequest("the key is empty")
    return encoded


def sort_key_bytes(sort_key: Key) -> bytes:
    return _key("sort key", sort_key) if sort_key else b""


def _key(what: str, key: Key) -> bytes:
    if isinstance(key, str):
        try:
            encoded = key.encode()
        except UnicodeEncodeError:
            raise BadRequest(f"the {what} {key!r} cannot be written as UTF-8") from None
    elif isinstance(key, bytes):
        encoded = key
    else:
        raise BadRequest(f"a {what} is bytes or str, not {type(key).__name__}")
    if len(encoded) > KEY_BYTES_MAX:
        raise TooLarge(f"the {what} has {len(encoded)} bytes; {KEY_BYTES_MAX} is the most")
    return encoded


def table_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise BadRequest(f"a table is named by a text that is not empty, not {name!r}")
    return name


def quorum(letter: str, wanted: int | None) -> int:
    """``r`` or ``w`` as it stands in a request; 0 for the table's."""
    if wanted is None:
        return 0
    if not isinstance(wanted, int) or not 1 <= wanted <= QUORUM_MAX:
        raise BadRequest(f"{letter}={wanted!r}: must be a whole number from 1 to n")
    return wanted


def whole(name: str, wanted: int | None, least: int) -> int:
    """A setting of a table as it stands in a message; 0 where it is left out."""
    if wanted is None:
        return 0
    if not isinstance(wanted, int) or wanted < least:
        raise BadRequest(f"{name}={wanted!r}: must be a whole number, at least {least}")
    return wanted


def ttl_microseconds(ttl_seconds: float | None) -> int:
    """A time to live as it stands in a request; 0 for the table's."""
    if ttl_seconds is None:
        return 0
    if not isinstance(ttl_seconds, int | float) or not 0 < ttl_seconds <= LONGEST_TTL_SECONDS:
        raise BadRequest(
            f"ttl_seconds={ttl_seconds!r}: must be more than 0, at most {LONGEST_TTL_SECONDS}"
        )
    return max(1, round(ttl_seconds * 1_000_000))


def timeout_microseconds(timeout_seconds: float) -> int:
    if not isinstance(timeout_seconds, int | float) or not 0 < timeout_seconds <= 86_400:
        raise BadRequest(f"timeout_seconds={timeout_seconds!r}: must be more than 0, at most a day")
    return max(1, round(timeout_seconds * 1_000_000))


def _durability(wanted: str | None) -> int:
    if wanted is None:
        return DEFAULT
    for durability in Durability:
        if durability.name.lower() == wanted:
            return durability.value
    raise BadRequest(f"durability {wanted!r}: must be none, one, quorum or all")


def _sloppy(wanted: bool | None) -> int:
    return DEFAULT if wanted is None else int(bool(wanted))


def _context(context: bytes | None) -> bytes:
    if context is None:
        return b""
    if not isinstance(context, bytes):
        raise BadRequest(f"a context is the bytes that a get or put returned, not {context!r}")
    return context
