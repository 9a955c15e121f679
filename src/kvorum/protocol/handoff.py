"""Giving hints home: what was kept for an owner goes to it, oldest first, when it is back.

The work list is the hint space itself, so it is durable, and an interrupted handoff goes on where
the list says. Each hint is sent as an ordinary put, and let go only once the owner has it on its
disk (or has taken it, where it keeps nothing on one), and only if the hint says no more by then
than what was sent. So a handoff may die at any point, and a hint may be sent twice, without
harm. (Dynamo paper, section 4.6; architecture, section 5.)

Nobody floods a node that has just come back: whoever keeps hints for it offers them, and it
answers how much may be on its way to it, shared among all who offer. By how much an offer has
shrunk since the last one, so much has been taken, and is charged to the owner's own background
work; the last offer is of nothing. An owner that refuses is asked again after a pause, which
doubles.
"""

from itertools import islice
from typing import Final

from kvorum.model.holding import NO_OWN, with_own
from kvorum.model.ring import Ring
from kvorum.model.tables import TableRegistry
from kvorum.protocol.background import BYTES_SHIFT, RECORD_READ, RECORD_SENT, Background, Task
from kvorum.protocol.environment import Environment
from kvorum.protocol.generations import Generations
from kvorum.protocol.hints import LOAD_SLICE, Hints
from kvorum.protocol.ports import Copies
from kvorum.storage.store import Store
from kvorum.wire.handoff_messages import HandoffCredit, HandoffOffer
from kvorum.wire.link import LATER, MALFORMED, NOT_TAKEN, STALE_GENERATION, Asker, Link

OFFER_INTERVAL: Final = 1_000_000
CREDIT_LASTS: Final = 3 * OFFER_INTERVAL
CREDIT_ENTRIES: Final = 256  # on their way to this node at a time, from all who hand off to it
CREDIT_BYTES: Final = 4 << 20
PAUSE_FIRST: Final = 100_000
PAUSE_LAST: Final = 10_000_000
PARKED_MAX: Final = 1_000
KEY_REFUSALS: Final = (MALFORMED, NOT_TAKEN)  # of this one key, not of the owner as it is now


