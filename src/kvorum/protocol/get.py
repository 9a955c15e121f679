"""Carry one get through: ask ``r`` replicas, merge, answer, then mend who was behind.

The own copy is read first; then the best-ranked owners are asked, as many as ``r`` still wants,
and one more when somebody is slower than in 19 of 20 cases (hedging). At ``r`` answers the
merged record goes to the client. Afterwards whoever answered with less is sent what it lacks:
**read repair**, one entry in the next batch. A copy that is damaged "failed here"; it does not
count, and another owner is asked instead. What an owner holds that is *behind*, that is, may
lack what it has acknowledged (``catch_up.py``), is merged in and does not count either, unless
``r`` can be reached in no other way; then the answer says that it may miss something. (Dynamo
paper, sections 4.5 and 5.)

A sloppy get that is short of ``r`` owners asks listed fallbacks as well, which answer with what
they keep for owners, and its answer says so. Hints are not mended: they go home by themselves.
"""

from struct import error as StructError
from typing import Final

from kvorum.counters import BUCKETS, BUCKETS_END, OperationCounts, bucket_of
from kvorum.faults import NO_FAULTS
from kvorum.model.context import context_of_record
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.quorum import Resolution
from kvorum.model.record import (
    EXPIRES,
    RecordInvalid,
    check_layout,
    glance,
    highest_clock,
    supersedes,
)
from kvorum.model.siblings import encode_shown, merge
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.ports import Reader
from kvorum.protocol.read_repair import ReadRepair
from kvorum.protocol.replica_set import Owner, ReplicaSet
from kvorum.wire.link import ELSEWHERE, FAILED_HERE, MALFORMED, STALE_GENERATION, Asker
from kvorum.wire.requests import (
    FALLBACK_READ,
    FOUND,
    MAY_MISS,
    QUORUM_NOT_MET,
    get_ok_frame,
    refused_frame,
)
from kvorum.wire.requests import LWW as ANSWER_LWW

LWW_TABLE: Final = Resolution.LWW
EMPTY: Final = b""
NO_RECORD: Final = b"\1\0\0\0\0\0\0\0"  # one that has seen nothing


