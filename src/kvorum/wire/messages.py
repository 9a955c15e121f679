"""Every control message: who sends it, and what it means.

Puts and gets do not stand here: between nodes they travel in batches (``link.py``), from
clients in hand-packed frames (``requests.py``). All else is a struct of this file, sent as
msgpack arrays with a tag in front. Those of one part of the protocol that are many stand in a
module of their own (``reaping_messages.py``). Tags are never reused, and fields are only added
at the end, with defaults; ``tests/golden`` holds a sample of each message of every version.

A connection begins with ``Hello`` from whoever opened it, answered by ``Welcome`` or ``Reject``.
Messages with a ``request`` field are questions of a client or of a peer, answered under the
same number by the message named, or by ``ControlRefused``.
"""

from typing import Final

import msgspec

from kvorum.model.tables import TableSettings
from kvorum.wire.aside_messages import SetAside
from kvorum.wire.exchange_messages import Exchanging
from kvorum.wire.gossip_messages import Gossiping
from kvorum.wire.handoff_messages import Handoff
from kvorum.wire.listing_messages import KeysAnswer, KeysQuery, LocalKeys, LocalKeysAnswer
from kvorum.wire.message import Message
from kvorum.wire.reaping_messages import Reaping
from kvorum.wire.trace_messages import Tracing

ROLE_CLIENT: Final = "client"  # requests of a client
ROLE_FORWARD: Final = "forward"  # requests that another node forwards
ROLE_DATA: Final = "data"  # batches between nodes
ROLE_LARGE: Final = "large"  # batches of large values, so that they delay nobody
ROLE_CONTROL: Final = "control"  # control messages between nodes
LOCAL_KEYS_MAX: Final = 1_000  # of one LocalQuery
NODE_ROLES: Final = (ROLE_FORWARD, ROLE_DATA, ROLE_LARGE, ROLE_CONTROL)


class StoreStart(msgspec.Struct, array_like=True, gc=False):
    """One start of one store: what its peers remember, to tell a copy from the original."""

    store_id: bytes
    start_count: int
    nonce: bytes


class Hello(Message, tag=1):
    """Who opens this connection, and what it may carry. First frame of every connection."""

    version_min: int
    version_max: int
    role: str
    cluster_id: bytes = b""  # empty from a client: it joins whatever cluster it reaches
    member: int = 0  # the sender's member id; 0 from a client
    target: int = 0  # the member that the sender believes to have reached; 0: any
    start: StoreStart | None = None  # of the sender's store
    wall: int = 0  # the sender's wall clock, microseconds
    software: str = ""  # for people
    topology_epoch: int = 0


class Welcome(Message, tag=2):
    """The connection stands; answers ``Hello``."""

    version: int  # spoken from here on
    cluster_id: bytes
    member: int
    name: str
    start: StoreStart
    wall: int
    remembered: StoreStart | None = None  # the highest start known here of the caller's store id
    volatile: bool = False  # keeps nothing on a disk, so can promise none
    topology_epoch: int = 0
    frame_bytes_max: int = 0  # no longer frame is taken
    retry_window: int = 0  # microseconds that a put id is remembered
    software: str = ""
    steady: int = 0  # the answerer's clock for put ids: microseconds, never steps


class Reject(Message, tag=3):
    """The connection is refused; the text says why and what to do. Answers ``Hello``."""

    code: str  # "version", "cluster", "target", "role", "twice", "store", "busy", "malformed"
    text: str


class Ping(Message, tag=10):
    """Node to node: are you there, and what is your clock? Answered, and no longer sent."""

    number: int
    sent_at: int  # the sender's steady clock, for the round trip


class Pong(Message, tag=11):
    """Answers ``Ping``."""

    number: int
    echo: int  # the ping's ``sent_at``
    wall: int  # the answerer's wall clock, microseconds
    volatile: bool = False  # the answerer keeps nothing on a disk


class TablesUpdate(Message, tag=12):
    """Node to node, at a change and where versions differ: tables as known here."""

    number: int
    tables: list[TableSettings]


class TablesUpdated(Message, tag=13):
    """Answers ``TablesUpdate``: merged, and written to the log."""

    number: int


class LocalRead(Message, tag=14):
    """Node to node: what do you yourself hold of this key? Answered by ``LocalRecord``."""

    request: int
    engine_key: bytes


class LocalRecord(Message, tag=15):
    """A replica's own copy, read without repair. Answers ``LocalRead``."""

    request: int
    member: int
    record: bytes | None  # None: nothing here
    quarantined: bool = False
    on_disk: bool = False
    own_dot: bytes = b""  # the last dot minted here for the key; empty: never
    text: str = ""  # why the member did not answer
    hint: bytes | None = None  # the record that it keeps for owners; None: none, or a damaged one
    hint_for: list[int] = []  # to whom that is owed
    hint_age: int = 0  # microseconds since the first of it came
    volatile: bool = False  # the member keeps nothing on a disk


class ControlRefused(Message, tag=20):
    """A question was refused; nothing was changed."""

    request: int
    code: int  # as in requests.py
    text: str


class TopologyQuery(Message, tag=21):
    """Client to node; answered by ``TopologyAnswer``."""

    request: int


class TopologyAnswer(Message, tag=22):
    request: int
    document: bytes  # the topology as in its file


class TableQuery(Message, tag=23):
    """Client to node: the table of this name. Answered by ``TableAnswer``."""

    request: int
    name: str


class TableList(Message, tag=24):
    """Client to node: all tables. Answered by ``TableAnswer``."""

    request: int


