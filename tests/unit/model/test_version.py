"""Dots, encoded vectors, and the set of what has been seen."""

import pytest

from kvorum.model.version import (
    COUNTER_MAX,
    Seen,
    counter_of,
    descends,
    find_entry,
    is_canonical,
    make_actor,
    make_dot,
)
from tests.support.records import actor, dot, dots_of, seen_of_dots


def encoded(*dots: bytes) -> tuple[int, int, bytes]:
    return seen_of_dots(list(dots)).encode()


def descends_from(newer: Seen, older: Seen) -> bool:
    """``descends`` on both sets' encodings, each behind bytes that are not its own."""
    newer_entries, newer_runs, newer_bytes = newer.encode()
    older_entries, older_runs, older_bytes = older.encode()
    return descends(
        b"before" + newer_bytes + b"\xff" * 40, 6, newer_entries, newer_runs,
        b"head" + older_bytes + b"\0" * 40, 4, older_entries, older_runs,
    )  # fmt: skip


def up_to(store: int, counter: int) -> list[bytes]:
    return [dot(store, each) for each in range(1, counter + 1)]


def test_a_dot_is_an_actor_and_a_counter_in_the_order_of_bytes() -> None:
    one = make_actor(b"the shop", 7)
    assert make_dot(one, 258) == b"the shop" + b"\0\0\0\x07" + b"\0\0\x01\x02"
    assert counter_of(make_dot(one, COUNTER_MAX)) == COUNTER_MAX
    assert make_dot(one, 255) < make_dot(one, 256) < make_dot(make_actor(b"the shop", 8), 1)


def test_a_gap_that_closes_is_folded_into_the_vector() -> None:
    assert encoded(dot(1, 1), dot(1, 3)) == (
        1,
        1,
        dot(1, 1) + actor(1) + b"\0\0\0\x03\0\0\0\x03",
    )
    assert encoded(dot(1, 3), dot(1, 1), dot(1, 2)) == (1, 0, dot(1, 3))


def test_entries_stand_before_runs_and_both_are_sorted() -> None:
    entries, runs, body = encoded(dot(3, 1), dot(1, 5), dot(2, 1), dot(1, 7))
    assert (entries, runs) == (2, 2)
    assert body[:32] == dot(2, 1) + dot(3, 1)
    assert body[32:52] == actor(1) + b"\0\0\0\x05" * 2
    assert body[52:] == actor(1) + b"\0\0\0\x07" * 2


def test_decoding_gives_back_what_was_encoded() -> None:
    seen = seen_of_dots([dot(1, 1), dot(1, 2), dot(1, 5), dot(2, 4), dot(3, 1)])
    entries, runs, body = seen.encode()
    assert Seen.decode(b"xyz" + body, 3, entries, runs).runs == seen.runs


def test_an_entry_is_found_only_where_entries_begin() -> None:
    # The second half of one entry and the first of the next happen to spell an actor.
    spelled = b"\x01" * 12
    vector = b"\0" * 8 + b"\x01" * 8 + b"\x01" * 4 + b"\x02" * 12 + spelled + b"\0\0\0\x09"
    assert find_entry(b"head" + vector, 4, 3, spelled) == 4 + 32
    assert find_entry(b"head" + vector, 4, 2, spelled) == -1
    assert find_entry(b"head" + vector, 4, 3, b"\x03" * 12) == -1


