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

from typing import Final

from kvorum.model.context import context_of_record, context_of_seen
from kvorum.model.quorum import ENOUGH, NEVER, put_verdict
from kvorum.model.record import head_of
from kvorum.model.siblings import context_after_put
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.wire.link import LATER, Asker
from kvorum.wire.requests import (
    LEVEL_DISK,
    LEVEL_MEMORY,
    LEVEL_OS,
    pack_ack,
    put_ok_frame,
    unknown_frame,
)

NO_GENERATION: Final = 0


class PutCoordinator(Asker):
    """One put, from its dot to the last owner's answer.

    Owners are numbered by their place in ``owners``; every fact about them is a bit mask over
    these places. The put is *answered* once its client has been told; it is remembered longer,
    by the ledger, in case the client asks again under the same id.
    """

    __slots__ = (
        "acked", "answered", "client", "disk_needed", "dot", "env", "epoch", "failed", "key",
        "level", "lost", "me", "ok", "on_disk_mask", "owners", "position", "record", "request",
        "sent", "started_at", "value_clock", "volatile", "w",
    )  # fmt: skip

    def __init__(
        self, env: Environment, client: ClientPort, request: int, me: int, key: bytes,
        owners: tuple[int, ...], epoch: int, w: int, disk_needed: int, volatile: int,
        durability_none: bool,
    ) -> None:  # fmt: skip
        self.env = env
        self.client = client
        self.request = request
        self.me = me
        self.key = key
        self.owners = owners
        self.epoch = epoch
        self.w = w
        self.disk_needed = disk_needed
        self.wants_disk = disk_needed > 0
        self.volatile = volatile  # owners that keep nothing on a disk
        self.started_at = env.now
        self.acked = 0
        self.on_disk_mask = 0
        self.failed = 0  # owners that refused
        self.lost = 0  # owners to be asked again when their connection is back
        self.answered = False
        self.ok = False
        self.level = LEVEL_MEMORY if durability_none else LEVEL_OS  # of acks without a mark
        self.dot = b""
        self.record = b""
        self.sent = b""
        self.value_clock = 0
        self.position = 0  # of our own write in the log

    def start(self, record: bytes, sent: bytes, dot: bytes, value_clock: int) -> None:
        """The dot is minted: count the own write, ask the other owners."""
        self.record = record
        self.sent = sent
        self.dot = dot
        self.value_clock = value_clock
        bit = 1
        for owner in self.owners:
            if owner == self.me:
                self.acked |= bit
            else:
                self._ask(owner, bit)
            bit <<= 1
        self.judge()

    def _ask(self, owner: int, bit: int) -> None:
        env = self.env
        links = env.large_links if len(self.sent) > env.large_bytes else env.links
        if not links[owner].put(self.key, self.sent, self.epoch, NO_GENERATION, self):
            self.lost |= bit

    def ask_again(self, owner: int) -> None:
        """The owner's connection is back; give it what it may have missed."""
        if owner not in self.owners:
            return
        bit = 1 << self.owners.index(owner)
        if self.lost & bit:
            self.lost &= ~bit
            self.env.counters.resent_puts += 1
            self._ask(owner, bit)

    def resume(self, client: ClientPort, request: int) -> None:
        """The same put has arrived again: mint nothing, replicate again, answer as ever."""
        self.client = client
        self.request = request
        self.answered = False
        self.started_at = self.env.now
        bit = 1
        for owner in self.owners:
            if owner != self.me and not (self.acked | self.lost) & bit:
                self.failed &= ~bit
                self._ask(owner, bit)
            bit <<= 1
        self.judge()

    def on_ok(self, peer: int) -> None:
        self.acked |= 1 << self.owners.index(peer)
        if not self.answered:
            self.judge()

    def on_disk(self, peer: int) -> None:
        self.on_disk_mask |= 1 << self.owners.index(peer)
        if not self.answered:
            self.judge()

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        self.on_refusal(peer, LATER, b"")

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        bit = 1 << self.owners.index(peer)
        if status == LATER:
            self._ask(peer, bit)
            return
        self.failed |= bit
        if not self.answered:
            self.judge()

    def on_lost(self, peer: int) -> None:
        bit = 1 << self.owners.index(peer)
        if self.answered or self.acked & self.on_disk_mask & bit:
            return
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
        everyone = (1 << len(self.owners)) - 1
        pending = everyone & ~self.failed & ~acked
        # An owner that was lost may be back before the deadline, so only refusals are final.
        verdict = put_verdict(
            acked, self.on_disk_mask, pending, self.volatile, self.w, self.disk_needed
        )
        if verdict == ENOUGH:
            self._answer_ok()
        elif verdict == NEVER:
            self._answer_unknown("too many owners refused the write after it was begun")

    def expire(self) -> None:
        """The request's time is up."""
        if not self.answered:
            self._answer_unknown("too few owners answered in time")

    def _answer_ok(self) -> None:
        self.answered = True
        self.ok = True
        env = self.env
        env.counters.puts_ok += 1
        client = self.client
        client.in_flight -= 1
        if client.closed:
            return
        if head_of(self.record)[4] == 1:
            context = context_of_record(self.key, self.record, self.value_clock)
        else:
            seen = context_after_put(self.record, self.dot)
            context = context_of_seen(self.key, seen, self.value_clock)
        client.send(put_ok_frame(self.request, self.me, self.w, self._acks(), context))

    def _acks(self) -> bytes:
        """Who holds the write, and how durably."""
        acks = b""
        bit = 1
        for owner in self.owners:
            if self.acked & bit:
                if self.on_disk_mask & bit:
                    level = LEVEL_DISK
                elif self.volatile & bit:
                    level = LEVEL_MEMORY
                else:
                    level = self.level
                acks += pack_ack(owner, level, 0)
            bit <<= 1
        return acks

    def _answer_unknown(self, why: str) -> None:
        self.answered = True
        env = self.env
        env.counters.puts_unknown += 1
        self.client.in_flight -= 1
        if self.client.closed:
            return
        text = (
            f"{why}: {self.acked.bit_count()} of w={self.w} owners hold it, "
            f"{(self.acked & self.on_disk_mask).bit_count()} of {self.disk_needed} on a disk; "
            "it may survive or not"
        )
        self.client.send(unknown_frame(self.request, text))
