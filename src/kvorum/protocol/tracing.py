"""Follow one request: when each replica was asked and answered, what was on a disk, who was late.

Tracing costs nothing where nobody traces: the coordinators know nothing of it. A traced request
is begun as any other, with a port in its client's place, and then a watcher takes the
coordinator's place in the queues of the links (``Link.divert``): it notes what it is told and
passes it on. Times are those of turns, as everything is that a node measures.

The answer leaves when everybody who was asked has answered, or a second after the client's own
answer: whoever has not answered by then was late.
"""

from typing import Final

from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.get import GetCoordinator
from kvorum.protocol.put import PutCoordinator
from kvorum.protocol.requests import Requests
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.store import Store
from kvorum.wire.codec import encode
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.kinds import PUT
from kvorum.wire.link import Asker, Link
from kvorum.wire.messages import ControlRefused
from kvorum.wire.requests import (
    BAD_REQUEST,
    DEFAULT,
    OVERLOADED,
    get_frame,
    put_frame,
)
from kvorum.wire.trace_messages import TraceAnswer, TraceEvent, TraceQuery

TRACES_MAX: Final = 32  # at a time; they are for people
PATIENCE: Final = 1_000_000  # for those who are late
CLIENT_ID_BYTES: Final = 8


class TracePort(ClientPort):
    """Stands for the client of a traced request, and keeps its answer."""

    __slots__ = ("trace",)

    def __init__(self, trace: "Trace") -> None:
        super().__init__()
        self.trace = trace

    def send(self, frame: bytes) -> None:
        self.trace.on_answer(frame[LENGTH_BYTES:])


class Watcher(Asker):
    """Is told in the coordinator's place, notes it, and tells the coordinator."""

    __slots__ = ("asker", "trace")

    def __init__(self, trace: "Trace", asker: Asker) -> None:
        self.trace = trace
        self.asker = asker
        self.wants_disk = asker.wants_disk

    def on_ok(self, peer: int) -> None:
        self.trace.on_news(peer, "ok", settled=not self.wants_disk)
        self.asker.on_ok(peer)
        self.trace.look("asked")

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        self.trace.on_news(peer, "record", f"{len(record)} bytes")
        self.asker.on_record(peer, generation, record)
        self.trace.look("asked")

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        self.trace.on_news(peer, "refused", f"status {status}")
        self.asker.on_refusal(peer, status, payload)
        self.trace.look("asked again")

    def on_later(self, peer: int) -> None:
        self.trace.on_news(peer, "later", "not in that turn")
        self.asker.on_later(peer)
        self.trace.look("asked again")

    def on_disk(self, peer: int) -> None:
        self.trace.on_news(peer, "on disk")
        self.asker.on_disk(peer)
        self.trace.look("asked")

    def on_slow(self, peer: int) -> None:
        self.trace.on_news(peer, "slow", "slower than in 19 of 20 cases", settled=False)
        self.asker.on_slow(peer)
        self.trace.look("hedged")

    def on_silence(self, peer: int) -> None:
        self.trace.on_news(peer, "silent", "past its adaptive timeout", settled=False)
        self.asker.on_silence(peer)
        self.trace.look("hedged")

    def on_lost(self, peer: int) -> None:
        self.trace.on_news(peer, "lost", "the connection ended")
        self.asker.on_lost(peer)
        self.trace.look("asked")


class Trace(Timed):
    """One traced request until it has been told to its client."""

    __slots__ = (
        "_answer", "_begun", "_client", "_env", "_mended", "_mine", "_pending", "_position",
        "_request", "_started_at", "_tracer", "done", "events", "port", "watcher",
    )  # fmt: skip

    def __init__(
        self, tracer: "Tracer", env: Environment, client: ClientPort, request: int, mine: int
    ) -> None:
        self._tracer = tracer
        self._env = env
        self._client = client
        self._request = request
        self._mine = mine
        self._started_at = env.now
        self._answer = b""
        self._begun = False
        self._pending: dict[int, None] = {}  # asked, and not heard of to the end
        self._position = 0  # of the own write, while it waits for the disk
        self._mended = self._repairs()
        self.port = TracePort(self)
        self.watcher: Watcher | None = None
        self.events: list[TraceEvent] = []
        self.done = False

    @property
    def answered(self) -> bool:
        return bool(self._answer)

    def note(self, member: int, what: str, detail: str = "") -> None:
        self.events.append(TraceEvent(self._env.now - self._started_at, what, member, detail))

    def begin(self, asker: Asker | None, position: int) -> None:
        """The request is under way; ``position``: of the own write, if there is one."""
        if asker is not None:
            self.watcher = Watcher(self, asker)
        self._position = position
        self._begun = True
        self.look("asked")

    def look(self, what: str) -> None:
        """Find out whom the coordinator has asked since the last look."""
        watcher = self.watcher
        repairs = self._repairs()
        if repairs != self._mended:
            self.note(self._mine, "mended", "copies that were behind are sent what they lack")
            self._mended = repairs
        if watcher is not None:
            watcher = self._follow_on(watcher)
            for links in (self._env.links, self._env.large_links):
                for member, link in links.items():
                    if link.divert(watcher.asker, watcher):
                        self._pending[member] = None
                        self.note(member, what, _queue_text(link))
        self._try_to_finish()

    def _follow_on(self, watcher: Watcher) -> Watcher:
        """A delete that had to read first is a get, and then a put."""
        put = self._tracer.latest()
        if put is None or put.client is not self.port or put is watcher.asker:
            return watcher
        self.watcher = Watcher(self, put)
        self._position = self._tracer.note_write(self)
        return self.watcher

    def on_news(self, member: int, what: str, detail: str = "", *, settled: bool = True) -> None:
        self.note(member, what, detail)
        if settled:
            self._pending.pop(member, None)

    def on_durable(self, position: int) -> None:
        if 0 < self._position <= position:
            self._position = 0
            self.note(self._mine, "on disk")
        self._try_to_finish()

    def on_answer(self, payload: bytes) -> None:
        """What the client is to be answered."""
        self._answer = payload
        self.note(self._mine, "answered")
        self._tracer.timers.wake(self._env.now + PATIENCE, self)
        if self.watcher is None:
            self._try_to_finish()  # Else the coordinator is about to mend who was behind.

    def on_timer(self) -> None:
        self._finish()

    def _try_to_finish(self) -> None:
        if self._begun and self._answer and not self._pending and not self._position:
            self._finish()

    def _finish(self) -> None:
        if self.done:
            return
        self.done = True
        self._tracer.open.pop(self, None)
        for member in self._pending:
            self.note(member, "late", "nothing more was heard of it")
        if not self._client.closed:
            answer = TraceAnswer(self._request, self._mine, self._answer, self.events)
            self._client.send(encode(answer))

    def _repairs(self) -> int:
        counters = self._env.counters
        return counters.read_repairs + counters.own_repairs


