"""A sample of everything that travels or is stored, as today's code encodes it.

``make.py --add`` keeps each under ``frames/``; what is kept there is never changed, so that every
format ever on main stays readable. A format that grows gets a new sample under a new name.
"""

from kvorum.model.context import context_of_record, context_of_seen
from kvorum.model.hashing import engine_key
from kvorum.model.hint import Hint
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.members import Belief, State
from kvorum.model.quorum import Durability, Resolution
from kvorum.model.record import first_record, lww_record, pack_value, split_values
from kvorum.model.siblings import encode, merge, update
from kvorum.model.tables import TableSettings
from kvorum.model.topology import Member, PartitionEntry, Topology, encode_topology
from kvorum.model.version import Seen, make_actor, make_dot
from kvorum.wire import requests
from kvorum.wire.aside_messages import (
    AsideAnswer,
    AsideDiscard,
    AsideDiscarded,
    AsideQuery,
    CopyAside,
)
from kvorum.wire.codec import encode as encode_message
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    ExchangeDigest,
    LeavesAnswer,
    LeavesQuery,
)
from kvorum.wire.gossip_messages import (
    News,
    Probe,
    ProbeAck,
    ProbeNack,
    ProbeRelayed,
    ProbeRequest,
    PushPull,
    PushPulled,
    TopologyTold,
)
from kvorum.wire.handoff_messages import CoverAnswer, CoverQuery, HandoffCredit, HandoffOffer
from kvorum.wire.link import (
    OK,
    RECORD,
    STALE_GENERATION,
    Answers,
    Asker,
    BatchServer,
    Link,
    pack_hint,
)
from kvorum.wire.listing_messages import KeysAnswer, KeysQuery, LocalKeys, LocalKeysAnswer
from kvorum.wire.messages import (
    Control,
    ControlRefused,
    ExplainAnswer,
    ExplainQuery,
    Hello,
    LocalAnswer,
    LocalQuery,
    LocalRead,
    LocalRecord,
    OperationStatus,
    PeerStatus,
    Ping,
    Pong,
    Reject,
    StatusAnswer,
    StatusQuery,
    StoreStart,
    TableAnswer,
    TableCreate,
    TableDrop,
    TableList,
    TableQuery,
    TableSet,
    TablesUpdate,
    TablesUpdated,
    TopologyAnswer,
    TopologyQuery,
    Welcome,
)
from kvorum.wire.reaping_messages import (
    GenerationQuery,
    GenerationState,
    GenerationStates,
    KeyStatement,
    ReapCommit,
    ReapCommitted,
    ReapDrop,
    Reaped,
    ReapRaise,
    ReapStatement,
)
from kvorum.wire.trace_messages import TraceAnswer, TraceEvent, TraceQuery

WALL = 1_700_000_000_000_000
TABLE = b"table id"
CLIENT = b"client 8"
KEY = engine_key(b"key of a cluster", TABLE, b"alice", b"cart")
ALICE = make_actor(b"store 01", 1)
BOB = make_actor(b"store 02", 7)
START = StoreStart(b"store 01", 3, b"nonce 08")


def put_id(counter: int) -> bytes:
    return CLIENT + counter.to_bytes(8, "little")


BOOK = pack_value(make_dot(ALICE, 1), WALL, 0, put_id(1), False, b"text/plain", b"book")
PEN = pack_value(make_dot(BOB, 1), WALL + 1, WALL + 60_000_000, put_id(2), False, b"", b"pen")
GONE = pack_value(make_dot(BOB, 2), WALL + 2, 0, put_id(3), True, b"", b"")


def gap() -> Seen:
    """Alice's first write and her third to fifth, and what Bob wrote thirdly."""
    seen = Seen()
    for dot in [make_dot(ALICE, counter) for counter in (1, 3, 4, 5)] + [make_dot(BOB, 3)]:
        seen.add(dot)
    return seen


RECORDS = {
    "first": first_record(BOOK),
    "siblings": merge(first_record(BOOK), first_record(PEN)),
    "deleted": update(first_record(PEN), None, GONE),
    "gaps": encode(gap(), {BOOK[:16]: BOOK}),
    "lww": lww_record(PEN),
    "empty": encode(gap(), {}),
}
SIBLINGS = RECORDS["siblings"]

CONTEXTS = {
    "of-record": context_of_record(KEY, SIBLINGS, WALL + 1),
    "of-put": context_of_seen(KEY, gap(), WALL),
    "of-lww": context_of_record(KEY, RECORDS["lww"], WALL + 1),
}

HOLDINGS = {
    "own": pack_holding(make_dot(ALICE, 1), b"alice", SIBLINGS),
    "sent": pack_holding(NO_OWN, b"alice", SIBLINGS),
    "no-key": pack_holding(NO_OWN, b"", RECORDS["lww"]),
}

HINTS = {"for-two": Hint(3, 1, WALL, (2, 260), HOLDINGS["own"]).encode()}

