"""Carry one put through: ``w`` acks, as many from a disk as asked, then the answer.

The coordinator's own write came first (``minting.py``) and counts as any ack does. The whole
record goes to the other owners; each answers in its turn, and marks tell later what has reached
its disk. At ``w`` acks with enough disks among them the client is answered *ok*, with who holds
the write and how durably. Once a dot is minted a put is ok or *unknown*, never refused.

An owner whose connection ends before its answer, or before its mark where a disk is still
wanted, is sent the record again on its next connection: a merge, so harmless. A put that is
answered goes on until every owner has answered; nothing waits for it.

In a sloppy table an owner that is silent for longer than it usually takes, is not connected or
cannot write is stood in for: the next listed fallback gets the record with a hint, and counts as
an owner does (``stand_ins.py``). The owner is asked all the same while there is hope of it. With
``sloppy=false`` no fallback is asked, and none counts.

(Dynamo paper, sections 4.5 and 4.6.)
"""

from typing import Final

from kvorum.counters import BUCKETS, BUCKETS_END, OperationCounts, bucket_of
from kvorum.faults import NO_FAULTS
from kvorum.model.context import context_of_record, context_of_seen
from kvorum.model.holding import record_of
from kvorum.model.quorum import ENOUGH, NEVER, put_verdict
from kvorum.model.record import LWW
from kvorum.model.siblings import context_after_put, knows_of
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.replica_set import Owner, ReplicaSet
from kvorum.protocol.stand_ins import StandIns
from kvorum.wire.link import (
    NOT_READY,
    OVERLOADED,
    STALE_GENERATION,
    UNWRITABLE,
    Asker,
    pack_hint,
    pack_put,
)
from kvorum.wire.requests import LEVEL_MEMORY, LEVEL_OS, put_ok_frame, unknown_frame

HINTS_REFUSED_FOR: Final = 1_000_000  # how long a fallback without room is not asked again
STANDS_IN_FOR: Final = (OVERLOADED, UNWRITABLE, NOT_READY)  # refusals that another may not make


