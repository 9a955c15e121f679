"""One node in a recorded world: what it asks of peers, answers to clients and tells people.

Nothing happens here but what a test does: it hands in requests and messages, answers batches in
the peers' place, moves the clock, and looks at what was queued. The links are real ones.
``tests/support/wired.py`` joins several such nodes.
"""

from collections import deque
from collections.abc import Iterator
from itertools import count as count_from
from random import Random
from typing import Any, NamedTuple, TypeAlias

from kvorum.client.answers import decode_failure, decode_found, decode_stored
from kvorum.client.store import Found, Stored
from kvorum.config import NodeConfig
from kvorum.counters import Counters
from kvorum.model.hashing import engine_key
from kvorum.model.ring import Ring
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.topology import Topology
from kvorum.protocol.environment import LATENCIES_KEPT, ClientPort, Environment
from kvorum.protocol.node import Node
from kvorum.simulator.disk import Disk
from kvorum.storage.commit import sync_now
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.store import Store, open_store
from kvorum.wire.codec import decode_control, encode
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.kinds import ANSWERS, CONTROL, GET_OK, MARK, PUT_OK, REFUSED
from kvorum.wire.link import (
    ENTRY_BYTES,
    HEAD_BYTES,
    OK,
    RECORD,
    Asker,
    Link,
    _pack_head,
    _unpack_entry,
    _unpack_head,
)
from kvorum.wire.message import Message
from kvorum.wire.messages import Control
from kvorum.wire.reaping_messages import GenerationStates
from kvorum.wire.requests import DEFAULT, get_frame, put_frame, unpack_request_number
from tests.support.members import some_topology

NOW = 1_000_000  # when every test begins, on the steady clock
WALL = 1_700_000_000_000_000
CLIENT_ID = b"client 1"


class Refusal(NamedTuple):
    """A request that was refused: nothing was written."""

    code: int
    text: str


class Unknown(NamedTuple):
    """A put of which nobody knows what became of it."""

    text: str


Outcome: TypeAlias = Stored | Found | Refusal | Unknown
Answer: TypeAlias = int | tuple[int, bytes]  # of a peer, to one entry of a batch


def outcome_of(payload: bytes) -> Outcome:
    kind = payload[0]
    if kind == PUT_OK:
        return decode_stored(payload, b"")
    if kind == GET_OK:
        return decode_found(payload)
    code, text = decode_failure(payload)
    return Refusal(code, text) if kind == REFUSED else Unknown(text)


class RecordingPort(ClientPort):
    """A client's connection; keeps what was sent on it."""

    __slots__ = ("payloads",)

    def __init__(self) -> None:
        super().__init__()
        self.payloads: list[bytes] = []

    def send(self, frame: bytes) -> None:
        assert not self.closed, "an answer on a closed connection"
        self.payloads.append(frame[LENGTH_BYTES:])

    def take(self) -> list[bytes]:
        taken, self.payloads = self.payloads, []
        return taken

    def outcomes(self) -> list[tuple[int, Outcome]]:
        """(request number, outcome) of all answers since the last look."""
        return [(unpack_request_number(each, 4)[0], outcome_of(each)) for each in self.take()]

    def outcome(self) -> Outcome:
        """The one answer since the last look."""
        (payload,) = self.take()
        return outcome_of(payload)

    def message(self) -> Control:
        """The one control message since the last look."""
        (payload,) = self.take()
        assert payload[0] == CONTROL
        return decode_control(payload)


class RecordingEnvironment(Environment):
    """A world that keeps all effects and moves only when it is told to."""

    def __init__(
        self, me: int, members: tuple[int, ...], config: NodeConfig, draws: Iterator[int]
    ) -> None:
        self.now = NOW
        self.wall = WALL
        self.random = Random(me)
        self.counters = Counters()
        self.dirty: list[Link] = []
        sizes = (config.batch_bytes_max, config.peer_queue_bytes_max)
        others = [member for member in members if member != me]
        self.links = {member: Link(member, self.dirty, *sizes) for member in others}
        self.large_links = {member: Link(member, self.dirty, *sizes) for member in others}
        self.large_bytes = config.large_bytes
        self.latencies = deque(maxlen=LATENCIES_KEPT)
        self.sent: list[tuple[int, Message]] = []
        self.unreachable: dict[int, None] = {}  # members without a control connection
        self.forward_ports: dict[int, ClientPort] = {}
        self.forward_wanted: list[int] = []
        self.dropped: list[int] = []
        self.reported: list[tuple[str, dict[str, Any]]] = []
        self.stopped: list[str] = []
        self._me = me
        self._draws = draws

    def draw(self, size: int) -> bytes:
        """Bytes that differ at each call, and between members."""
        return next(self._draws).to_bytes(size - 2, "big") + self._me.to_bytes(2, "big")

    entropy = draw

    def send(self, target: int, message: Message) -> bool:
        if target in self.unreachable:
            return False
        self.sent.append((target, message))
        return True

    def forward(self, target: int) -> ClientPort | None:
        self.forward_wanted.append(target)
        return self.forward_ports.get(target)

    def drop_peer(self, target: int) -> None:
        self.dropped.append(target)

    def report(self, event: str, **detail: Any) -> None:
        self.reported.append((event, detail))

    def stop(self, reason: str) -> None:
        self.stopped.append(reason)

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.reported]


