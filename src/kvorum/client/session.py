"""What both clients do, without a socket: choose a coordinator, pipeline, fail over, stay honest.

A session knows some nodes and, once one of them has told it, the ring. It sends each request to
an owner of its key, the first one that answers, so that one node mints most of a key's dots and
its contexts stay small. What becomes of a request when things go wrong follows from what it is:

- what was never sent, or refused for certain, may go to any node;
- a get, and a put with ``retry``, goes to the next node when its connection is lost or it waits
  too long;
- any other put stays in doubt. It is sent again only to the same start of the same node, under
  the same put id, where it is one write however often it arrives; if that cannot be done before
  its deadline, the caller learns that the outcome is unknown, and the put id.

The session never adds a context. It is run by a shell (``asynchronous.py``, ``blocking.py``)
that brings bytes and time, and does what is asked of it through ``Shell``. Nothing else moves
it: where no shell calls, nothing happens. How requests find their nodes stands in
``routing.py``.
"""

from typing import Any, Final

from kvorum.client.addresses import Address
from kvorum.client.answers import RETRYABLE, AnswerInvalid, decode_failure, error_of
from kvorum.client.connections import NEVER, SILENCE_LIMIT, Connections, Shell
from kvorum.client.contact import Contact
from kvorum.client.requests import Ask, Put, Request, Waiter, ask_table, ask_topology
from kvorum.errors import (
    BadRequest,
    KvorumError,
    NoNodeReachable,
    OutcomeUnknown,
    Refused,
    UnknownTable,
)
from kvorum.model.tables import DEFAULT_TABLE, DEFAULT_TABLE_ID
from kvorum.model.topology import Topology, decode_topology
from kvorum.wire.codec import decode_control
from kvorum.wire.kinds import (
    CONTROL,
    REFUSED,
    UNKNOWN,
)
from kvorum.wire.messages import (
    Control,
    ControlRefused,
    TableAnswer,
    TableQuery,
    TopologyAnswer,
    Welcome,
)
from kvorum.wire.requests import FAILURE_HEAD_BYTES, TOO_LARGE, UNKNOWN_TABLE, unpack_request_number

REQUEST_TIMEOUT: Final = 10_000_000
ASK_AGAIN: Final = 50_000  # before a put in doubt is sent again
ELSEWHERE_LIMIT: Final = 500_000  # how long a refused one waits for nodes it is yet to reach
_NOBODY: Final = object()