class PutCoordinator(Asker):
    """One put, from its dot to the last owner's answer.

    Every fact about the owners is a bit mask over their places. The put is *answered* once its
    client has been told; it is remembered longer, by the ledger, in case the client asks again
    under the same id.
    """

    __slots__ = (
        "acked", "answered", "client", "counts", "disk_needed", "dot", "env", "failed",
        "generation", "key", "level", "lost", "on_disk_mask", "record", "replicas", "request",
        "sent", "sloppy", "stand_ins", "started_at", "value_clock", "w",
    )  # fmt: skip

    def __init__(
        self, env: Environment, client: ClientPort, request: int, key: bytes,
        replicas: ReplicaSet, w: int, disk_needed: int, sloppy: bool, level: int,
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
        self.sloppy = sloppy
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
        self.failed = 0  # those who refused, and fallbacks that could not be asked
        self.lost = 0  # those to be asked again when their connection is back
        self.stand_ins: StandIns | None = None
        self.answered = False

    def start(self) -> None:
        """Ask the other owners; the own write counts already."""
        env = self.env
        if env.faults is not NO_FAULTS:  # Even a call for nothing is one percent of a put.
            env.faults.crash("put.before_replicate")
        sent = self.sent
        large = len(sent) > env.large_bytes
        entry = pack_put(self.key, sent, self.replicas.epoch, self.generation)
        for owner in self.replicas.others:
            link = owner.large_link if large else owner.link
            if owner.link.silent or not link.put_entry(entry, self):
                self._start_without(owner, entry, large)
        if self.w == 1 and not self.answered:
            self.judge()

    def _start_without(self, owner: Owner, entry: bytes, large: bool) -> None:
        """The owner has not answered others in time, or is not connected: begin with a fallback.

        A silent one is asked as well, unless it has been mute for so long that nothing but its
        queue would grow by it.
        """
        stood_in = self._stand_in(owner.member)
        link = owner.large_link if large else owner.link
        if (stood_in and not owner.link.alive) or not link.put_entry(entry, self):
            self.lost |= owner.bit

    def _ask(self, owner: Owner) -> bool:
        """Send the record; False if that cannot be now, but when the connection is back."""
        link = owner.large_link if len(self.sent) > self.env.large_bytes else owner.link
        epoch = self.replicas.epoch
        if owner.bit & self.replicas.fallback_mask:
            assert self.stand_ins is not None
            owed_to = self.stand_ins.owed_to[owner.member]
            entry = pack_hint(
                self.key, owed_to, self.w, self.disk_needed, self.sent, epoch, self.generation
            )
            taken = link.put_entry(entry, self)
        else:
            taken = link.put(self.key, self.sent, epoch, self.generation, self)
        if not taken:
            self.lost |= owner.bit
        return taken

    def _stand_in(self, absent: int) -> bool:
        """Ask the next fallback in the stead of an owner or fallback; False if none is left."""
        if not self.sloppy or not self.replicas.fallback_mask:
            return False
        stand_ins = self.stand_ins
        if stand_ins is None:
            stand_ins = self.stand_ins = StandIns(self.replicas)
        fallback = stand_ins.next_for(absent)
        while fallback is not None and not self._ask(fallback):
            fallback = stand_ins.next_for(fallback.member)
        self.failed |= stand_ins.skipped
        if fallback is None:
            return False
        self.env.counters.hints_sent += 1
        return True

    def ask_again(self, member: int) -> None:
        """The member's connection is back; give it what it may have missed."""
        owner = self.replicas.by_member.get(member)
        if owner is None:
            return
        if self.lost & owner.bit:
            self.lost &= ~owner.bit
            self.env.counters.resent_puts += 1
            self._ask(owner)
        elif self.stand_ins is not None and self.stand_ins.skipped & owner.bit:
            self.stand_ins.retry(owner.bit)
            self.failed &= ~owner.bit
            for other in self.replicas.others:
                if self.lost & other.bit:
                    self._stand_in(other.member)

    def resume(self, client: ClientPort, request: int) -> None:
        """The same put has arrived again: mint nothing, replicate again, answer as ever."""
        self.client = client
        self.request = request
        if self.answered:
            # Else it keeps its deadline: those behind it in the queue wait for theirs.
            self.answered = False
            self.started_at = self.env.now
        if self.stand_ins is not None:
            forgotten = self.replicas.fallback_mask & ~self.acked
            self.failed &= ~forgotten
            self.lost &= ~forgotten
            self.stand_ins.begin_again(self.acked)
        for owner in self.replicas.others:
            bit = owner.bit
            if self.lost & bit or not self.acked & bit:
                self.lost &= ~bit
                self.failed &= ~bit
                if not self._ask(owner):
                    self._stand_in(owner.member)
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
        replicas = self.replicas
        self.acked &= ~replicas.my_bit
        if replicas.my_bit & replicas.owner_mask:
            self._stand_in(replicas.me)

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
        owner = self.replicas.by_member[peer]
        if status == STALE_GENERATION and self._read_again(payload):
            self._ask(owner)
            return
        self.failed |= owner.bit
        if status == OVERLOADED and owner.bit & self.replicas.fallback_mask:
            self.env.counters.hint_refusals_met += 1
            owner.link.hints_refused_until = self.env.now + HINTS_REFUSED_FOR
        if status in STANDS_IN_FOR:
            self._stand_in(peer)
        if not self.answered:
            self.judge()

    def on_later(self, peer: int) -> None:
        if not self._ask(self.replicas.by_member[peer]):
            self._stand_in(peer)

    def on_silence(self, peer: int) -> None:
        if not self.acked & self.replicas.bits[peer]:
            self._stand_in(peer)

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
            if not self.acked & bit or not self.answered:
                self._stand_in(peer)

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
        gone = self.failed | acked
        pending = replicas.owner_mask & ~gone
        if self.sloppy:
            # While an owner may still go silent, any fallback may still be asked.
            if pending:
                pending |= replicas.fallback_mask & ~gone
            elif self.stand_ins is not None:
                pending = self.stand_ins.asked & ~gone
        # An owner that was lost may be back before the deadline, so only refusals are final.
        verdict = put_verdict(
            acked, self.on_disk_mask, pending, replicas.volatile, self.w, self.disk_needed
        )
        if verdict == ENOUGH:
            self._answer_ok()
        elif verdict == NEVER:
            self._answer_unknown("too many nodes refused the write after it was begun")

    def expire(self) -> None:
        """The request's time is up, and it has no answer yet."""
        self._answer_unknown("too few nodes answered in time")

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
            f"{why}: {self.acked.bit_count()} of w={self.w} nodes hold it, "
            f"{(self.acked & self.on_disk_mask).bit_count()} of {self.disk_needed} on a disk; "
            "it may survive or not"
        )
        self.client.send(unknown_frame(self.request, text))


assert LEVEL_MEMORY < LEVEL_OS