TOPOLOGY = Topology(
    cluster_id=b"cluster!",
    hash_key=b"key of a cluster",
    epoch=4,
    planner=2,
    n=2,
    members=(
        Member(1, "a", "127.0.0.1", 7401),
        Member(2, "b", "::1", 7402, "eu/north", 3),
        Member(3, "c", "c.example", 7401, "eu/south"),
    ),
    partitions=(PartitionEntry((1, 2)), PartitionEntry((2, 1), (2, 3), 4)),
    default_r=1,
    default_w=2,
    default_durability=Durability.QUORUM,
)

HANDSHAKE = [
    Hello(1, 1, "data", b"cluster!", 1, 2, START, WALL, "kvorum 0.1", 4),
    Welcome(
        1, b"cluster!", 2, "b", StoreStart(b"store 02", 1, b"nonce 02"), WALL, START, True, 4,
        17_000_000, 60_000_000, "kvorum 0.1", 5,
    ),
    Reject("cluster", "this node belongs to another cluster"),
]  # fmt: skip
_TABLE = TableSettings(
    "carts", TABLE, 1, 2, Resolution.LWW, Durability.QUORUM, False, 86_400, 10, 65_536, (WALL, 3),
    True,
)  # fmt: skip
_LOCAL = LocalRecord(
    8, 2, SIBLINGS, True, True, make_dot(ALICE, 1), "no connection", RECORDS["first"], [3, 4],
    5_000_000, True,
)  # fmt: skip
_NEWS = News(
    Belief(1, State.ALIVE, 3, b"store 01", 3, b"nonce 08"), 4, 1 << 63 | 5,
    [Belief(2, State.SUSPECT, 7, b"store 02", 1, b"nonce 02", 3)], [_TABLE],
)  # fmt: skip
CONTROL_MESSAGES: list[Control] = [
    Ping(1, 2),
    Pong(1, 2, WALL, True),
    TablesUpdate(3, [_TABLE]),
    TablesUpdated(3),
    LocalRead(8, KEY),
    _LOCAL,
    ControlRefused(8, requests.UNKNOWN_TABLE, "there is no table of this name"),
    TopologyQuery(9),
    TopologyAnswer(9, b'{"format":1}'),
    TableQuery(10, "carts"),
    TableList(11),
    TableAnswer(11, [_TABLE], [3], ["carts"]),
    TableCreate(12, "carts", 1, 2, "lww", "all", True, 60, 10, 65_536),
    TableSet(13, "carts", 1, 2, "none", False, 60, 10, 65_536),
    TableDrop(14, "carts", TABLE),
    StatusQuery(15),
    StatusAnswer(
        15, 1, "a", "kvorum 0.1", 1, b"cluster!", 4, b"store 01", 3, True, 5_000_000, "lmdb",
        False, True, "", 1024, 1024, 3, 2, 17, 65_536, -250,
        [
            PeerStatus(
                2, "b", True, False, 300, -20, 4_096, "suspect", 7, 2_000_000, 6, 700, 9, 3_000
            )
        ],
        {"puts": 5}, [OperationStatus("default", "put", 1, 2, [0, 300, 7])], 9, {"c": 4}, 2, 70, 3,
        2, 6, 700, 12, 300, 250,
    ),
    ExplainQuery(16, TABLE, b"alice", b"cart"),
    TraceQuery(17, TABLE, b"alice", b"cart", True, b"book", b"context", 2, CLIENT),
    TraceAnswer(17, 1, b"A\0payload", [TraceEvent(250, "asked", 2, "behind 1 batches")]),
    ExplainAnswer(16, b"position of 16 b", 99, 4, [1, 2, 3], [_LOCAL], [_LOCAL]),
    LocalQuery(17, TABLE, [(b"alice", b"cart"), (b"bob", b"")]),
    LocalAnswer(17, [_LOCAL]),
    GenerationStates([(3, 5 << 16 | 2, 4 << 16 | 1)], b"\x06"),
    GenerationQuery(3),
    GenerationState(3, 5 << 16 | 2, 4 << 16 | 1, False),
    ReapRaise(3, 6 << 16 | 2, 4 << 16 | 1, 9, [KEY, KEY[:33]]),
    ReapStatement(
        3, 6 << 16 | 2, 9, [KeyStatement(b"digest of record", True, ALICE, True), KeyStatement(b"")]
    ),
    ReapCommit(3, 6 << 16 | 2),
    ReapCommitted(3, 6 << 16 | 2),
    ReapDrop(3, 6 << 16 | 2, 9, [Reaped(KEY, b"digest of record", [BOB])]),
    Probe(17, 5, _NEWS),
    ProbeAck(17, 5, WALL, _NEWS),
    ProbeRequest(17, 3, _NEWS),
    ProbeRelayed(17, _NEWS),
    ProbeNack(17),
    PushPull(18, _NEWS),
    PushPulled(18, _NEWS, b'{"format":1}'),
    TopologyTold(b'{"format":1}'),
    HandoffOffer(1_000, 65_536),
    HandoffCredit(64, 1_048_576),
    CoverQuery(7, [KEY, KEY[:33]], [SIBLINGS[:40], RECORDS["lww"][:32]]),
    CoverAnswer(7, b"\2\0"),
    KeysQuery(17, TABLE, b"al", KEY, 100),
    KeysAnswer(17, [(b"alice", b"cart")], KEY, "no owner answers"),
    LocalKeys(18, TABLE, b"al", KEY, b"\x02", 100),
    LocalKeysAnswer(18, [(b"alice", b"cart")], KEY, "no room"),
    ExchangeDigest(5, 0xFEDC_BA98_7654_3210, False, True),
    BlocksQuery(8, [3, 7], b"hash of 3hash 07"),
    BlocksAnswer(8, [7], [3]),
    LeavesQuery(8, [448, 449], b"leaf 448leaf 449"),
    LeavesAnswer(8, [449], b"leaf 44!", [448]),
    EntriesQuery(8, [449], b"\x01\x01\xc1", b"\x01\x01\xc2", [KEY], b"a record"),
    EntriesAnswer(8, b"\x01\x01\xc2", [KEY], 4, 1),
    AsideQuery(19, KEY, 100),
    AsideAnswer(
        19, [CopyAside(KEY, b"alice", SIBLINGS), CopyAside(b"\2" + KEY[1:], b"al", SIBLINGS, [2])]
    ),
    AsideDiscard(20, [(KEY, b"digest of record")]),
    AsideDiscarded(20, 1),
]  # fmt: skip


