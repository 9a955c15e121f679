"""Headers of requests: contexts, put ids, conditions, and what the caller accepts.

A context travels as base64url without padding. A put id is the time of the first sending, in
milliseconds since the Unix epoch, a dash, and 16 random bytes in hexadecimal. With the time in
it, a node knows how old a put is that comes again, and refuses one that it may have forgotten.
"""

from binascii import a2b_base64, b2a_base64, unhexlify
from ipaddress import ip_address
from typing import Final, NamedTuple

from kvorum.model.record import CONTENT_TYPE_BYTES_MAX
from kvorum.server.http_problems import HttpProblem

CONDITIONS: Final = (
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range",
)  # fmt: skip
Headers = dict[bytes, bytes]


class PutId(NamedTuple):
    """The id of one put, as it stands in native frames."""

    client: bytes
    counter: int
    first_sent: int  # microseconds on the node's steady clock, which is all but the wall clock

    def __str__(self) -> str:
        counter = self.counter.to_bytes(8, "little").hex()
        return f"{self.first_sent // 1000}-{self.client.hex()}{counter}"


def parse_put_id(text: bytes) -> PutId:
    milliseconds, dash, digits = text.partition(b"-")
    try:
        if not dash or not milliseconds.isdigit() or not 1 <= len(milliseconds) <= 15:
            raise ValueError
        if len(digits) != 32:
            raise ValueError
        raw = unhexlify(digits)
    except ValueError:
        raise HttpProblem(
            "bad_header",
            "X-Kvorum-Put-Id: milliseconds since 1970 of the first sending, a dash, and 32 "
            "hexadecimal digits that no other put has, as in "
            "1767225600000-8f14e45fceea167a5a36dedd4bea2543",
        ) from None
    return PutId(raw[:8], int.from_bytes(raw[8:], "little"), int(milliseconds) * 1000)


def encode_context(context: bytes) -> bytes:
    return b2a_base64(context, newline=False).translate(_TO_URL).rstrip(b"=")


def decode_base64url(text: bytes) -> bytes | None:
    """The bytes, with or without padding; None if it is no base64url."""
    if not text.isascii() or b"+" in text or b"/" in text:
        return None
    # Not urlsafe_b64decode: that passes over what is no letter of the alphabet.
    plain = text.rstrip(b"=").translate(_FROM_URL)
    try:
        return a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
    except ValueError:
        return None


def decode_context(text: bytes) -> bytes:
    """The context's bytes; whether it is one of this key is the node's to judge."""
    context = decode_base64url(text)
    if context is None:
        text = b"X-Kvorum-Context is not base64url; pass on what a GET or PUT returned"
        raise HttpProblem("bad_context", text.decode())
    if not context:
        raise HttpProblem("bad_context", "X-Kvorum-Context is empty; leave it out to write blindly")
    return context


_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")


def wants_trace(headers: Headers) -> bool:
    """Whether the caller wants to be told how its request went, step by step."""
    text = headers.get(b"x-kvorum-trace", b"0")
    if text not in (b"0", b"1"):
        raise HttpProblem("bad_header", "X-Kvorum-Trace: 1 traces the request; 0 does not")
    return text == b"1"


def refuse_conditions(headers: Headers, conditions: tuple[bytes, ...] = CONDITIONS) -> None:
    for name in conditions:
        if name in headers:
            raise HttpProblem(
                "conditional_write",
                f"{name.decode()}: this store takes every write and keeps what is concurrent as "
                "siblings; an X-Kvorum-Context says what a write replaces",
            )


def etag_matches(condition: bytes, etag: bytes) -> bool:
    """Whether ``If-None-Match`` names ``etag``, compared weakly (RFC 9110, 13.1.2)."""
    if condition.strip() == b"*":
        return True
    opaque = etag.removeprefix(b"W/")
    return any(one.strip().removeprefix(b"W/") == opaque for one in condition.split(b","))


def accepts(header: bytes | None, wanted: bytes, over: bytes) -> bool:
    """Whether ``Accept`` prefers the media type ``wanted`` to ``over``; without it, no."""
    if header is None:
        return False
    return _quality(header, wanted) > _quality(header, over)


def accepts_gzip(header: bytes | None) -> bool:
    if header is None or (b"gzip" not in header and b"*" not in header):
        return False
    qualities = _qualities(header)
    return qualities.get(b"gzip", qualities.get(b"*", 0.0)) > 0


def _quality(header: bytes, media_type: bytes) -> float:
    qualities = _qualities(header)
    major = media_type.partition(b"/")[0]
    for name in (media_type, major + b"/*", b"*/*"):
        if name in qualities:
            return qualities[name]
    return 0.0


def _qualities(header: bytes) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for part in header.lower().split(b","):
        name, *parameters = part.split(b";")
        quality = 1.0
        for parameter in parameters:
            letter, _, number = parameter.strip().partition(b"=")
            if letter == b"q":
                try:
                    quality = min(max(float(number), 0.0), 1.0)
                except ValueError:
                    quality = 0.0
        found[name.strip()] = quality
    return found


def stored_content_type(headers: Headers) -> bytes:
    """What is kept beside the value, to be given back with it."""
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise HttpProblem(
            "unsupported_media_type",
            "Content-Encoding is not kept with a value; send the value as it is",
        )
    content_type = headers.get(b"content-type", b"").strip()
    if len(content_type) > CONTENT_TYPE_BYTES_MAX:
        raise HttpProblem(
            "bad_header",
            f"Content-Type has {len(content_type)} bytes; the limit is {CONTENT_TYPE_BYTES_MAX}",
        )
    if content_type and not is_plain(content_type):
        raise HttpProblem("bad_header", "Content-Type holds more than printable ASCII")
    return content_type


def is_plain(text: bytes) -> bool:
    """Printable ASCII: safe to stand in a header line."""
    return text.isascii() and text.decode("ascii").isprintable()


def require_json(headers: Headers) -> None:
    """Refuse a body that is not declared as JSON.

    Not pedantry: a page in a browser may send other types to any address without asking.
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        shown = kind.decode("latin-1") or "none"
        text = f"Content-Type must be application/json, not {shown[:50]}"
        raise HttpProblem("unsupported_media_type", text)
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise HttpProblem("unsupported_media_type", "a body with a Content-Encoding is not taken")


def is_local_host(host: bytes) -> bool:
    """Whether a Host header names this machine by itself: an address, or localhost.

    Any other name may have been pointed here by whoever owns it, to let a page of theirs in a
    browser on this machine talk to the node (DNS rebinding).
    """
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
