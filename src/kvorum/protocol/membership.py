"""Who is there: beliefs, their gossip and the failure detector, joined into one part of the node.

Here also stands what a belief does. A member that is believed dead or has left is shunned by
routing and hints, and our connections to it are ended and made anew in the background, with
growing pauses, so that no request finds out at its own cost. What we see ourselves goes before what
we hear: whoever has just answered on our own link is not shunned for a rumour, and a new connection
ends the shunning before its refutation has come round. (Dynamo paper, section 4.8.3: local
failure detection.)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from kvorum.config import NodeConfig
from kvorum.model.members import FIRST_INCARNATION, Belief, Members, State
from kvorum.protocol.environment import Environment
from kvorum.protocol.failure_detector import FailureDetector
from kvorum.protocol.gossip import Gossip
from kvorum.protocol.ports import Documents, Presence, Watcher
from kvorum.protocol.timers import Timers
from kvorum.wire.gossip_messages import (
    GossipMessage,
    Probe,
    ProbeAck,
    ProbeNack,
    ProbeRelayed,
    ProbeRequest,
    PushPull,
    PushPulled,
    TopologyTold,
)
from kvorum.wire.link import MUTE_AFTER
from kvorum.wire.message import Message

if TYPE_CHECKING:
    from kvorum.wire.messages import StoreStart

FAREWELLS: Final = 8  # members that a node which stops tells so


class Membership(Watcher):
    """One node's part in finding out who is there."""

    __slots__ = ("_documents", "_env", "_me", "detector", "gossip", "members")

    def __init__(
        self, env: Environment, others: Sequence[int], me: int, start: "StoreStart",
        documents: Documents, presence: Presence, timers: Timers, config: NodeConfig,
    ) -> None:  # fmt: skip
        self._env = env
        self._me = me
        self._documents = documents
        own = Belief(
            me, State.ALIVE, FIRST_INCARNATION, start.store_id, start.start_count, start.nonce
        )
        self.members = Members(others, env.now)
        self.gossip = Gossip(env, self.members, documents, timers, config, own)
        self.detector = FailureDetector(
            env, self.members, self.gossip, presence, timers, config, me
        )
        self.gossip.watcher = self

    def on_control(self, member: int, message: GossipMessage) -> Message | None:
        """A message of another member; what to answer on the same connection."""
        detector = self.detector
        match message:
            case Probe():
                self._take(member, message)
                return detector.on_probe(member, message)
            case ProbeAck():
                self._take(member, message)
                detector.on_ack(member, message)
            case ProbeRequest():
                self._take(member, message)
                return detector.on_request(member, message)
            case ProbeRelayed():
                self._take(member, message)
                detector.on_relayed(message)
            case ProbeNack():
                detector.on_nack(message)
            case PushPull():
                detector.on_message(member, message.news.own.nonce)
                return self.gossip.on_pull(member, message)
            case PushPulled():
                detector.on_message(member, message.news.own.nonce)
                self.gossip.on_pulled(member, message)
            case TopologyTold():
                self._documents.learn_topology(message.document)
        return None

    def _take(self, member: int, message: Probe | ProbeAck | ProbeRequest | ProbeRelayed) -> None:
        self.detector.on_message(member, message.news.own.nonce)
        self.gossip.take(member, message.news)

    # Connections.

    def on_control_open(self, member: int) -> None:
        """Our control connection to the member stands."""
        self.detector.greet(member)
        self.gossip.on_open(member)

    def on_data_open(self, member: int) -> None:
        """The member has just shaken hands with us: it is there, whatever is said."""
        self.members.welcome(member)

    def on_data_closed(self, member: int) -> None:
        self.detector.doubt(member)

    def renew(self, start: "StoreStart") -> None:
        """Tell of it if our store has been given a new id since."""
        own = self.gossip.own
        if own.store_id != start.store_id:
            self.gossip.announce(
                msgspec.structs.replace(
                    own, incarnation=own.incarnation + 1, store_id=start.store_id,
                    start_count=start.start_count,
                )
            )  # fmt: skip

    def ask(self, member: int) -> bool:
        """Ask a member whether it is still there; False if it cannot be asked, or is gone."""
        return member not in self.members.gone and self.detector.greet(member)

    def leave(self) -> None:
        """This node is about to stop: tell some others, which pass it on."""
        own = self.gossip.own
        if own.state == State.LEFT:
            return
        self.gossip.announce(msgspec.structs.replace(own, state=State.LEFT))
        told = 0
        for belief in self.members.beliefs():
            if told < FAREWELLS and belief.state == State.ALIVE:
                told += self.detector.greet(belief.member)

    # What beliefs do.

    def on_belief(self, held: Belief, belief: Belief) -> None:
        self.detector.on_belief(held, belief)
        member = belief.member
        if belief.state < State.DEAD:
            self.members.welcome(member)
        elif held.state < State.DEAD:
            self._shun(member, belief.state == State.LEFT)

    def _shun(self, member: int, certain: bool) -> None:
        env = self._env
        link = env.links.get(member)
        answers = link is not None and link.connected and env.now - link.heard_at < MUTE_AFTER
        if answers and not certain:
            self.detector.greet(member)  # Let it refute.
            return
        self.members.shun(member)
        env.drop_peer(member)

    def on_same(self, belief: Belief) -> bool:
        return self.detector.on_same(belief)

    def on_own(self, heard: Belief) -> None:
        self.detector.on_own(heard)
