"""The asyncio client: the same store as coroutines, on whatever event loop runs.

Requests of many tasks share the connections. What they queue within one round of the loop
leaves in one write per connection, and one alarm stands for all deadlines.
"""

import asyncio
import errno
import os
from collections.abc import Iterable
from time import monotonic_ns
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload

from kvorum.client import operations, requests
from kvorum.client.addresses import Address, parse_addresses
from kvorum.client.answers import decode_aside, decode_copies, describe_tables
from kvorum.client.connections import Shell
from kvorum.client.requests import Request, Waiter
from kvorum.client.session import Session
from kvorum.client.store import (
    AsideCopy,
    DurabilityName,
    Found,
    Key,
    LocalCopy,
    Merge,
    PutItem,
    ResolutionName,
    Store,
    Stored,
    Table,
    TableDescription,
)
from kvorum.errors import KvorumError, Refused
from kvorum.model.topology import Topology
from kvorum.wire.messages import ExplainAnswer, StatusAnswer
from kvorum.wire.trace_messages import TraceAnswer

T = TypeVar("T")


class _Call(Waiter):
    """A task that waits for some requests, until at most ``enough`` of them are open."""

    __slots__ = ("enough", "future", "open")

    def __init__(self) -> None:
        self.open = 0
        self.enough = 0
        self.future: asyncio.Future[None] | None = None

    def settled(self) -> None:
        self.open -= 1
        if self.open <= self.enough and self.future is not None and not self.future.done():
            self.future.set_result(None)


