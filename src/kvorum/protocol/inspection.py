"""What people ask a node about itself and about a key: explain, local reads, copies set aside.

A local read is a replica's own copy, without repair, and what it keeps for owners. ``explain``
gathers one from each owner and listed fallback and says who does not answer; it changes nothing
anywhere.
"""

from typing import Final

from kvorum.counters import Counters, OperationCounts
from kvorum.model.hashing import SPACE_RECORDS, TABLE_ID_BYTES, engine_key
from kvorum.model.holding import own_dot, record_of
from kvorum.model.ring import Ring
from kvorum.model.tables import TableRegistry
from kvorum.protocol.aside import Aside
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.hints import Hints
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.store import Store
from kvorum.wire.aside_messages import AsideQuestion
from kvorum.wire.codec import encode
from kvorum.wire.messages import (
    LOCAL_KEYS_MAX,
    ControlRefused,
    ExplainAnswer,
    ExplainQuery,
    LocalAnswer,
    LocalQuery,
    LocalRead,
    LocalRecord,
    OperationStatus,
)
from kvorum.wire.requests import BAD_REQUEST

EXPLAIN_PATIENCE: Final = 1_000_000


class _Explanation(Timed):
    """One ``explain`` until everybody has answered, or a second has passed."""

    __slots__ = ("answer", "client", "done", "inspection", "missing", "number")

    def __init__(
        self, inspection: "Inspection", client: ClientPort, answer: ExplainAnswer, number: int
    ) -> None:
        self.inspection = inspection
        self.client = client
        self.answer = answer
        self.number = number
        self.missing: dict[int, None] = {}
        self.done = False

    def on_timer(self) -> None:
        self.inspection.finish(self)


class Inspection:
    """Answers questions; holds what is being gathered."""

    __slots__ = (
        "_aside", "_env", "_gathering", "_hints", "_me", "_number", "_ring", "_store", "_timers",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, hints: Hints, aside: Aside, ring: Ring,
        timers: Timers, me: int,
    ) -> None:  # fmt: skip
        self._aside = aside
        self._env = env
        self._hints = hints
        self._store = store
        self._ring = ring
        self._timers = timers
        self._me = me
        self._number = 0
        self._gathering: dict[int, _Explanation] = {}

    def on_question(
        self, client: ClientPort, question: LocalQuery | ExplainQuery | AsideQuestion
    ) -> None:
        if isinstance(question, LocalQuery):
            self.on_local_query(client, question)
        elif isinstance(question, ExplainQuery):
            self.on_explain(client, question)
        else:
            self._aside.on_question(client, question)

    def local_read(self, request: int, key: bytes) -> LocalRecord:
        """What this node itself holds, and keeps for others."""
        found = self._own_copy(request, key)
        hint = self._hints.hint(key) if key[:1] == SPACE_RECORDS else None
        if hint is not None:
            found.hint = record_of(hint.holding)
            found.hint_for = list(hint.owners)
            found.hint_age = max(self._env.wall - hint.created, 0)
        return found

    def _own_copy(self, request: int, key: bytes) -> LocalRecord:
        # What is no record's key leads to what is no holding.
        held = self._store.get(key) if key[:1] == SPACE_RECORDS else None
        if held is None:
            return LocalRecord(request, self._me, None)
        if not held:
            return LocalRecord(request, self._me, None, quarantined=True)
        store = self._store
        on_disk = not store.volatile and store.durable_position >= store.position
        own = own_dot(held)
        minted_here = b"" if own[:8] != store.store_id else own
        copy = LocalRecord(request, self._me, record_of(held), False, on_disk, minted_here)
        copy.volatile = store.volatile
        return copy

    def on_local_query(self, client: ClientPort, query: LocalQuery) -> None:
        """A client asks for this node's own copies."""
        if len(query.table_id) != TABLE_ID_BYTES or len(query.keys) > LOCAL_KEYS_MAX:
            text = (
                f"a table id has {TABLE_ID_BYTES} bytes, and at most {LOCAL_KEYS_MAX} keys are "
                "looked up at once"
            )
            client.send(encode(ControlRefused(query.request, BAD_REQUEST, text)))
            return
        hash_key = self._ring.hash_key
        copies = [
            self.local_read(0, engine_key(hash_key, query.table_id, partition_key, sort_key))
            for partition_key, sort_key in query.keys
        ]
        client.send(encode(LocalAnswer(query.request, copies)))

    def on_explain(self, client: ClientPort, query: ExplainQuery) -> None:
        ring = self._ring
        if len(query.table_id) != TABLE_ID_BYTES:
            text = f"a table id has {TABLE_ID_BYTES} bytes, not {len(query.table_id)}"
            client.send(encode(ControlRefused(query.request, BAD_REQUEST, text)))
            return
        key = engine_key(ring.hash_key, query.table_id, query.partition_key, query.sort_key)
        partition = ring.partition_of_engine_key(key)
        owners = ring.owners(partition)
        self._number += 1
        answer = ExplainAnswer(
            query.request,
            key[1:17],
            partition,
            ring.partition_epoch(partition),
            list(owners),
            [],
            [],
        )
        explanation = _Explanation(self, client, answer, self._number)
        for owner in owners:
            answer.replicas.append(self._ask(owner, key, explanation))
        for fallback in ring.fallbacks(partition):
            answer.fallbacks.append(self._ask(fallback, key, explanation))
        self._gathering[self._number] = explanation
        self._timers.wake(self._env.now + EXPLAIN_PATIENCE, explanation)
        if not explanation.missing:
            self.finish(explanation)

    def _ask(self, member: int, key: bytes, explanation: _Explanation) -> LocalRecord:
        """What stands in the answer for a member as long as it has said nothing."""
        if member == self._me:
            return self.local_read(0, key)
        if not self._env.send(member, LocalRead(self._number, key)):
            return LocalRecord(0, member, None, text="not connected")
        explanation.missing[member] = None
        return LocalRecord(0, member, None, text="no answer within 1 s")

    def on_local_record(self, record: LocalRecord) -> None:
        explanation = self._gathering.get(record.request)
        if explanation is None or record.member not in explanation.missing:
            return
        for told in (explanation.answer.replicas, explanation.answer.fallbacks):
            for place, one in enumerate(told):
                if one.member == record.member:
                    told[place] = record
        del explanation.missing[record.member]
        if not explanation.missing:
            self.finish(explanation)

    def finish(self, explanation: _Explanation) -> None:
        if explanation.done:
            return
        explanation.done = True
        del self._gathering[explanation.number]
        if not explanation.client.closed:
            explanation.client.send(encode(explanation.answer))


def operation_statuses(counters: Counters, registry: TableRegistry) -> list[OperationStatus]:
    """What was counted by operation for each table that there still is, without what never was."""
    found = []
    for table in registry.tables():
        if table.id not in counters.tables:
            continue
        counts = counters.tables[table.id]
        for operation, of_it in (
            ("get", counts.get),
            ("put", counts.put),
            ("delete", counts.delete),
        ):
            status = _operation_status(table.name, operation, of_it)
            if status.refused or status.unknown or status.durations:
                found.append(status)
    return found


def _operation_status(table: str, operation: str, counts: OperationCounts) -> OperationStatus:
    durations = counts.durations[:]
    while durations and not durations[-1]:
        durations.pop()
    return OperationStatus(table, operation, counts.refused, counts.unknown, durations)
