"""Table settings: what is refused, and how two nodes come to know the same tables."""

import msgspec
import pytest
from msgspec.structs import replace

from kvorum.model.quorum import Durability, Resolution
from kvorum.model.tables import (
    DEFAULT_TABLE_ID,
    TableRegistry,
    TableSettings,
    default_table,
    difference,
    settings_problem,
)

CARTS = TableSettings("carts", b"carts---", r=2, w=2, version=(100, 1))


def test_sound_settings_have_no_problem() -> None:
    assert settings_problem(CARTS, n=3) == ""
    assert settings_problem(default_table(2, 2, Durability.ONE), n=3) == ""


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"name": ""}, "table name ''"),
        ({"name": "a" * 129}, "1 to 128 characters"),
        ({"name": "a b"}, "table name 'a b'"),
        ({"name": "carts\n"}, "table name"),
        ({"id": b"short"}, "must be 8 bytes, not 5"),
        ({"r": 0}, "r=0: must lie between 1 and n=3"),
        ({"w": 4}, "w=4: must lie between 1 and n=3"),
        ({"ttl_seconds": -1}, "ttl_seconds=-1"),
        ({"max_siblings": 0}, "max_siblings=0"),
        ({"max_record_bytes": 10}, "max_record_bytes=10"),
        ({"id": DEFAULT_TABLE_ID, "dropped": True}, "cannot be dropped"),
    ],
)
def test_bad_settings_are_refused_by_name(changed: dict[str, object], cause: str) -> None:
    assert cause in settings_problem(replace(CARTS, **changed), n=3)


def test_creating_again_with_equal_choices_differs_in_nothing() -> None:
    again = replace(CARTS, id=b"another-", version=(200, 2))
    assert difference(CARTS, again) == ""


def test_differences_are_named_in_words() -> None:
    other = replace(CARTS, r=1, resolution=Resolution.LWW, durability=Durability.ALL)
    assert difference(CARTS, other) == (
        "resolution is siblings, not lww, r is 2, not 1, durability is one, not all"
    )


def test_settings_survive_the_wire() -> None:
    encoded = msgspec.msgpack.encode(CARTS)
    assert msgspec.msgpack.decode(encoded, type=TableSettings) == CARTS


def test_a_newer_version_is_taken_and_an_older_one_is_not() -> None:
    registry = TableRegistry([CARTS])
    newer = replace(CARTS, w=3, version=(101, 1))
    assert registry.merge(newer)
    assert not registry.merge(newer)
    assert not registry.merge(CARTS)
    assert registry.live(CARTS.id) == newer
    assert registry.by_name("carts") == newer


def test_the_resolution_of_an_id_is_never_loosened() -> None:
    registry = TableRegistry([CARTS])
    assert not registry.merge(replace(CARTS, resolution=Resolution.LWW, version=(999, 1)))


def test_two_ids_under_one_name_are_a_conflict_until_one_is_dropped() -> None:
    other = replace(CARTS, id=b"aaaaaaaa", version=(50, 2))
    registry = TableRegistry([CARTS, other])
    assert registry.conflicts("carts") == (other, CARTS)
    assert registry.by_name("carts") == other
    assert registry.tables() == [other, CARTS]
    registry.merge(replace(other, dropped=True, version=(300, 1)))
    assert registry.conflicts("carts") == ()
    assert registry.by_name("carts") == CARTS


def test_a_drop_is_final_for_its_id() -> None:
    gone = replace(CARTS, dropped=True, version=(200, 1))
    registry = TableRegistry([CARTS])
    assert registry.merge(gone)
    assert not registry.merge(replace(CARTS, version=(999, 9)))
    assert registry.live(CARTS.id) is None
    assert registry.by_name("carts") is None
    assert registry.by_id(CARTS.id) == gone
    assert registry.all_settings() == [gone]
    assert registry.merge(replace(gone, version=(201, 1)))


def test_a_name_can_be_used_again_after_a_drop() -> None:
    registry = TableRegistry([replace(CARTS, dropped=True)])
    successor = replace(CARTS, id=b"second--")
    assert registry.merge(successor)
    assert registry.by_name("carts") == successor


def test_nothing_takes_the_default_table_away() -> None:
    default = default_table(2, 2, Durability.ONE)
    registry = TableRegistry([default])
    assert not registry.merge(replace(default, dropped=True, version=(999, 1)))
    assert not registry.merge(replace(default, name="other", version=(999, 1)))
    assert registry.merge(replace(default, r=1, version=(5, 1)))
    assert registry.by_name("default") == replace(default, r=1, version=(5, 1))
