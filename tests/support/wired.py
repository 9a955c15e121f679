"""Several nodes joined without sockets or time: what one sends the others have at once.

A turn of everybody is one call of ``settle``; disks take what was written when a test calls
``sync``. Cut members keep their connections until ``lose`` ends them, so that silence and loss
can be told apart.
"""

from kvorum.config import NodeConfig
from kvorum.model.holding import record_of
from kvorum.model.record import Value, split_values
from kvorum.protocol.environment import ClientPort
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.link import BatchServer, Link
from kvorum.wire.messages import Reject
from tests.support.members import some_topology
from tests.support.recording import OneNode


class _Relay(ClientPort):
    """One end of a forwarding connection between two nodes."""

    __slots__ = ("_back", "_cluster", "_here", "_there")

    def __init__(self, cluster: "Cluster", here: int, there: int, back: bool) -> None:
        super().__init__()
        self._cluster = cluster
        self._here = here
        self._there = there
        self._back = back

    def send(self, frame: bytes) -> None:
        self._cluster.relayed.append((self._here, self._there, self._back, frame[LENGTH_BYTES:]))


class Cluster:
    """All members of one topology."""

    def __init__(
        self, count: int = 3, n: int = 3, volatile: tuple[int, ...] = (),
        config: NodeConfig | None = None,
    ) -> None:  # fmt: skip
        topology = some_topology(count, n)
        self.nodes = {
            member: OneNode(
                member, durable=member not in volatile, config=config, topology=topology
            )
            for member in range(1, count + 1)
        }
        self.relayed: list[tuple[int, int, bool, bytes]] = []
        self._servers: dict[tuple[int, int, bool], BatchServer] = {}
        self._clients: dict[tuple[int, int], _Relay] = {}
        self._cut: dict[int, None] = {}
        for here in self.nodes:
            for there in self.nodes:
                if here != there:
                    self.join(here, there)
        self.settle()

    def __getitem__(self, member: int) -> OneNode:
        return self.nodes[member]

    def join(self, here: int, there: int) -> None:
        """The connections that ``here`` opens to ``there`` stand, after their handshakes."""
        one, other = self.nodes[here], self.nodes[there]
        welcome = other.node.peering.on_hello(one.node.peering.hello(there, "control"))
        assert not isinstance(welcome, Reject), welcome
        assert one.node.peering.on_welcome(there, welcome) == ""
        for large in (False, True):
            self._servers[(here, there, large)] = BatchServer(other.node.replica, large)
            self._link(here, there, large).open(one.env.now)
        one.env.unreachable.pop(there, None)
        one.node.on_data_open(there)
        one.node.on_large_open(there)
        one.node.on_control_open(there)
        one.env.forward_ports[there] = _Relay(self, here, there, False)
        self._clients[(there, here)] = _Relay(self, there, here, True)
        one.node.forwarder.on_open(there, welcome.steady - one.node.peering.steady)

    def _link(self, here: int, there: int, large: bool) -> Link:
        env = self.nodes[here].env
        return env.large_links[there] if large else env.links[there]

    def lose(self, here: int, there: int) -> None:
        """The connections that ``here`` has to ``there`` end."""
        one = self.nodes[here]
        one.env.unreachable[there] = None
        one.env.forward_ports.pop(there, None)
        for large in (False, True):
            self._link(here, there, large).close()
            one.unanswered.pop((there, large), None)
        one.node.on_data_closed(there)
        one.node.forwarder.on_closed(there)

    def stop(self, member: int) -> None:
        """Everybody loses the member, and it everybody."""
        for other in self.nodes:
            if other != member:
                self.lose(other, member)
                self.lose(member, other)

    def cut(self, member: int) -> None:
        """Nothing reaches the member or comes from it; the connections stay."""
        self._cut[member] = None

    def heal(self, member: int) -> None:
        del self._cut[member]

    def settle(self) -> None:
        """Turns of everybody, until nobody who can be reached has anything left to do."""
        busy = True
        while busy:
            busy = False
            for member in self.nodes:
                busy = self._turn(member) or busy

    def _turn(self, member: int) -> bool:
        one = self.nodes[member]
        one.end_turn()
        return any([self._batches(member), self._control(member), self._relayed(member)])

    def _batches(self, here: int) -> bool:
        one = self.nodes[here]
        moved = False
        for (there, large), batches in one.unanswered.items():
            if here in self._cut or there in self._cut:
                continue
            server = self._servers[(here, there, large)]
            link = self._link(here, there, large)
            while batches:
                answers = server.on_batch(batches.popleft())
                self.nodes[there].end_turn()
                link.on_answers(answers[LENGTH_BYTES:], one.env.now)
                mark = server.mark(self.nodes[there].store.durable_position)
                if mark:
                    link.on_mark(mark[LENGTH_BYTES:])
                moved = True
        return moved

    def _control(self, here: int) -> bool:
        one = self.nodes[here]
        waiting, one.env.sent = one.env.sent, []
        moved = False
        for there, message in waiting:
            if here in self._cut or there in self._cut:
                one.env.sent.append((there, message))
                continue
            answer = self.nodes[there].node.on_control(here, message)  # type: ignore[arg-type]
            if answer is not None:
                one.node.on_control(there, answer)  # type: ignore[arg-type]
            moved = True
        return moved

    def _relayed(self, here: int) -> bool:
        waiting = [each for each in self.relayed if each[0] == here]
        self.relayed = [each for each in self.relayed if each[0] != here]
        moved = False
        for _, there, back, payload in waiting:
            if here in self._cut or there in self._cut:
                self.relayed.append((here, there, back, payload))
                continue
            other = self.nodes[there].node
            if back:
                other.forwarder.on_answer(payload)
            else:
                other.on_client(self._clients[(there, here)], payload)
            moved = True
        return moved

    def sync(self, *members: int) -> None:
        """What these members, or all, have written is on their disks, and their marks are out."""
        for member in members or tuple(self.nodes):
            one = self.nodes[member]
            if one.disk is None:
                continue
            one.sync()
            for (here, there, large), server in self._servers.items():
                if there == member and here not in self._cut and there not in self._cut:
                    frame = server.mark(one.store.durable_position)
                    if frame:
                        self._link(here, there, large).on_mark(frame[LENGTH_BYTES:])
        self.settle()

    def advance(self, microseconds: int) -> None:
        """Time passes on all members alike, in steps of a hundredth of a second."""
        passed = 0
        while passed < microseconds:
            step = min(10_000, microseconds - passed)
            for one in self.nodes.values():
                one.advance(step)
            self.settle()
            passed += step

    def values(self, member: int, partition_key: bytes = b"alice") -> list[bytes]:
        """What the member itself holds of a key."""
        one = self.nodes[member]
        held = one.store.get(one.key(partition_key))
        if not held:
            return []
        return [Value(each).data for each in split_values(record_of(held))]
