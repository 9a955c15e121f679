"""Native answer frames as HTTP: status, header lines and body.

An answer to a get becomes 200 with the value as its body, 300 with all siblings, or 404; of a
delete standing beside one value a header tells. The ETag is a hash of what has been seen of the
key and of the dots alive: the same on every node, and for every representation, hence weak.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple

import msgspec

from kvorum.client.answers import decode_failure, decode_found
from kvorum.client.store import LEVEL_NAMES, Sibling
from kvorum.model.record import TOMBSTONE, VALUE_HEAD_BYTES
from kvorum.server.http_headers import encode_context, etag_matches, is_plain
from kvorum.server.http_json import bytes_document
from kvorum.server.http_problems import KINDS, REFUSALS, problem_body, problem_fields
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.kinds import GET_OK, PUT_OK, UNKNOWN
from kvorum.wire.requests import (
    ACK_BYTES,
    FOUND,
    GET_OK_HEAD_BYTES,
    MAY_MISS,
    PUT_OK_HEAD_BYTES,
    unpack_ack,
    unpack_get_ok,
    unpack_put_ok,
)
from kvorum.wire.trace_messages import TraceEvent

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
OCTETS: Final = b"application/octet-stream"
JSON: Final = b"application/json"
# What is stored is somebody's, and must not be taken for a page of this server.
VALUE_TAIL: Final = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\n"
ETAG_BYTES: Final = 12
NAMES_CACHED_MAX: Final = 4096
SECONDS_CACHED_MAX: Final = 4096

# dot, clock, length, flags, content type length
_unpack_value = Struct("<16sQ24xIBB").unpack_from


class Answer(NamedTuple):
    """What goes out, but for what belongs to the connection."""

    status: int
    fields: bytes  # whole header lines, with their ends
    body: bytes = b""
    settled: bool = True  # nobody will ask for this again
    compressible: bool = False


class Names:
    """Members by name in header lines; what is asked again and again is kept."""

    __slots__ = ("_acks", "_coordinators", "_name_of", "_readers")

    def __init__(self, name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        self._acks: dict[bytes, bytes] = {}
        self._coordinators: dict[int, bytes] = {}
        self._readers: dict[tuple[int, bytes], bytes] = {}

    def of(self, member: int) -> str:
        return self._name_of(member)

    def ack_line(self, acks: bytes) -> bytes:
        line = self._acks.get(acks)
        if line is None:
            shown = []
            for member, level, fallback in ack_list(acks):
                stands_in = ";fallback" if fallback else ""
                shown.append(f"{self.of(member)};level={level}{stands_in}")
            line = f"X-Kvorum-Acks: {', '.join(shown)}\r\n".encode()
            if len(self._acks) >= NAMES_CACHED_MAX:
                self._acks.clear()
            self._acks[acks] = line
        return line

    def coordinator_line(self, member: int) -> bytes:
        line = self._coordinators.get(member)
        if line is None:
            line = f"X-Kvorum-Coordinator: {self.of(member)}\r\n".encode()
            self._coordinators[member] = line
        return line

    def reader_lines(self, coordinator: int, replicas: bytes) -> bytes:
        """Who was read, and who saw to it."""
        lines = self._readers.get((coordinator, replicas))
        if lines is None:
            shown = ", ".join(self.of(member) for member in replica_list(replicas))
            lines = f"X-Kvorum-Replicas: {shown}\r\n".encode() + self.coordinator_line(coordinator)
            if len(self._readers) >= NAMES_CACHED_MAX:
                self._readers.clear()
            self._readers[coordinator, replicas] = lines
        return lines


def trace_lines(events: list[TraceEvent], names: Names) -> bytes:
    """The steps of a traced request, a header line for each."""
    lines = []
    for event in events:
        detail = f';detail="{event.detail}"' if event.detail else ""
        step = f'{names.of(event.member)};at_us={event.at};what="{event.what}"{detail}'
        lines.append(f"X-Kvorum-Trace: {step}\r\n")
    return "".join(lines).encode()


def ack_list(acks: bytes) -> list[tuple[int, str, bool]]:
    """(member, level, whether it is a fallback) of each ack."""
    found = []
    for position in range(0, len(acks), ACK_BYTES):
        member, level, fallback = unpack_ack(acks, position)
        found.append((int(member), LEVEL_NAMES[level], bool(fallback)))
    return found


def replica_list(replicas: bytes) -> list[int]:
    return [int.from_bytes(replicas[at : at + 2], "little") for at in range(0, len(replicas), 2)]


def time_text(microseconds: int) -> str:
    """ISO 8601 in UTC."""
    second, fraction = divmod(microseconds, 1_000_000)
    return f"{_second_text(second).decode()}.{fraction:06}Z"


@lru_cache(SECONDS_CACHED_MAX)
def _second_text(second: int) -> bytes:
    try:
        return (EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S").encode()
    except OverflowError:
        return b"9999-12-31T23:59:59"  # Nothing keeps a node's clock from being absurd.


def etag_of(context: bytes, dots: bytes) -> bytes:
    """The ETag of a record of which ``context`` has been seen and ``dots`` are alive."""
    digest = blake2b(context + dots, digest_size=ETAG_BYTES).digest()
    return b'W/"%b"' % encode_context(digest)


def answer_get(frame: bytes, names: Names, condition: bytes | None, wants_json: bool) -> Answer:
    """``condition`` is an If-None-Match."""
    if frame[LENGTH_BYTES] != GET_OK:
        return answer_failure(frame, "timed_out", "")
    _, flags, count, _, coordinator, replica_count, context_length = unpack_get_ok(
        frame, LENGTH_BYTES
    )
    context_at = LENGTH_BYTES + GET_OK_HEAD_BYTES + 2 * replica_count
    value_at = context_at + context_length
    context = frame[context_at:value_at]
    readers = names.reader_lines(coordinator, frame[LENGTH_BYTES + GET_OK_HEAD_BYTES : context_at])
    if flags & MAY_MISS:
        readers += b"X-Kvorum-May-Miss-Acknowledged: true\r\n"
    if count != 1:
        return _answer_several(frame, condition, wants_json, readers, context)
    dot, clock, length, value_flags, type_length = _unpack_value(frame, value_at)
    if value_flags & TOMBSTONE:
        return _answer_none(bool(flags & FOUND), _context_line(context) + readers)
    type_at = value_at + VALUE_HEAD_BYTES
    data_at = type_at + type_length
    return _answer_one(
        context, dot, frame[type_at:data_at], frame[data_at : data_at + length], clock, readers,
        condition,
    )  # fmt: skip


def _context_line(context: bytes) -> bytes:
    return b"X-Kvorum-Context: %b\r\n" % encode_context(context)


def _answer_one(
    context: bytes, dots: bytes, content_type: bytes, value: bytes, clock: int, readers: bytes,
    condition: bytes | None,
) -> Answer:  # fmt: skip
    etag = etag_of(context, dots)
    if condition is not None and etag_matches(condition, etag):
        return Answer(304, b"ETag: %b\r\n%b%b" % (etag, _context_line(context), readers))
    # What was stored by another door may hold anything; here it would end the header line.
    shown = content_type if content_type and is_plain(content_type) else OCTETS
    second, fraction = divmod(clock, 1_000_000)
    fields = (
        b"Content-Type: %b\r\nETag: %b\r\nX-Kvorum-Time: %b.%06dZ\r\nX-Kvorum-Context: %b\r\n%b%b"
        % (
            shown,
            etag,
            _second_text(second),
            fraction,
            encode_context(context),
            readers,
            VALUE_TAIL,
        )
    )
    return Answer(200, fields, value, True, True)


def _answer_none(known: bool, common: bytes) -> Answer:
    code, text = ("deleted", "the key was deleted") if known else ("not_found", "there is no value")
    return Answer(404, problem_fields(code) + (common if known else b""), problem_body(code, text))


def _answer_several(
    frame: bytes, condition: bytes | None, wants_json: bool, readers: bytes, context: bytes
) -> Answer:  # fmt: skip
    found = decode_found(frame[LENGTH_BYTES:])
    siblings = found.siblings
    if not found.values:
        return _answer_none(found.known, _context_line(context) + readers)
    dots = b"".join(sibling.dot for sibling in siblings)
    if len(found.values) == 1:
        only = next(sibling for sibling in siblings if sibling.value is not None)
        if len(siblings) > 1:
            readers += b"X-Kvorum-Concurrent-Delete: true\r\n"
        content_type = only.content_type.encode("utf-8", "replace")
        assert only.value is not None
        return _answer_one(context, dots, content_type, only.value, only.clock, readers, condition)
    etag = etag_of(context, dots)
    common = _context_line(context) + readers
    if condition is not None and etag_matches(condition, etag):
        return Answer(304, b"ETag: %b\r\n%b" % (etag, common))
    if wants_json:
        document = {
            "siblings": [sibling_document(sibling) for sibling in siblings],
            "context": encode_context(context).decode(),
            "etag": etag.decode(),
        }
        content_type = JSON
        body = msgspec.json.encode(document) + b"\n"
    else:
        boundary, body = multipart(siblings)
        content_type = b'multipart/mixed; boundary="%b"' % boundary
    fields = b"Content-Type: %b\r\nETag: %b\r\nVary: Accept\r\n%b%b" % (
        content_type, etag, common, VALUE_TAIL,
    )  # fmt: skip
    return Answer(300, fields, body, compressible=True)


def sibling_document(sibling: Sibling) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if sibling.value is None:
        document["deleted"] = True
    else:
        document["value"] = bytes_document(sibling.value)
        document["content_type"] = sibling.content_type or OCTETS.decode()
    document["dot"] = sibling.dot.hex()
    document["time"] = time_text(sibling.clock)
    if sibling.expiry:
        document["expires"] = time_text(sibling.expiry)
    return document


def multipart(siblings: tuple[Sibling, ...]) -> tuple[bytes, bytes]:
    """(boundary, body). The boundary is a hash of the values, so that none can hold it."""
    digest = blake2b(digest_size=18)
    for sibling in siblings:
        digest.update(sibling.dot)
        digest.update(sibling.value or b"")
    boundary = b"kvorum-" + encode_context(digest.digest())
    parts: list[bytes] = []
    for sibling in siblings:
        parts.append(b"--%b\r\n" % boundary)
        if sibling.value is None:
            parts.append(b"X-Kvorum-Deleted: true\r\n")
        else:
            kind = sibling.content_type.encode("utf-8", "replace")
            parts.append(b"Content-Type: %b\r\n" % (kind if kind and is_plain(kind) else OCTETS))
        parts.append(
            b"X-Kvorum-Dot: %b\r\nX-Kvorum-Time: %b\r\n\r\n"
            % (sibling.dot.hex().encode(), time_text(sibling.clock).encode())
        )
        parts.append(sibling.value or b"")
        parts.append(b"\r\n")
    parts.append(b"--%b--\r\n" % boundary)
    return boundary, b"".join(parts)


def answer_put(frame: bytes, names: Names, put_id: str) -> Answer:
    if frame[LENGTH_BYTES] != PUT_OK:
        return answer_failure(frame, "outcome_unknown", put_id)
    _, _, ack_count, _, coordinator, w, _ = unpack_put_ok(frame, LENGTH_BYTES)
    acks_at = LENGTH_BYTES + PUT_OK_HEAD_BYTES
    context_at = acks_at + ACK_BYTES * ack_count
    fields = b"X-Kvorum-Context: %b\r\nX-Kvorum-Put-Id: %b\r\nX-Kvorum-W: %d\r\n%b%b" % (
        encode_context(frame[context_at:]),
        put_id.encode(),
        w,
        names.ack_line(frame[acks_at:context_at]),
        names.coordinator_line(coordinator),
    )
    return Answer(204, fields)


def answer_failure(frame: bytes, unknown: str, put_id: str) -> Answer:
    """A refusal, or an answer that says unknown, which is of the kind ``unknown``."""
    code, text = decode_failure(frame[LENGTH_BYTES:])
    if frame[LENGTH_BYTES] == UNKNOWN:
        return answer_problem(unknown, text, put_id)
    return answer_problem(REFUSALS.get(code, "bad_request"), text, put_id)


def answer_problem(code: str, text: str, put_id: str = "", allow: str = "") -> Answer:
    fields = problem_fields(code, allow)
    if put_id:
        fields += b"X-Kvorum-Put-Id: %b\r\n" % put_id.encode()
    body = problem_body(code, text, put_id)
    return Answer(KINDS[code].status, fields, body, settled=code != "outcome_unknown")