class Session(Connections):
    """One client's open requests, and what it has learned of tables and topology."""

    def __init__(
        self, shell: Shell, addresses: list[Address], client_id: bytes, software: str = "",
        request_timeout: int = REQUEST_TIMEOUT,
    ) -> None:  # fmt: skip
        """``client_id``: eight random bytes that no other client has."""
        assert len(client_id) == 8
        Connections.__init__(self, shell, addresses, software)
        self.client_id = client_id
        self._request_timeout = request_timeout
        self._topology_asked = False
        self._last_sequence = 0
        self._last_counter = 0
        self._open: dict[int, Request[Any]] = {}  # by sequence
        self._waiting: dict[int, Request[Any]] = {}  # those of them that are with no node
        self._open_puts: dict[int, Put] = {}  # by counter, so the lowest comes first
        self._table_ids: dict[str, bytes] = {DEFAULT_TABLE: DEFAULT_TABLE_ID, "": b""}
        self._table_waiters: dict[str, list[Request[Any]]] = {}

    # From the user.

    @property
    def topology(self) -> Topology | None:
        return self.routes.topology

    def member_named(self, node: str | int) -> int:
        member = self.routes.member_named(node)
        if not member:
            raise BadRequest(f"the topology has no member {node!r}")
        return member

    def submit(self, request: Request[Any]) -> None:
        """Take a request on; it is done, sooner or later, in every case."""
        if self.closed:
            request.fail(Refused("the client is closed"))
            return
        now = self.shell.now
        self._last_sequence += 1
        request.sequence = self._last_sequence
        request.submitted_at = now
        request.deadline = now + (request.timeout or self._request_timeout)
        self._open[request.sequence] = request
        if isinstance(request, Put) and not request.counter:
            self._last_counter += 1
            request.client_id = self.client_id
            request.counter = self._last_counter
            self._open_puts[request.counter] = request
        if request.deadline < self._wake_at:
            self._wake_at = request.deadline
        self._dispatch(request)

    def resubmit(self, put: Put) -> None:
        """Ask once more for a held put whose outcome was unknown, under its put id."""
        assert put.done
        assert put.held
        put.done = False
        put.error = None
        self.submit(put)

    def release(self, put: Put) -> None:
        """Let go of a held put: nobody will ask for it again."""
        put.held = False
        if put.done:
            self._open_puts.pop(put.counter, None)

    def abandon(self, request: Request[Any]) -> None:
        """Its caller does not wait any more; what was sent may still take effect."""
        if not request.done:
            self._forget(request)
            request.waiter = None
            request.fail(OutcomeUnknown("abandoned by its caller", _put_id(request)))

    def close(self) -> None:
        """End all connections; requests in doubt have an unknown outcome, others are refused."""
        if self.closed:
            return
        self.closed = True
        for request in list(self._open.values()):
            self._give_up(request, "the client was closed", Refused)
        self._close_all("the client was closed")

    # From the shell.

    def advance(self) -> None:
        """Attend to everything that has fallen due."""
        now = self.shell.now
        if now < self._wake_at:
            return
        self._wake_at = NEVER
        for contact in list(self.routes.contacts):
            self._attend_contact(contact, now)
        for request in list(self._open.values()):
            self._attend_request(request, now)

    # Sending.

    def _dispatch(self, request: Request[Any]) -> None:
        """Send a request where it belongs now, or let it wait."""
        if not request.table_id and request.table:
            table_id = self._table_ids.get(request.table)
            if table_id is None:
                self._ask_table_of(request)
                return
            request.table_id = table_id
        contact = self.routes.choose(request, self.shell.now)
        if contact is None and request.tried:
            request.tried = []  # Everyone has had a turn: begin anew.
            contact = self.routes.choose(request, self.shell.now)
        if self.routes.to_open:
            self._open_wanted()
        if contact is not None:
            self._send(request, contact)
        else:
            self._wait(request)

    def _send(self, request: Request[Any], contact: Contact) -> None:
        now = self.shell.now
        request.sent_at = now
        number = contact.next_number()
        lowest_open = next(iter(self._open_puts), self._last_counter + 1)
        frame = request.frame(number, contact, lowest_open)
        if len(frame) - 4 > contact.frame_bytes_max > 0:
            self._waiting.pop(request.sequence, None)
            self._refuse_size(request, contact, len(frame))
            return
        contact.in_flight[number] = request
        request.contact = contact
        request.number = number
        attempt_deadline = now + request.attempt_timeout
        if attempt_deadline > request.deadline:
            attempt_deadline = request.deadline
        request.attempt_deadline = attempt_deadline
        if attempt_deadline < self._wake_at:
            self._wake_at = attempt_deadline
        self.shell.send(contact.channel, frame)

    def _refuse_size(self, request: Request[Any], contact: Contact, size: int) -> None:
        text = f"the request has {size} bytes; {contact.address} takes {contact.frame_bytes_max}"
        self._conclude(request, error_of(TOO_LARGE, text))

    def _wait(self, request: Request[Any]) -> None:
        """Nobody can take it now: try to reach somebody, and see whether there is still hope."""
        self._waiting[request.sequence] = request
        for contact in self.routes.candidates(request):
            if not contact.channel and contact.failed_at < request.submitted_at:
                self._open_channel(contact)
        if self.routes.is_hopeless(request):
            self._give_up(request, self.routes.causes(request), NoNodeReachable)

    def _in_doubt_at_one(self, request: Request[Any]) -> bool:
        return request.doubtful and not request.repeatable

    # Answers.

    def _ask(self, question: Ask[Any], waiter: Waiter) -> None:
        question.waiter = waiter
        self.submit(question)

    def _on_answer(self, contact: Contact, payload: bytes) -> None:
        kind = payload[0]
        message: Control | None = None
        if kind == CONTROL:
            message = decode_control(payload)
            number = getattr(message, "request", 0)
        elif len(payload) < FAILURE_HEAD_BYTES:
            raise AnswerInvalid("an answer is cut short")
        else:
            number = unpack_request_number(payload, 4)[0]
        request = contact.in_flight.get(number, _NOBODY)
        if request is _NOBODY:
            raise AnswerInvalid(f"an answer to request {number}, which was never sent")
        if request is None:
            del contact.in_flight[number]
            return
        assert isinstance(request, Request)
        if message is not None and not isinstance(message, ControlRefused):
            result = request.take(message)
            self._learn(message)
        elif message is not None or kind in (REFUSED, UNKNOWN):
            code, text = (message.code, message.text) if message else decode_failure(payload)
            del contact.in_flight[number]
            request.contact = None
            contact.failures = 0
            if kind == UNKNOWN:
                self._on_unknown(request, contact, text)
            else:
                self._on_refused(request, contact, code, text)
            return
        else:
            result = request.read(payload)
        del contact.in_flight[number]
        contact.failures = 0
        del self._open[request.sequence]
        if isinstance(request, Put):
            self._open_puts.pop(request.counter, None)
        request.finish(result)

    def _learn(self, message: Control) -> None:
        if isinstance(message, TopologyAnswer):
            self.routes.learn(decode_topology(message.document))
        elif isinstance(message, TableAnswer):
            for entry in sorted(message.tables, key=lambda entry: entry.id, reverse=True):
                # Where two carry one name, every node means the one of the lowest id.
                if entry.dropped:
                    self._table_ids.pop(entry.name, None)
                else:
                    self._table_ids[entry.name] = entry.id

    def _on_refused(self, request: Request[Any], contact: Contact, code: int, text: str) -> None:
        error = error_of(code, text)
        request.refusal = error
        request.tried.append(contact)
        if code == UNKNOWN_TABLE:
            if self._may_ask_table_again(request):
                self._dispatch(request)
                return
        elif code in RETRYABLE and not self._in_doubt_at_one(request):
            request.elsewhere_until = self.shell.now + ELSEWHERE_LIMIT
            self._try_elsewhere(request)
            return
        self._conclude(request, error)

    def _try_elsewhere(self, request: Request[Any]) -> None:
        """It was refused for now: another node may take it, also one that is about to be there.

        A client that has just begun would else fail by the one node that was the first to greet.
        """
        now = self.shell.now
        other = self.routes.choose(request, now)
        if self.routes.to_open:
            self._open_wanted()
        if other is not None:
            request.elsewhere_until = 0
            self._send(request, other)
        elif now < request.elsewhere_until and self.routes.may_be_reached(request):
            self._waiting[request.sequence] = request
            self._wake_by(request.elsewhere_until)
        else:
            assert request.refusal is not None
            self._conclude(request, request.refusal)

    def _may_ask_table_again(self, request: Request[Any]) -> bool:
        """A table may be new to one node, or dropped and created again: ask another, once."""
        if request.table_asked or request.doubtful:
            return False
        request.table_asked = True
        if request.table and request.table != DEFAULT_TABLE:
            self._table_ids.pop(request.table, None)
            request.table_id = b""
            return True
        asks_for_a_table = isinstance(request, Ask) and isinstance(request.question, TableQuery)
        return asks_for_a_table and self.routes.choose(request, self.shell.now) is not None

    def _on_unknown(self, request: Request[Any], contact: Contact, text: str) -> None:
        now = self.shell.now
        request.doubtful = True
        request.tried.append(contact)
        if not request.repeatable and not self._may_return(request, contact):
            self._conclude(request, OutcomeUnknown(text, _put_id(request)))
            return
        request.resume_at = now + ASK_AGAIN
        self._waiting[request.sequence] = request
        self._wake_by(request.resume_at)

    def _may_return(self, request: Request[Any], contact: Contact) -> bool:
        """Whether a request in doubt may be sent to the same node once more."""
        if not isinstance(request, Put) or not request.to_owner:
            return False  # A node that forwards might forward it to somebody else.
        window = contact.retry_window
        return not window or self.shell.now - request.first_sent_at < window

    # Connections come and go.

    def _open_wanted(self) -> None:
        wanted = self.routes.to_open
        self.routes.to_open = []
        for contact in wanted:
            self._open_channel(contact)

    def _on_ready(self, contact: Contact, welcome: Welcome) -> None:
        if welcome.topology_epoch > self.routes.epoch and not self._topology_asked:
            self._topology_asked = True
            self._ask(ask_topology(), _TopologyWaiter(self))
        for request in list(self._waiting.values()):
            if not request.done:
                self._resume(request, self.shell.now)

    def _on_lost(self, contact: Contact, orphaned: list[Request[Any]], refused: bool) -> None:
        for request in orphaned:
            request.contact = None
            request.doubtful = True
            self._reconsider(request, contact, f"the connection to {contact.address} was lost")
        for request in list(self._waiting.values()):
            if request.done or request.contact is not None:
                continue
            if self._in_doubt_at_one(request):
                self._reconsider_doubt(request, contact, refused)
            elif request.resume_at <= self.shell.now:
                self._resume(request, self.shell.now)

    def _reconsider(self, request: Request[Any], contact: Contact, cause: str) -> None:
        """A request that was sent will not be answered where it is."""
        request.tried.append(contact)
        if request.repeatable:
            self._dispatch(request)
        elif self._may_return(request, contact):
            self._waiting[request.sequence] = request
            contact.wanted = True
            self._open_channel(contact)
        else:
            self._conclude(request, OutcomeUnknown(cause, _put_id(request)))

    def _reconsider_doubt(self, request: Request[Any], contact: Contact, refused: bool) -> None:
        # Where nobody listens any more, that start of the node is over.
        if refused and contact is request.tried[-1]:
            text = f"{contact.address} is gone: {contact.cause}"
            self._conclude(request, OutcomeUnknown(text, _put_id(request)))

    def _resume(self, request: Request[Any], now: int) -> None:
        """See whether a waiting request can be sent now."""
        if request.resume_at > now:
            self._wake_by(request.resume_at)
            return
        if not self._in_doubt_at_one(request):
            del self._waiting[request.sequence]
            if request.elsewhere_until:
                self._try_elsewhere(request)
            else:
                self._dispatch(request)
            return
        assert isinstance(request, Put)
        contact = request.tried[-1]
        if not contact.ready:
            return
        del self._waiting[request.sequence]
        if contact.incarnation != request.first_sent_to:
            text = f"{contact.address} has been started anew since the put was sent"
            self._conclude(request, OutcomeUnknown(text, request.put_id))
        elif not self._may_return(request, contact):
            text = f"{contact.address} does not remember puts for longer"
            self._conclude(request, OutcomeUnknown(text, request.put_id))
        else:
            request.tried.pop()
            self._send(request, contact)

    # What falls due.

    def _attend_request(self, request: Request[Any], now: int) -> None:
        if request.done:
            return
        if request.deadline <= now:
            self._on_deadline(request)
        elif request.contact is None:
            self._wake_by(request.deadline)
            if request.sequence in self._waiting:
                self._resume(request, now)
        elif request.attempt_deadline <= now:
            self._on_attempt_over(request, request.contact, now)
        else:
            self._wake_by(request.attempt_deadline)

    def _on_attempt_over(self, request: Request[Any], contact: Contact, now: int) -> None:
        self._note_silence(request, contact, now)
        if not request.repeatable:
            request.attempt_deadline = request.deadline
            self._wake_by(request.deadline)
            return
        contact.in_flight[request.number] = None
        request.contact = None
        request.doubtful = True
        self._wake_by(request.deadline)
        request.tried.append(contact)
        self._dispatch(request)

    def _note_silence(self, request: Request[Any], contact: Contact, now: int) -> None:
        if contact.heard_at <= request.sent_at and not contact.silent:
            contact.silent = True
            contact.silent_since = request.sent_at
            self._wake_by(contact.silent_since + SILENCE_LIMIT)

    def _on_deadline(self, request: Request[Any]) -> None:
        contact = request.contact
        seconds = (request.deadline - request.submitted_at) // 1000 / 1000
        if contact is not None:
            self._note_silence(request, contact, self.shell.now)
            text = f"no answer from {contact.address} within {seconds:g} s"
        else:
            text = f"not answered within {seconds:g} s; {self.routes.causes(request)}"
        self._give_up(request, text, NoNodeReachable)

    # Endings.

    def _give_up(self, request: Request[Any], text: str, certain: type[KvorumError]) -> None:
        """End a request without an answer: unknown if some node may have done it."""
        if request.contact is not None:
            request.doubtful = True
        changes = isinstance(request, Put) or not request.repeatable
        if changes and request.doubtful:
            self._conclude(request, OutcomeUnknown(text, _put_id(request)))
        elif request.refusal is not None and certain is NoNodeReachable:
            self._conclude(request, request.refusal)
        else:
            self._conclude(request, certain(text))

    def _conclude(self, request: Request[Any], error: KvorumError) -> None:
        if request.doubtful and isinstance(request, Put) and isinstance(error, Refused):
            # Another node may have written it before this one refused.
            error = OutcomeUnknown(f"in doubt; at last: {error}", request.put_id)
        self._forget(request)
        request.fail(error)

    def _forget(self, request: Request[Any]) -> None:
        contact = request.contact
        if contact is not None:
            contact.in_flight[request.number] = None
        self._open.pop(request.sequence, None)
        self._waiting.pop(request.sequence, None)
        if isinstance(request, Put) and not request.held:
            self._open_puts.pop(request.counter, None)

    # Tables by name.

    def _ask_table_of(self, request: Request[Any]) -> None:
        waiting = self._table_waiters.get(request.table)
        if waiting is not None:
            waiting.append(request)
            return
        self._table_waiters[request.table] = [request]
        question = ask_table(request.table)
        question.tried = list(request.tried)
        self._ask(question, _TableWaiter(self, request.table, question))

    def on_table(self, name: str, question: Ask[TableAnswer]) -> None:
        waiting = self._table_waiters.pop(name, [])
        error = question.error
        if error is None and name not in self._table_ids:
            error = UnknownTable(f"there is no table {name!r}")
        for request in waiting:
            if request.done:
                continue
            if error is None:
                self._dispatch(request)
            else:
                self._conclude(request, error)

    def on_topology(self) -> None:
        self._topology_asked = False


class _TableWaiter(Waiter):
    """Sends on what waited for the id of a table."""

    __slots__ = ("name", "question", "session")

    def __init__(self, session: Session, name: str, question: Ask[TableAnswer]) -> None:
        self.session = session
        self.name = name
        self.question = question

    def settled(self) -> None:
        self.session.on_table(self.name, self.question)


class _TopologyWaiter(Waiter):
    """Lets the session ask again, when a node knows a newer topology."""

    __slots__ = ("session",)

    def __init__(self, session: Session) -> None:
        self.session = session

    def settled(self) -> None:
        self.session.on_topology()


def _put_id(request: Request[Any]) -> bytes | None:
    return request.put_id if isinstance(request, Put) else None
