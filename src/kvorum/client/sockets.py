"""The sockets under the blocking client: opened, written to and read without ever blocking.

``watch`` waits for them; all else is called with the client's lock held. What was queued for a
connection leaves in one write at the end of a turn; what the kernel does not take at once
waits until it does.
"""

import contextlib
import errno
import os
import selectors
import socket
import threading
from collections import deque
from time import monotonic_ns

from kvorum.client.addresses import Address
from kvorum.client.connections import Shell
from kvorum.client.session import Session

RECEIVE_BYTES = 1 << 18
Endpoint = tuple[int, tuple[object, ...]]  # address family, and what connect() takes
Event = tuple[selectors.SelectorKey, int]


class Connection:
    """One socket and what is queued for it. It tries the addresses of a name in turn."""

    __slots__ = ("address", "channel", "endpoints", "mask", "opened", "queue", "socket")

    def __init__(self, channel: int, address: Address) -> None:
        self.channel = channel
        self.address = address
        self.endpoints: list[Endpoint] = []  # still to be tried
        self.socket: socket.socket | None = None
        self.opened = False
        self.queue: list[bytes] = []
        self.mask = 0  # what the selector watches for


class Sockets(Shell):
    """All connections of one blocking client, and the selector that watches them."""

    def __init__(self) -> None:
        self.now = monotonic_ns() // 1000
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._dirty: dict[int, Connection] = {}
        self._failed: deque[tuple[int, str, bool]] = deque()  # to be told in the next turn
        self._resolved: deque[tuple[int, list[Endpoint], str]] = deque()  # from other threads
        self._waker_in, self._waker_out = socket.socketpair()
        self._waker_in.setblocking(False)
        self._waker_out.setblocking(False)
        self._selector.register(self._waker_in, selectors.EVENT_READ, None)

    # What the session asks for.

    def open(self, channel: int, address: Address) -> None:
        connection = Connection(channel, address)
        self._connections[channel] = connection
        try:
            connection.endpoints = _resolve(address, socket.AI_NUMERICHOST)
        except OSError:
            # A name: asking for its addresses may take seconds, and nobody shall wait for that.
            threading.Thread(
                target=self._resolve_name, args=(channel, address), name="kvorum-resolve",
                daemon=True,
            ).start()  # fmt: skip
            return
        self._connect(connection, "")

    def send(self, channel: int, frame: bytes) -> None:
        connection = self._connections.get(channel)
        if connection is not None:  # Else it broke just now, and the session hears of it next.
            connection.queue.append(frame)
            self._dirty[channel] = connection

    def close(self, channel: int) -> None:
        connection = self._connections.pop(channel, None)
        if connection is not None:
            self._dirty.pop(channel, None)
            self._close_socket(connection)

    # What the client calls.

    def watch(self, timeout_seconds: float | None) -> list[Event]:
        """Wait until something has arrived or can be sent; without the lock."""
        return self._selector.select(timeout_seconds)

    def wake(self) -> None:
        """Make ``watch`` return, from whatever thread."""
        with contextlib.suppress(BlockingIOError):
            self._waker_out.send(b"\0")

    def take(self, events: list[Event], session: Session) -> None:
        """Bring to the session what ``watch`` has found."""
        for key, mask in events:
            connection: Connection | None = key.data
            if connection is None:
                with contextlib.suppress(BlockingIOError):
                    self._waker_in.recv(4096)
            elif self._connections.get(connection.channel) is not connection:
                continue  # Closed while this event was under way.
            elif not connection.opened:
                self._finish_connect(connection, session)
            else:
                if mask & selectors.EVENT_WRITE:
                    self._dirty[connection.channel] = connection
                if mask & selectors.EVENT_READ:
                    self._receive(connection, session)
        while self._resolved:
            channel, endpoints, cause = self._resolved.popleft()
            named = self._connections.get(channel)
            if named is not None:
                named.endpoints = endpoints
                self._connect(named, cause)
        self._tell_failures(session)

    def _tell_failures(self, session: Session) -> None:
        while self._failed:
            channel, cause, refused = self._failed.popleft()
            session.on_closed(channel, cause, refused)

    def flush(self) -> None:
        """Write everything queued, each connection once."""
        while self._dirty:
            _, connection = self._dirty.popitem()
            if connection.opened:
                self._write(connection)

    @property
    def has_news(self) -> bool:
        """Whether ``take`` has something to tell even without an event."""
        return bool(self._failed or self._resolved)

    def shut(self) -> None:
        """Close everything for good."""
        for channel in list(self._connections):
            self.close(channel)
        self._selector.close()
        self._waker_in.close()
        self._waker_out.close()

    # Connecting.

    def _resolve_name(self, channel: int, address: Address) -> None:
        endpoints: list[Endpoint] = []
        cause = ""
        try:
            endpoints = _resolve(address, 0)
        except OSError as error:
            cause = f"its name cannot be resolved: {error.strerror or error}"
        self._resolved.append((channel, endpoints, cause))
        with contextlib.suppress(OSError):  # The client may be closed by now.
            self.wake()

    def _connect(self, connection: Connection, cause: str) -> None:
        """Try the next endpoint; ``cause`` says why the last one failed."""
        refused = False
        while connection.endpoints:
            family, endpoint = connection.endpoints.pop(0)
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                cause = _text_of(error)
                continue
            made.setblocking(False)
            code = made.connect_ex(endpoint)
            if code in (0, errno.EINPROGRESS):
                connection.socket = made
                connection.mask = selectors.EVENT_WRITE
                self._selector.register(made, connection.mask, connection)
                return
            made.close()
            refused = code == errno.ECONNREFUSED
            cause = os.strerror(code)
        self._connections.pop(connection.channel, None)
        self._failed.append((connection.channel, cause or "its name has no address", refused))
        self.wake()

    def _finish_connect(self, connection: Connection, session: Session) -> None:
        made = connection.socket
        assert made is not None
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._close_socket(connection)
            if connection.endpoints:
                self._connect(connection, os.strerror(code))
                return
            del self._connections[connection.channel]
            session.on_closed(connection.channel, os.strerror(code), code == errno.ECONNREFUSED)
            return
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.opened = True
        self._watch_for(connection, selectors.EVENT_READ)
        session.on_opened(connection.channel)

    # Reading and writing.

    def _receive(self, connection: Connection, session: Session) -> None:
        assert connection.socket is not None
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(connection, session, _text_of(error))
            return
        if data:
            session.on_received(connection.channel, data)
        else:
            self._end(connection, session, "it closed the connection")

    def _write(self, connection: Connection) -> None:
        assert connection.socket is not None
        queue = connection.queue
        if not queue:
            return
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        try:
            sent = connection.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.close(connection.channel)
            self._failed.append((connection.channel, _text_of(error), False))
            self.wake()
            return
        if sent == len(data):
            connection.queue = []
            self._watch_for(connection, selectors.EVENT_READ)
        else:
            connection.queue = [data[sent:]]
            self._watch_for(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _watch_for(self, connection: Connection, mask: int) -> None:
        if connection.mask != mask:
            assert connection.socket is not None
            connection.mask = mask
            self._selector.modify(connection.socket, mask, connection)

    def _end(self, connection: Connection, session: Session, cause: str) -> None:
        self.close(connection.channel)
        session.on_closed(connection.channel, cause)

    def _close_socket(self, connection: Connection) -> None:
        if connection.socket is not None:
            self._selector.unregister(connection.socket)
            connection.socket.close()
            connection.socket = None


def _resolve(address: Address, flags: int) -> list[Endpoint]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, endpoint) for family, _, _, _, endpoint in found]


def _text_of(error: OSError) -> str:
    return error.strerror or str(error)