class RecordingAsker(Asker):
    """Asks peers for nobody, and keeps what it is told."""

    __slots__ = ("told",)

    def __init__(self, wants_disk: bool = False) -> None:
        self.wants_disk = wants_disk
        self.told: list[tuple[Any, ...]] = []

    def on_ok(self, peer: int) -> None:
        self.told.append(("ok", peer))

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        self.told.append(("record", peer, generation, record))

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        self.told.append(("refusal", peer, status, payload))

    def on_disk(self, peer: int) -> None:
        self.told.append(("disk", peer))

    def on_slow(self, peer: int) -> None:
        self.told.append(("slow", peer))

    def on_silence(self, peer: int) -> None:
        self.told.append(("silence", peer))

    def on_lost(self, peer: int) -> None:
        self.told.append(("lost", peer))


class Entry(NamedTuple):
    """One entry of a batch: a put's holding, or a get."""

    op: int
    key: bytes
    body: bytes
    generation: int  # under which the asking side has read it


def entries_of(batch: bytes) -> list[Entry]:
    _, _, count, _ = _unpack_head(batch, 0)
    found: list[Entry] = []
    position = HEAD_BYTES
    for _ in range(count):
        op, _, key_length, body_length, _, generation = _unpack_entry(batch, position)
        body = position + ENTRY_BYTES + key_length
        end = body + body_length
        key = batch[position + ENTRY_BYTES : body]
        found.append(Entry(op, key, batch[body:end], generation))
        position = end
    return found


def number_of(payload: bytes) -> int:
    """The number of a batch, of answers or of a mark."""
    return int(_unpack_head(payload, 0)[3])


def answers_payload(number: int, answers: list[Answer]) -> bytes:
    """What a peer answers to a batch."""
    statuses = bytes(each if isinstance(each, int) else each[0] for each in answers)
    extras: list[bytes] = []
    for each in answers:
        if each != OK:
            extra = b"" if isinstance(each, int) else each[1]
            extras += (len(extra).to_bytes(4, "little"), bytes(8), extra)
    return b"".join([_pack_head(ANSWERS, 0, len(statuses), number), statuses, *extras])


def mark_payload(number: int) -> bytes:
    return bytes(_pack_head(MARK, 0, 0, number))


def a_record(record: bytes) -> Answer:
    """The answer of a replica that holds ``record``."""
    return (RECORD, record)


