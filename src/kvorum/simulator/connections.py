"""A simulated node's connections: handshakes, frames in, frames out at the end of the turn.

The same contract as the server keeps. A node opens three connections to each other member, for
data, large values and control, and one for forwarded requests when it first needs it; it
answers on those that others open. What arrives is only noted, and taken in the node's next
turn; what is written leaves when that turn ends.
"""

from typing import TYPE_CHECKING, Final

from kvorum.protocol.environment import ClientPort
from kvorum.simulator.network import Attempt, End, Receiver
from kvorum.wire.codec import MessageInvalid, decode_control, decode_hello, decode_reply, encode
from kvorum.wire.framing import FrameInvalid, FrameReader
from kvorum.wire.kinds import ANSWERS, BATCH, MARK, PUT
from kvorum.wire.link import BatchServer, Link
from kvorum.wire.message import Message
from kvorum.wire.messages import (
    ROLE_CONTROL,
    ROLE_DATA,
    ROLE_FORWARD,
    ROLE_LARGE,
    Reject,
    StoreStart,
)
from kvorum.wire.requests import unpack_put

if TYPE_CHECKING:
    from kvorum.simulator.process import Process

HANDSHAKE_PATIENCE: Final = 1_500_000  # from dialling to the Welcome
COUNT: Final = slice(2, 4)  # of its entries, in the head of a batch or of answers


def messages_in(payload: bytes) -> int:
    """How many messages a frame holds: each request in a batch, and each answer, is one."""
    if payload[0] in (BATCH, ANSWERS):
        return int.from_bytes(payload[COUNT], "little")
    return 1


class Connection(Receiver):
    """What one process keeps for one connection, from its first byte to its end."""

    __slots__ = ("end", "ended", "output", "process", "reader")

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.end: End | None = None
        self.ended = False
        self.output: list[bytes] = []
        self.reader = FrameReader()

    @property
    def speaks_for_the_log(self) -> bool:
        """Whether what is sent here says that it is in the log."""
        return False

    # From the network, between turns.

    def on_connected(self, end: End) -> None:
        self.end = end
        self.process.arrived(self, self.begin, b"")

    def on_refused(self, cause: str) -> None:
        self.process.arrived(self, self.finish, b"")

    def on_data(self, data: bytes) -> None:
        self.process.arrived(self, self.take, data)

    def on_end(self, cause: str) -> None:
        self.process.arrived(self, self.finish, b"")

    # Within a turn.

    def begin(self, data: bytes) -> None:
        """The connection stands."""

    def take(self, data: bytes) -> None:
        try:
            for payload in self.reader.feed(data):
                self.process.messages += messages_in(payload)
                self.on_payload(payload)
                if self.ended:
                    return
        except (FrameInvalid, MessageInvalid) as error:
            self.process.complain(f"bad frame: {error}")
            self.drop()

    def on_payload(self, payload: bytes) -> None:
        raise NotImplementedError

    def write(self, frame: bytes) -> None:
        if not self.output:
            self.process.unsent.append(self)
        self.output.append(frame)

    def flush(self) -> None:
        """Hand what was written in this turn to the network."""
        output, self.output = self.output, []
        if self.end is not None and not self.ended:
            story = self.process.world.story
            if story is not None:
                for frame in output:
                    story.sent(self.end, frame)
            self.end.send(b"".join(output))

    def drop(self) -> None:
        """End the connection from here."""
        if not self.ended:
            end = self.end
            self.finish(b"")
            if end is not None:
                end.close()

    def finish(self, data: bytes) -> None:
        """The connection has ended, from whichever side."""
        self.ended = True
        self.output = []
        self.on_finished()

    def on_finished(self) -> None:
        raise NotImplementedError