@pytest.mark.parametrize(
    ("newer", "older", "expected"),
    [
        ([], [], True),
        ([], up_to(1, 1), False),
        (up_to(1, 2), [], True),
        (up_to(1, 2), up_to(1, 1), True),
        (up_to(1, 1), up_to(1, 2), False),
        (up_to(1, 2), up_to(2, 1), False),
        (up_to(2, 2), up_to(1, 1), False),
        (up_to(1, 2) + up_to(3, 1), up_to(2, 1), False),
        (up_to(1, 2) + up_to(2, 1), up_to(2, 1), True),
        (up_to(1, 2) + up_to(2, 1), up_to(2, 2), False),
        (up_to(1, 1) + up_to(2, 300), up_to(1, 1) + up_to(2, 256), True),
        (up_to(1, 9) + up_to(2, 1), up_to(1, 1) + up_to(3, 1), False),
        (up_to(1, 5), [dot(1, 3)], True),
        ([dot(1, 3)], up_to(1, 3), False),
        ([dot(1, 3), dot(1, 5)], [dot(1, 4)], False),
        ([dot(1, 3), dot(1, 5)], [dot(1, 5)], True),
        ([dot(1, 3), dot(1, 5)], [dot(1, 6)], False),
        ([dot(1, 3)], [dot(2, 3)], False),
    ],
)
def test_one_set_descends_from_another_if_it_holds_all_of_it(
    newer: list[bytes], older: list[bytes], expected: bool
) -> None:
    assert descends_from(seen_of_dots(newer), seen_of_dots(older)) is expected
    assert seen_of_dots(newer).covers_all(seen_of_dots(older)) is expected


def test_covering_a_dot_is_being_within_a_run() -> None:
    seen = seen_of_dots([dot(1, 1), dot(1, 2), dot(1, 4), dot(1, 6)])
    assert [counter for counter in range(1, 9) if seen.covers(dot(1, counter))] == [1, 2, 4, 6]
    assert not seen.covers(dot(2, 1))
    assert not seen_of_dots([dot(1, 3)]).covers(dot(1, 2))


def test_taking_dots_out_leaves_gaps() -> None:
    seen = seen_of_dots([*up_to(1, 6), dot(1, 9), *up_to(2, 1), *up_to(3, 2)])
    less = seen.without([dot(1, 6), dot(1, 3), dot(1, 3), dot(2, 1), dot(1, 8), dot(4, 1)])
    assert dots_of(less) == {dot(1, 1), dot(1, 2), dot(1, 4), dot(1, 5), dot(1, 9), *up_to(3, 2)}
    assert seen.runs[actor(1)] == [(1, 6), (9, 9)], "the set itself stays as it was"


def test_merging_takes_in_every_dot() -> None:
    seen = seen_of_dots([dot(1, 1), dot(1, 4)])
    seen.merge(seen_of_dots([dot(1, 2), dot(1, 3), dot(2, 2)]))
    assert seen.runs == {actor(1): [(1, 4)], actor(2): [(2, 2)]}


def run(store: int, first: int, last: int) -> bytes:
    return actor(store) + first.to_bytes(4, "big") + last.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("entries", "runs", "body"),
    [
        (1, 0, dot(1, 0)),
        (2, 0, dot(1, 0) + dot(2, 1)),
        (2, 0, dot(2, 1) + dot(1, 1)),
        (2, 0, dot(1, 1) + dot(1, 2)),
        (0, 1, run(1, 1, 4)),
        (0, 1, run(1, 5, 4)),
        (0, 1, run(1, 0, 4)),
        (1, 1, dot(1, 4) + run(1, 5, 6)),
        (1, 1, dot(1, 4) + run(1, 3, 6)),
        (0, 2, run(1, 3, 4) + run(1, 5, 6)),
        (0, 2, run(1, 8, 9) + run(1, 3, 4)),
        (0, 2, run(2, 3, 4) + run(1, 3, 4)),
    ],
)
def test_a_set_that_is_written_in_another_way_is_not_canonical(
    entries: int, runs: int, body: bytes
) -> None:
    assert not is_canonical(b"head" + body, 4, entries, runs)


def test_what_encode_gives_is_canonical() -> None:
    for dots in ([], up_to(1, 1), up_to(1, 3) + up_to(2, 1), [dot(1, 1), dot(1, 3), dot(2, 5)]):
        entries, runs, body = encoded(*dots)
        assert is_canonical(b"head" + body, 4, entries, runs)


def test_many_runs_are_compared_in_one_pass() -> None:
    """Two sets of thirty thousand gaps; comparing each run with each other took minutes."""
    many = Seen()
    many.runs[actor(1)] = [(counter, counter) for counter in range(1, 60_001, 2)]
    assert many.covers_all(many)
    assert many.covers(dot(1, 59_999))
    assert not many.covers(dot(1, 59_998))
    assert many.without([dot(1, counter) for counter in range(1, 60_001, 2)]).runs == {}
