"""Carry one get through: ask ``r`` replicas, merge, answer, then mend who was behind.

The own copy is read first; then the best-ranked owners are asked, as many as ``r`` still wants,
and one more when somebody is slower than in 19 of 20 cases (hedging). At ``r`` answers the
merged record goes to the client. Afterwards whoever answered with less is sent what it lacks:
**read repair**, one entry in the next batch. A copy that is damaged "failed here"; it does not
count, and another owner is asked instead. (Dynamo paper, sections 4.5 and 5.)
"""

from struct import error as StructError
from typing import Final

from kvorum.model.context import context_of_record
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.quorum import Resolution
from kvorum.model.record import (
    RecordInvalid,
    check_layout,
    head_of,
    highest_clock,
    supersedes,
    values_offset,
)
from kvorum.model.siblings import encode_shown, merge, needs_showing
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.ports import Mender, Reader
from kvorum.wire.link import ELSEWHERE, MALFORMED, Asker
from kvorum.wire.requests import (
    FOUND,
    QUORUM_NOT_MET,
    get_ok_frame,
    refused_frame,
)
from kvorum.wire.requests import LWW as ANSWER_LWW

NO_GENERATION: Final = 0
EMPTY: Final = b""


class RepairWatch(Asker):
    """Takes the answers to read repairs, which nobody waits for."""

    __slots__ = ()

    def on_ok(self, peer: int) -> None:
        pass

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        pass

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        pass


