"""One HTTP connection: requests in their order, and their answers in the same.

Requests line up while a read is parsed (``http_reader.py``) and begin when it is their turn:
several are under way at a time only while all of them merely read (RFC 9112, section 9.3.2) and
their answers, judged by the last ones, are small, and only one while the peer does not read.
What waits is bounded by what one read brings, since no more is read meanwhile.

In each turn all connections parse, then all begin their requests, then all make answers of what
the node has said: each step for all of them in a row, since what the processor has just done it
does again at half the cost.

A request must arrive at some speed, an answer must be read, and an idle connection ends after a
while. An error whose request has not come to its end closes the connection, after the answer has
had time to be read.
"""

import traceback
from collections import deque
from typing import TYPE_CHECKING, Final

from kvorum.server.connection import LARGE_FRAME, Connection
from kvorum.server.http_exchange import Exchange
from kvorum.server.http_problems import HttpProblem
from kvorum.server.http_reader import RequestReader
from kvorum.wire.codec import decode_control
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.kinds import CONTROL
from kvorum.wire.requests import REQUEST_NUMBER_OFFSET, unpack_request_number

if TYPE_CHECKING:
    from kvorum.server.http import HttpDoor

PIPELINE_MAX: Final = 64  # reads of one connection under way at a time
PIPELINE_BYTES: Final = 4 << 20  # that their answers may have together, as far as can be foreseen
ANSWER_BYTES: Final = 1 << 20  # what is expected of the first ones
LINGER_MICROSECONDS: Final = 2_000_000
LINGER_BYTES: Final = 1 << 20
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NUMBERS: Final = 0xFFFFFFFF
_FRAME_NUMBER_OFFSET: Final = LENGTH_BYTES + REQUEST_NUMBER_OFFSET


