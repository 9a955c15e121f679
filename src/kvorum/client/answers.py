"""Answers of nodes, out of their bytes; every length in them is checked.

What cannot be an answer raises ``AnswerInvalid``; the connection that it came on is of no more
use then.
"""

from struct import error as StructError
from typing import Final

from kvorum.client.store import (
    LEVEL_NAMES,
    Ack,
    AsideCopy,
    Found,
    LocalCopy,
    Stored,
    TableDescription,
    sibling_of,
)
from kvorum.errors import (
    BadContext,
    BadRequest,
    KvorumError,
    Overloaded,
    QuorumNotMet,
    Refused,
    TooLarge,
    TooManySiblings,
    UnknownTable,
)
from kvorum.model.hashing import SECOND_HASH_OFFSET, SORT_KEY_OFFSET, TABLE_ID_OFFSET
from kvorum.model.record import (
    RecordInvalid,
    Value,
    check_record,
    record_digest,
    split_values,
    value_end,
)
from kvorum.model.tables import TableSettings
from kvorum.wire.aside_messages import AsideAnswer
from kvorum.wire.messages import LocalAnswer, TableAnswer
from kvorum.wire.requests import (
    ACK_BYTES,
    BAD_CONTEXT,
    BAD_REQUEST,
    FAILURE_HEAD_BYTES,
    FALLBACK_READ,
    FOUND,
    GET_OK_HEAD_BYTES,
    MAY_MISS,
    NOT_OWNER,
    OVERLOADED,
    PUT_OK_HEAD_BYTES,
    QUORUM_NOT_MET,
    TOO_LARGE,
    TOO_MANY_SIBLINGS,
    UNKNOWN_TABLE,
    unpack_ack,
    unpack_failure,
    unpack_get_ok,
    unpack_put_ok,
)

_EXCEPTIONS: Final[dict[int, type[KvorumError]]] = {
    BAD_REQUEST: BadRequest,
    UNKNOWN_TABLE: UnknownTable,
    BAD_CONTEXT: BadContext,
    TOO_LARGE: TooLarge,
    TOO_MANY_SIBLINGS: TooManySiblings,
    OVERLOADED: Overloaded,
    QUORUM_NOT_MET: QuorumNotMet,
    NOT_OWNER: QuorumNotMet,
}
# What another node may well do.
RETRYABLE: Final = (OVERLOADED, QUORUM_NOT_MET, NOT_OWNER)


class AnswerInvalid(ValueError):
    """Bytes that are no answer to what was asked."""


def error_of(code: int, text: str) -> KvorumError:
    return _EXCEPTIONS.get(code, Refused)(text)


def decode_failure(payload: bytes) -> tuple[int, str]:
    """(code, text) of a refusal, or of an answer that says unknown."""
    if len(payload) < FAILURE_HEAD_BYTES:
        raise AnswerInvalid("a refusal is cut short")
    return unpack_failure(payload, 0)[1], payload[FAILURE_HEAD_BYTES:].decode("utf-8", "replace")


def decode_stored(payload: bytes, put_id: bytes) -> Stored:
    try:
        _, _, ack_count, _, coordinator, w, context_length = unpack_put_ok(payload, 0)
    except StructError as error:
        raise AnswerInvalid("an answer to a put is cut short") from error
    context_start = PUT_OK_HEAD_BYTES + ACK_BYTES * ack_count
    if len(payload) != context_start + context_length:
        raise AnswerInvalid("an answer to a put has another length than it says")
    acks = []
    for position in range(PUT_OK_HEAD_BYTES, context_start, ACK_BYTES):
        member, level, fallback = unpack_ack(payload, position)
        if level >= len(LEVEL_NAMES):
            raise AnswerInvalid(f"an ack of level {level}")
        acks.append(Ack(member, LEVEL_NAMES[level], fallback != 0))
    return Stored(payload[context_start:], tuple(acks), w, coordinator, put_id)


def decode_found(payload: bytes) -> Found:
    try:
        _, flags, count, _, coordinator, replica_count, context_length = unpack_get_ok(payload, 0)
        context_start = GET_OK_HEAD_BYTES + 2 * replica_count
        position = context_start + context_length
        if position > len(payload):
            raise AnswerInvalid("an answer to a get is cut short")
        versions: list[Value] = []
        for _ in range(count):
            end = value_end(payload, position)
            if end > len(payload):
                raise AnswerInvalid("a value is cut short")
            versions.append(Value(payload[position:end]))
            position = end
    except StructError as error:
        raise AnswerInvalid("an answer to a get is cut short") from error
    if position != len(payload):
        raise AnswerInvalid("bytes follow the last value of an answer")
    if count > 1:
        versions = _once_per_put(versions)
    replicas = tuple(
        int.from_bytes(payload[at : at + 2], "little")
        for at in range(GET_OK_HEAD_BYTES, context_start, 2)
    )
    return Found(
        versions, payload[context_start : context_start + context_length], bool(flags & FOUND),
        coordinator, replicas, bool(flags & MAY_MISS), bool(flags & FALLBACK_READ),
    )  # fmt: skip


def _once_per_put(versions: list[Value]) -> list[Value]:
    # A put that was retried at another node may stand here twice; it was one write.
    first: dict[bytes, Value] = {}
    for version in versions:
        first.setdefault(version.put_id if any(version.put_id) else version.dot, version)
    return list(first.values())


def describe_tables(answer: TableAnswer) -> list[TableDescription]:
    conflicts = dict.fromkeys(answer.conflicts)
    unreached = tuple(answer.unreached)
    return [
        _describe(settings, unreached, settings.name in conflicts) for settings in answer.tables
    ]


def _describe(
    settings: TableSettings, unreached: tuple[int, ...], conflict: bool
) -> TableDescription:
    return TableDescription(
        settings.name, settings.id, settings.r, settings.w, settings.resolution.name.lower(),
        settings.durability.name.lower(), settings.sloppy, settings.ttl_seconds,
        settings.max_siblings, settings.max_record_bytes, unreached, conflict,
    )  # fmt: skip


def decode_copies(answer: LocalAnswer) -> list[LocalCopy]:
    """One node's own copies. Raises ``AnswerInvalid``."""
    return [
        LocalCopy(
            _alive(copy.record), copy.record is not None, copy.quarantined, copy.on_disk,
            tuple(copy.hint_for), _alive(copy.hint), copy.hint_age / 1_000_000,
        )
        for copy in answer.copies
    ]  # fmt: skip


def decode_aside(answer: AsideAnswer) -> list[AsideCopy]:
    """What one node has set aside. Raises ``AnswerInvalid``."""
    return [
        AsideCopy(
            copy.key[TABLE_ID_OFFSET:SECOND_HASH_OFFSET], copy.partition_key,
            copy.key[SORT_KEY_OFFSET:], tuple(map(sibling_of, _versions(copy.record))),
            tuple(copy.hint_for), copy.key, record_digest(copy.record),
        )
        for copy in answer.copies
    ]  # fmt: skip


def _alive(record: bytes | None) -> tuple[bytes, ...]:
    if record is None:
        return ()
    return tuple(value.data for value in _versions(record) if not value.tombstone)


def _versions(record: bytes) -> list[Value]:
    try:
        check_record(record)
    except (RecordInvalid, StructError) as error:
        raise AnswerInvalid(f"a node holds what is no record: {error}") from None
    return [Value(encoded) for encoded in split_values(record)]
