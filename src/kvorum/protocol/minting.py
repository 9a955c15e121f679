"""Minting a dot: the one step in which a put becomes a write.

Read the own record, drop what the context has seen, add the value under a new dot, write the
whole to the overlay: one call, never split by a wait, so no dot can be handed out twice. The
rules that keep dots unique for ever (architecture, dots are never reused):

1. one step, as above; the whole resulting record is what gets replicated;
2. an actor is (store id, stamp), and the store id is durable before anything is minted under it;
3. a key's *own actor* is a local field of its holding, valid only under the current store id;
   without a valid one a new stamp is drawn, and an actor merely seen in a vector is never
   continued;
4. a context or record with a higher counter for our live actor than we hold shows that this
   store is a clone or has lost something: the incarnation ends, with an alarm. And before the
   first mint of a start some other member must have answered, or a new store id is drawn.

5. a put that arrives again mints nothing where it is remembered, which is the ledger's, nor where
   its value is found.
"""

from collections.abc import Callable
from typing import Final

from kvorum.model.clock import HybridClock
from kvorum.model.context import HEAD_BYTES as CONTEXT_HEAD_BYTES
from kvorum.model.context import (
    ContextInvalid,
    check_context,
    context_clock,
    context_seen,
    is_whole,
    same_seen,
)
from kvorum.model.holding import (
    NO_OWN,
    OWN_DOT_OFFSET,
    extended,
    kept_and_sent,
    own_dot,
    pack_holding,
    partition_key_of,
    record_of,
    rewritten,
    with_own,
)
from kvorum.model.quorum import Resolution
from kvorum.model.record import (
    EXPIRES,
    HAS_TOMBSTONE,
    PUT_ID_BYTES,
    Value,
    entry_counter,
    first_record,
    head_of,
    highest_clock,
    next_record,
    pack_value,
    split_values,
)
from kvorum.model.siblings import update, update_lww
from kvorum.model.tables import TableSettings
from kvorum.model.version import (
    ACTOR_BYTES,
    COUNTER_MAX,
    ENTRY_BYTES,
    Seen,
    counter_of,
    make_actor,
    make_dot,
    pack_dot,
    pack_stamp,
    unpack_dot,
)
from kvorum.protocol.environment import Environment
from kvorum.protocol.holdings import Holdings
from kvorum.storage.store import Store
from kvorum.wire.requests import (
    BAD_CONTEXT,
    BAD_REQUEST,
    OVERLOADED,
    TOO_LARGE,
    TOO_MANY_SIBLINGS,
)

MINTED: Final = 0
LWW_TABLE: Final = Resolution.LWW
# A record counts entries and runs in 16 bits, and three replicas' may be merged into one. No
# history comes near this; contexts with made-up dots would, put after put.
SEEN_MAX: Final = 16_384
CONTEXT_BYTES_USUAL: Final = 4_096
NO_PUT_ID: Final = bytes(PUT_ID_BYTES)


