"""Every counter has a meaning, starts at nought, and is counted somewhere."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from kvorum.counters import (
    BUCKETS,
    BUCKETS_END,
    DURATION_BOUNDS,
    MEANINGS,
    Counters,
    OperationCounts,
    bucket_of,
)

SOURCE = Path(__file__).parents[2] / "src" / "kvorum"


def test_a_node_begins_with_nought_everywhere() -> None:
    assert Counters().snapshot() == dict.fromkeys(MEANINGS, 0)


def test_each_node_counts_for_itself() -> None:
    one, two = Counters(), Counters()
    one.puts += 3
    assert (one.snapshot()["puts"], two.puts) == (3, 0)


def test_attributes_and_meanings_are_the_same() -> None:
    assert list(Counters.__annotations__) == list(MEANINGS)
    assert all(meaning[0].islower() and not meaning.endswith(".") for meaning in MEANINGS.values())


@pytest.mark.parametrize("name", MEANINGS)
def test_each_counter_is_counted_somewhere(name: str) -> None:
    """A name that nothing raises would stay nought for ever and tell people that all is well."""
    counted = re.compile(rf"\bcounters\.{name} (\+=|=) ")
    text = "\n".join(path.read_text() for path in sorted(SOURCE.rglob("*.py")))
    assert counted.search(text), f"nothing counts {name}: count it, or take it out"


def test_a_duration_lies_below_the_end_of_its_bucket_and_no_lower_one() -> None:
    around = [bound + step for bound in DURATION_BOUNDS for step in (-1, 0, 1)]
    for duration in [0, 1, 63, *around]:
        bucket = bucket_of(duration)
        assert bucket == len(DURATION_BOUNDS) or duration < DURATION_BOUNDS[bucket]
        assert bucket == 0 or duration >= DURATION_BOUNDS[bucket - 1]


def test_buckets_are_looked_up_as_they_are_worked_out_and_every_one_is_counted() -> None:
    assert all(BUCKETS[took >> 6] == bucket_of(took) for took in range(0, BUCKETS_END, 61))
    last = bucket_of(1 << 60)
    assert last == len(DURATION_BOUNDS)
    assert len(OperationCounts().durations) == last + 1


def test_buckets_are_narrow_enough_for_percentiles() -> None:
    assert all(high <= low * 5 // 4 for low, high in pairwise(DURATION_BOUNDS[4:]))
    assert DURATION_BOUNDS[-1] == 1 << 25, "half a minute"


def test_tables_are_counted_apart() -> None:
    counters = Counters()
    counters.tables[b"table  1"].put.refused += 1
    counters.tables[b"table  2"].get.unknown += 1
    assert counters.tables[b"table  1"].put.refused == 1
    assert counters.tables[b"table  2"].put.refused == 0
    assert list(counters.tables) == [b"table  1", b"table  2"]
