"""Failures as HTTP has them: ``application/problem+json`` with a stable code (RFC 9457)."""

from typing import Final

import msgspec
from starlette.responses import Response

from kvorum.errors import (
    BadContext,
    BadRequest,
    KvorumError,
    NoNodeReachable,
    OutcomeUnknown,
    Overloaded,
    QuorumNotMet,
    SettingsInvalid,
    TooLarge,
    TooManySiblings,
    UnknownTable,
)

TOO_LONG: Final = 413
# The first that fits.
CODES: Final[tuple[tuple[type[KvorumError], int, str], ...]] = (
    (BadRequest, 400, "bad_request"),
    (SettingsInvalid, 400, "bad_request"),
    (BadContext, 400, "bad_context"),
    (UnknownTable, 404, "unknown_table"),
    (TooLarge, TOO_LONG, "too_large"),
    (TooManySiblings, 409, "too_many_siblings"),
    (Overloaded, 503, "overloaded"),
    (QuorumNotMet, 503, "quorum_not_met"),
    (NoNodeReachable, 503, "no_node_reachable"),
    (OutcomeUnknown, 504, "outcome_unknown"),
    (KvorumError, 500, "failed"),
)


def problem(status: int, code: str, detail: str) -> Response:
    document = {"status": status, "code": code, "title": code.replace("_", " "), "detail": detail}
    answer = Response(
        msgspec.json.encode(document), status_code=status, media_type="application/problem+json"
    )
    if status == TOO_LONG:
        answer.headers["Connection"] = "close"  # Nobody waits for the rest of the body.
    return answer


def problem_of(error: KvorumError) -> Response:
    """What went wrong with a request of the cluster."""
    for kind, status, code in CODES:
        if isinstance(error, kind):
            return problem(status, code, str(error))
    raise AssertionError(f"{type(error).__name__} is no error of kvorum")
