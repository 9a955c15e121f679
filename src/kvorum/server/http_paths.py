"""Request targets: which route, which table and key, which parameters.

A path is split at its slashes before it is decoded, so a key may hold any byte, a slash among
them as ``%2F``; nothing is normalised, and ``..`` is a key like any other. What is not exactly
right is refused: half a percent escape, a parameter that the route does not know, one given
twice.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from kvorum.model.quorum import Durability
from kvorum.model.tables import LONGEST_TTL_SECONDS
from kvorum.server.http_problems import HttpProblem
from kvorum.wire.requests import DEFAULT

TARGET_BYTES_MAX: Final = 16_384

INDEX: Final = 0
OPENAPI: Final = 1
TABLES: Final = 2
TABLE: Final = 3
KEYS: Final = 4
KEY: Final = 5
BATCH: Final = 6

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_QUORUM_MAX: Final = 254
_TIMEOUT_MS_MAX: Final = 86_400_000
DURABILITIES: Final = {durability.name.lower(): int(durability) for durability in Durability}
_FLAGS: Final = {"true": 1, "1": 1, "false": 0, "0": 0}


# A key's path as nearly all are: nothing in it needs to be decoded or looked at twice.
_plain_key = re.compile(
    rb"/tables/([^/?#%]+)/keys/([^/?#%]+)(?:/([^/?#%]+))?(?:\?([^#]*))?"
).fullmatch


class Target:
    """Where a request goes. ``query`` is what follows the question mark, not yet looked at."""

    __slots__ = ("key", "query", "route", "sort_key", "table")

    def __init__(
        self, route: int, table: bytes = b"", key: bytes = b"", sort_key: bytes = b"",
        query: bytes = b"",
    ) -> None:  # fmt: skip
        self.route = route
        self.table = table
        self.key = key
        self.sort_key = sort_key
        self.query = query


def parse_target(target: bytes) -> Target:
    """Raises ``HttpProblem`` for what leads nowhere."""
    plain = _plain_key(target)
    if plain is not None:
        table, key, sort_key, query = plain.groups(b"")
        return Target(KEY, table, key, sort_key, query)
    if target[:1] != b"/":
        target = _origin_form(target)
    if b"#" in target:
        raise HttpProblem("bad_path", "a request target has no fragment; write # as %23")
    path, _, query = target.partition(b"?")
    parts = path.split(b"/")
    count = len(parts)
    if parts[1] != b"tables":
        if path == b"/":
            return Target(INDEX, query=query)
        if path == b"/openapi.json":
            return Target(OPENAPI, query=query)
        raise HttpProblem("no_route", f"nothing is at {_shown(path)}")
    if count == 2:
        return Target(TABLES, query=query)
    table = parts[2]
    if b"%" in path:
        parts = [percent_decoded(part) for part in parts]
        table = parts[2]
    if not table:
        raise HttpProblem("no_route", "the table has no name")
    if count == 3:
        return Target(TABLE, table, query=query)
    below = parts[3]
    if below == b"keys":
        if count == 5 or count == 6:
            key = parts[4]
            if not key:
                raise HttpProblem("bad_path", "the key is empty")
            if count == 5:
                return Target(KEY, table, key, b"", query)
            if not parts[5]:
                raise HttpProblem("bad_path", "the sort key is empty; leave out the last slash")
            return Target(KEY, table, key, parts[5], query)
        if count == 4:
            return Target(KEYS, table, query=query)
    elif below == b"batch" and count == 4:
        return Target(BATCH, table, query=query)
    text = f"nothing is at {_shown(path)}; a slash within a key is written %2F"
    raise HttpProblem("no_route", text)


def _origin_form(target: bytes) -> bytes:
    """The path of a target in absolute form, which servers must understand (RFC 9112, 3.2.2)."""
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        raise HttpProblem("bad_path", "a request target begins with a slash")
    slash = rest.find(b"/")
    mark = rest.find(b"?")
    if slash < 0 or 0 <= mark < slash:
        return b"/" + (rest[mark:] if mark >= 0 else b"")
    return rest[slash:]


def percent_decoded(text: bytes) -> bytes:
    """The bytes that ``text`` stands for; every ``%`` must begin a whole escape."""
    position = text.find(b"%")
    if position < 0:
        return text
    while position >= 0:
        escape = text[position + 1 : position + 3]
        if len(escape) != 2 or escape[0] not in _HEX or escape[1] not in _HEX:
            raise HttpProblem(
                "bad_path", f"{_shown(text[position : position + 3])} is no percent-encoded byte"
            )
        position = text.find(b"%", position + 3)
    return unquote_to_bytes(text)


def parse_query(query: bytes, known: tuple[str, ...]) -> dict[str, bytes]:
    """Parameters by name, decoded; each must be ``known`` and stand once."""
    found: dict[str, bytes] = {}
    if not query:
        return found
    for part in query.split(b"&"):
        if not part:
            continue
        name, _, value = part.partition(b"=")
        text = percent_decoded(name).decode("latin-1")
        if text not in known:
            options = ", ".join(known) or "none"
            raise HttpProblem("bad_query", f"parameter {text[:50]!r} is unknown here: {options}")
        if text in found:
            raise HttpProblem("bad_query", f"parameter {text!r} is given twice")
        # As forms have it; a plus sign itself is written %2B.
        found[text] = percent_decoded(value.replace(b"+", b" "))
    return found


def whole_number(name: str, found: dict[str, bytes], least: int, most: int, otherwise: int) -> int:
    text = found.get(name)
    if text is None:
        return otherwise
    # At most twenty digits, and nothing else that int() would take, such as signs and spaces.
    number = int(text) if text.isdigit() and text.isascii() and len(text) <= 20 else -1
    if not least <= number <= most:
        shown = text.decode("latin-1")[:50]
        raise HttpProblem("bad_query", f"{name}={shown}: a whole number from {least} to {most}")
    return number


class Options:
    """How a request on a key is to be done, as it stands in native frames."""

    __slots__ = ("durability", "r", "sloppy", "timeout_ms", "ttl", "w")

    def __init__(self) -> None:
        self.r = 0
        self.w = 0
        self.durability = DEFAULT
        self.sloppy = DEFAULT
        self.ttl = 0  # microseconds
        self.timeout_ms = 0


READ_OPTIONS: Final = ("r", "sloppy", "timeout_ms")
PUT_OPTIONS: Final = ("w", "durability", "sloppy", "timeout_ms", "ttl_seconds")
DELETE_OPTIONS: Final = ("w", "durability", "sloppy", "timeout_ms")
NO_OPTIONS: Final = Options()  # shared; nobody changes it


def parse_options(query: bytes, known: tuple[str, ...]) -> Options:
    if not query:
        return NO_OPTIONS
    found = parse_query(query, known)
    options = Options()
    options.r = whole_number("r", found, 1, _QUORUM_MAX, 0)
    options.w = whole_number("w", found, 1, _QUORUM_MAX, 0)
    options.timeout_ms = whole_number("timeout_ms", found, 1, _TIMEOUT_MS_MAX, 0)
    options.ttl = whole_number("ttl_seconds", found, 1, LONGEST_TTL_SECONDS, 0) * 1_000_000
    if "durability" in found:
        options.durability = _choice("durability", found, DURABILITIES)
    if "sloppy" in found:
        options.sloppy = _choice("sloppy", found, _FLAGS)
    return options


def _choice(name: str, found: dict[str, bytes], choices: dict[str, int]) -> int:
    text = found[name].decode("latin-1")
    chosen = choices.get(text)
    if chosen is None:
        raise HttpProblem("bad_query", f"{name}={text[:50]}: one of {', '.join(choices)}")
    return chosen


def _shown(path: bytes) -> str:
    return path[:100].decode("ascii", "backslashreplace")
