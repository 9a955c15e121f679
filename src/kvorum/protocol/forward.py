"""Requests for keys that this node does not own: relay them to an owner.

The very frame of the client goes to the owner believed fastest, under a number of ours and with
``FORWARDED`` set, over a connection that speaks the clients' protocol; the answer comes back the
same way. A forwarded request is never forwarded again: a node that does not own the key either
refuses it with ``NOT_OWNER``.

A put is relayed to one owner only. If the connection ends after it has been sent, what became
of it is unknown: sent to another owner it would get a second dot. A get may be asked again
elsewhere. (What a request costs here does not depend on the members' number: a connection to an
owner is opened when the first request for it comes.)
"""

from collections import deque
from struct import Struct
from typing import Final

from kvorum.protocol.environment import ClientPort, Environment
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.kinds import GET_OK, PUT, PUT_OK, REFUSED, UNKNOWN
from kvorum.wire.requests import (
    FORWARDED,
    NOT_OWNER,
    QUORUM_NOT_MET,
    REQUEST_NUMBER_OFFSET,
    refused_frame,
    renumbered,
    unknown_frame,
    unpack_request_number,
)

FIRST_SENT_OFFSET: Final = 44  # in a put
ANSWERS: Final = (PUT_OK, GET_OK, REFUSED, UNKNOWN)
_time = Struct("<Q")
_NUMBERS: Final = 0xFFFFFFFF


class Forwarded:
    """One client's request on its way to an owner and back."""

    __slots__ = ("client", "number", "order", "payload", "request", "sent", "started_at", "target")

    def __init__(
        self, client: ClientPort, request: int, payload: bytes, order: list[int], started_at: int
    ) -> None:
        self.client = client
        self.request = request  # the client's number
        self.payload = payload
        self.order = order  # owners not yet tried, the best last
        self.started_at = started_at
        self.number = 0  # ours; 0: not sent yet
        self.target = 0
        self.sent = False

    @property
    def is_put(self) -> bool:
        return self.payload[0] == PUT


class Forwarder:
    """All requests that this node has relayed and that lack their answer."""

    __slots__ = ("_clock_offsets", "_env", "_last_number", "_open", "_pending", "_waiting")

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._last_number = 0
        self._pending: dict[int, Forwarded] = {}
        self._waiting: dict[int, list[Forwarded]] = {}  # target -> until its connection stands
        self._open: deque[Forwarded] = deque()  # in order of their start, for the deadline
        self._clock_offsets: dict[int, int] = {}  # target -> its steady clock less ours

    def forward(self, client: ClientPort, request: int, payload: bytes, order: list[int]) -> None:
        """Relay a request to the last of ``order``, the best, or whichever can be reached."""
        forwarded = Forwarded(client, request, payload, order, self._env.now)
        self._env.counters.forwarded += 1
        self._open.append(forwarded)
        self._try_next(forwarded)

    def _try_next(self, forwarded: Forwarded) -> None:
        if not forwarded.order:
            self._refuse(forwarded, "no owner of the key's partition answers this node")
            return
        target = forwarded.order.pop()
        forwarded.target = target
        port = self._env.forward(target)
        if port is None:
            self._waiting.setdefault(target, []).append(forwarded)
        else:
            self._send(forwarded, port)

    def _send(self, forwarded: Forwarded, port: ClientPort) -> None:
        self._last_number = number = (self._last_number + 1) & _NUMBERS or 1
        forwarded.number = number
        forwarded.sent = True
        self._pending[number] = forwarded
        payload = forwarded.payload
        offset = self._clock_offsets.get(forwarded.target, 0)
        if offset and forwarded.is_put:
            # A put's age is told on its coordinator's clock.
            first_sent = int(_time.unpack_from(payload, FIRST_SENT_OFFSET)[0]) + offset
            end = FIRST_SENT_OFFSET + 8
            payload = payload[:FIRST_SENT_OFFSET] + _time.pack(max(first_sent, 0)) + payload[end:]
        port.send(renumbered(payload, number, FORWARDED))

    def on_open(self, target: int, clock_offset: int) -> None:
        """The connection to ``target`` stands."""
        self._clock_offsets[target] = clock_offset
        for forwarded in self._waiting.pop(target, ()):
            port = self._env.forward(target)
            if port is None:
                self._waiting.setdefault(target, []).append(forwarded)
            else:
                self._send(forwarded, port)

    def on_closed(self, target: int) -> None:
        """The connection has ended, or could not be made."""
        for forwarded in self._waiting.pop(target, ()):
            self._try_next(forwarded)
        lost = [sent for sent in self._pending.values() if sent.target == target]
        for forwarded in lost:
            del self._pending[forwarded.number]
            if forwarded.is_put:
                self._unknown(forwarded, "the connection to the owner ended before its answer")
            else:
                self._try_next(forwarded)

    def on_answer(self, payload: bytes) -> bool:
        """Hand an owner's answer to the client; False if nobody waits for it."""
        if payload[0] not in ANSWERS:
            raise FrameInvalid(f"a forwarded request was answered by a frame of kind {payload[0]}")
        number = int(unpack_request_number(payload, REQUEST_NUMBER_OFFSET)[0])
        forwarded = self._pending.pop(number, None)
        if forwarded is None:
            return False
        if payload[0] == REFUSED and payload[1] == NOT_OWNER:
            forwarded.sent = False  # It has written nothing.
            self._try_next(forwarded)
            return True
        self._finish(forwarded, renumbered(payload, forwarded.request, 0))
        return True

    @property
    def busy(self) -> bool:
        return bool(self._open)

    def sweep(self, limit: int) -> None:
        """Give up on what was started before ``limit``."""
        opened = self._open
        while opened:
            forwarded = opened[0]
            done = forwarded.started_at < 0
            if not done:
                if forwarded.started_at > limit:
                    return
                self._drop(forwarded)
                if forwarded.is_put and forwarded.sent:
                    self._unknown(forwarded, "the owner did not answer in time")
                else:
                    self._refuse(forwarded, "no owner of the key's partition answered in time")
            opened.popleft()

    def _drop(self, forwarded: Forwarded) -> None:
        self._pending.pop(forwarded.number, None)
        waiting = self._waiting.get(forwarded.target)
        if waiting is not None and forwarded in waiting:
            waiting.remove(forwarded)

    def _refuse(self, forwarded: Forwarded, text: str) -> None:
        self._finish(forwarded, refused_frame(forwarded.request, QUORUM_NOT_MET, text))

    def _unknown(self, forwarded: Forwarded, text: str) -> None:
        self._env.counters.puts_unknown += 1
        self._finish(forwarded, unknown_frame(forwarded.request, text))

    def _finish(self, forwarded: Forwarded, frame: bytes) -> None:
        forwarded.started_at = -1  # done; the sweep passes over it
        forwarded.client.in_flight -= 1
        if not forwarded.client.closed:
            forwarded.client.send(frame)
