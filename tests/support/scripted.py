"""The world of a client session in tests: no sockets, no clock; the test plays the nodes.

``ScriptedShell`` takes note of what the session asks for. The test lets connections stand or
fail, reads the requests that arrived on them, and answers as it likes.
"""

from typing import Any

from kvorum.client.addresses import Address
from kvorum.client.connections import Shell
from kvorum.client.requests import Get, Put, Request, make_get, make_put
from kvorum.client.session import Session
from kvorum.model.hashing import locate
from kvorum.model.record import pack_value
from kvorum.model.ring import Ring
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.topology import encode_topology
from kvorum.wire.codec import decode_control, encode
from kvorum.wire.kinds import CONTROL, GET, PUT
from kvorum.wire.message import Message
from kvorum.wire.messages import (
    Control,
    StoreStart,
    TopologyAnswer,
    TopologyQuery,
    Welcome,
)
from kvorum.wire.requests import (
    FOUND,
    GET_HEAD_BYTES,
    PUT_HEAD_BYTES,
    get_ok_frame,
    pack_ack,
    put_ok_frame,
    refused_frame,
    unknown_frame,
    unpack_get,
    unpack_put,
)
from tests.support.members import some_topology

CLUSTER_ID = b"cluster1"
CLIENT_ID = b"client-1"
SECOND = 1_000_000


class Asked:
    """A get or put as a node reads it."""

    def __init__(self, payload: bytes) -> None:
        self.kind = payload[0]
        self.flags = payload[1]
        if self.kind == PUT:
            (
                _, _, key_length, self.number, self.w, self.durability, self.sloppy, type_length,
                sort_length, _, context_length, self.table, self.client, self.counter,
                self.first_sent, self.lowest_open, self.ttl,
            ) = unpack_put(payload, 0)  # fmt: skip
            at = PUT_HEAD_BYTES
        else:
            _, _, key_length, self.number, self.r, self.sloppy, sort_length, self.table = (
                unpack_get(payload, 0)
            )
            at = GET_HEAD_BYTES
            context_length = type_length = 0
        self.key = payload[at : at + key_length]
        at += key_length
        self.sort_key = payload[at : at + sort_length]
        at += sort_length
        self.context = payload[at : at + context_length]
        at += context_length
        self.content_type = payload[at : at + type_length]
        self.value = payload[at + type_length :]