class OneNode:
    """A node of a cluster, its peers played by the test.

    A durable one keeps its log on a simulated disk that takes syncs when the test says so.
    """

    def __init__(
        self, me: int = 1, count: int = 3, n: int = 3, durable: bool = True,
        config: NodeConfig | None = None, topology: Topology | None = None, adopts: bool = True,
    ) -> None:  # fmt: skip
        self.me = me
        self._adopts = adopts
        self.config = config or NodeConfig()
        self.topology = topology or some_topology(count, n)
        self.ring = Ring(self.topology)
        self.disk = Disk() if durable else None
        self.engine = MemoryEngine(durable)
        self.client = RecordingPort()
        self.unanswered: dict[tuple[int, bool], deque[bytes]] = {}
        self.last_answered: dict[tuple[int, bool], int] = {}
        self._request = 0
        self._counter = 0
        self._draws = count_from(1)  # nothing is drawn twice, also not after a restart
        self.start()

    def start(self) -> None:
        """Open what is on the disk, and begin; nobody is connected yet."""
        self.env = RecordingEnvironment(self.me, self.ring.member_ids, self.config, self._draws)
        self.store = self._open()
        self.node = Node(self.env, self.store, self.ring, self.config, self.me)
        if self._adopts:
            # As in a cluster that has just been made: nobody knows of any later generation.
            for member in self.others:
                self.node.on_control(member, GenerationStates([]))
                self.node.catch_up.settle(member, list(range(self.ring.partitions)))
            self.env.reported.clear()

    def _open(self) -> Store:
        member = self.ring.member(self.me)
        assert member is not None
        return open_store(
            self.disk, self.engine, cluster_id=self.ring.cluster_id, member_id=self.me,
            member_name=member.name, draw=self.env.draw,
        )  # fmt: skip

    def restart(self, clean: bool = True) -> "OneNode":
        """Stop and start on the same disk; unless cleanly, as after a crash of the process."""
        if clean:
            assert self.store.close_clean(self.node.clock.last, self.node.parting())
        else:
            self.store.close_abruptly()
        self.unanswered.clear()
        self.client = RecordingPort()
        self.start()
        return self

    @property
    def others(self) -> list[int]:
        return [member for member in self.ring.member_ids if member != self.me]

    def connect(self, *members: int) -> "OneNode":
        """All connections to these members, or to everybody, stand; they have disks."""
        for member in members or self.others:
            self.env.links[member].open(self.env.now)
            self.env.large_links[member].open(self.env.now)
            self.node.on_data_open(member)
        return self

    def disconnect(self, member: int) -> None:
        self.env.links[member].close()
        self.env.large_links[member].close()
        self.unanswered.pop((member, False), None)
        self.unanswered.pop((member, True), None)
        self.node.on_data_closed(member)

    # Requests.

    def put(
        self, key: bytes = b"alice", value: bytes = b"book", context: bytes = b"", w: int = 0,
        durability: int = DEFAULT, flags: int = 0, counter: int = 0, ttl: int = 0,
        table: bytes = DEFAULT_TABLE_ID, sort_key: bytes = b"", content_type: bytes = b"",
        age: int = 0, lowest_open: int = 0, client: RecordingPort | None = None,
        client_id: bytes = CLIENT_ID, sloppy: int = 1,
    ) -> int:  # fmt: skip
        """Hand in a put; its request number. A counter of 0 takes the next one."""
        self._request += 1
        if not counter:
            self._counter += 1
            counter = self._counter
        frame = put_frame(
            self._request, flags, table, key, sort_key, context, value, content_type,
            client_id, counter, self.node.peering.steady - age, lowest_open, w, durability,
            sloppy, ttl,
        )  # fmt: skip
        self.node.on_client(client or self.client, frame[LENGTH_BYTES:])
        return self._request

    def get(
        self, key: bytes = b"alice", r: int = 0, flags: int = 0, sort_key: bytes = b"",
        table: bytes = DEFAULT_TABLE_ID, client: RecordingPort | None = None, sloppy: int = 1,
    ) -> int:  # fmt: skip
        self._request += 1
        frame = get_frame(self._request, flags, table, key, sort_key, r, sloppy)
        self.node.on_client(client or self.client, frame[LENGTH_BYTES:])
        return self._request

    def question(self, message: Message, client: RecordingPort | None = None) -> None:
        self.node.on_client(client or self.client, encode(message)[LENGTH_BYTES:])

    def key(self, partition_key: bytes = b"alice", table: bytes = DEFAULT_TABLE_ID) -> bytes:
        return engine_key(self.ring.hash_key, table, partition_key, b"")

    def owned_key(self, owned: bool = True) -> bytes:
        """A partition key that this node owns a copy of, or owns none of."""
        return next(
            key
            for key in (b"%d" % number for number in range(1000))
            if (self.me in self.owners_of(key)) is owned
        )

    def owners_of(self, partition_key: bytes) -> tuple[int, ...]:
        return self.ring.owners_of_engine_key(self.key(partition_key))

    def fallbacks_of(self, partition_key: bytes) -> tuple[int, ...]:
        return self.ring.fallbacks(self.ring.partition_of_engine_key(self.key(partition_key)))

    # Turns, the disk, and time.

    def end_turn(self) -> "OneNode":
        """Write the log and send each link's batch; the peers have them now."""
        assert self.store.end_turn()
        while self.env.dirty:
            link = self.env.dirty.pop(0)
            large = self.env.large_links[link.peer] is link
            for frame in link.take(self.env.now):
                queue = self.unanswered.setdefault((link.peer, large), deque())
                queue.append(frame[LENGTH_BYTES:])
        return self

    def sync(self) -> None:
        """The turn ends, and its writes are on the disk."""
        self.end_turn()
        assert sync_now(self.store.buffer)
        self.node.on_durable()

    def advance(self, microseconds: int) -> None:
        """Time passes, and the node does whatever falls due on the way."""
        end = self.env.now + microseconds
        while 0 <= self.node.next_deadline() <= end:
            self._set_clocks(max(self.node.next_deadline(), self.env.now))
            self.node.advance()
            self.end_turn()
        self._set_clocks(end)

    def _set_clocks(self, now: int) -> None:
        self.env.wall += now - self.env.now
        self.env.now = now

    # The peers' part.

    def asked(self, member: int, large: bool = False) -> list[Entry]:
        """What the member has been asked and has not answered, over all its batches."""
        self.end_turn()
        batches = self.unanswered.get((member, large), ())
        return [entry for batch in batches for entry in entries_of(batch)]

    def answers(self, member: int, *answers: Answer, large: bool = False) -> None:
        """The member answers its oldest batch that asks for something."""
        self.end_turn()
        links = self.env.large_links if large else self.env.links
        queue = self.unanswered[(member, large)]
        while True:
            batch = queue.popleft()
            number = number_of(batch)
            if entries_of(batch):
                break
            links[member].on_answers(answers_payload(number, []), self.env.now)
        self.last_answered[(member, large)] = number
        links[member].on_answers(answers_payload(number, list(answers)), self.env.now)

    def accepts(self, member: int, large: bool = False) -> None:
        """The member answers everything with ok."""
        while self.asked(member, large):
            batch = next(each for each in self.unanswered[(member, large)] if entries_of(each))
            self.answers(member, *[OK for _ in entries_of(batch)], large=large)

    def marks(self, member: int, large: bool = False) -> None:
        """All that the member has answered is on its disk."""
        links = self.env.large_links if large else self.env.links
        links[member].on_mark(mark_payload(self.last_answered[(member, large)]))
