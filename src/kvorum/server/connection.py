"""One TCP connection, whoever opened it: frames in, frames out once a turn.

Nothing is written when it is sent: frames gather, and the turn's end writes each connection
once (one system call instead of one per frame is worth more than anything else on this path).
What the other side does not read is bounded: past the bound the connection is cut off.

Not a subclass of ``asyncio.Protocol``: the loop asks for the methods, not the type.
"""

import traceback
from asyncio import Transport
from typing import TYPE_CHECKING, Final

from kvorum.protocol.environment import ClientPort
from kvorum.wire.codec import MessageInvalid
from kvorum.wire.framing import FrameInvalid, FrameReader

if TYPE_CHECKING:
    from kvorum.server.loop import Turns

LARGE_FRAME: Final = 4096
CLOSE_SECONDS: Final = 5.0  # for what was written last to be read


class Connection(ClientPort):
    """The part that accepted and outgoing connections share."""

    __slots__ = (
        "dirty", "large_output", "opened_at", "output", "output_bytes_max", "paused", "reader",
        "transport", "turns",
    )  # fmt: skip

    def __init__(self, turns: "Turns", output_bytes_max: int) -> None:
        super().__init__()
        self.turns = turns
        self.transport: Transport | None = None
        self.reader = FrameReader()
        self.output: list[bytes] = []
        self.large_output = 0  # bytes of the large frames in it
        self.output_bytes_max = output_bytes_max
        self.dirty = False
        self.paused = False  # the other side does not read as fast as we write
        self.opened_at = 0

    # What the event loop calls.

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.turns.begin()
        self.opened_at = self.turns.env.now
        self.on_open()

    def data_received(self, data: bytes) -> None:
        """Only put it down: the turn steps through all that has arrived once all is read."""
        turns = self.turns
        if not turns.under_way:
            turns.begin()
        turns.arrived.append((self, data))

    def step(self, data: bytes) -> None:
        """Take in what has arrived, in the middle of the turn."""
        turns = self.turns
        try:
            self.take(self.reader.feed(data))
        except (FrameInvalid, MessageInvalid) as error:
            turns.env.counters.bad_frames += 1
            turns.env.report("bad_frames", peer=self.peer_name(), reason=str(error))
            self.on_invalid(str(error), data)
            self.end()
        except AssertionError:
            raise  # A broken invariant is the whole node's affair.
        except Exception as error:
            # Whatever this input has hit, the others' must not suffer for it.
            turns.env.report("unexpected_input", peer=self.peer_name(), error=repr(error))
            traceback.print_exception(error)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed:
            self.turns.begin()
            self.closed = True
            self.on_closed()
        self.transport = None

    def eof_received(self) -> bool:
        """The loop closes the connection, as it should."""
        return False

    def pause_writing(self) -> None:
        """The other side does not keep up: stop taking more from it."""
        self.paused = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    # What a kind of connection brings.

    def on_open(self) -> None:
        raise NotImplementedError

    def take(self, payloads: list[bytes]) -> None:
        raise NotImplementedError

    def go_on(self) -> None:
        """Do what was put off, in ``turns.put_off``, until all that arrived was taken in."""
        raise NotImplementedError

    def on_invalid(self, text: str, data: bytes) -> None:
        """Malformed bytes came, the last of them ``data``; the connection ends after this."""

    def on_closed(self) -> None:
        raise NotImplementedError

    @property
    def speaks_for_the_log(self) -> bool:
        """Whether what is sent here says that it is in the log."""
        return False

    # What the node and the turn call.

    def send(self, frame: bytes) -> None:
        if not self.dirty:
            self.dirty = True
            self.turns.dirty.append(self)
        self.output.append(frame)
        if len(frame) > LARGE_FRAME:
            self._count_large(len(frame))

    def _count_large(self, size: int) -> None:
        """Bound what one turn gathers: a few hundred bytes of gets can ask for gigabytes."""
        self.large_output += size
        if self.large_output > self.output_bytes_max:
            self.cut_off("it asks for more than it can be sent at once")

    def flush(self) -> None:
        """Write what has gathered. At the end of the turn, after its write to the log."""
        self.dirty = False
        output = self.output
        self.output = []
        self.large_output = 0
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(output[0] if len(output) == 1 else b"".join(output))
        if self.paused and transport.get_write_buffer_size() > self.output_bytes_max:
            self.cut_off("it does not read its answers")

    def cut_off(self, reason: str) -> None:
        """End a connection whose other side takes more memory than it may."""
        if not self.closed:
            self.turns.env.report("client_cut_off", peer=self.peer_name(), reason=reason)
            self.abort()

    def end(self) -> None:
        """Close, after what was written so far has gone out."""
        if self.closed:
            return
        self.closed = True
        self.on_closed()
        if self.dirty:
            self.flush()
        if self.transport is not None:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                # Whoever does not read must not keep it for ever.
                self.turns.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def abort(self) -> None:
        """Close at once; nothing of this turn leaves."""
        self.output = []
        if not self.closed:
            self.closed = True
            self.on_closed()
        if self.transport is not None:
            self.transport.abort()

    def peer_name(self) -> str:
        if self.transport is None:
            return ""
        address = self.transport.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if address else ""