class Minter:
    """Mints for one store. After ``mint`` has returned ``MINTED`` its fields hold the outcome."""

    __slots__ = (
        "_env",
        "_holdings",
        "_overdue",
        "_store",
        "clock",
        "confirmed",
        "dot",
        "on_loss",
        "plain_clock",
        "record",
        "refusal",
        "sent",
        "value_clock",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, clock: HybridClock
    ) -> None:
        self._env = env
        self._store = store
        self._holdings = holdings
        self.clock = clock
        # Where clocks decide nothing the wall clock is taken as it is, and must not draw the other
        # one along: that would be ahead for as long as this node's wall clock was ever wrong.
        self.plain_clock = HybridClock(clock.last, clock.max_clock_skew)
        # A store id drawn at this very start can be nobody else's; an older one may be a copy's.
        self.confirmed = not store.clean_start
        self._overdue = ""  # why the store id must be changed before anything is minted
        self.on_loss: Callable[[], None] = _nobody_asks
        self.dot = b""
        self.record = b""
        self.sent = b""  # the holding as it travels: without our own actor
        self.refusal = ""
        self.value_clock = 0

    def mint(
        self, key: bytes, partition_key: bytes, table: TableSettings, context: bytes,
        tombstone: bool, ttl: int, put_id: bytes, content_type: bytes, value: bytes,
    ) -> int:  # fmt: skip
        """Write one value here; ``MINTED``, or the code of a refusal, with ``refusal`` saying why.

        ``context`` is what the client sent, or empty; ``ttl`` in microseconds, 0 for none.
        """
        store = self._store
        if not self.confirmed and not self._draw_unconfirmed():
            return OVERLOADED
        held = store.get(key)
        if held and context and table.resolution is not LWW_TABLE:
            # The usual read-modify-write, without taking anything apart.
            store_id, stamp, counter = unpack_dot(held, OWN_DOT_OFFSET)
            joins = store_id != store.store_id  # No mint here yet: the record gets one more actor.
            if joins:
                store_id, number = store.store_id, store.upcoming_stamp
                stamp, counter = pack_stamp(number), 0 if number else COUNTER_MAX
            if counter < COUNTER_MAX:
                wall = self._env.wall
                clock = self.plain_clock.tick(wall)
                dot = pack_dot(store_id, stamp, counter + 1)
                expiry = wall + ttl if ttl and not tombstone else 0
                encoded = pack_value(dot, clock, expiry, put_id, tombstone, content_type, value)
                flags = (HAS_TOMBSTONE if tombstone else 0) | (EXPIRES if expiry else 0)
                seen = context[CONTEXT_HEAD_BYTES:-4]
                made = extended if joins else rewritten
                rest = made(held, partition_key, seen, flags, encoded)
                if rest is not None and is_whole(context):
                    # The context equals what is held, so nothing else in it needs a check; but
                    # one that was damaged may say by chance what its holder has never read.
                    if joins:
                        store.next_stamp()
                    key_length = len(partition_key)
                    kept, self.sent = kept_and_sent(dot, key_length, rest)
                    if tombstone:
                        self._holdings.write(key, held, kept)
                    else:
                        actors = len(seen) // ENTRY_BYTES + joins
                        self._holdings.rewrite(key, held, kept, actors)
                    self.dot = dot
                    self.record = rest[key_length:]
                    self.value_clock = clock
                    return MINTED
        return self._mint_slowly(
            key, partition_key, table, context, tombstone, ttl, put_id, content_type, value, held
        )

    def mint_beside(
        self, held: bytes | None, key: bytes, partition_key: bytes, table: TableSettings,
        context: bytes, tombstone: bool, ttl: int, put_id: bytes, content_type: bytes,
        value: bytes,
    ) -> int:  # fmt: skip
        """``mint`` on a holding that is none of this node's records, as a hint's.

        It has an own actor of its own (rule 3). The caller writes the outcome in this very step,
        as a holding of ``dot`` and ``record``.
        """
        if not self.confirmed and not self._draw_unconfirmed():
            return OVERLOADED
        return self._make(
            key, partition_key, table, context, tombstone, ttl, put_id, content_type, value, held
        )

    def _mint_slowly(
        self, key: bytes, partition_key: bytes, table: TableSettings, context: bytes,
        tombstone: bool, ttl: int, put_id: bytes, content_type: bytes, value: bytes,
        held: bytes | None,
    ) -> int:  # fmt: skip
        """``mint``, whatever is held and whatever the context says."""
        if held and put_id in held:
            what = (put_id, tombstone, content_type, value)
            if self._has_written(held, partition_key, what):
                return MINTED
        code = self._make(
            key, partition_key, table, context, tombstone, ttl, put_id, content_type, value, held
        )
        if code == MINTED:
            holding = pack_holding(self.dot, partition_key, self.record)
            self._holdings.write(key, held, holding)
        return code

    def _has_written(
        self, held: bytes, partition_key: bytes, what: tuple[bytes, bool, bytes, bytes]
    ) -> bool:
        """Rule 5: another node minted this put, and its value is here: it is not written again.

        The outcome is then what it was there. What comes under a known id with another value is
        no such put, whoever has given it that id, and must not get lost.
        """
        if what[0] == NO_PUT_ID or partition_key_of(held) != partition_key:
            return False
        record = record_of(held)
        for encoded in split_values(record):
            each = Value(encoded)
            if (each.put_id, each.tombstone, each.content_type, each.data) == what:
                self._env.counters.retries_found += 1
                self.dot = each.dot
                self.record = record
                self.sent = with_own(held, NO_OWN)
                self.value_clock = each.clock
                return True
        return False

    def _make(
        self, key: bytes, partition_key: bytes, table: TableSettings, context: bytes,
        tombstone: bool, ttl: int, put_id: bytes, content_type: bytes, value: bytes,
        held: bytes | None,
    ) -> int:  # fmt: skip
        """Draw a dot and make the record under it; nothing is written yet."""
        record = b""
        own = NO_OWN
        if held:
            if partition_key_of(held) != partition_key:
                self.refusal = "another key has the same hash; this key cannot be stored"
                return BAD_REQUEST
            record = record_of(held)
            own = own_dot(held)
        if context:
            try:
                check_context(key, context)
            except ContextInvalid as error:
                self.refusal = str(error)
                return BAD_CONTEXT
            if len(context) > CONTEXT_BYTES_USUAL and not self._is_bounded(record, context):
                return TOO_LARGE
        wall = self._env.wall
        try:
            dot = self._live_dot(own, record, context)
        except OSError as error:
            return self._no_new_id(error)
        lww = table.resolution == Resolution.LWW
        if lww:
            code = self._tick_lww(record, context)
            if code != MINTED:
                return code
            clock = self.clock.last
        else:
            clock = self.plain_clock.tick(wall)
        expiry = wall + ttl if ttl and not tombstone else 0
        encoded = pack_value(dot, clock, expiry, put_id, tombstone, content_type, value)
        if lww:
            made = update_lww(record or None, encoded)
        else:
            made = self._with_siblings(record, context, encoded)
            if head_of(made)[4] > 1 and not self._fits(record, made, table):
                return TOO_MANY_SIBLINGS if "siblings" in self.refusal else TOO_LARGE
        self.sent = pack_holding(NO_OWN, partition_key, made)
        self.dot = dot
        self.record = made
        self.value_clock = clock
        return MINTED

    def _is_bounded(self, record: bytes, context: bytes) -> bool:
        """Check that a context of unusual size leaves the record room to count."""
        known = 0
        if record:
            if same_seen(context, record):
                return True
            _, _, entries, runs, _ = head_of(record)
            known = entries + runs
        if known + len(context) // ENTRY_BYTES <= SEEN_MAX:
            return True
        self.refusal = "the context has more gaps than a record can hold: read the key again"
        return False

    def _tick_lww(self, record: bytes, context: bytes) -> int:
        """Draw a clock above the record's and the context's, within the lease on disk."""
        floor = highest_clock(record) if record else 0
        clock = self.clock
        limit = self._env.wall + clock.lease_span
        if clock.is_ahead(floor, limit):
            self.refusal = (
                "the key was written at a time too far ahead of this node's clock: one of the "
                "nodes' clocks is, or was, wrong"
            )
            return OVERLOADED
        if context:
            floor = max(floor, context_clock(context))
            if clock.is_ahead(floor, limit):
                self.refusal = "the context's time lies too far ahead of this node's clock"
                return BAD_CONTEXT
        if clock.tick_above(self._env.wall, floor) > clock.lease:
            self.refusal = "this node's clock lease is not on disk yet; try again"
            return OVERLOADED
        return MINTED

    def _live_dot(self, own: bytes, record: bytes, context: bytes) -> bytes:
        """The dot to mint next: of the own actor while that is valid, else of a new one."""
        store = self._store
        store_id = store.store_id
        if own[:8] == store_id:
            counter = counter_of(own)
            actor = own[:ACTOR_BYTES]
            if self._is_ahead(actor, counter, record, context):
                self.end_incarnation("a context or record knows a later write of this store's")
            elif counter < COUNTER_MAX:
                return make_dot(actor, counter + 1)
        stamp = store.next_stamp()
        # Drawing a stamp may itself have ended the incarnation, so the id is read after it.
        return make_dot(make_actor(store.store_id, stamp), 1)

    def _is_ahead(self, actor: bytes, counter: int, record: bytes, context: bytes) -> bool:
        """True if somebody has seen a write of our live actor that we do not know of."""
        if record and entry_counter(record, actor) > counter:
            return True
        if not context or (record and same_seen(context, record)):
            return False
        runs = context_seen(context).runs.get(actor)
        return runs is not None and runs[-1][1] > counter

    def _with_siblings(self, record: bytes, context: bytes, encoded: bytes) -> bytes:
        if not record:
            if not context and encoded[ACTOR_BYTES:16] == b"\0\0\0\x01":
                return first_record(encoded)
            return update(None, context_seen(context) if context else None, encoded)
        if context and same_seen(context, record):
            made = next_record(record, encoded)
            if made is not None:
                return made
        seen: Seen | None = context_seen(context) if context else None
        return update(record, seen, encoded)

    def _fits(self, record: bytes, made: bytes, table: TableSettings) -> bool:
        """Check the bounds, for a put that adds; one that covers siblings always passes."""
        before = head_of(record)[4] if record else 0
        after = head_of(made)[4]
        if after <= before:
            return True
        if after > table.max_siblings:
            self.refusal = (
                f"the key has {before} siblings already, its table allows {table.max_siblings}: "
                "read it, merge the values, and put the result with the context"
            )
            return False
        if len(made) > table.max_record_bytes:
            self.refusal = (
                f"the record would have {len(made)} bytes, its table allows "
                f"{table.max_record_bytes}: read it, merge the values, and put with the context"
            )
            return False
        self._env.counters.siblings_made += 1
        return True

    def check_received(self, own: bytes, record: bytes) -> None:
        """Look at a record from elsewhere for a key under our own dot ``own``: rule 4."""
        if own[:8] == self._store.store_id and not record[1] & 1:
            actor = own[:ACTOR_BYTES]
            if entry_counter(record, actor) > counter_of(own):
                self.end_incarnation_soon("a replica sent a later write of this store's own")

    def end_incarnation(self, reason: str, lost: bool = True) -> None:
        """Draw a new store id, durable before this returns, and raise the alarm.

        ``lost``: this store may lack something that it once wrote.

        Raises ``OSError`` if the disk does not take it; then nothing is minted until it does.
        """
        self.confirmed = False
        self._overdue = reason
        if lost:
            self.on_loss()
        self._store.renew(reason)
        self._overdue = ""
        self.confirmed = True  # An id drawn just now can be nobody else's.
        self._env.counters.incarnations_ended += 1
        self._env.report("incarnation_ended", reason=reason, store_id=self._store.store_id.hex())

    def end_incarnation_soon(self, reason: str) -> None:
        """``end_incarnation``, now or, if the disk does not let us, before anything is minted."""
        try:
            self.end_incarnation(reason)
        except OSError as error:
            self._env.report("incarnation_not_ended", reason=reason, error=str(error))

    def confirm(self) -> None:
        """Another member has answered, and knows nothing against this store."""
        self.confirmed = not self._overdue

    def _draw_unconfirmed(self) -> bool:
        """Draw a new store id before anything is minted; False if it could not be made durable."""
        try:
            if self._overdue:
                self.end_incarnation(self._overdue)
            else:
                self.end_incarnation("no other member has answered since the start", lost=False)
        except OSError as error:
            self._no_new_id(error)
            return False
        return True

    def _no_new_id(self, error: OSError) -> int:
        """Without a new id that is durable nothing may be minted."""
        self.refusal = f"this node's data directory cannot be written: {error}"
        return OVERLOADED


def _nobody_asks() -> None:
    """What a loss means for reads matters to nobody here."""
