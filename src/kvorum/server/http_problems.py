"""What can go wrong with an HTTP request: one table of codes, and the document that says so.

Every error is ``application/problem+json`` (RFC 9457) with a ``code`` that never changes its
meaning, the cause in ``detail``, and in ``action`` what to do about it. The reference page lists
the same table, and a test compares them.
"""

from typing import Any, Final, NamedTuple

import msgspec

from kvorum.wire.requests import (
    BAD_CONTEXT,
    BAD_REQUEST,
    NOT_OWNER,
    OVERLOADED,
    QUORUM_NOT_MET,
    TOO_LARGE,
    TOO_MANY_SIBLINGS,
    UNKNOWN_TABLE,
)

RETRY_AFTER_SECONDS: Final = 1
PROBLEM_TYPE: Final = b"application/problem+json"


class Kind(NamedTuple):
    """One thing that can be wrong."""

    status: int
    title: str
    action: str


KINDS: Final[dict[str, Kind]] = {
    "malformed": Kind(400, "Not a valid HTTP request", "Send HTTP/1.1 as RFC 9112 has it."),
    "bad_path": Kind(400, "The path is not valid", "Percent-encode keys byte by byte."),
    "bad_query": Kind(400, "A query parameter is not valid", "See the parameters of this path."),
    "bad_header": Kind(400, "A header is not valid", "See the headers of this path."),
    "bad_body": Kind(400, "The body is not valid", "See the body of this path."),
    "bad_request": Kind(400, "The request is not valid", "Mend it; nothing was written."),
    "bad_context": Kind(
        400,
        "The context is not valid",
        "Pass on unchanged what a GET or PUT of this very key returned in X-Kvorum-Context.",
    ),
    "no_route": Kind(404, "There is no such path", "GET /openapi.json lists all paths."),
    "not_found": Kind(404, "The key was never written", "PUT it without a context."),
    "deleted": Kind(404, "The key was deleted", "PUT with the context of this answer to write it."),
    "unknown_table": Kind(404, "There is no such table", "Create it: PUT /tables/NAME."),
    "method_not_allowed": Kind(405, "The path does not know this method", "See Allow."),
    "request_timeout": Kind(408, "The request came too slowly", "Send it at once."),
    "too_many_siblings": Kind(
        409, "Too many siblings", "GET the key, merge what is there, PUT with its context."
    ),
    "table_exists": Kind(409, "The table exists with other settings", "Change it with PATCH."),
    "length_required": Kind(411, "The body has no length", "Send Content-Length, or chunks."),
    "too_large": Kind(413, "Too large", "Send less; the limits are settings of the node."),
    "uri_too_long": Kind(414, "The path is too long", "Long keys go into POST /tables/NAME/batch."),
    "unsupported_media_type": Kind(415, "The body has the wrong type", "See the body's type."),
    "expectation_failed": Kind(417, "Unknown expectation", "Only 100-continue is known."),
    "misdirected": Kind(
        421,
        "The node is not known by that name",
        "Use localhost or an address in the URL: a node on loopback answers to no other Host.",
    ),
    "head_too_large": Kind(
        431, "The header is too large", "Long contexts go into POST /tables/NAME/batch."
    ),
    "unsupported": Kind(501, "Not supported", "Send the request without it."),
    "conditional_write": Kind(
        501,
        "Conditional writes are not supported",
        "A write here never fails because of another one: both are kept. GET the key, and send "
        "its X-Kvorum-Context with the PUT or DELETE: that replaces exactly what was read.",
    ),
    "overloaded": Kind(503, "Overloaded", "Nothing was written. Try again a little later."),
    "stopping": Kind(503, "The node is stopping", "Go to another node."),
    "quorum_not_met": Kind(
        503,
        "Too few replicas answer",
        "Nothing was written. Try again, at another node or with a smaller r, w or durability.",
    ),
    "timed_out": Kind(504, "No answer in time", "Nothing was changed. Try again."),
    "outcome_unknown": Kind(
        504,
        "Whether it was written is unknown",
        "Send the very same request again with X-Kvorum-Put-Id set to put_id: within a minute of "
        "its first sending it is one write, however often it arrives. Later, GET the key.",
    ),
    "http_version": Kind(505, "Unknown version of HTTP", "Send HTTP/1.1."),
}

# Codes of a native refusal.
REFUSALS: Final[dict[int, str]] = {
    BAD_REQUEST: "bad_request",
    UNKNOWN_TABLE: "unknown_table",
    BAD_CONTEXT: "bad_context",
    TOO_LARGE: "too_large",
    TOO_MANY_SIBLINGS: "too_many_siblings",
    OVERLOADED: "overloaded",
    QUORUM_NOT_MET: "quorum_not_met",
    NOT_OWNER: "quorum_not_met",
}


class HttpProblem(Exception):
    """A request that is answered with a problem; raised while it is read, never later."""

    def __init__(self, code: str, detail: str, allow: str = "") -> None:
        super().__init__(detail)
        assert code in KINDS
        self.code = code
        self.detail = detail
        self.allow = allow  # the methods of the path


def problem_document(code: str, detail: str, put_id: str = "") -> dict[str, Any]:
    kind = KINDS[code]
    document: dict[str, Any] = {
        "type": f"urn:kvorum:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "code": code,
        "detail": detail,
        "action": kind.action,
    }
    if put_id:
        document["put_id"] = put_id
    return document


def problem_body(code: str, detail: str, put_id: str = "") -> bytes:
    return msgspec.json.encode(problem_document(code, detail, put_id)) + b"\n"


def problem_fields(code: str, allow: str = "") -> bytes:
    """The header lines of such an answer, but for what every answer has."""
    fields = b"Content-Type: " + PROBLEM_TYPE + b"\r\n"
    if allow:
        fields += b"Allow: " + allow.encode() + b"\r\n"
    if KINDS[code].status == 503:
        fields += b"Retry-After: %d\r\n" % RETRY_AFTER_SECONDS
    return fields