class HttpConnection(Connection):
    """From the first byte to the end. It is the ``ClientPort`` of all that is asked on it."""

    __slots__ = (
        "_all_safe", "_answer_bytes", "_discarded", "_frames", "_frames_bytes", "_is_put_off",
        "_lingering_since", "_number", "_reading", "_requests", "_started", "_unread",
        "_unread_since", "active_at", "advancing", "calls", "door", "queue",
    )  # fmt: skip

    def __init__(self, door: "HttpDoor") -> None:
        super().__init__(door.turns, door.config.client_output_bytes_max)
        self.door = door
        self.queue: deque[Exchange] = deque()  # in order of their answers
        self.calls: dict[int, Exchange] = {}  # number of a native request -> who asked
        self.active_at = 0  # when something last came or went
        self.advancing = False
        self._is_put_off = False
        self._frames: list[bytes] = []  # answers of the node, to be looked at
        self._frames_bytes = 0  # of the large ones
        self._requests = RequestReader(self)
        self._number = 0
        self._started = 0  # so many of the queue are under way, or answered
        self._all_safe = True  # they only read
        self._answer_bytes = ANSWER_BYTES  # of an answer: the largest of the last few
        self._discarded = 0  # bytes behind the last request
        self._lingering_since = -1  # our side has ended; -1: not yet
        self._reading = True
        self._unread = 0  # of our answers, when they were last looked at
        self._unread_since = -1

    # What arrives.

    def on_open(self) -> None:
        self.active_at = self.opened_at
        self.door.on_open(self)

    def step(self, data: bytes) -> None:
        self.active_at = self.turns.env.now
        try:
            if self._requests.ended or not data:
                self._discard(data)
            else:
                self._requests.feed(data)
        except AssertionError:
            raise  # A broken invariant is the whole node's affair.
        except Exception as error:
            self._on_fault(error)
        else:
            self._put_off()

    def _put_off(self) -> None:
        if not self._is_put_off:
            self._is_put_off = True
            self.turns.put_off.append(self)

    def go_on(self) -> None:
        self._is_put_off = False
        if self.closed:
            return
        try:
            if self._frames:
                self._take_answers()
            self.advance()
        except AssertionError:
            raise
        except Exception as error:
            self._on_fault(error)

    def _on_fault(self, error: Exception) -> None:
        """Whatever this connection's input has hit, the others must not suffer for it."""
        self.turns.env.report("unexpected_input", peer=self.peer_name(), error=repr(error))
        traceback.print_exception(error)
        self.abort()

    def eof_received(self) -> bool:
        """The peer will send no more, but may well wait for answers; its end is a step too."""
        self.data_received(b"")
        return True

    def _discard(self, data: bytes) -> None:
        """What follows the last request is nobody's; at its end the connection ends."""
        self._discarded += len(data)
        if data and self._discarded <= LINGER_BYTES:
            return
        if data or self._lingering_since >= 0:
            self.abort()
        elif self.queue:
            self._requests.close()
            self.queue[-1].close = True
        else:
            self.end()

    # Requests and answers in their order.

    def ask(self, exchange: Exchange) -> int:
        """A number under which the node will answer ``exchange``."""
        self._number = number = (self._number + 1) & _NUMBERS or 1
        self.calls[number] = exchange
        return number

    def send(self, frame: bytes) -> None:
        """An answer of the node; it is looked at when the node is through."""
        if self.closed:
            return
        self._frames.append(frame)
        if len(frame) > LARGE_FRAME:
            self._frames_bytes += len(frame)
            if self._frames_bytes > self.output_bytes_max:
                self.cut_off("it asks for more than it can be sent at once")
                return
        if not self._is_put_off:
            self._is_put_off = True
            self.turns.put_off.append(self)

    def _take_answers(self) -> None:
        frames = self._frames
        self._frames = []
        self._frames_bytes = 0
        self.advancing = True  # ``advance`` follows, once for all of them.
        calls = self.calls
        for frame in frames:
            if frame[LENGTH_BYTES] == CONTROL:
                message = decode_control(frame[LENGTH_BYTES:])
                exchange = calls.pop(getattr(message, "request", 0), None)
                if exchange is not None:
                    exchange.on_message(message)
                continue
            number = int(unpack_request_number(frame, _FRAME_NUMBER_OFFSET)[0])
            exchange = calls.pop(number, None)
            if exchange is not None:  # Else nobody waits for it any more.
                exchange.on_answer(number, frame)

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave at the end of the turn."""
        Connection.send(self, data)

    def advance(self) -> None:
        """Write the answers that are due, begin the requests that may begin."""
        if self.closed:
            return
        queue = self.queue
        if not self._started and len(queue) == 1:
            # As nearly always: one request, and nothing before it.
            self._started = 1
            first = queue[0]
            self._all_safe = first.safe
            self.advancing = True
            first.begin()
            if not first.done:
                self.advancing = False
                return
        self.advancing = True  # What is answered at once meanwhile is seen in this round.
        while queue and not self.closed:
            first = queue[0]
            if first.done:
                queue.popleft()
                self._started -= 1
                if first.body_bytes:
                    self.door.forget_body(first.body_bytes)
                if first.output:
                    self._answer_bytes -= self._answer_bytes >> 2
                    if len(first.output) > self._answer_bytes:
                        self._answer_bytes = len(first.output)
                    Connection.send(self, first.output)
                if first.close or self.door.closing:
                    self._say_goodbye()
                    break
                continue
            started = self._started
            if started == len(queue):
                break
            following = queue[started]
            if started and not (
                following.safe
                and self._all_safe
                and started < PIPELINE_MAX
                and (started + 1) * self._answer_bytes <= PIPELINE_BYTES
            ):
                break
            if started and self.paused:
                break  # Until it reads what it has asked for already.
            self._all_safe = following.safe
            self._started = started + 1
            following.begin()
        self.advancing = False
        self.active_at = self.turns.env.now
        if self._requests.continue_wanted and not queue and not self.closed:
            self._requests.continue_wanted = False
            if not self._requests.body_bytes:
                self.write(CONTINUE)
        if self._reading == (len(queue) - self._started >= PIPELINE_MAX):
            self._update_reading()

    def _update_reading(self) -> None:
        """Read on unless requests wait here, or answers there."""
        transport = self.transport
        self._reading = wanted = len(self.queue) - self._started < PIPELINE_MAX
        if transport is None or transport.is_closing() or self.paused:
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def pause_writing(self) -> None:
        transport = self.transport
        if self._reading:
            super().pause_writing()
        self.paused = True
        if transport is not None:
            self._unread = transport.get_write_buffer_size()
            self._unread_since = self.turns.env.now

    def resume_writing(self) -> None:
        self.paused = False
        if self._reading:
            super().resume_writing()
        if self.queue and not self.closed:
            self.turns.begin()
            self.queue[0].on_writable()
            self._put_off()

    # Its end.

    def _say_goodbye(self) -> None:
        """The last answer is written: end our side, and leave the peer time to read it.

        Closed at once, with bytes of the peer unread, the kernel would reset the connection, and
        the peer might never see the answer.
        """
        self._requests.close()
        self._drop_queue()
        self._lingering_since = self.turns.env.now
        if not self.dirty:
            self._write_eof()

    def flush(self) -> None:
        super().flush()
        if self._lingering_since >= 0:
            self._write_eof()

    def _write_eof(self) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write_eof()

    def _drop_queue(self) -> None:
        for exchange in self.queue:
            exchange.cancel()
            self.door.forget_body(exchange.body_bytes)
        self.queue.clear()
        self._started = 0
        self.calls.clear()
        self._frames.clear()

    def on_closed(self) -> None:
        self._drop_queue()
        self._requests.close()
        self.door.on_closed(self)

    def look(self, now: int) -> None:
        """Once a second or so: end what takes too long."""
        config = self.door.config
        if self._lingering_since >= 0:
            if now - self._lingering_since > LINGER_MICROSECONDS:
                self.abort()
        elif self.paused and self._unread_since >= 0:
            self._look_at_unread(now, config.unread_timeout_ms * 1000)
        elif self._requests.in_message:
            if self._requests.is_late(now):
                text = f"not here after {(now - self._requests.began) // 1000} ms"
                self._requests.fail(HttpProblem("request_timeout", text))
                self.advance()
        elif self.idle and now - self.active_at > config.http_idle_timeout_ms * 1000:
            self.end()

    def _look_at_unread(self, now: int, patience: int) -> None:
        assert self.transport is not None
        unread = self.transport.get_write_buffer_size()
        if unread < self._unread:
            self._unread = unread
            self._unread_since = now
        elif now - self._unread_since > patience:
            self.cut_off("it does not read its answers")

    @property
    def idle(self) -> bool:
        return not self.queue and not self._requests.in_message and self._lingering_since < 0
