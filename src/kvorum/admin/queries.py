"""What a query of the administration port says, or why it cannot be meant.

Strict, since a key that is silently read as another one is worse than a refusal: a query that is
not percent-encoded UTF-8, that names what the path does not know, or that names it twice, is none.
"""

import re
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from kvorum.errors import BadRequest

_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER_DIGITS_MAX: Final = 18


def query_of(request: Request, *known: str) -> dict[str, str]:
    """The parameters of a query by name, of those that the path knows."""
    raw = request.scope["query_string"].decode("latin-1")
    if _BROKEN.search(raw):
        raise BadRequest("the query has a % without two hexadecimal digits after it")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("the query is not UTF-8; give a key of bytes with encoding=hex") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise BadRequest(f"this path has no parameter {name!r}; {takes}")
        if name in query:
            raise BadRequest(f"the query has {name} twice")
        query[name] = value
    return query


def number_of(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > _NUMBER_DIGITS_MAX:
        raise BadRequest(
            f"{name} must be a number from 0 on, of at most {_NUMBER_DIGITS_MAX} digits"
        )
    return int(text)