class Outgoing(Connection):
    """A connection that this process opened, or is opening, to another member."""

    __slots__ = ("attempt", "ready", "target")

    role = ""

    def __init__(self, process: "Process", target: int) -> None:
        super().__init__(process)
        self.target = target
        self.ready = False
        machine = process.machine
        self.attempt: Attempt = machine.world.network.connect(machine.member, target, self)
        machine.world.schedule.after(HANDSHAKE_PATIENCE, self._lose_patience)

    def _lose_patience(self) -> None:
        if not self.ready and not self.ended:
            self.process.arrived(self, self._give_up, b"")

    def _give_up(self, data: bytes) -> None:
        if not self.ready:
            self.attempt.given_up = True
            self.drop()

    def begin(self, data: bytes) -> None:
        self.write(encode(self.process.node.peering.hello(self.target, self.role)))

    def on_payload(self, payload: bytes) -> None:
        if self.ready:
            self.on_frame(payload)
            return
        reply = decode_reply(payload)
        peering = self.process.node.peering
        if isinstance(reply, Reject):
            peering.on_reject(self.target, reply)
            self.drop()
            return
        problem = peering.on_welcome(self.target, reply)
        if problem:
            self.process.complain(f"a Welcome was refused: {problem}")
            self.drop()
            return
        self.reader.payload_bytes_max = self.process.config.frame_bytes_max
        self.ready = True
        self.process.connected(self.target, self.role)
        self.on_welcomed(reply.steady - peering.steady)

    def on_welcomed(self, clock_offset: int) -> None:
        raise NotImplementedError

    def on_frame(self, payload: bytes) -> None:
        raise NotImplementedError

    def on_finished(self) -> None:
        self.attempt.given_up = True
        if self.ready:
            self.on_lost()
        self.process.lost(self)

    def on_lost(self) -> None:
        raise NotImplementedError


class DataOut(Outgoing):
    """Batches to one member, and their answers."""

    __slots__ = ("link",)

    role = ROLE_DATA

    def __init__(self, process: "Process", target: int) -> None:
        self.link: Link = self._links(process)[target]
        super().__init__(process, target)

    def _links(self, process: "Process") -> dict[int, Link]:
        return process.env.links

    def on_welcomed(self, clock_offset: int) -> None:
        self.link.open(self.process.env.now)
        self.process.node.on_data_open(self.target)

    def on_frame(self, payload: bytes) -> None:
        kind = payload[0]
        if kind == ANSWERS:
            self.link.on_answers(payload, self.process.env.now)
        elif kind == MARK:
            self.link.on_mark(payload)
        else:
            raise FrameInvalid(f"a frame of kind {kind} on a data connection")

    def on_lost(self) -> None:
        self.link.close()
        self.process.node.on_data_closed(self.target)


class LargeOut(DataOut):
    """Batches of large values to one member."""

    __slots__ = ()

    role = ROLE_LARGE

    def _links(self, process: "Process") -> dict[int, Link]:
        return process.env.large_links

    def on_welcomed(self, clock_offset: int) -> None:
        self.link.open(self.process.env.now)
        self.process.node.on_large_open(self.target)

    def on_lost(self) -> None:
        self.link.close()


class ControlOut(Outgoing):
    """Control messages to one member, and their answers."""

    __slots__ = ()

    role = ROLE_CONTROL

    @property
    def speaks_for_the_log(self) -> bool:
        return True

    def on_welcomed(self, clock_offset: int) -> None:
        self.process.node.on_control_open(self.target)

    def send(self, message: Message) -> None:
        self.write(encode(message))

    def on_frame(self, payload: bytes) -> None:
        answer = self.process.node.on_control(self.target, decode_control(payload))
        if answer is not None:
            self.send(answer)

    def on_lost(self) -> None:
        pass