class GetCoordinator(Asker):
    """One get, until every replica it asked has answered or been lost.

    ``versions`` remembers what each replica answered until the client has been served; one that
    answers later is mended as well.
    """

    __slots__ = (
        "answered", "answered_mask", "asked", "behind", "client", "counts", "env", "failed",
        "generation", "judges_expiry", "key", "merged", "order", "own", "partition_key", "r",
        "reader", "replicas", "request", "resolution", "sloppy", "started_at", "versions",
    )  # fmt: skip

    def __init__(
        self, env: Environment, client: ClientPort, request: int, key: bytes,
        partition_key: bytes, replicas: ReplicaSet, r: int, sloppy: bool,
        resolution: Resolution, generation: int, reader: Reader | None, judges_expiry: bool,
        counts: OperationCounts,
    ) -> None:  # fmt: skip
        self.wants_disk = False
        self.env = env
        self.client = client
        self.request = request
        self.key = key
        self.partition_key = partition_key
        self.replicas = replicas
        self.r = r
        self.sloppy = sloppy
        self.resolution = resolution
        self.generation = generation  # under which all that counts was read
        self.reader = reader
        self.judges_expiry = judges_expiry
        self.counts = counts
        self.started_at = env.now
        self.answered = False
        self.merged = EMPTY  # what is known so far; empty: no record anywhere yet
        self.own: bytes | None = None  # our own copy; None: absent, empty: damaged
        self.asked = 0
        self.answered_mask = 0
        self.behind = 0  # owners whose answers count only if nothing else will do
        self.failed = 0
        self.order: list[Owner] = []  # owners not yet asked, the best last
        self.versions: list[tuple[int, bytes]] = []

    def start(self, own: bytes | None, behind: bool) -> None:
        """Count the own copy, unless it is damaged, and ask as many others as ``r`` wants."""
        self.own = own
        if self.replicas.stands_in:
            self._start_as_fallback(own)
            return
        bit = self.replicas.my_bit
        self.asked = bit
        missing = self.r
        if own or own is None:
            if behind:
                self.behind = bit
            else:
                self.answered_mask = bit
                missing -= 1
            if own:
                self.merged = own
        else:
            self.failed = bit
        if missing:
            self.order = self.replicas.ranked()
            while missing > 0 and (self._ask_next() or self._ask_fallback()):
                missing -= 1
            if missing > 0:
                self._judge()
            elif self.env.faults is not NO_FAULTS and self.env.faults.hit("get.hedge_at_once"):
                self._ask_next()
        else:
            self._answer()

    def _ask_next(self) -> bool:
        """Ask the next owner that can be asked; False if there is none."""
        order = self.order
        while order:
            owner = order.pop()
            self.asked |= owner.bit
            if owner.link.get(self.key, self.replicas.epoch, self.generation, self):
                return True
            self.failed |= owner.bit
        return False

    def _start_as_fallback(self, own: bytes | None) -> None:
        """Begin at a fallback: what is kept here counts only where owners are missing."""
        self.asked = 0
        if own:
            self.merged = own
        missing = self.r
        self.order = self.replicas.ranked()
        while missing > 0 and not self.answered and (self._ask_next() or self._ask_fallback()):
            missing -= 1
        if missing > 0:
            self._judge()

    def _ask_fallback(self) -> bool:
        """Ask the next listed fallback, for want of owners; False if there is none."""
        if not self.sloppy:
            return False
        replicas = self.replicas
        mine = replicas.my_bit & replicas.fallback_mask & ~self.asked
        if mine:
            self.asked |= mine
            self.env.counters.fallback_reads += 1
            if self.own != EMPTY:
                self.answered_mask |= mine
                if self.answered_mask.bit_count() >= self.r:
                    self._answer()
                return True
            self.failed |= mine
        for fallback in replicas.fallbacks:
            if self.asked & fallback.bit:
                continue
            self.asked |= fallback.bit
            if fallback.link.get(self.key, replicas.epoch, self.generation, self):
                self.env.counters.fallback_reads += 1
                return True
            self.failed |= fallback.bit
        return False

    def _begin_again(self, stale: bytes) -> None:
        """A reap round came between: what was read before it proves nothing any more."""
        held, generation = self.replicas.copies.read_again(self.key, stale)
        if generation <= self.generation:
            return  # Told again by another; everybody has been asked anew already.
        self.generation = generation
        self.merged = EMPTY
        behind = bool(self.behind & self.replicas.my_bit)
        self.answered_mask = self.failed = self.behind = 0
        self.versions = []
        self.start(record_of(held) if held else held, behind)

    def on_ok(self, peer: int) -> None:
        """The peer holds nothing."""
        self.on_record(peer, self.generation, EMPTY)

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        if generation != self.generation:
            return  # Read before a reap that has come between; the peer has been asked anew.
        if record and record != self.merged and not self._merge(peer, record):
            return
        self.answered_mask |= self.replicas.bits[peer]
        if self.answered:
            if record != self.merged:
                self._repair(peer)
        elif self.answered_mask.bit_count() >= self.r:
            if record != self.merged:
                self.versions.append((peer, record))
            self._answer()
        else:
            self.versions.append((peer, record))
            if self.failed or self.behind:
                self._judge()

    def on_behind(self, peer: int, generation: int, record: bytes) -> None:
        if generation != self.generation:
            return
        if record and record != self.merged and not self._merge(peer, record):
            return
        self.behind |= self.replicas.bits[peer]
        if self.answered:
            if record != self.merged:
                self._repair(peer)
            return
        self.versions.append((peer, record))
        if not self._ask_next() and not self._reached:
            self._ask_fallback()
        self._judge()

    def _merge(self, peer: int, record: bytes) -> bool:
        """Take in what a peer holds; False if it is malformed."""
        merged = self.merged
        try:
            check_layout(record, 0)
        except (RecordInvalid, StructError):
            self.on_refusal(peer, MALFORMED, b"")
            return False
        if not merged or supersedes(record, merged):
            self.merged = record
        elif not supersedes(merged, record):
            self.merged = merge(merged, record)
        if self.answered and self.merged != merged:
            # Too late for the client, but not for our own copy.
            self._mend_own()
        return True

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        if status == ELSEWHERE:
            link = self.replicas.by_member[peer].large_link
            if link.get(self.key, self.replicas.epoch, self.generation, self):
                return
        if status == STALE_GENERATION:
            if not self.answered:
                self._begin_again(payload)
            return
        if status == FAILED_HERE:
            # Its copy is damaged. The next good record heals it, so it gets what is found.
            if not self.answered:
                self.versions.append((peer, EMPTY))
            elif self.merged:
                self._repair(peer)
        self._fail(peer)

    def on_later(self, peer: int) -> None:
        link = self.replicas.by_member[peer].link
        if self.answered or not link.get(self.key, self.replicas.epoch, self.generation, self):
            self._fail(peer)

    def on_lost(self, peer: int) -> None:
        self._fail(peer)

    def _fail(self, peer: int) -> None:
        self.failed |= self.replicas.bits[peer]
        if not self.answered and not self._ask_next() and not self._ask_fallback():
            self._judge()

    def on_slow(self, peer: int) -> None:
        if not self.answered and self._ask_next():
            self.env.counters.hedged_gets += 1

    def on_silence(self, peer: int) -> None:
        if not self.answered and not self._ask_next():
            self._ask_fallback()

    def _judge(self) -> None:
        """Refuse as soon as ``r`` answers can no longer come; count who is behind before that."""
        assert not self.answered  # A fallback's own copy is asked only where that is not enough.
        left = len(self.order)
        hopeful = self.asked & ~self.failed
        if (hopeful & ~self.behind).bit_count() + left >= self.r:
            return
        if self._reached:
            self._answer()
            return
        if self.sloppy:
            left += (self.replicas.fallback_mask & ~self.asked).bit_count()
        if hopeful.bit_count() + left < self.r:
            self._refuse("too few of the key's owners can answer")

    @property
    def _reached(self) -> bool:
        """Whether there are ``r`` answers, of whomever."""
        return (self.answered_mask | self.behind).bit_count() >= self.r

    def expire(self) -> None:
        """The request's time is up, and it has no answer yet."""
        if self._reached:
            self._answer()
        else:
            self._refuse("too few of the key's owners answered in time")

    def _refuse(self, why: str) -> None:
        self.answered = True
        text = f"{why}: {self.answered_mask.bit_count()} of r={self.r} did"
        if self.reader is not None:
            self.reader.on_read_failed(QUORUM_NOT_MET, text)
        else:
            self.env.counters.gets_refused += 1
            self.counts.refused += 1
            self.client.in_flight -= 1
            if not self.client.closed:
                self.client.send(refused_frame(self.request, QUORUM_NOT_MET, text))
        self._mend()  # What was found may heal the very copies that were missing.

    def _answer(self) -> None:
        self.answered = True
        if self.reader is not None:
            self.reader.on_read(self.merged)
        else:
            env = self.env
            env.counters.gets_ok += 1
            took = env.now - self.started_at
            env.latencies.append(took)
            self.counts.durations[
                BUCKETS[took >> 6] if took < BUCKETS_END else bucket_of(took)
            ] += 1
            self.client.in_flight -= 1
            if not self.client.closed:
                self._answer_client()
        if self.versions or self.own != self.merged:
            self._mend()

    def _answer_client(self) -> None:
        merged = self.merged
        replicas = self.replicas
        answered = self.answered_mask
        flags = ANSWER_LWW if self.resolution is LWW_TABLE else 0
        if answered.bit_count() < self.r:
            answered |= self.behind
            flags |= MAY_MISS
            self.env.counters.gets_that_may_miss += 1
        names = replicas.names(answered)
        if self.answered_mask & replicas.fallback_mask:
            flags |= FALLBACK_READ
        if not merged:
            empty = context_of_record(self.key, NO_RECORD, 0)
            frame = get_ok_frame(self.request, flags, replicas.me, names, empty, 0, b"")
            self.client.send(frame)
            return
        record_flags, count, values_at, clock = glance(merged)
        shown = merged
        if count > 1 or record_flags & EXPIRES:
            clock = highest_clock(merged)
            shown = encode_shown(merged, self.env.wall if self.judges_expiry else 0)
            _, count, values_at, _ = glance(shown)
            if count > 1:
                self.env.counters.siblings_seen += 1
        context = context_of_record(self.key, merged, clock)
        values = shown[values_at:]
        flags |= FOUND
        self.client.send(
            get_ok_frame(self.request, flags, replicas.me, names, context, count, values)
        )

    def _mend(self) -> None:
        """Give every replica that answered with less what it lacks, ourselves first."""
        merged = self.merged
        if not merged:
            return
        if self.own != merged:
            self._mend_own()
        for peer, record in self.versions:
            if record != merged:
                self._repair(peer)
        self.versions = []

    def _mend_own(self) -> None:
        if self.replicas.stands_in:
            return
        self.env.counters.own_repairs += 1
        holding = pack_holding(NO_OWN, self.partition_key, self.merged)
        self.replicas.copies.mend(self.key, holding, self.generation)

    def _repair(self, peer: int) -> None:
        env = self.env
        owner = self.replicas.by_member[peer]
        if owner.bit & self.replicas.fallback_mask or env.faults.hit("repair.drop"):
            return
        env.counters.read_repairs += 1
        holding = pack_holding(NO_OWN, self.partition_key, self.merged)
        repair = ReadRepair(self.key, self.replicas, owner, env.large_bytes)
        repair.send(holding, self.generation)
