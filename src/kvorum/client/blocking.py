"""The blocking client: no event loop, no thread of its own, shareable between threads.

Whoever waits does the work. The first thread that waits for an answer becomes the leader: it
watches the sockets and brings what arrives to the session, for everyone; when its own answers
are there, it hands over to another one that still waits. A single thread therefore talks to
its sockets directly, and many threads share connections and batches.

Everything that touches the session holds ``_mutex``; only the leader watches the sockets, and
does so without it.
"""

import os
import threading
from collections.abc import Iterable
from time import monotonic_ns
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

from kvorum.client import operations, requests
from kvorum.client.addresses import parse_addresses
from kvorum.client.answers import decode_aside, decode_copies, describe_tables
from kvorum.client.requests import Request, Waiter
from kvorum.client.session import Session
from kvorum.client.sockets import Sockets
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
from kvorum.errors import KvorumError
from kvorum.model.topology import Topology
from kvorum.wire.messages import ExplainAnswer, StatusAnswer
from kvorum.wire.trace_messages import TraceAnswer

T = TypeVar("T")
# After so long without anybody watching, a connection may have died unnoticed.
STALE_AFTER: Final = 10_000


class _Call(Waiter):
    """A thread that waits for some requests, until at most ``enough`` of them are open."""

    __slots__ = ("enough", "open", "signal")

    def __init__(self) -> None:
        self.open = 0
        self.enough = 0
        self.signal: threading.Lock | None = None  # held while the thread sleeps

    def settled(self) -> None:
        self.open -= 1
        if self.open <= self.enough:
            self.wake()

    def wake(self) -> None:
        if self.signal is not None:
            self.signal.release()
            self.signal = None


