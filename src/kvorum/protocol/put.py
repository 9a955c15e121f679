"""Carry one put through: ``w`` acks, as many from a disk as asked, then the answer.

The coordinator's own write came first (``minting.py``) and counts as any ack does. The whole
record goes to the other owners; each answers in its turn, and marks tell later what has reached
its disk. At ``w`` acks with enough disks among them the client is answered *ok*, with who holds
the write and how durably. Once a dot is minted a put is ok or *unknown*, never refused.

An owner whose connection ends before its answer, or before its mark where a disk is still
wanted, is sent the record again on its next connection: a merge, so harmless. A put that is
answered goes on until every owner has answered; nothing waits for it.

(Dynamo paper, section 4.5. Fallbacks and hints are not here yet: silence of an owner only
makes the others wait for it.)
"""

from kvorum.counters import BUCKETS, BUCKETS_END, OperationCounts, bucket_of
from kvorum.model.context import context_of_record, context_of_seen
from kvorum.model.holding import record_of
from kvorum.model.quorum import ENOUGH, NEVER, put_verdict
from kvorum.model.record import LWW
from kvorum.model.siblings import context_after_put, knows_of
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.replica_set import Owner, ReplicaSet
from kvorum.wire.link import STALE_GENERATION, Asker, pack_put
from kvorum.wire.requests import LEVEL_MEMORY, LEVEL_OS, put_ok_frame, unknown_frame