class ForwardPort(ClientPort):
    """Requests that this node forwards leave here."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "ForwardOut") -> None:
        super().__init__()
        self._connection = connection

    def send(self, frame: bytes) -> None:
        self._connection.write(frame)


class ForwardOut(Outgoing):
    """Forwarded requests to one member, and their answers."""

    __slots__ = ("port",)

    role = ROLE_FORWARD

    def __init__(self, process: "Process", target: int) -> None:
        super().__init__(process, target)
        self.port = ForwardPort(self)

    def on_welcomed(self, clock_offset: int) -> None:
        self.process.node.forwarder.on_open(self.target, clock_offset)

    def on_frame(self, payload: bytes) -> None:
        if not self.process.node.forwarder.on_answer(payload):
            self.process.counted("late forwarded answers")

    def on_lost(self) -> None:
        self.port.closed = True

    def on_finished(self) -> None:
        super().on_finished()
        self.process.node.forwarder.on_closed(self.target)


class AnswerPort(ClientPort):
    """Answers to a client, or to a node that forwards, leave here.

    ``puts`` remembers which put each request number stands for, so that an answer can be
    judged when it leaves.
    """

    __slots__ = ("_connection", "puts")

    def __init__(self, connection: "Accepted") -> None:
        super().__init__()
        self._connection = connection
        self.puts: dict[int, bytes] = {}

    def send(self, frame: bytes) -> None:
        self._connection.write(frame)


class Accepted(Connection):
    """A connection that a member or a client opened to this process."""

    __slots__ = ("member", "port", "role", "server", "start")

    def __init__(self, process: "Process", end: End) -> None:
        super().__init__(process)
        self.end = end
        end.owner = self
        self.role = ""
        self.member = 0
        self.start: StoreStart | None = None
        self.server: BatchServer | None = None
        self.port: AnswerPort | None = None

    @property
    def speaks_for_the_log(self) -> bool:
        return self.role in (ROLE_DATA, ROLE_LARGE, ROLE_CONTROL)

    def on_payload(self, payload: bytes) -> None:
        process = self.process
        if not self.role:
            self._greet(payload)
        elif self.server is not None:
            if payload[0] != BATCH:
                raise FrameInvalid(f"a frame of kind {payload[0]} where a batch was due")
            self.write(self.server.on_batch(payload))
            self.mark(process.store.durable_position)  # Nothing may have been left to sync.
        elif self.port is not None:
            if payload[0] == PUT:
                head = unpack_put(payload, 0)
                put_id = head[12] + head[13].to_bytes(8, "little")
                self.port.puts[head[3]] = put_id
            process.node.on_client(self.port, payload)
        else:
            answer = process.node.on_control(self.member, decode_control(payload))
            if answer is not None:
                self.write(encode(answer))

    def _greet(self, payload: bytes) -> None:
        process = self.process
        hello = decode_hello(payload)
        answer = process.node.peering.on_hello(hello)
        self.write(encode(answer))
        if isinstance(answer, Reject):
            process.close_after_turn.append(self)
            return
        self.reader.payload_bytes_max = process.config.frame_bytes_max
        self.role = hello.role
        self.member = hello.member
        self.start = hello.start
        if hello.role in (ROLE_DATA, ROLE_LARGE):
            self.server = BatchServer(process.node.replica, large=hello.role == ROLE_LARGE)
        elif hello.role == ROLE_CONTROL:
            assert hello.start is not None
            process.node.peering.on_control_open(hello.member, hello.start)
        else:
            self.port = AnswerPort(self)

    def flush(self) -> None:
        if self.port is not None and not self.ended:
            checks = self.process.world.checks
            for frame in self.output:
                checks.on_answer_leaves(self.process, self.port, frame)
        super().flush()

    def mark(self, durable_position: int) -> None:
        if self.server is not None:
            frame = self.server.mark(durable_position)
            if frame:
                self.write(frame)

    def on_finished(self) -> None:
        if self.port is not None:
            self.port.closed = True
        elif self.role == ROLE_CONTROL and self.start is not None:
            self.process.node.peering.on_control_closed(self.member, self.start.nonce)
        self.process.accepted.pop(self, None)
