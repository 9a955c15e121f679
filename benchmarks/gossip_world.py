"""Membership alone on virtual time: hundreds of nodes without stores, links or clients.

Each node is the real ``Membership``: failure detector, gossip and beliefs. What stands for the
world delays each message, loses some, and counts bytes. The beliefs that travel are immutable and
shared by all who hold them, so a thousand nodes fit.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgspec

from kvorum.config import NodeConfig
from kvorum.counters import Counters
from kvorum.model.members import State
from kvorum.model.tables import TableSettings
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.membership import Membership
from kvorum.protocol.ports import Documents, Presence
from kvorum.protocol.timers import Timers
from kvorum.simulator.schedule import Schedule
from kvorum.simulator.trace import Trace
from kvorum.wire.codec import encode
from kvorum.wire.message import Message
from kvorum.wire.messages import StoreStart

DELAY_LEAST: Final = 300  # of one message, microseconds
DELAY_SPAN: Final = 1_700
TCP_CLOSES: Final = 2_000  # after which the others see the connections of a killed process end
SECOND: Final = 1_000_000


class NoDocuments(Documents, Presence):
    """All have the same topology and the same tables, and nobody asks for clocks."""

    __slots__ = ()

    @property
    def topology_epoch(self) -> int:
        return 1

    @property
    def tables_version(self) -> int:
        return 1 << 63

    def topology_document(self) -> bytes:
        raise NotImplementedError

    def all_tables(self) -> list[TableSettings]:
        return []

    def tell_tables(self, member: int) -> None:
        raise NotImplementedError

    def learn_topology(self, document: bytes) -> None:
        raise NotImplementedError

    def learn_tables(self, tables: Sequence[TableSettings]) -> None:
        raise NotImplementedError

    def on_heard(self, member: int, nonce: bytes) -> None:
        """Nobody claims another's place here."""

    def learn_clock(self, member: int, asked_at: int, wall: int) -> None:
        """All clocks are the same."""


class GossipNode(Environment):
    """One node, and the world as it sees it."""

    def __init__(self, world: "GossipWorld", me: int, start_count: int) -> None:
        self.world = world
        self.me = me
        self.start_count = start_count
        self.now = world.schedule.now
        self.wall = self.now
        self.random = Random(f"{world.schedule.seed}/{me}/{start_count}")
        self.counters = Counters()
        self.links = {}
        self.large_links = {}
        self.bytes_sent = 0
        self.messages_sent = 0
        self.running = True
        self.unconnected: dict[int, None] = {}  # members whose connections have ended
        self.timers = Timers()
        self._wakes_at = -1
        start = StoreStart(me.to_bytes(8, "big"), start_count, start_count.to_bytes(8, "big"))
        others = [member for member in range(1, world.count + 1) if member != me]
        nothing = NoDocuments()
        self.membership = Membership(
            self, others, me, start, nothing, nothing, self.timers, world.config
        )
        self.arm()

    def send(self, target: int, message: Message) -> bool:
        if target in self.unconnected:
            return False
        self._dispatch(target, message)
        return True

    def _dispatch(self, target: int, message: Message) -> None:
        self.bytes_sent += len(encode(message))
        self.messages_sent += 1
        self.world.carry(self.me, target, message)

    def receive(self, sender: int, message: Message) -> None:
        self.now = self.wall = self.world.schedule.now
        answer = self.membership.on_control(sender, message)  # type: ignore[arg-type]
        if answer is not None:
            self._dispatch(sender, answer)
        self.arm()

    def meet(self, member: int) -> None:
        """A connection to the member stands."""
        self.now = self.wall = self.world.schedule.now
        self.membership.on_control_open(member)
        self.arm()

    def raise_incarnation(self) -> int:
        """Say something new of itself; the incarnation under which it is said."""
        self.now = self.wall = self.world.schedule.now
        gossip = self.membership.gossip
        own = msgspec.structs.replace(gossip.own, incarnation=gossip.own.incarnation + 1)
        gossip.announce(own)
        return own.incarnation

    def arm(self) -> None:
        deadline = self.timers.next_deadline()
        if deadline >= 0 and (self._wakes_at < 0 or deadline < self._wakes_at):
            self._wakes_at = deadline
            self.world.schedule.at(deadline, self._wake, deadline)

    def _wake(self, time: int) -> None:
        if not self.running or self._wakes_at != time:
            return
        self._wakes_at = -1
        self.now = self.wall = self.world.schedule.now
        self.timers.fire(self.now)
        self.arm()

    # Of no use here.

    def entropy(self, size: int) -> bytes:
        raise NotImplementedError

    def forward(self, target: int) -> ClientPort | None:
        raise NotImplementedError

    def drop_peer(self, target: int) -> None:
        """There are no links."""

    def report(self, event: str, **detail: Any) -> None:
        self.world.on_report(self, event, detail)

    def stop(self, reason: str) -> None:
        raise NotImplementedError