class PutCoordinator(Asker):
    """One put, from its dot to the last owner's answer.

    Every fact about the owners is a bit mask over their places. The put is *answered* once its
    client has been told; it is remembered longer, by the ledger, in case the client asks again
    under the same id.
    """

    __slots__ = (
        "acked", "answered", "client", "counts", "disk_needed", "dot", "env", "failed",
        "generation", "key", "level", "lost", "on_disk_mask", "record", "replicas", "request",
        "sent", "started_at",
        "value_clock", "w",
    )  # fmt: skip

    def __init__(
        self, env: Environment, client: ClientPort, request: int, key: bytes,
        replicas: ReplicaSet, w: int, disk_needed: int, level: int,
        record: bytes, sent: bytes, generation: int, dot: bytes, value_clock: int,
        counts: OperationCounts,
    ) -> None:  # fmt: skip
        """The dot is minted. ``level`` is that of acks without a mark."""
        self.wants_disk = disk_needed > 0
        self.env = env
        self.client = client
        self.request = request
        self.key = key
        self.replicas = replicas
        self.w = w
        self.disk_needed = disk_needed
        self.level = level
        self.record = record
        self.sent = sent  # the holding as it travels
        self.generation = generation  # under which it was read
        self.dot = dot
        self.value_clock = value_clock
        self.counts = counts
        self.started_at = env.now
        self.acked = replicas.my_bit
        self.on_disk_mask = 0
        self.failed = 0  # owners that refused
        self.lost = 0  # owners to be asked again when their connection is back
        self.answered = False

    def start(self) -> None:
        """Ask the other owners; the own write counts already."""
        self.env.faults.crash("put.before_replicate")
        sent = self.sent
        large = len(sent) > self.env.large_bytes
        entry = pack_put(self.key, sent, self.replicas.epoch, self.generation)
        for owner in self.replicas.others:
            link = owner.large_link if large else owner.link
            if not link.put_entry(entry, self):
                self.lost |= owner.bit
        if self.w == 1 and not self.answered:
            self.judge()

    def _ask(self, owner: Owner) -> None:
        link = owner.large_link if len(self.sent) > self.env.large_bytes else owner.link
        if not link.put(self.key, self.sent, self.replicas.epoch, self.generation, self):
            self.lost |= owner.bit

    def ask_again(self, member: int) -> None:
        """The member's connection is back; give it what it may have missed."""
        owner = self.replicas.by_member.get(member)
        if owner is not None and self.lost & owner.bit:
            self.lost &= ~owner.bit
            self.env.counters.resent_puts += 1
            self._ask(owner)

    def resume(self, client: ClientPort, request: int) -> None:
        """The same put has arrived again: mint nothing, replicate again, answer as ever."""
        self.client = client
        self.request = request
        if self.answered:
            # Else it keeps its deadline: those behind it in the queue wait for theirs.
            self.answered = False
            self.started_at = self.env.now
        for owner in self.replicas.others:
            bit = owner.bit
            if self.lost & bit or not self.acked & bit:
                self.lost &= ~bit
                self.failed &= ~bit
                self._ask(owner)
        self.judge()

    def on_ok(self, peer: int) -> None:
        self.acked |= self.replicas.bits[peer]
        if not self.answered:
            if self.disk_needed or self.acked.bit_count() < self.w:
                self.judge()
            else:
                self._answer_ok()

    def on_disk(self, peer: int) -> None:
        self.on_disk_mask |= self.replicas.bits[peer]
        if not self.answered:
            self.judge()

    def on_own_log_refused(self) -> None:
        """The log has not taken the own write: it counts again once it is on the disk."""
        self.acked &= ~self.replicas.my_bit

    def on_own_disk(self) -> None:
        """The own write is on the disk."""
        my_bit = self.replicas.my_bit
        self.acked |= my_bit
        self.on_disk_mask |= my_bit
        if not self.answered:
            self.judge()

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        """No answer to a put: whoever sends it has not taken the write."""
        self.on_refusal(peer, 0, b"")

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        if status == STALE_GENERATION and self._read_again(payload):
            self._ask(self.replicas.by_member[peer])
            return
        self.failed |= self.replicas.bits[peer]
        if not self.answered:
            self.judge()

    def on_later(self, peer: int) -> None:
        self._ask(self.replicas.by_member[peer])

    def _read_again(self, stale: bytes) -> bool:
        """A reap round came between: send what is held now, read under its generation."""
        held, generation = self.replicas.copies.read_again(self.key, stale)
        if not held or not knows_of(record_of(held), self.dot, self.value_clock):
            return False  # Set aside or dropped meanwhile: this write cannot be sent any more.
        self.sent = held
        self.generation = generation
        return True

    def on_lost(self, peer: int) -> None:
        # Also once it is answered: the client may ask for it again.
        bit = self.replicas.bits[peer]
        if not self.acked & self.on_disk_mask & bit:
            self.lost |= bit

    def judge(self) -> None:
        """Answer, if there is an answer."""
        acked = self.acked
        if not self.disk_needed:
            # The common case of many acks, without a call.
            if acked.bit_count() >= self.w:
                self._answer_ok()
                return
            if not self.failed:
                return
        replicas = self.replicas
        everyone = (1 << len(replicas.owners)) - 1
        pending = everyone & ~self.failed & ~acked
        # An owner that was lost may be back before the deadline, so only refusals are final.
        verdict = put_verdict(
            acked, self.on_disk_mask, pending, replicas.volatile, self.w, self.disk_needed
        )
        if verdict == ENOUGH:
            self._answer_ok()
        elif verdict == NEVER:
            self._answer_unknown("too many owners refused the write after it was begun")

    def expire(self) -> None:
        """The request's time is up, and it has no answer yet."""
        self._answer_unknown("too few owners answered in time")

    def _answer_ok(self) -> None:
        self.answered = True
        env = self.env
        env.counters.puts_ok += 1
        took = env.now - self.started_at
        env.latencies.append(took)
        self.counts.durations[BUCKETS[took >> 6] if took < BUCKETS_END else bucket_of(took)] += 1
        client = self.client
        client.in_flight -= 1
        if client.closed:
            return
        record = self.record
        if (record[6] == 1 and not record[7]) or record[1] & LWW:  # one value
            context = context_of_record(self.key, record, self.value_clock)
        else:
            seen = context_after_put(record, self.dot)
            context = context_of_seen(self.key, seen, self.value_clock)
        replicas = self.replicas
        acks = replicas.acks(self.acked, self.on_disk_mask, self.level)
        client.send(put_ok_frame(self.request, replicas.me, self.w, acks, context))

    def _answer_unknown(self, why: str) -> None:
        self.answered = True
        self.env.counters.puts_unknown += 1
        self.counts.unknown += 1
        self.client.in_flight -= 1
        if self.client.closed:
            return
        text = (
            f"{why}: {self.acked.bit_count()} of w={self.w} owners hold it, "
            f"{(self.acked & self.on_disk_mask).bit_count()} of {self.disk_needed} on a disk; "
            "it may survive or not"
        )
        self.client.send(unknown_frame(self.request, text))


assert LEVEL_MEMORY < LEVEL_OS