class _Connection(asyncio.Protocol):
    """One transport, and what is queued for it until the end of this round of the loop."""

    def __init__(self, streams: "_Streams", channel: int) -> None:
        self.streams = streams
        self.channel = channel
        self.transport: asyncio.Transport | None = None
        self.queue: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked at run time: uvloop's transports are no asyncio.Transport by class.
        self.transport = cast(asyncio.Transport, transport)
        self.streams.on_made(self)

    def data_received(self, data: bytes) -> None:
        self.streams.on_data(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.streams.on_lost(self, str(error) if error else "it closed the connection")


class _Streams(Shell):
    """All connections of one asyncio client, its one alarm, and the clock."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.session: Session | None = None
        self.now = monotonic_ns() // 1000
        self._connections: dict[int, _Connection] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._ended: dict[asyncio.Future[Any], None] = {}  # to be waited for before the end
        self._dirty: list[_Connection] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = -1
        self._lost = asyncio.Event()  # a connection has ended

    # What the session asks for.

    def open(self, channel: int, address: Address) -> None:
        self._opening[channel] = self.loop.create_task(self._connect(channel, address))

    def send(self, channel: int, frame: bytes) -> None:
        connection = self._connections[channel]
        if not connection.queue:
            if not self._dirty:
                self.loop.call_soon(self._flush)
            self._dirty.append(connection)
        connection.queue.append(frame)

    def close(self, channel: int) -> None:
        task = self._opening.pop(channel, None)
        if task is not None:
            task.cancel()
            self._ended[task] = None
            task.add_done_callback(self._forget_task)
        connection = self._connections.pop(channel, None)
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    # What the client calls.

    def begin(self) -> None:
        self.now = monotonic_ns() // 1000

    def arm(self) -> None:
        """Set the alarm for what falls due next, unless it rings before that anyway."""
        assert self.session is not None
        deadline = self.session.next_deadline()
        if deadline < 0 or (self._alarm is not None and self._alarm_at <= deadline):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        delay_seconds = max(0, deadline - self.now) / 1_000_000
        self._alarm = self.loop.call_later(delay_seconds, self._ring)

    async def shut(self) -> None:
        """Wait until every connection that was closed is gone."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._ended:
            await asyncio.wait(list(self._ended))
        # An aborted transport closes its socket in the next round of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # From the loop.

    def on_made(self, connection: _Connection) -> None:
        assert self.session is not None
        if connection.channel not in self._opening:
            assert connection.transport is not None
            connection.transport.abort()
            return
        self.begin()
        self._connections[connection.channel] = connection
        self.session.on_opened(connection.channel)
        self.arm()

    def on_data(self, connection: _Connection, data: bytes) -> None:
        assert self.session is not None
        self.begin()
        self.session.on_received(connection.channel, data)
        self.arm()

    def on_lost(self, connection: _Connection, cause: str) -> None:
        if self._connections.pop(connection.channel, None) is not None:
            self._tell_closed(connection.channel, cause, False)

    async def _connect(self, channel: int, address: Address) -> None:
        try:
            await self.loop.create_connection(
                lambda: _Connection(self, channel), address.host, address.port
            )
        except OSError as error:
            if self._opening.pop(channel, None) is not None:
                refused = error.errno == errno.ECONNREFUSED
                self._tell_closed(channel, _text_of(error), refused)
        else:
            self._opening.pop(channel, None)

    def _tell_closed(self, channel: int, cause: str, refused: bool) -> None:
        assert self.session is not None
        self.begin()
        self.session.on_closed(channel, cause, refused)
        self.arm()

    def _flush(self) -> None:
        dirty = self._dirty
        self._dirty = []
        for connection in dirty:
            queue = connection.queue
            connection.queue = []
            if connection.transport is not None and not connection.transport.is_closing():
                connection.transport.write(queue[0] if len(queue) == 1 else b"".join(queue))

    def _ring(self) -> None:
        assert self.session is not None
        self._alarm = None
        self.begin()
        self.session.advance()
        self.arm()

    def _forget_task(self, task: asyncio.Future[Any]) -> None:
        self._ended.pop(task, None)


def _text_of(error: OSError) -> str:
    # Asyncio words its own text around the system's; the latter says it all.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


class AsyncClient(Store):
    """An asyncio client of a cluster; made by ``kvorum.aconnect``, entered by ``async with``."""

    def __init__(
        self, addresses: str | list[str], *, timeout_seconds: float = 10.0,
        only_given: bool = False, software: str = "",
    ) -> None:  # fmt: skip
        self._addresses = parse_addresses(addresses)
        self._only_given = only_given
        self._timeout = requests.timeout_microseconds(timeout_seconds)
        self._software = software
        self._streams: _Streams | None = None
        self._session: Session | None = None

    async def connect(self) -> Self:
        """Connect; ``async with`` does it by itself."""
        if self._session is not None:
            raise Refused("a client connects once; make another one")
        self._streams = _Streams()
        self._session = Session(
            self._streams, self._addresses, os.urandom(8), self._software, self._timeout
        )
        self._streams.session = self._session
        self._session.routes.only_given = self._only_given
        try:
            self._session.start()
            await self._run(requests.ask_topology())
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """End all connections. Requests of other tasks end with an error."""
        if self._session is not None and not self._session.closed:
            assert self._streams is not None
            self._session.close()
            await self._streams.shut()

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.close()

    # The store.

    @property
    def topology(self) -> Topology:
        topology = self._entered().topology
        assert topology is not None
        return topology

    def table(self, name: str) -> "AsyncTable":
        return AsyncTable(self, requests.table_name(name))

    async def create_table(
        self, name: str, *, r: int | None = None, w: int | None = None,
        resolution: ResolutionName | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, ttl_seconds: int | None = None,
        max_siblings: int | None = None, max_record_bytes: int | None = None,
    ) -> TableDescription:  # fmt: skip
        return describe_tables(await self._run(requests.ask_create(
            name, r, w, resolution, durability, sloppy, ttl_seconds, max_siblings,
            max_record_bytes,
        )))[0]  # fmt: skip

    async def set_table(
        self, name: str, *, r: int | None = None, w: int | None = None,
        durability: DurabilityName | None = None, sloppy: bool | None = None,
        ttl_seconds: int | None = None, max_siblings: int | None = None,
        max_record_bytes: int | None = None,
    ) -> TableDescription:  # fmt: skip
        return describe_tables(await self._run(requests.ask_set(
            name, r, w, durability, sloppy, ttl_seconds, max_siblings, max_record_bytes
        )))[0]  # fmt: skip

    async def drop_table(self, name: str, *, table_id: bytes | None = None) -> None:
        await self._run(requests.ask_drop(name, table_id))

    async def tables(self) -> list[TableDescription]:
        return describe_tables(await self._run(requests.ask_tables()))

    async def status(self, node: str | int) -> StatusAnswer:
        return await self._run(requests.ask_status(self._entered().member_named(node)))

    async def statuses(self) -> dict[str, StatusAnswer | KvorumError]:
        members = self.topology.members
        asks = [requests.ask_status(member.id) for member in members]
        answers = await self._run_many(asks, True)
        return {member.name: answer for member, answer in zip(members, answers, strict=True)}

    async def trace(
        self, table: str, key: Key, value: bytes | None = None, *, context: bytes | None = None,
        sort_key: Key = b"", needed: int | None = None,
    ) -> TraceAnswer:  # fmt: skip
        return await self._run(requests.ask_trace(
            table, key, sort_key, value, context, needed, os.urandom(8)
        ))  # fmt: skip

    async def local_get_many(
        self, table: str, keys: Iterable[Key], *, node: str | int, sort_key: Key = b""
    ) -> list[LocalCopy]:
        member = self._entered().member_named(node)
        return decode_copies(await self._run(requests.ask_local(table, keys, sort_key, member)))

    async def list_aside(
        self, node: str | int, *, start: bytes = b"", limit: int = 256
    ) -> list[AsideCopy]:
        member = self._entered().member_named(node)
        return decode_aside(await self._run(requests.ask_aside(member, start, limit)))

    async def discard_aside(self, node: str | int, copies: Iterable[AsideCopy]) -> int:
        member = self._entered().member_named(node)
        return (await self._run(requests.ask_discard(member, copies))).count

    async def explain(self, table: str, key: Key, *, sort_key: Key = b"") -> ExplainAnswer:
        return await self._run(requests.ask_explain(table, key, sort_key))

    # Running requests.

    def _entered(self) -> Session:
        if self._session is None:
            raise Refused("the client is not connected: use it within 'async with'")
        return self._session

    async def _run(self, request: Request[T]) -> T:
        call = _Call()
        self._submit([request], call)
        await self._wait(call, [request])
        return request.outcome()

    @overload
    async def _run_many(
        self, made: Iterable[Request[T] | KvorumError], return_exceptions: Literal[False]
    ) -> list[T]: ...
    @overload
    async def _run_many(
        self, made: Iterable[Request[T] | KvorumError], return_exceptions: bool
    ) -> list[T | KvorumError]: ...
    async def _run_many(
        self, made: Iterable[Request[T] | KvorumError], return_exceptions: bool
    ) -> list[T] | list[T | KvorumError]:
        pipeline = operations.Pipeline(made)
        call = _Call()
        while not pipeline.finished:
            self._submit(pipeline.refill(), call)
            call.enough = call.open // 2
            await self._wait(call, pipeline.open_requests())
        results = pipeline.results()
        return results if return_exceptions else operations.all_succeeded(results)

    async def _run_update(self, update: operations.Update) -> Stored:
        session = self._entered()
        try:
            while True:
                call = _Call()
                self._submit([update.request], call, update.again)
                await self._wait(call, [update.request])
                if not update.advance():
                    return update.outcome()
        finally:
            for put in update.puts:
                session.release(put)

    def _submit(self, made: list[Any], call: _Call, again: bool = False) -> None:
        session = self._entered()
        assert self._streams is not None
        self._streams.begin()
        for request in made:
            request.waiter = call
            call.open += 1
            if again:
                session.resubmit(request)
            else:
                session.submit(request)
        self._streams.arm()

    async def _wait(self, call: _Call, made: list[Any]) -> None:
        if call.open <= call.enough:
            return
        assert self._streams is not None
        call.future = self._streams.loop.create_future()
        try:
            await call.future
        except BaseException:
            for request in made:
                self._entered().abandon(request)
            raise


class AsyncTable(Table):
    """One table of an asyncio client."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name

    async def get(
        self, key: Key, *, sort_key: Key = b"", r: int | None = None, sloppy: bool | None = None
    ) -> Found:
        return await self._client._run(requests.make_get(self.name, key, sort_key, r, sloppy))

    async def put(
        self, key: Key, value: bytes, *, context: bytes | None = None, sort_key: Key = b"",
        ttl_seconds: float | None = None, w: int | None = None,
        durability: DurabilityName | None = None, sloppy: bool | None = None,
        content_type: str = "", retry: bool = False,
    ) -> Stored:  # fmt: skip
        return await self._client._run(requests.make_put(
            self.name, key, value, context, sort_key, ttl_seconds, w, durability, sloppy,
            content_type, retry,
        ))  # fmt: skip

    async def delete(
        self, key: Key, context: bytes | None = None, *, sort_key: Key = b"",
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, retry: bool = False,
    ) -> Stored:  # fmt: skip
        return await self._client._run(requests.make_delete(
            self.name, key, context, sort_key, w, durability, sloppy, retry
        ))  # fmt: skip

    async def update(
        self, key: Key, merge: Merge, *, sort_key: Key = b"", ttl_seconds: float | None = None,
        r: int | None = None, w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", attempts: int = 5,
    ) -> Stored:  # fmt: skip
        return await self._client._run_update(operations.Update(
            self.name, key, merge, sort_key, ttl_seconds, r, w, durability, sloppy,
            content_type, attempts,
        ))  # fmt: skip

    # The base class has one signature for both clients, with a plain flag; overloads say which list
    # comes for which flag, and mypy takes no overload for an override of that.
    @overload  # type: ignore[override]
    async def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[Found]: ...  # fmt: skip
    @overload
    async def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: bool,
    ) -> list[Found | KvorumError]: ...  # fmt: skip
    async def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Found] | list[Found | KvorumError]:  # fmt: skip
        made = operations.gets_of(self.name, keys, r, sloppy)
        return await self._client._run_many(made, return_exceptions)

    # As above.
    @overload  # type: ignore[override]
    async def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> list[Stored]: ...  # fmt: skip
    @overload
    async def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: bool,
    ) -> list[Stored | KvorumError]: ...  # fmt: skip
    async def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: bool = False,
    ) -> list[Stored] | list[Stored | KvorumError]:  # fmt: skip
        made = operations.puts_of(
            self.name, items, ttl_seconds, w, durability, sloppy, content_type, retry
        )
        return await self._client._run_many(made, return_exceptions)