class TableAnswer(Message, tag=25):
    request: int
    tables: list[TableSettings]
    unreached: list[int] = []  # members that have not confirmed a change yet
    conflicts: list[str] = []  # names that two ids carry


class TableCreate(Message, tag=26):
    """Client to node: make a table; equal settings under an existing name are fine.

    Fields at their defaults take the default table's settings.
    """

    request: int
    name: str
    r: int = 0
    w: int = 0
    resolution: str = ""  # "siblings" or "lww"
    durability: str = ""  # "none", "one", "quorum" or "all"
    sloppy: bool | None = None
    ttl_seconds: int = 0
    max_siblings: int = 0
    max_record_bytes: int = 0


class TableSet(Message, tag=27):
    """Client to node: change settings of a table; fields at their defaults stay as they are."""

    request: int
    name: str
    r: int = 0
    w: int = 0
    durability: str = ""
    sloppy: bool | None = None
    ttl_seconds: int = -1
    max_siblings: int = 0
    max_record_bytes: int = 0


class TableDrop(Message, tag=28):
    """Client to node: end the table's id. Its records vanish at once from every door.

    ``table_id`` says which, where two carry the name; empty: the only one.
    """

    request: int
    name: str
    table_id: bytes = b""


class StatusQuery(Message, tag=29):
    """Client to node: answered by ``StatusAnswer``."""

    request: int


NOT_COMPARED: Final = -1  # since the connection stands, or nothing is shared
UNEQUAL: Final = -2


class PeerStatus(msgspec.Struct, array_like=True, gc=False):
    """What one node sees of another."""

    member: int
    name: str
    connected: bool
    silent: bool
    latency_mean: int  # microseconds
    clock_offset: int  # microseconds that the peer's clock is ahead
    queued_bytes: int
    belief: str = ""  # alive, suspect, dead or left
    incarnation: int = 0  # of the peer, under which that is believed
    believed_for: int = 0  # microseconds
    hints: int = 0  # that this node keeps for the peer
    hint_bytes: int = 0
    hints_waiting: int = 0  # microseconds that the oldest of them has waited
    # Microseconds that all shared records have been equal; UNEQUAL, or NOT_COMPARED.
    equal_for: int = NOT_COMPARED


class OperationStatus(msgspec.Struct, array_like=True, gc=False):
    """What became of one operation on one table where it was coordinated, since the start."""

    table: str
    operation: str  # "get", "put" or "delete"
    refused: int
    unknown: int
    durations: list[int]  # of those answered ok, by bucket as in counters.py; no zeros at the end


class StatusAnswer(Message, tag=30):
    request: int
    member: int
    name: str
    software: str
    protocol_version: int
    cluster_id: bytes
    topology_epoch: int
    store_id: bytes
    start_count: int
    clean_start: bool
    uptime: int  # microseconds
    engine: str
    volatile: bool
    writable: bool
    unwritable_reason: str
    partitions_owned: int
    partitions: int
    n: int
    tables: int
    in_flight: int
    overlay_bytes: int
    clock_offset: int  # microseconds that this clock is off the median of its peers
    peers: list[PeerStatus]
    counters: dict[str, int]
    operations: list[OperationStatus] = []  # those that occurred
    deletes_noted: int = 0  # deleted, expired or overgrown records that wait for a reap round
    reaping_blocked: dict[str, int] = {}  # member -> partitions whose rounds wait for it
    partitions_not_ready: int = 0  # of those held here: nothing is served of them yet
    records_aside: int = 0  # set aside, because their copy had missed a reap
    incarnation: int = 0  # of this node, by which it refutes
    health: int = 0  # 0 is well; the higher, the less this node trusts its own judgement
    hints: int = 0  # that this node keeps for others; one may be owed to several
    hint_bytes: int = 0
    partitions_behind: int = 0  # of those owned: not caught up, so they do not count for r
    leaves_stale: int = 0  # of the 65,536 of the hash trees: yet to be counted
    background_share: int = 0  # of the node's time, for background work, in thousandths


class ExplainQuery(Message, tag=31):
    """Client to node: who holds what of this key. Answered by ``ExplainAnswer``."""

    request: int
    table_id: bytes
    partition_key: bytes
    sort_key: bytes


class ExplainAnswer(Message, tag=32):
    request: int
    position: bytes  # on the ring, 16 bytes
    partition: int
    epoch: int
    owners: list[int]
    replicas: list[LocalRecord]  # one per owner, in their order
    fallbacks: list[LocalRecord] = []  # one per listed fallback: what it keeps for owners


class LocalQuery(Message, tag=88):
    """Client to node: what do you yourself hold of these keys? Answered by ``LocalAnswer``."""

    request: int
    table_id: bytes
    keys: list[tuple[bytes, bytes]]  # partition key, sort key; at most ``LOCAL_KEYS_MAX``


class LocalAnswer(Message, tag=89):
    """One node's own copies, in the order of the question; nothing is repaired by it."""

    request: int
    copies: list[LocalRecord]


Control = (
    Ping | Pong | TablesUpdate | TablesUpdated | LocalRead | LocalRecord | ControlRefused
    | TopologyQuery | TopologyAnswer | TableQuery | TableList | TableAnswer | TableCreate
    | TableSet | TableDrop | StatusQuery | StatusAnswer | ExplainQuery | ExplainAnswer
    | LocalQuery | LocalAnswer | Reaping
    | Gossiping | Tracing | Handoff | Exchanging
    | KeysQuery | KeysAnswer | LocalKeys | LocalKeysAnswer | SetAside
)  # fmt: skip