class Client(Store):
    """A blocking client of a cluster; made by ``kvorum.connect``, closed by ``close``."""

    def __init__(
        self, addresses: str | list[str], *, timeout_seconds: float = 10.0,
        only_given: bool = False, software: str = "",
    ) -> None:  # fmt: skip
        self._mutex = threading.Lock()
        self._leader: _Call | None = None
        self._followers: dict[_Call, None] = {}
        self._watch_until = -1  # when the leader looks up by itself; -1: never
        self._watched_at = 0
        self._sockets = Sockets()
        self._closed = False
        self._session = Session(
            self._sockets, parse_addresses(addresses), os.urandom(8), software,
            requests.timeout_microseconds(timeout_seconds),
        )  # fmt: skip
        self._session.routes.only_given = only_given
        try:
            with self._mutex:
                self._session.start()
            self._run(requests.ask_topology())
        except BaseException:
            self.close()
            raise

    # The store.

    @property
    def topology(self) -> Topology:
        topology = self._session.topology
        assert topology is not None
        return topology

    def table(self, name: str) -> "BlockingTable":
        return BlockingTable(self, requests.table_name(name))

    def create_table(
        self, name: str, *, r: int | None = None, w: int | None = None,
        resolution: ResolutionName | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, ttl_seconds: int | None = None,
        max_siblings: int | None = None, max_record_bytes: int | None = None,
    ) -> TableDescription:  # fmt: skip
        return describe_tables(self._run(requests.ask_create(
            name, r, w, resolution, durability, sloppy, ttl_seconds, max_siblings,
            max_record_bytes,
        )))[0]  # fmt: skip

    def set_table(
        self, name: str, *, r: int | None = None, w: int | None = None,
        durability: DurabilityName | None = None, sloppy: bool | None = None,
        ttl_seconds: int | None = None, max_siblings: int | None = None,
        max_record_bytes: int | None = None,
    ) -> TableDescription:  # fmt: skip
        return describe_tables(self._run(requests.ask_set(
            name, r, w, durability, sloppy, ttl_seconds, max_siblings, max_record_bytes
        )))[0]  # fmt: skip

    def drop_table(self, name: str, *, table_id: bytes | None = None) -> None:
        self._run(requests.ask_drop(name, table_id))

    def tables(self) -> list[TableDescription]:
        return describe_tables(self._run(requests.ask_tables()))

    def status(self, node: str | int) -> StatusAnswer:
        return self._run(requests.ask_status(self._session.member_named(node)))

    def statuses(self) -> dict[str, StatusAnswer | KvorumError]:
        members = self.topology.members
        asks = [requests.ask_status(member.id) for member in members]
        answers = self._run_many(asks, True)
        return {member.name: answer for member, answer in zip(members, answers, strict=True)}

    def trace(
        self, table: str, key: Key, value: bytes | None = None, *, context: bytes | None = None,
        sort_key: Key = b"", needed: int | None = None,
    ) -> TraceAnswer:  # fmt: skip
        return self._run(requests.ask_trace(
            table, key, sort_key, value, context, needed, os.urandom(8)
        ))  # fmt: skip

    def local_get_many(
        self, table: str, keys: Iterable[Key], *, node: str | int, sort_key: Key = b""
    ) -> list[LocalCopy]:
        member = self._session.member_named(node)
        return decode_copies(self._run(requests.ask_local(table, keys, sort_key, member)))

    def list_aside(
        self, node: str | int, *, start: bytes = b"", limit: int = 256
    ) -> list[AsideCopy]:
        member = self._session.member_named(node)
        return decode_aside(self._run(requests.ask_aside(member, start, limit)))

    def discard_aside(self, node: str | int, copies: Iterable[AsideCopy]) -> int:
        member = self._session.member_named(node)
        return (self._run(requests.ask_discard(member, copies))).count

    def explain(self, table: str, key: Key, *, sort_key: Key = b"") -> ExplainAnswer:
        return self._run(requests.ask_explain(table, key, sort_key))

    def close(self) -> None:
        """End all connections. Requests of other threads end with an error."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._session.close()
            leader = self._leader
            if leader is not None:
                self._sockets.wake()  # It shuts the sockets when it sees that all is over.
            else:
                self._sockets.shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # Running requests.

    def _run(self, request: Request[T]) -> T:
        call = _Call()
        self._submit([request], call)
        self._wait(call, [request])
        return request.outcome()

    @overload
    def _run_many(
        self, made: Iterable[Request[T] | KvorumError], return_exceptions: Literal[False]
    ) -> list[T]: ...
    @overload
    def _run_many(
        self, made: Iterable[Request[T] | KvorumError], return_exceptions: bool
    ) -> list[T | KvorumError]: ...
    def _run_many(
        self, made: Iterable[Request[T] | KvorumError], return_exceptions: bool
    ) -> list[T] | list[T | KvorumError]:
        pipeline = operations.Pipeline(made)
        call = _Call()
        while not pipeline.finished:
            self._submit(pipeline.refill(), call)
            call.enough = call.open // 2
            self._wait(call, pipeline.open_requests())
        results = pipeline.results()
        return results if return_exceptions else operations.all_succeeded(results)

    def _run_update(self, update: operations.Update) -> Stored:
        try:
            while True:
                call = _Call()
                self._submit([update.request], call, update.again)
                self._wait(call, [update.request])
                if not update.advance():
                    return update.outcome()
        finally:
            with self._mutex:
                for put in update.puts:
                    self._session.release(put)

    def _submit(self, made: list[Any], call: _Call, again: bool = False) -> None:
        with self._mutex:
            self._begin_turn()
            for request in made:
                request.waiter = call
                call.open += 1
                if again:
                    self._session.resubmit(request)
                else:
                    self._session.submit(request)
            self._end_turn()

    def _begin_turn(self) -> None:
        now = monotonic_ns() // 1000
        self._sockets.now = now
        if self._leader is None and not self._closed and now - self._watched_at > STALE_AFTER:
            self._sockets.take(self._sockets.watch(0), self._session)
            self._session.advance()
            self._watched_at = now

    def _end_turn(self) -> None:
        if self._closed:
            return
        self._sockets.flush()
        if self._leader is not None:
            deadline = self._session.next_deadline()
            if deadline >= 0 and (self._watch_until < 0 or deadline < self._watch_until):
                self._sockets.wake()

    def _wait(self, call: _Call, made: list[Any]) -> None:
        """Lead or follow until the call has what it waits for."""
        try:
            while call.open > call.enough:
                signal = self._join(call)
                if signal is not None:
                    signal.acquire()
                elif call.open > call.enough:
                    self._lead(call)
        except BaseException:
            with self._mutex:
                for request in made:
                    self._session.abandon(request)
                if self._leader is call:
                    self._step_down()
            raise
        finally:
            if call in self._followers:
                with self._mutex:
                    del self._followers[call]
                    # It may have been woken to lead, and found its answers there instead.
                    self._wake_follower()

    def _join(self, call: _Call) -> "threading.Lock | None":
        """Become the leader, or return the lock to sleep on."""
        with self._mutex:
            if call.open <= call.enough:
                return None
            if self._leader is None:
                self._followers.pop(call, None)
                self._leader = call
                return None
            signal = threading.Lock()
            signal.acquire()
            call.signal = signal
            self._followers[call] = None
            return signal

    def _lead(self, call: _Call) -> None:
        sockets = self._sockets
        session = self._session
        try:
            while True:
                with self._mutex:
                    if call.open <= call.enough:
                        return
                    self._watch_until = session.next_deadline()
                    until = self._watch_until
                timeout = None if until < 0 else max(0, until - sockets.now) / 1_000_000
                events = sockets.watch(timeout)
                with self._mutex:
                    sockets.now = monotonic_ns() // 1000
                    self._watched_at = sockets.now
                    if not self._closed:
                        sockets.take(events, session)
                        session.advance()
                        sockets.flush()
        finally:
            with self._mutex:
                self._step_down()

    def _step_down(self) -> None:
        self._leader = None
        if self._closed:
            self._sockets.shut()
        self._wake_follower()

    def _wake_follower(self) -> None:
        """Let somebody who sleeps lead, if nobody does."""
        if self._leader is None:
            for follower in self._followers:
                if follower.signal is not None:
                    follower.wake()
                    break


class BlockingTable(Table):
    """One table of a blocking client."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def get(
        self, key: Key, *, sort_key: Key = b"", r: int | None = None, sloppy: bool | None = None
    ) -> Found:
        return self._client._run(requests.make_get(self.name, key, sort_key, r, sloppy))

    def put(
        self, key: Key, value: bytes, *, context: bytes | None = None, sort_key: Key = b"",
        ttl_seconds: float | None = None, w: int | None = None,
        durability: DurabilityName | None = None, sloppy: bool | None = None,
        content_type: str = "", retry: bool = False,
    ) -> Stored:  # fmt: skip
        return self._client._run(requests.make_put(
            self.name, key, value, context, sort_key, ttl_seconds, w, durability, sloppy,
            content_type, retry,
        ))  # fmt: skip

    def delete(
        self, key: Key, context: bytes | None = None, *, sort_key: Key = b"",
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, retry: bool = False,
    ) -> Stored:  # fmt: skip
        return self._client._run(requests.make_delete(
            self.name, key, context, sort_key, w, durability, sloppy, retry
        ))  # fmt: skip

    def update(
        self, key: Key, merge: Merge, *, sort_key: Key = b"", ttl_seconds: float | None = None,
        r: int | None = None, w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", attempts: int = 5,
    ) -> Stored:  # fmt: skip
        return self._client._run_update(operations.Update(
            self.name, key, merge, sort_key, ttl_seconds, r, w, durability, sloppy,
            content_type, attempts,
        ))  # fmt: skip

    # The base class has one signature for both clients, with a plain flag; overloads say which list
    # comes for which flag, and mypy takes no overload for an override of that.
    @overload  # type: ignore[override]
    def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[Found]: ...  # fmt: skip
    @overload
    def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: bool,
    ) -> list[Found | KvorumError]: ...  # fmt: skip
    def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Found] | list[Found | KvorumError]:  # fmt: skip
        made = operations.gets_of(self.name, keys, r, sloppy)
        return self._client._run_many(made, return_exceptions)

    # As above.
    @overload  # type: ignore[override]
    def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> list[Stored]: ...  # fmt: skip
    @overload
    def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: bool,
    ) -> list[Stored | KvorumError]: ...  # fmt: skip
    def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: bool = False,
    ) -> list[Stored] | list[Stored | KvorumError]:  # fmt: skip
        made = operations.puts_of(
            self.name, items, ttl_seconds, w, durability, sloppy, content_type, retry
        )
        return self._client._run_many(made, return_exceptions)
