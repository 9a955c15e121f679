"""What is wrong with a client's request, in words: its sizes, its quorum, its table.

``requests.py`` compares; whatever it finds wrong is put into words here, off the usual path.
"""

from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.tables import LONGEST_TTL_SECONDS
from kvorum.wire.requests import DEFAULT

DURABILITY_MAX: Final = 3
TTL_MAX: Final = LONGEST_TTL_SECONDS * 1_000_000


def size_problem(
    config: NodeConfig, key_length: int, sort_length: int, context_length: int, value_bytes: int
) -> str:
    """Which of its limits a request breaks; empty if none."""
    if key_length > config.partition_key_bytes_max:
        return _too_long("partition key", key_length, config.partition_key_bytes_max)
    if sort_length > config.sort_key_bytes_max:
        return _too_long("sort key", sort_length, config.sort_key_bytes_max)
    if value_bytes > config.value_bytes_max:
        return _too_long("value", value_bytes, config.value_bytes_max)
    if context_length > config.context_bytes_max:
        return _too_long("context", context_length, config.context_bytes_max)
    return ""


def put_problem(n: int, key_length: int, w: int, durability: int, ttl: int) -> str:
    """What else a put cannot be."""
    if not key_length:
        return "the partition key is empty"
    if w > n:
        return f"w={w}: must lie between 1 and n={n}"
    if durability > DURABILITY_MAX and durability != DEFAULT:
        return f"durability {durability} is unknown: 0 to 3, or {DEFAULT} for the table's"
    if ttl > TTL_MAX:
        return f"a time to live of {ttl} us; at most {TTL_MAX}"
    return "a delete carries no value"


def get_problem(n: int, key_length: int, r: int) -> str:
    """What else a get cannot be."""
    if not key_length:
        return "the partition key is empty"
    return f"r={r}: must lie between 1 and n={n}"


def no_table(table_id: bytes) -> str:
    return f"there is no table with the id {table_id.hex()}; it was dropped, or never created here"


def _too_long(what: str, length: int, limit: int) -> str:
    return f"the {what} has {length} bytes; the limit is {limit}"
