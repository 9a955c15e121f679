"""Puts and gets through whole nodes, without sockets: what Python itself costs per request.

Three volatile nodes in one process, their links joined end to end, 64 requests a turn as many
connections bring them. The macro benchmark's figure is this one, plus system calls and event
loops. (Making the put's frame is part of it, some 5 % of it.)
"""

import os
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

from benchmarks.cases import Repeat, case
from benchmarks.components import BATCH, VALUE
from kvorum.config import NodeConfig
from kvorum.counters import Counters
from kvorum.model.ring import Ring
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.topology import Member, make_topology
from kvorum.protocol.environment import LATENCIES_KEPT, ClientPort, Environment
from kvorum.protocol.node import Node
from kvorum.storage.commit import drain
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.store import open_store
from kvorum.wire.kinds import GET_OK, PUT_OK
from kvorum.wire.link import BatchServer, Link
from kvorum.wire.message import Message
from kvorum.wire.requests import (
    ACK_BYTES,
    DEFAULT,
    PUT_OK_HEAD_BYTES,
    get_frame,
    put_frame,
    unpack_put_ok,
    unpack_request_number,
)

KEYS = [b"k%015d" % index for index in range(BATCH)]
WALL = 1_700_000_000_000_000


class _StillWorld(Environment):
    """A world whose clock moves when a turn begins, and where nothing else ever happens."""

    def __init__(self, members: list[int]) -> None:
        config = NodeConfig()
        self.now = 1
        self.wall = WALL
        self.random = Random(1)
        self.counters = Counters()
        self.dirty: list[Link] = []
        self.links = self._links(members, config)
        self.large_links = self._links(members, config)
        self.large_bytes = config.large_bytes
        self.latencies = deque(maxlen=LATENCIES_KEPT)

    def _links(self, members: list[int], config: NodeConfig) -> dict[int, Link]:
        return {
            member: Link(member, self.dirty, config.batch_bytes_max, config.peer_queue_bytes_max)
            for member in members
        }

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

    def send(self, target: int, message: Message) -> bool:
        return False

    def forward(self, target: int) -> ClientPort | None:
        return None

    def drop_peer(self, target: int) -> None:
        raise AssertionError(f"the connection to member {target} was given up")

    def report(self, event: str, **detail: Any) -> None:
        pass


class _Client(ClientPort):
    """A client that keeps the context of each of its puts."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts = [b""] * BATCH
        self.answers = 0

    def send(self, frame: bytes) -> None:
        kind = frame[4]
        assert kind in (PUT_OK, GET_OK), frame
        self.answers += 1
        if kind == PUT_OK:
            acks = unpack_put_ok(frame, 4)[2]
            start = 4 + PUT_OK_HEAD_BYTES + ACK_BYTES * acks
            self.contexts[unpack_request_number(frame, 8)[0]] = frame[start:]


class _Trio:
    """Three nodes; one of them coordinates, the others answer in the same turn.

    Each has written every key once, as after a while of real use.
    """

    def __init__(self) -> None:
        members = tuple(Member(i, f"n{i}", "127.0.0.1", 7400 + i) for i in (1, 2, 3))
        ring = Ring(make_topology(members, 3, 64, bytes(range(24))))
        self.nodes = [_node(ring, member.id) for member in members]
        self.servers = {node.me: BatchServer(node.replica, False) for node in self.nodes}
        self.client = _Client()
        self.counter = 0
        for node in self.nodes:
            for link in node.env.links.values():
                link.open(node.env.now)
                node.on_data_open(link.peer)
            for other in self.nodes:
                if other is not node:
                    node.on_control(other.me, other.generations.states())
            node.replica.behind[:] = bytes(len(node.replica.behind))  # As once caught up.
        for node in reversed(self.nodes):
            self.put_all(node)
        self.coordinator = self.nodes[0]

    def put_all(self, coordinator: Node) -> None:
        self._tick(coordinator.env)
        lowest = self.counter + 1
        for index, key in enumerate(KEYS):
            self.counter += 1
            frame = put_frame(
                index, 0, DEFAULT_TABLE_ID, key, b"", self.client.contexts[index], VALUE, b"",
                b"benchmrk", self.counter, WALL, lowest, 0, 0, DEFAULT, 0,
            )  # fmt: skip
            coordinator.on_client(self.client, frame[4:])
        self._end_turn(coordinator)

    def get_all(self, coordinator: Node, payloads: list[bytes]) -> None:
        self._tick(coordinator.env)
        for payload in payloads:
            coordinator.on_client(self.client, payload)
        self._end_turn(coordinator)

    def _tick(self, environment: Environment) -> None:
        environment.now += 1
        environment.wall += 1

    def _end_turn(self, coordinator: Node) -> None:
        environment = coordinator.env
        for link in environment.links.values():
            for frame in link.take(environment.now):
                link.on_answers(self.servers[link.peer].on_batch(frame[4:])[4:], environment.now)
        for node in self.nodes:
            node.store.end_turn()
            if node.store.buffer.wants_freeze:
                drain(node.store.buffer)
        # The sweep lets go of what is settled; in a real node a timer calls it.
        coordinator.requests.sweep()
        assert self.client.in_flight == 0


def _node(ring: Ring, me: int) -> Node:
    store = open_store(
        None,
        MemoryEngine(),
        cluster_id=ring.cluster_id,
        member_id=me,
        member_name=f"n{me}",
        draw=os.urandom,
    )
    others = [member for member in ring.member_ids if member != me]
    return Node(_StillWorld(others), store, ring, NodeConfig(), me)


@case("protocol", "put through three nodes", BATCH)
def puts() -> Iterator[Repeat]:
    trio = _Trio()

    def repeat(calls: int) -> None:
        for _ in range(calls):
            trio.put_all(trio.coordinator)

    yield repeat


@case("protocol", "get through two nodes", BATCH)
def gets() -> Iterator[Repeat]:
    trio = _Trio()
    payloads = [
        get_frame(index, 0, DEFAULT_TABLE_ID, key, b"", 0, DEFAULT)[4:]
        for index, key in enumerate(KEYS)
    ]

    def repeat(calls: int) -> None:
        for _ in range(calls):
            trio.get_all(trio.coordinator, payloads)

    yield repeat