class Debt:
    """What is under way to one owner, and how much of it may be."""

    __slots__ = (
        "bytes", "credit_bytes", "credit_entries", "credit_until", "not_before", "offered_at",
        "parked", "pause", "sent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sent: dict[bytes, None] = {}  # keys under way
        self.bytes = 0
        self.credit_entries = 0
        self.credit_bytes = 0
        self.credit_until = -1
        self.offered_at = -OFFER_INTERVAL
        self.not_before = 0  # a refusal has asked for a pause
        self.pause = PAUSE_FIRST
        self.parked: dict[bytes, int] = {}  # keys that the owner would not have -> until when


class Giver:
    """A member that keeps hints for us, as it said last."""

    __slots__ = ("entries", "offered_at")

    def __init__(self, entries: int, offered_at: int) -> None:
        self.entries = entries
        self.offered_at = offered_at


class Delivery(Asker):
    """One hint on its way to one owner."""

    __slots__ = ("_handoff", "acked", "done", "holding", "key", "owner")

    def __init__(self, handoff: "Handoff", owner: int, key: bytes, holding: bytes) -> None:
        self.wants_disk = True
        self._handoff = handoff
        self.owner = owner
        self.key = key
        self.holding = holding
        self.acked = False
        self.done = False

    def on_ok(self, peer: int) -> None:
        self.acked = True
        if self._handoff.is_volatile(peer):
            self._handoff.on_delivered(self)

    def on_disk(self, peer: int) -> None:
        self._handoff.on_delivered(self)

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        self._handoff.on_refused(self, LATER, b"")

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        self._handoff.on_refused(self, status, payload)

    def on_lost(self, peer: int) -> None:
        self._handoff.on_delivery_lost(self)


class Handoff(Task):
    """All hints of this node on their way home, and the credit for those that come to it."""

    __slots__ = (
        "_background", "_copies", "_current", "_debts", "_env", "_givers", "_hints", "_ring",
        "_store", "_tables", "_volatile",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, background: Background, hints: Hints,
        copies: Copies, generations: Generations, tables: TableRegistry, ring: Ring,
        volatile: dict[int, bool],
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._background = background
        self._hints = hints
        self._copies = copies  # the hints as coordinators see them
        self._current = generations.current
        self._tables = tables
        self._ring = ring
        self._volatile = volatile  # member -> it keeps nothing on a disk
        self._debts: dict[int, Debt] = {}
        self._givers: dict[int, Giver] = {}  # who hands off to us
        hints.load()
        self.wake()

    def is_volatile(self, member: int) -> bool:
        return self._volatile.get(member, False)

    # Giving.

    def wake(self) -> None:
        """Look for work soon: an owner may be back, or a hint has come."""
        if self._hints.bytes or not self._hints.loaded:
            self._background.wake(self)

    def step(self, allowance: int) -> int:
        if not self._hints.loaded:
            self._hints.load()
            return LOAD_SLICE * RECORD_READ
        cost = 0
        for owner, keys in list(self._hints.owed.items()):
            if keys and cost < allowance:
                cost += self._step(owner, keys, allowance - cost)
        return cost

    def _step(self, owner: int, keys: dict[bytes, int], allowance: int) -> int:
        """Send an owner what its credit and the allowance let us; the cost of that."""
        debt = self._debts.get(owner)
        if debt is None:
            debt = self._debts[owner] = Debt()
        env = self._env
        now = env.now
        link = env.links[owner]
        if not link.connected or link.silent or now < debt.not_before or not self._store.writable:
            return 0
        if now - debt.offered_at >= OFFER_INTERVAL:
            debt.offered_at = now
            env.send(owner, HandoffOffer(len(keys), self._hints.owed_bytes[owner]))
        if now >= debt.credit_until:
            return 0
        room = min(allowance // RECORD_SENT + 1, debt.credit_entries - len(debt.sent))
        if room <= 0:
            return 0
        # Whatever is under way stands at the head of the list, being the oldest.
        ahead = islice(keys, room + len(debt.sent) + len(debt.parked))
        waiting = [key for key in ahead if key not in debt.sent and not self._is_parked(debt, key)]
        cost = 0
        for key in waiting[:room]:
            if debt.bytes >= debt.credit_bytes or cost >= allowance:
                break
            spent = self._send(owner, debt, key, link)
            if not spent:
                break
            cost += spent
        return cost

    def _is_parked(self, debt: Debt, key: bytes) -> bool:
        until = debt.parked.get(key)
        if until is None:
            return False
        if self._env.now < until:
            return True
        del debt.parked[key]
        return False

    def _send(self, owner: int, debt: Debt, key: bytes, link: Link) -> int:
        """Send one hint, or see why it need not go; the cost. 0: nothing can be sent now."""
        hint = self._hints.hint(key)
        if hint is None:
            self._hints.give_up(key)
            return RECORD_READ
        if key[17:25] in self._tables.dropped_ids:
            self._hints.forget(key)
            return RECORD_READ
        partition = self._ring.partition_of_engine_key(key)
        generation = self._current[partition]
        if generation < 0:
            self._park(debt, key, PAUSE_FIRST)  # After a start it is soon known again.
            return RECORD_READ
        self._env.faults.crash("handoff.before_send")
        holding = with_own(hint.holding, NO_OWN)
        if len(holding) > self._env.large_bytes:
            link = self._env.large_links[owner]
        delivery = Delivery(self, owner, key, holding)
        epoch = self._ring.partition_epoch(partition)
        if not link.put(key, holding, epoch, generation, delivery):
            return 0
        self._env.counters.hints_offered += 1
        debt.sent[key] = None
        debt.bytes += len(holding)
        return RECORD_SENT + (len(holding) >> BYTES_SHIFT)

    def _park(self, debt: Debt, key: bytes, pause: int) -> None:
        """Leave one key for a while; the others go on."""
        if len(debt.parked) < PARKED_MAX:
            debt.parked[key] = self._env.now + pause

    def on_delivered(self, delivery: Delivery) -> None:
        """The owner has it, as durably as it can."""
        debt = self._ended(delivery)
        if debt is None:
            return
        debt.pause = PAUSE_FIRST
        if not self._store.writable or self._env.faults.hit("handoff.send_again"):
            return  # It stays on the list, and is sent again when that can be noted.
        if self._hints.settle(delivery.key, delivery.owner, delivery.holding) and not (
            self._hints.owed.get(delivery.owner)
        ):
            self._env.report("hints_home", member=delivery.owner)
            self._env.send(delivery.owner, HandoffOffer(0, 0))
            debt.offered_at = self._env.now - OFFER_INTERVAL  # What comes now is offered at once.
            debt.credit_until = -1
        self.wake()

    def on_refused(self, delivery: Delivery, status: int, payload: bytes) -> None:
        debt = self._ended(delivery)
        if debt is None:
            return
        if status == STALE_GENERATION:
            self._copies.read_again(delivery.key, payload)
        if status in (LATER, STALE_GENERATION):
            self.wake()  # It stands on the list, and is read anew.
            return
        now = self._env.now
        self._env.counters.hints_put_off += 1
        if status in KEY_REFUSALS:
            self._park(debt, delivery.key, PAUSE_LAST)
            return
        debt.not_before = now + debt.pause
        debt.pause = min(2 * debt.pause, PAUSE_LAST)

    def on_delivery_lost(self, delivery: Delivery) -> None:
        """The connection has ended; what was under way is still on the list."""
        debt = self._ended(delivery)
        if debt is not None:
            debt.credit_until = -1
            debt.offered_at = self._env.now - OFFER_INTERVAL

    def _ended(self, delivery: Delivery) -> Debt | None:
        if delivery.done:
            return None
        delivery.done = True
        debt = self._debts[delivery.owner]
        debt.sent.pop(delivery.key, None)
        debt.bytes -= len(delivery.holding)
        return debt

    def on_credit(self, member: int, credit: HandoffCredit) -> None:
        debt = self._debts.get(member)
        if debt is not None:
            debt.credit_entries = credit.entries
            debt.credit_bytes = credit.bytes
            debt.credit_until = self._env.now + CREDIT_LASTS
            self.wake()

    # Taking.

    def on_offer(self, member: int, offer: HandoffOffer) -> HandoffCredit:
        """Somebody keeps hints for us: share what we can take among all who do."""
        now = self._env.now
        givers = self._givers
        before = givers.pop(member, None)
        for giver, known in list(givers.items()):
            if now - known.offered_at > CREDIT_LASTS:
                del givers[giver]
        if before is not None and before.entries > offer.entries:
            elapsed = min(now - before.offered_at, CREDIT_LASTS)
            taken = before.entries - offer.entries
            self._background.charge_taken(taken, elapsed // (len(givers) + 1))
        if offer.entries <= 0:
            return HandoffCredit(0, 0)
        givers[member] = Giver(offer.entries, now)
        if not self._store.writable:
            return HandoffCredit(0, 0)
        count = len(givers)
        return HandoffCredit(max(CREDIT_ENTRIES // count, 1), max(CREDIT_BYTES // count, 1))