class GetCoordinator(Asker):
    """One get, until every replica it asked has answered or been lost.

    ``versions`` remembers what each replica answered, so that a slow one which answers after
    the client has been served is mended as well.
    """

    __slots__ = (
        "answered", "answered_mask", "asked", "client", "env", "epoch", "failed", "judges_expiry",
        "key", "me", "mender", "merged", "order", "own", "owners", "partition_key", "r",
        "reader", "request", "resolution", "started_at", "versions", "watch",
    )  # fmt: skip

    def __init__(
        self, env: Environment, client: ClientPort, request: int, me: int, key: bytes,
        partition_key: bytes, owners: tuple[int, ...], epoch: int, r: int, resolution: int,
        mender: Mender, watch: RepairWatch, reader: Reader | None, judges_expiry: bool,
    ) -> None:  # fmt: skip
        self.wants_disk = False
        self.env = env
        self.client = client
        self.request = request
        self.me = me
        self.key = key
        self.partition_key = partition_key
        self.owners = owners
        self.epoch = epoch
        self.r = r
        self.resolution = resolution
        self.mender = mender
        self.watch = watch
        self.reader = reader
        self.judges_expiry = judges_expiry
        self.started_at = env.now
        self.answered = False
        self.merged = EMPTY  # what is known so far; empty: no record anywhere yet
        self.own: bytes | None = None  # our own copy; None: absent, empty: damaged or not read
        self.asked = 0
        self.answered_mask = 0
        self.failed = 0
        self.order: list[int] = []  # owners not yet asked, best first
        self.versions: list[tuple[int, bytes]] = []

    def start(self, own: bytes | None, order: list[int]) -> None:
        """Count the own copy, unless it is damaged, and ask as many others as ``r`` wants."""
        self.own = own
        self.order = order
        bit = 1 << self.owners.index(self.me)
        self.asked = bit
        if own is None:
            self.answered_mask = bit
        elif own:
            self.answered_mask = bit
            self.merged = own
        else:
            self.failed = bit
        missing = self.r - self.answered_mask.bit_count()
        while missing > 0 and self._ask_next():
            missing -= 1
        self._judge()

    def _ask_next(self) -> bool:
        """Ask the next owner that can be asked; False if there is none."""
        while self.order:
            peer = self.order.pop(0)
            bit = 1 << self.owners.index(peer)
            self.asked |= bit
            if self.env.links[peer].get(self.key, self.epoch, NO_GENERATION, self):
                return True
            self.failed |= bit
        return False

    def on_ok(self, peer: int) -> None:
        """The peer holds nothing."""
        self._take(peer, EMPTY)

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        merged = self.merged
        if record != merged:
            try:
                check_layout(record, 0)
            except (RecordInvalid, StructError):
                self.on_refusal(peer, MALFORMED, b"")
                return
            if not merged or supersedes(record, merged):
                self.merged = record
            elif not supersedes(merged, record):
                self.merged = merge(merged, record)
            if self.answered and self.merged != merged:
                # Too late for the client, but not for our own copy.
                self._mend_own()
        self._take(peer, record)

    def _take(self, peer: int, record: bytes) -> None:
        self.answered_mask |= 1 << self.owners.index(peer)
        if not self.answered:
            self.versions.append((peer, record))
            if self.answered_mask.bit_count() >= self.r:
                self._answer()
        elif record != self.merged:
            self._repair(peer)

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        if status == ELSEWHERE and self.env.large_links[peer].get(
            self.key, self.epoch, NO_GENERATION, self
        ):
            return
        self._fail(peer)

    def on_lost(self, peer: int) -> None:
        self._fail(peer)

    def _fail(self, peer: int) -> None:
        self.failed |= 1 << self.owners.index(peer)
        if not self.answered:
            self._ask_next()
            self._judge()

    def on_slow(self, peer: int) -> None:
        if not self.answered and self._ask_next():
            self.env.counters.hedged_gets += 1

    def on_silence(self, peer: int) -> None:
        if not self.answered:
            self._ask_next()

    def _judge(self) -> None:
        if self.answered:
            return
        if self.answered_mask.bit_count() >= self.r:
            self._answer()
        elif not (self.asked & ~self.answered_mask & ~self.failed) and not self.order:
            self._refuse("too few of the key's owners can answer")

    def expire(self) -> None:
        """The request's time is up."""
        if not self.answered:
            self._refuse("too few of the key's owners answered in time")

    def _refuse(self, why: str) -> None:
        self.answered = True
        text = f"{why}: {self.answered_mask.bit_count()} of r={self.r} did"
        if self.reader is not None:
            self.reader.on_read_failed(QUORUM_NOT_MET, text)
            return
        self.env.counters.gets_refused += 1
        self.client.in_flight -= 1
        if not self.client.closed:
            self.client.send(refused_frame(self.request, QUORUM_NOT_MET, text))

    def _answer(self) -> None:
        self.answered = True
        if self.reader is not None:
            self.reader.on_read(self.merged)
        else:
            self.env.counters.gets_ok += 1
            self.client.in_flight -= 1
            if not self.client.closed:
                self._answer_client()
        self._mend()

    def _answer_client(self) -> None:
        merged = self.merged
        replicas = b""
        bit = 1
        for owner in self.owners:
            if self.answered_mask & bit:
                replicas += owner.to_bytes(2, "little")
            bit <<= 1
        flags = ANSWER_LWW if self.resolution == Resolution.LWW else 0
        if not merged:
            empty = context_of_record(self.key, b"\0\0\0\0\0\0\0\0", 0)
            frame = get_ok_frame(self.request, flags, self.me, replicas, empty, 0, b"")
            self.client.send(frame)
            return
        context = context_of_record(self.key, merged, highest_clock(merged))
        shown = merged
        if needs_showing(merged):
            shown = encode_shown(merged, self.env.wall if self.judges_expiry else 0)
        count = head_of(shown)[4]
        if count > 1:
            self.env.counters.siblings_seen += 1
        values = shown[values_offset(shown) :]
        frame = get_ok_frame(self.request, flags | FOUND, self.me, replicas, context, count, values)
        self.client.send(frame)

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
        self.env.counters.own_repairs += 1
        self.mender.mend(self.key, pack_holding(NO_OWN, self.partition_key, self.merged))

    def _repair(self, peer: int) -> None:
        env = self.env
        env.counters.read_repairs += 1
        holding = pack_holding(NO_OWN, self.partition_key, self.merged)
        links = env.large_links if len(holding) > env.large_bytes else env.links
        links[peer].put(self.key, holding, self.epoch, NO_GENERATION, self.watch)