class ScriptedShell(Shell):
    """Three nodes, a, b and c, at ports 7401 to 7403, played by the test."""

    def __init__(self) -> None:
        self.now = 100 * SECOND
        self.ports: dict[int, int] = {}  # channel -> port, while it is open
        self.unread: dict[int, list[bytes]] = {}
        self.topology = some_topology(3, 3, partitions=8)
        self.ring = Ring(self.topology)
        self.addresses = [Address("127.0.0.1", 7401 + index) for index in range(3)]
        self.session = Session(self, self.addresses, CLIENT_ID)

    # What the session asks for.

    def open(self, channel: int, address: Address) -> None:
        self.ports[channel] = address.port
        self.unread[channel] = []

    def send(self, channel: int, frame: bytes) -> None:
        self.unread[channel].append(frame[4:])

    def close(self, channel: int) -> None:
        del self.ports[channel]

    # What the test does.

    def channel(self, member: int) -> int:
        """The open connection to a member."""
        for channel, port in self.ports.items():
            if port == 7400 + member:
                return channel
        raise AssertionError(f"no connection to member {member} is open")

    def is_open(self, member: int) -> bool:
        return 7400 + member in self.ports.values()

    def welcome(self, at: int, nonce: bytes = b"nonce", steady: int = 0, **changes: Any) -> None:
        """Let the connection to member ``at`` stand."""
        channel = self.channel(at)
        self.session.on_opened(channel)
        self.unread[channel].pop(0)
        fields: dict[str, Any] = {
            "version": 1, "cluster_id": CLUSTER_ID, "member": at, "name": "abc"[at - 1],
            "start": StoreStart(bytes([at]) * 8, 1, nonce), "wall": 0,
            "topology_epoch": self.topology.epoch, "frame_bytes_max": 1 << 20,
            "retry_window": 60 * SECOND, "steady": steady,
        }  # fmt: skip
        self.deliver(at, encode(Welcome(**(fields | changes))))

    def connect_all(self) -> None:
        """Start the session, connect it to all nodes and tell it the topology."""
        self.session.start()
        self.welcome(1)
        question = self.questions(1)[0]
        assert isinstance(question, TopologyQuery)
        self.deliver(1, encode(TopologyAnswer(question.request, encode_topology(self.topology))))
        self.welcome(2)
        self.welcome(3)

    def deliver(self, member: int, frame: bytes) -> None:
        self.session.on_received(self.channel(member), frame)

    def lose(self, member: int, cause: str = "it closed the connection") -> None:
        channel = self.channel(member)
        del self.ports[channel]
        self.session.on_closed(channel, cause)

    def refuse(self, member: int) -> None:
        """Nobody listens at the member's address."""
        channel = self.channel(member)
        del self.ports[channel]
        self.session.on_closed(channel, "Connection refused", True)

    def questions(self, member: int) -> list[Control]:
        """Take the control messages that have arrived at a member."""
        unread = self.unread[self.channel(member)]
        taken = [decode_control(payload) for payload in unread if payload[0] == CONTROL]
        unread[:] = [payload for payload in unread if payload[0] != CONTROL]
        return taken

    def asked(self, member: int) -> list[Asked]:
        """Take the gets and puts that have arrived at a member."""
        if not self.is_open(member):
            return []
        unread = self.unread[self.channel(member)]
        taken = [Asked(payload) for payload in unread if payload[0] in (GET, PUT)]
        unread[:] = [payload for payload in unread if payload[0] not in (GET, PUT)]
        return taken

    def one_asked(self, member: int) -> Asked:
        taken = self.asked(member)
        assert len(taken) == 1, f"{len(taken)} requests have arrived at member {member}"
        return taken[0]

    def pass_time(self, microseconds: int) -> None:
        """Let time go by in the steps that the session itself asks for."""
        end = self.now + microseconds
        in_place = 0
        while 0 <= self.session.next_deadline() <= end:
            deadline = self.session.next_deadline()
            in_place = 0 if deadline > self.now else in_place + 1
            assert in_place < 10, "the session never lets time pass"
            self.now = max(self.now, deadline)
            self.session.advance()
        self.now = end

    def owners_of(self, key: bytes, table: bytes = DEFAULT_TABLE_ID) -> tuple[int, ...]:
        place = locate(self.ring.hash_key, table, key)
        return self.ring.owners(self.ring.partition_of(place))

    def get(self, key: str = "alice", table: str = "default") -> Get:
        made = make_get(table, key, b"", None, None)
        self.session.submit(made)
        return made

    def put(self, key: str = "alice", value: bytes = b"book", retry: bool = False) -> Put:
        made = make_put("default", key, value, None, b"", None, None, None, None, "", retry)
        self.session.submit(made)
        return made

    def submitted(self, request: Any) -> Any:
        self.session.submit(request)
        return request

    def confirm(self, member: int, asked: Asked, context: bytes = b"context") -> None:
        acks = pack_ack(member, 2, 0)
        self.deliver(member, put_ok_frame(asked.number, member, 2, acks, context))

    def show(
        self, member: int, asked: Asked, values: list[bytes], put_id: bytes = b"p" * 16
    ) -> None:
        encoded = [
            pack_value(bytes([index + 1]) * 16, 7, 0, put_id, False, b"", value)
            for index, value in enumerate(values)
        ]
        frame = get_ok_frame(
            asked.number, FOUND if values else 0, member, bytes([member, 0]), b"context",
            len(encoded), b"".join(encoded),
        )  # fmt: skip
        self.deliver(member, frame)

    def refuse_request(self, member: int, number: int, code: int, text: str = "no") -> None:
        self.deliver(member, refused_frame(number, code, text))

    def doubt(self, member: int, number: int) -> None:
        self.deliver(member, unknown_frame(number, "too few acks in time"))

    def reply(self, member: int, message: Message) -> None:
        self.deliver(member, encode(message))


def error_of(request: Request[Any]) -> BaseException:
    assert request.done
    assert request.error is not None
    return request.error
