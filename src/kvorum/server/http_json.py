"""JSON documents: bytes, tables, and the requests of a batch.

Bytes are ``{"text": ...}`` where they are UTF-8 and else ``{"base64": ...}``, as on the command
line; what comes in may also be a plain string, which stands for its UTF-8 bytes.
"""

from typing import Any, Final, Literal, TypeVar

import msgspec

from kvorum.model.record import CONTENT_TYPE_BYTES_MAX
from kvorum.model.tables import LONGEST_TTL_SECONDS, TableSettings
from kvorum.server.http_headers import PutId, decode_context, is_plain, parse_put_id
from kvorum.server.http_paths import DURABILITIES, Options
from kvorum.server.http_problems import HttpProblem

BATCH_REQUESTS_MAX: Final = 1000
KEY_BYTES_MAX: Final = 0xFFFF

T = TypeVar("T")


class JsonBytes(msgspec.Struct, forbid_unknown_fields=True):
    """Bytes in JSON, one of the two."""

    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET

    def value(self) -> bytes:
        if isinstance(self.base64, bytes):
            if self.text is not msgspec.UNSET:
                raise HttpProblem("bad_body", "bytes are given as text or as base64, not as both")
            return self.base64
        if self.text is msgspec.UNSET:
            raise HttpProblem("bad_body", 'bytes are a string, {"text": ...} or {"base64": ...}')
        return self.text.encode()


def bytes_document(value: bytes) -> dict[str, Any]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": value}  # msgspec writes bytes as base64


class Operation(msgspec.Struct, forbid_unknown_fields=True):
    """One request of a batch."""

    op: Literal["get", "put", "delete"]
    key: str | JsonBytes
    sort_key: str | JsonBytes = ""
    value: str | JsonBytes | msgspec.UnsetType = msgspec.UNSET
    content_type: str = ""
    context: str | msgspec.UnsetType = msgspec.UNSET
    put_id: str | msgspec.UnsetType = msgspec.UNSET
    r: int | msgspec.UnsetType = msgspec.UNSET
    w: int | msgspec.UnsetType = msgspec.UNSET
    durability: Literal["none", "one", "quorum", "all"] | msgspec.UnsetType = msgspec.UNSET
    sloppy: bool | msgspec.UnsetType = msgspec.UNSET
    ttl_seconds: int | msgspec.UnsetType = msgspec.UNSET


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[Operation]


class TableWish(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a table that is to be created; what is left out is as in ``default``."""

    r: int | msgspec.UnsetType = msgspec.UNSET
    w: int | msgspec.UnsetType = msgspec.UNSET
    resolution: Literal["siblings", "lww"] | msgspec.UnsetType = msgspec.UNSET
    durability: Literal["none", "one", "quorum", "all"] | msgspec.UnsetType = msgspec.UNSET
    sloppy: bool | msgspec.UnsetType = msgspec.UNSET
    ttl_seconds: int | msgspec.UnsetType = msgspec.UNSET
    max_siblings: int | msgspec.UnsetType = msgspec.UNSET
    max_record_bytes: int | msgspec.UnsetType = msgspec.UNSET


_batch = msgspec.json.Decoder(BatchBody)
_wish = msgspec.json.Decoder(TableWish)


def decode_batch(body: bytes) -> list[Operation]:
    requests = _decode(_batch, body).requests
    if not 1 <= len(requests) <= BATCH_REQUESTS_MAX:
        raise HttpProblem(
            "bad_body", f"{len(requests)} requests; a batch has 1 to {BATCH_REQUESTS_MAX}"
        )
    return requests


def decode_wish(body: bytes) -> TableWish:
    """A table's settings; an empty body asks for nothing in particular."""
    return _decode(_wish, body) if body else TableWish()


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpProblem("bad_body", str(error)) from None


def json_bytes(what: str, given: str | JsonBytes) -> bytes:
    try:
        value = given.encode() if isinstance(given, str) else given.value()
    except UnicodeEncodeError:
        raise HttpProblem("bad_body", f"{what}: a lone surrogate is no text") from None
    return value


def json_key(what: str, given: str | JsonBytes) -> bytes:
    key = json_bytes(what, given)
    if len(key) > KEY_BYTES_MAX:
        raise HttpProblem("too_large", f"{what} has {len(key)} bytes; {KEY_BYTES_MAX} is the most")
    return key


def operation_options(operation: Operation) -> Options:
    options = Options()
    options.r = given_number("r", operation.r, 1, 254)
    options.w = given_number("w", operation.w, 1, 254)
    ttl_seconds = given_number("ttl_seconds", operation.ttl_seconds, 1, LONGEST_TTL_SECONDS)
    options.ttl = ttl_seconds * 1_000_000
    if operation.durability is not msgspec.UNSET:
        options.durability = DURABILITIES[operation.durability]
    if operation.sloppy is not msgspec.UNSET:
        options.sloppy = int(operation.sloppy)
    return options


def operation_context(operation: Operation) -> bytes:
    if operation.context is msgspec.UNSET:
        return b""
    return decode_context(_ascii("context", operation.context))


def operation_put_id(operation: Operation) -> PutId | None:
    if operation.put_id is msgspec.UNSET:
        return None
    return parse_put_id(_ascii("put_id", operation.put_id))


def operation_content_type(operation: Operation) -> bytes:
    content_type = _ascii("content_type", operation.content_type)
    if len(content_type) > CONTENT_TYPE_BYTES_MAX or not is_plain(content_type):
        raise HttpProblem(
            "bad_body", f"content_type: at most {CONTENT_TYPE_BYTES_MAX} printable ASCII characters"
        )
    return content_type


def _ascii(what: str, text: str) -> bytes:
    if not text.isascii():
        raise HttpProblem("bad_body", f"{what} holds more than ASCII")
    return text.encode()


def given_number(
    name: str, given: int | msgspec.UnsetType, least: int, most: int, otherwise: int = 0
) -> int:
    if given is msgspec.UNSET:
        return otherwise
    if not least <= given <= most:
        raise HttpProblem("bad_body", f"{name}={given}: a whole number from {least} to {most}")
    return given


def table_document(settings: TableSettings, unreached: list[str], conflict: bool) -> dict[str, Any]:
    return {
        "name": settings.name,
        "id": settings.id.hex(),
        "r": settings.r,
        "w": settings.w,
        "resolution": settings.resolution.name.lower(),
        "durability": settings.durability.name.lower(),
        "sloppy": settings.sloppy,
        "ttl_seconds": settings.ttl_seconds,
        "max_siblings": settings.max_siblings,
        "max_record_bytes": settings.max_record_bytes,
        "conflict": conflict,
        "unreached": unreached,
    }
