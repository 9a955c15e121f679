"""Every counter has a meaning, starts at nought, and is counted somewhere."""

import re
from pathlib import Path

import pytest

from kvorum.counters import MEANINGS, Counters

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
