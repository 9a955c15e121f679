"""Copies that were set aside: what a store held of a partition when it had missed a reap.

Nothing here is served, counted, compared or sent to a member. It waits for a person, who lists
it, writes what is still wanted anew through the front door, and has the copy discarded. Setting a
key aside a second time merges the two copies: neither is made less by the other.
(Architecture, deletes come back never; ``generations.py`` says when a copy is set aside.)
"""

from typing import Final

from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.hint import OtherKey, decode_hint, joined, joined_holding
from kvorum.model.holding import partition_key_of, record_of
from kvorum.model.record import record_digest
from kvorum.protocol.environment import ClientPort
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store
from kvorum.wire.aside_messages import (
    ASIDE_PAGE_MAX,
    AsideAnswer,
    AsideDiscard,
    AsideDiscarded,
    AsideQuery,
    AsideQuestion,
    CopyAside,
)
from kvorum.wire.codec import encode
from kvorum.wire.messages import ControlRefused
from kvorum.wire.requests import BAD_REQUEST, OVERLOADED

SPACE_ASIDE: Final = b"\x04"  # a space byte, then the key as it was
KEY_ASIDE: Final = b"\x00aside"  # meta key: how many copies there are
PAGE_BYTES_MAX: Final = 256 << 10  # of records; one copy comes whatever its size


class Aside:
    """One store's copies that were set aside."""

    __slots__ = ("_store", "count")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.count = int.from_bytes(store.get(KEY_ASIDE) or b"", "big")

    def take(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Keep what records and hints held; the caller forgets them where they were."""
        for key, held in rows:
            before = self._store.get(SPACE_ASIDE + key)
            self._store.put(SPACE_ASIDE + key, _both(key, before, held) if before else held)
            self.count += before is None
        self._keep_count()

    def _keep_count(self) -> None:
        self._store.put(KEY_ASIDE, self.count.to_bytes(8, "big"))

    # Towards people.

    def on_question(self, client: ClientPort, question: AsideQuestion) -> None:
        if isinstance(question, AsideQuery):
            self._on_query(client, question)
        else:
            self._on_discard(client, question)

    def _on_query(self, client: ClientPort, query: AsideQuery) -> None:
        if not 1 <= query.limit <= ASIDE_PAGE_MAX:
            problem = f"limit {query.limit}: must lie between 1 and {ASIDE_PAGE_MAX}"
            client.send(encode(ControlRefused(query.request, BAD_REQUEST, problem)))
            return
        end = bytes((SPACE_ASIDE[0] + 1,))
        try:
            rows = self._store.scan(SPACE_ASIDE + query.start, end, query.limit)
        except EngineFailed as error:
            problem = f"the engine cannot read what is set aside: {error}"
            client.send(encode(ControlRefused(query.request, OVERLOADED, problem)))
            return
        copies: list[CopyAside] = []
        size = 0
        for key, held in rows:
            copies.append(_told(key[len(SPACE_ASIDE) :], held))
            size += len(held)
            if size > PAGE_BYTES_MAX:
                break
        client.send(encode(AsideAnswer(query.request, copies)))

    def _on_discard(self, client: ClientPort, question: AsideDiscard) -> None:
        store = self._store
        problem, code = store.refusal, OVERLOADED
        if len(question.copies) > ASIDE_PAGE_MAX:
            problem = f"{len(question.copies)} copies; {ASIDE_PAGE_MAX} may be discarded at once"
            code = BAD_REQUEST
        if problem:
            client.send(encode(ControlRefused(question.request, code, problem)))
            return
        gone = 0
        for key, digest in question.copies:
            held = store.get(SPACE_ASIDE + key)
            if held and record_digest(_told(key, held).record) == digest:
                store.delete(SPACE_ASIDE + key)
                gone += 1
        if gone:
            self.count -= gone
            self._keep_count()
        client.send(encode(AsideDiscarded(question.request, gone)))


def _both(key: bytes, before: bytes, held: bytes) -> bytes:
    """What two copies of one key say, or two hints of it."""
    try:
        if key[:1] == SPACE_RECORDS:
            return joined_holding(before, held)
        return joined(decode_hint(before), decode_hint(held)).encode()
    except OtherKey:
        return held  # One of them was damaged unnoticed; the later one is kept.


def _told(key: bytes, held: bytes) -> CopyAside:
    if key[:1] != SPACE_HINTS:
        return CopyAside(key, partition_key_of(held), record_of(held))
    hint = decode_hint(held)
    return CopyAside(key, partition_key_of(hint.holding), record_of(hint.holding), [*hint.owners])
