"""Owners of one key whose every message can be late, lost or out of order: reaping's worst day.

The real minting, merging, generations and rounds of whole nodes run on messages that a pool
hands over in any order. Records on their way were read when they were sent, and may lie in the
pool through several rounds; control messages may be lost. Nothing else happens by itself.
"""

from random import Random
from typing import Any

from kvorum.model.context import context_of_record
from kvorum.model.holding import NO_OWN, record_of, with_own
from kvorum.model.record import Value, highest_clock, split_values
from kvorum.model.siblings import seen_of
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.version import Seen
from kvorum.protocol.minting import MINTED
from kvorum.storage.memory import MemoryEngine
from kvorum.wire.link import LATER, NOT_READY, OK, STALE_GENERATION
from tests.support.members import some_topology
from tests.support.recording import OneNode

PARTITION_KEY = b"alice"


class Owners:
    """Three owners, and a pool of what is on its way between them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        topology = some_topology(3, 3)
        self.nodes = {m: OneNode(m, topology=topology) for m in (1, 2, 3)}
        for one in self.nodes.values():
            for member in one.others:
                one.env.links[member].open(one.env.now)
        self.key = self.nodes[1].key(PARTITION_KEY)
        self.pool: list[tuple[Any, ...]] = []
        self.late: list[tuple[Any, ...]] = []  # records that hang somewhere, for any length of time
        self.snapshots: dict[int, tuple[Any, Any]] = {}
        self.reaped = Seen()  # what records had seen that were let go; nothing of it is alive
        for one in self.nodes.values():
            self._watch(one)
        self.written: dict[bytes, None] = {}  # values put
        self.covered: dict[bytes, None] = {}  # values that a later write has seen
        self.count = 0
        self.story: list[str] = []

    def _watch(self, one: OneNode) -> None:
        store_delete = one.store.delete

        def watched(key: bytes) -> None:
            held = one.store.get(key)
            if held and one.node.generations.of(key) >= 0:  # else it is being set aside
                self.reaped.merge(seen_of(record_of(held)))
                self.story.append(f"{one.me} lets go")
            store_delete(key)

        one.store.delete = watched

    def undead(self) -> list[bytes]:
        """Values that are alive somewhere though a record that had seen them go was reaped."""
        found: list[bytes] = []
        partition = self.nodes[1].ring.partition_of_engine_key(self.key)
        drops = [one.node.generations.dropped.get(partition, 0) for one in self.nodes.values()]
        for one in self.nodes.values():
            held = one.store.get(self.key)
            # A store that was rolled back and has heard of nobody yet is not believed by anybody.
            if held and one.node.generations.of(self.key) >= max(drops):
                for value in map(Value, split_values(record_of(held))):
                    if not value.tombstone and self.reaped.covers(value.dot):
                        found.append(value.data)
        return found

    def values(self, member: int) -> list[bytes]:
        held = self.nodes[member].store.get(self.key)
        if not held:
            return []
        return [
            value.data for value in map(Value, split_values(record_of(held)))
            if not value.tombstone
        ]  # fmt: skip

    # Clients.

    def put(self, member: int, reads: bool, tombstone: bool = False) -> None:
        one = self.nodes[member]
        generation = one.node.generations.of(self.key)
        if generation < 0 or not one.store.writable:
            return
        held = one.store.get(self.key)
        context = b""
        if reads and held:
            record = record_of(held)
            context = context_of_record(self.key, record, highest_clock(record))
            self.covered |= dict.fromkeys(self.values(member))
        table = one.node.tables.registry.live(DEFAULT_TABLE_ID)
        assert table is not None
        self.count += 1
        data = b"" if tombstone else b"v%d" % self.count
        put_id = self.count.to_bytes(16, "big")
        code = one.node.minter.mint(
            self.key, PARTITION_KEY, table, context, tombstone, 0, put_id, b"", data
        )
        if code != MINTED:
            return
        if not tombstone:
            self.written[data] = None
        what = "deletes" if tombstone else f"puts {data.decode()}"
        self.story.append(f"{member} {what} {'after a read' if context else 'blindly'}")
        for other in self.nodes:
            if other != member:
                self.send(member, other)

    def send(self, member: int, target: int) -> None:
        """The record as it is now, under the generation as it is now, on its way."""
        one = self.nodes[member]
        held = one.store.get(self.key)
        generation = one.node.generations.of(self.key)
        if held and generation >= 0:
            late = self.random.random() < 0.3
            way = self.late if late else self.pool
            way.append(("record", member, target, with_own(held, NO_OWN), generation))

    # What is on its way.

    def collect(self) -> None:
        for member, one in self.nodes.items():
            assert one.store.end_turn()
            waiting, one.env.sent = one.env.sent, []
            self.pool += [("control", member, target, message) for target, message in waiting]

    def deliver(self, message: tuple[Any, ...]) -> None:
        kind, sender, target, *rest = message
        if target not in self.nodes or sender not in self.nodes:
            return
        one, other = self.nodes[target], self.nodes[sender]
        if kind == "control":
            answer = one.node.on_control(sender, rest[0])
            if answer is not None:
                one.env.sent.append((sender, answer))
            return
        holding, generation = rest
        replica = one.node.replica
        replica.begin()
        status = replica.on_put(self.key, holding, 0, generation)
        if status == LATER:
            self.pool.append(message)
            self.pass_time(30_000)  # Questions are not asked again at once.
        elif status == STALE_GENERATION:
            copies = other.node.requests.replica_sets.of(self.key).copies
            again, newer = copies.read_again(self.key, replica.payload)
            if again:
                self.pool.append(("record", sender, target, again, newer))
        else:
            assert status in (OK, NOT_READY), status

    def step(self, lossy: bool) -> None:
        self.collect()
        if not self.pool:
            return
        message = self.pool.pop(self.random.randrange(len(self.pool)))
        if message[0] == "control" and lossy and self.random.random() < 0.1:
            return
        self.deliver(message)

    def release(self) -> None:
        """One of the records that hung somewhere goes on."""
        if self.late:
            self.pool.append(self.late.pop(self.random.randrange(len(self.late))))

    def meet(self) -> None:
        """Everybody sends everybody what it holds, as exchange would."""
        for member in self.nodes:
            for target in self.nodes:
                if member != target:
                    self.send(member, target)
        self.settle()

    def pass_time(self, microseconds: int) -> None:
        """Whatever has fallen due by then fires once; so rounds begin."""
        for one in self.nodes.values():
            one.env.now += microseconds
            one.env.wall += microseconds
            one.node.advance()
            one.env.dirty.clear()

    def settle(self) -> None:
        """Deliver all that is on its way, and sync all that is written, until nothing is left."""
        for _ in range(3000):
            self.collect()
            for one in self.nodes.values():
                one.sync()
            self.collect()
            if not self.pool:
                return
            self.deliver(self.pool.pop(self.random.randrange(len(self.pool))))
        raise AssertionError(f"never quiet: {self.pool[:5]}")

    # Disks.

    def snapshot(self, member: int) -> None:
        one = self.nodes[member]
        assert one.disk is not None
        one.sync()
        self.snapshots[member] = (one.disk.copied(), dict(one.engine.records))

    def roll_back(self, member: int) -> None:
        """The member comes back with an older state of its disk."""
        if member not in self.snapshots:
            return
        one = self.nodes[member]
        one.store.close_abruptly()
        disk, records = self.snapshots[member]
        one.disk = disk.copied()
        one.engine = MemoryEngine(durable=True)
        one.engine.records.update(records)
        self.story.append(f"{member} is rolled back")
        self._begin(member)

    def crash(self, member: int) -> None:
        """The process dies; all that it has written is on its disk."""
        one = self.nodes[member]
        one.sync()
        one.store.close_abruptly()
        self.story.append(f"{member} crashes")
        self._begin(member)

    def _begin(self, member: int) -> None:
        one = self.nodes[member]
        self.pool = [each for each in self.pool if member not in each[1:3] or each[0] == "record"]
        one._adopts = False  # Where the others stand they tell themselves.
        one.start()
        self._watch(one)
        for other in one.others:
            one.env.links[other].open(one.env.now)
            one.node.on_control_open(other)
            self.nodes[other].node.on_control_open(member)