class Tracer:
    """Begins traced requests at one node."""

    __slots__ = ("_env", "_me", "_requests", "_store", "open", "timers")

    def __init__(
        self, env: Environment, store: Store, requests: Requests, timers: Timers, me: int
    ) -> None:
        self._env = env
        self._store = store
        self._requests = requests
        self._me = me
        self.timers = timers
        self.open: dict[Trace, None] = {}

    def on_query(self, client: ClientPort, query: TraceQuery, steady: int) -> None:
        """``steady``: this node's clock for put ids."""
        problem = _problem_of(query)
        if problem:
            client.send(encode(ControlRefused(query.request, BAD_REQUEST, problem)))
            return
        if query.put:
            frame = put_frame(
                query.request, 0, query.table_id, query.partition_key, query.sort_key,
                query.context, query.value, b"", query.client, 1, steady, 1, query.quorum, DEFAULT,
                DEFAULT, 0,
            )  # fmt: skip
        else:
            frame = get_frame(
                query.request, 0, query.table_id, query.partition_key, query.sort_key,
                query.quorum, DEFAULT,
            )  # fmt: skip
        self.follow(client, query.request, frame[LENGTH_BYTES:])

    def follow(self, client: ClientPort, request: int, payload: bytes) -> None:
        """Begin a client's get or put, and tell the client how it went. Raises ``FrameInvalid``."""
        if len(self.open) >= TRACES_MAX:
            text = f"{TRACES_MAX} requests are traced here already"
            client.send(encode(ControlRefused(request, OVERLOADED, text)))
            return
        trace = Trace(self, self._env, client, request, self._me)
        self.open[trace] = None
        before = self._store.position
        trace.note(self._me, "taken")
        if payload[0] == PUT:
            self._requests.on_put(trace.port, payload)
        else:
            self._requests.on_get(trace.port, payload)
        # Nearly always the last one; a put that has arrived before is wherever it stood.
        opened = reversed(self._requests.open)
        begun = next((each for each in opened if each.client is trace.port), None)
        noted = len(trace.events)
        position = self._note_own_part(trace, begun, before)
        if len(trace.events) > noted:
            trace.events.insert(1, trace.events.pop())  # Before what has come of it already.
        trace.begin(begun, position)

    def latest(self) -> PutCoordinator | GetCoordinator | None:
        opened = self._requests.open
        return opened[-1] if opened else None

    def _note_own_part(
        self, trace: Trace, begun: PutCoordinator | GetCoordinator | None, before: int
    ) -> int:
        """Tell what this node did itself; the position of its write, if a disk is to have it."""
        if begun is None:
            if not trace.answered:
                trace.note(self._me, "passed on", "this node owns no copy of the key")
            return 0
        if isinstance(begun, GetCoordinator):
            trace.note(self._me, "read", "its own copy")
            return 0
        if self._store.position == before:
            trace.note(self._me, "taken up again", "the same put has arrived before")
            return 0
        return self.note_write(trace)

    def note_write(self, trace: Trace) -> int:
        """A put has been begun: tell of the own write; its position, if a disk is to have it."""
        trace.note(self._me, "written", "to memory" if self._store.volatile else "to its log")
        return 0 if self._store.volatile else self._store.position

    def on_durable(self, position: int) -> None:
        for trace in list(self.open):
            trace.on_durable(position)


def _problem_of(query: TraceQuery) -> str:
    if len(query.table_id) != 8:
        return "a table id has 8 bytes"
    if query.put and len(query.client) != CLIENT_ID_BYTES:
        return f"a traced put needs a client id of {CLIENT_ID_BYTES} bytes"
    if not 0 <= query.quorum <= 255:
        return "a quorum lies between 0 and 255"
    if len(query.partition_key) > 0xFFFF or len(query.sort_key) > 0xFFFF:
        return "a key is longer than its field"
    return ""


def _queue_text(link: Link) -> str:
    """What stands before a request in the queue to one peer, and what is usual there."""
    usual = f"it usually answers in {link.latency.mean / 1000:.1f} ms"
    return f"behind {len(link.in_flight)} batches; {usual}" if link.in_flight else usual
