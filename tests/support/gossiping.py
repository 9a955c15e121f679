"""One node's membership alone: what it sends is kept, what comes in is what a test says."""

from collections.abc import Sequence
from itertools import count
from typing import TypeVar

from kvorum.config import NodeConfig
from kvorum.model.members import Belief, State
from kvorum.model.tables import TableSettings
from kvorum.protocol.membership import Membership
from kvorum.protocol.ports import Documents, Presence
from kvorum.protocol.timers import Timers
from kvorum.wire.gossip_messages import GossipMessage, News, Probe
from kvorum.wire.message import Message
from kvorum.wire.messages import StoreStart
from tests.support.recording import RecordingEnvironment

M = TypeVar("M", bound=Message)
VERSION = 7
EPOCH = 3


class SomeDocuments(Documents, Presence):
    """Documents of certain versions, and what was learned and heard."""

    def __init__(self) -> None:
        self.epoch = EPOCH
        self.version = VERSION
        self.tables: list[TableSettings] = []
        self.learned: list[object] = []
        self.told: list[int] = []
        self.heard: list[tuple[int, bytes]] = []
        self.clocks: list[tuple[int, int, int]] = []

    @property
    def topology_epoch(self) -> int:
        return self.epoch

    @property
    def tables_version(self) -> int:
        return self.version

    def topology_document(self) -> bytes:
        return b"epoch %d" % self.epoch

    def all_tables(self) -> list[TableSettings]:
        return self.tables

    def tell_tables(self, member: int) -> None:
        self.told.append(member)

    def learn_topology(self, document: bytes) -> None:
        self.learned.append(document)

    def learn_tables(self, tables: Sequence[TableSettings]) -> None:
        self.learned += tables

    def on_heard(self, member: int, nonce: bytes) -> None:
        self.heard.append((member, nonce))

    def learn_clock(self, member: int, asked_at: int, wall: int) -> None:
        self.clocks.append((member, asked_at, wall))


def word_of(member: int, incarnation: int = 1, state: State = State.ALIVE, by: int = 0) -> Belief:
    """A belief about a member, as that member's first start would have it said."""
    return Belief(member, state, incarnation, b"store %02d" % member, 1, b"nonce %02d" % member, by)


def news_of(member: int, *beliefs: Belief, own: Belief | None = None) -> News:
    return News(own or word_of(member), EPOCH, VERSION, list(beliefs))


class OneMember:
    """Member 1 of a cluster, with the others played by the test."""

    def __init__(self, members: int = 5, config: NodeConfig | None = None) -> None:
        self.config = config or NodeConfig()
        ids = tuple(range(1, members + 1))
        self.env = RecordingEnvironment(1, ids, self.config, count(1))
        self.timers = Timers()
        self.documents = SomeDocuments()
        start = StoreStart(b"store 01", 1, b"nonce 01")
        self.membership = Membership(
            self.env, ids[1:], 1, start, self.documents, self.documents, self.timers, self.config
        )
        self.detector = self.membership.detector
        self.gossip = self.membership.gossip
        self.members = self.membership.members
        self.round = self.config.probe_interval_ms * 1000
        self.timeout = self.config.probe_timeout_ms * 1000

    def advance(self, microseconds: int) -> None:
        """Time passes, and whatever falls due on the way is done at its time."""
        end = self.env.now + microseconds
        while 0 <= self.timers.next_deadline() <= end:
            self._set_clocks(max(self.timers.next_deadline(), self.env.now))
            self.timers.fire(self.env.now)
        self._set_clocks(end)

    def hang(self, microseconds: int) -> None:
        """Time passes, and nothing that falls due is done before its end."""
        self._set_clocks(self.env.now + microseconds)
        self.timers.fire(self.env.now)

    def _set_clocks(self, now: int) -> None:
        self.env.wall += now - self.env.now
        self.env.now = now

    def hear(self, member: int, message: GossipMessage) -> Message | None:
        return self.membership.on_control(member, message)

    def learn(self, *beliefs: Belief, teller: int = 2) -> None:
        """Hear beliefs, all in one probe."""
        self.hear(teller, Probe(1, 0, news_of(teller, *beliefs)))

    def sent(self, kind: type[M]) -> list[tuple[int, M]]:
        """The messages of a kind that were sent since the last look at any."""
        found = [(to, each) for to, each in self.env.sent if isinstance(each, kind)]
        self.env.sent.clear()
        return found

    def next_probe(self) -> tuple[int, Probe]:
        """Let the next round begin; whom it probes."""
        self.env.sent.clear()
        while True:
            self.advance(self.timers.next_deadline() - self.env.now)
            probes = self.sent(Probe)
            if probes:
                return probes[0]

    def state(self, member: int) -> State:
        belief = self.members.of(member)
        assert belief is not None
        return belief.state