def request_frames() -> dict[str, bytes]:
    context = CONTEXTS["of-record"]
    acks = requests.pack_ack(1, requests.LEVEL_DISK, 0) + requests.pack_ack(4, 1, 1)
    return {
        "put": requests.put_frame(
            7, 0, TABLE, b"alice", b"cart", context, b"book", b"text/plain", CLIENT, 5, WALL, 4, 2,
            1, 0, 60_000_000,
        ),
        "delete": requests.put_frame(
            8, requests.TOMBSTONE | requests.READ_FIRST | requests.FORWARDED, TABLE, b"alice", b"",
            b"", b"", b"", CLIENT, 6, WALL, 4, 0, requests.DEFAULT, requests.DEFAULT, 0,
        ),
        "get": requests.get_frame(9, 0, TABLE, b"alice", b"cart", 1, requests.DEFAULT),
        "put-ok": requests.put_ok_frame(7, 1, 2, acks, context),
        "get-ok": requests.get_ok_frame(
            9, requests.FOUND | requests.MAY_MISS, 1, b"\1\0\2\0", context, 2,
            b"".join(split_values(SIBLINGS)),
        ),
        "refused": requests.refused_frame(7, requests.QUORUM_NOT_MET, "1 of 2 owners is there"),
        "unknown": requests.unknown_frame(8, "1 of 2 acks came"),
    }  # fmt: skip


class _Waiting(Asker):
    """Wants all that can be had, and is told nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.wants_disk = True


class _Told(Answers):
    """Answers each put with ok and the gets with what stands here, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._answers = [
            (RECORD, 5, SIBLINGS),
            (STALE_GENERATION, 6, b""),
        ]

    def position(self) -> int:
        return 500

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        return OK

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        status, self.generation, self.payload = self._answers.pop(0)
        return status


def batch_frames() -> dict[str, bytes]:
    link = Link(2, [], 1 << 20, 1 << 20)
    link.open(0)
    link.put(KEY, HOLDINGS["sent"], 4, 5, _Waiting())
    link.get(KEY, 4, 0, _Waiting())
    link.get(KEY[:33], 4, 0, _Waiting())
    (batch,) = link.take(0)
    probed = Link(3, [], 1 << 20, 1 << 20)
    probed.open(0)
    probed.probe()
    (probe,) = probed.take(0)
    server = BatchServer(_Told(), False)
    answers = server.on_batch(batch[4:])
    mark = server.mark(500)
    hinted = Link(4, [], 1 << 20, 1 << 20)
    hinted.open(0)
    hinted.put_entry(pack_hint(KEY, 2, 3, 1, HOLDINGS["sent"], 4, 5), _Waiting())
    (hint,) = hinted.take(0)
    return {"batch": batch, "probe": probe, "answers": answers, "mark": mark, "hint": hint}


# Messages that have grown at their end: which form of them the sample is. What is kept of the
# earlier ones is still read.
FORMS: dict[type, int] = {StatusAnswer: 6, LocalRecord: 3, ExplainAnswer: 3, LocalAnswer: 3}


def _message_name(message: object) -> str:
    form = FORMS.get(type(message), 1)
    return type(message).__name__ + (f"-{form}" if form > 1 else "")


def samples() -> dict[str, bytes]:
    """Every sample by its name, ``kind/name``."""
    messages = {_message_name(each): encode_message(each) for each in HANDSHAKE}
    messages |= {_message_name(each): encode_message(each) for each in CONTROL_MESSAGES}
    kinds = {
        "message": messages,
        "request": request_frames(),
        "link": batch_frames(),
        "record": RECORDS,
        "context": CONTEXTS,
        "holding": HOLDINGS,
        "hint": HINTS,
        "topology": {"document": encode_topology(TOPOLOGY)},
    }
    return {f"{kind}/{name}": body for kind, named in kinds.items() for name, body in named.items()}