class GossipWorld:
    """So many nodes, on a network that loses messages."""

    def __init__(self, count: int, seed: int, loss_permille: int = 0) -> None:
        self.count = count
        self.config = NodeConfig()
        self.schedule = Schedule(seed, Trace(False))
        self.loss_permille = loss_permille
        self._random = self.schedule.random_for("network")
        self.watch: Callable[[GossipNode, str, dict[str, Any]], None] | None = None
        self.nodes = {member: GossipNode(self, member, 1) for member in range(1, count + 1)}
        self.stopped: list[GossipNode] = []

    def run(self, microseconds: int) -> None:
        self.schedule.run_until(self.schedule.now + microseconds)

    def carry(self, sender: int, target: int, message: Message) -> None:
        draw = self._random.random
        if self.loss_permille and draw() * 1000 < self.loss_permille:
            return
        delay = DELAY_LEAST + int(draw() * DELAY_SPAN)
        self.schedule.after(delay, self._arrive, sender, target, message)

    def _arrive(self, sender: int, target: int, message: Message) -> None:
        node = self.nodes.get(target)
        if node is not None:
            node.receive(sender, message)

    def on_report(self, node: GossipNode, event: str, detail: dict[str, Any]) -> None:
        if self.watch is not None:
            self.watch(node, event, detail)

    # What befalls nodes.

    def crash(self, member: int, silently: bool) -> None:
        """A machine loses power, or only a process is killed, whose connections then end."""
        node = self.nodes.pop(member)
        node.running = False
        self.stopped.append(node)
        if not silently:
            for other in self.nodes.values():
                self.schedule.after(TCP_CLOSES, self._disconnect, other, member)

    def _disconnect(self, node: GossipNode, member: int) -> None:
        if node.running and member not in self.nodes:
            node.unconnected[member] = None
            node.membership.on_data_closed(member)

    def start(self, member: int) -> None:
        """A member that was gone is started again; everybody finds a connection to it."""
        last = max(node.start_count for node in self.stopped if node.me == member)
        node = self.nodes[member] = GossipNode(self, member, last + 1)
        for other in self.nodes.values():
            other.unconnected.pop(member, None)
            if other is not node:
                node.meet(other.me)
                other.meet(member)

    # What came of it.

    def total(self, counter: str) -> int:
        everybody = [*self.nodes.values(), *self.stopped]
        return sum(node.counters.snapshot()[counter] for node in everybody)

    @property
    def bytes_sent(self) -> int:
        return sum(node.bytes_sent for node in [*self.nodes.values(), *self.stopped])

    def all_heard(self, member: int, incarnation: int) -> bool:
        for node in self.nodes.values():
            if node.me != member:
                belief = node.membership.members.of(member)
                if belief is None or belief.incarnation < incarnation:
                    return False
        return True

    def all_believe(self, member: int, state: State) -> bool:
        for node in self.nodes.values():
            if node.me != member:
                belief = node.membership.members.of(member)
                if belief is None or belief.state != state:
                    return False
        return True
