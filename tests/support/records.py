"""Dots, values and records for tests: few actors and small counters, so that they collide.

A value's bytes follow from its dot, as they do where the rules hold: nobody writes two things
under one dot.
"""

from hypothesis import strategies as st

from kvorum.model.record import pack_value
from kvorum.model.siblings import encode
from kvorum.model.version import Seen, make_actor, make_dot

HASH_KEY = b"a cluster's key."
TABLE_ID = b"a table!"


def actor(store: int, stamp: int = 1) -> bytes:
    """The actor of the ``store``-th store of a test."""
    return make_actor(store.to_bytes(8, "big"), stamp)


def dot(store: int, counter: int, stamp: int = 1) -> bytes:
    return make_dot(actor(store, stamp), counter)


def value(
    under: bytes, data: bytes = b"v", clock: int = 1, expiry: int = 0, put_id: bytes = b"",
    tombstone: bool = False, content_type: bytes = b"",
) -> bytes:  # fmt: skip
    """An encoded value; its put id, unless given, is its own."""
    return pack_value(under, clock, expiry, put_id or under, tombstone, content_type, data)


def value_of(under: bytes) -> bytes:
    """The one value that a test ever writes under this dot; some are tombstones, some expire."""
    kind = under[-1] ^ under[7]
    return value(
        under,
        b"" if kind % 3 == 0 else under * (kind % 4),
        clock=1_000 + kind,
        expiry=2_000 if kind % 5 == 0 else 0,
        tombstone=kind % 3 == 0,
        content_type=b"text/plain" if kind % 4 == 1 else b"",
    )


def seen_of_dots(dots: list[bytes]) -> Seen:
    seen = Seen()
    for each in dots:
        seen.add(each)
    return seen


def dots_of(seen: Seen) -> set[bytes]:
    """The plain set of dots that ``seen`` stands for."""
    return {
        make_dot(each, counter)
        for each, runs in seen.runs.items()
        for first, last in runs
        for counter in range(first, last + 1)
    }


def record_of_dots(seen: list[bytes], alive: list[bytes]) -> bytes:
    """A siblings record that has seen the one and still holds the other."""
    return encode(seen_of_dots([*seen, *alive]), {each: value_of(each) for each in alive})


dots = st.builds(dot, st.integers(1, 3), st.integers(1, 9), st.integers(1, 2))
dot_lists = st.lists(dots, max_size=14)
records = st.builds(record_of_dots, dot_lists, st.lists(dots, max_size=3))
# Few clocks, so that they tie and the dot decides.
lww_values = st.builds(
    lambda under, clock: value(under, under[-1:] * 3, clock=clock), dots, st.integers(0, 3)
)
