"""Members that hear of the same tables, in whatever order and how often, know the same."""

from hypothesis import given
from hypothesis import strategies as st

from kvorum.model.quorum import Resolution
from kvorum.model.tables import TableRegistry, TableSettings

versions = st.builds(
    TableSettings,
    name=st.sampled_from(["carts", "users"]),
    id=st.sampled_from([b"table--1", b"table--2", b"table--3", b"default\0"]),
    r=st.integers(1, 3),
    w=st.integers(1, 3),
    resolution=st.sampled_from(Resolution),
    version=st.tuples(st.integers(0, 3), st.integers(1, 2)),
    dropped=st.booleans(),
)
heard = st.lists(versions, max_size=12)


def known(registry: TableRegistry) -> tuple[object, ...]:
    """All that anybody can see of a registry."""
    return (
        registry.all_settings(),
        registry.tables(),
        [registry.by_name(name) for name in ("carts", "users")],
        [registry.conflicts(name) for name in ("carts", "users")],
    )


@given(heard, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(first: list[TableSettings], dice: object) -> None:
    again = first + first[::2]
    dice.shuffle(again)  # type: ignore[attr-defined]
    assert known(TableRegistry(first)) == known(TableRegistry(again))


@given(heard, heard, heard)
def test_registries_may_merge_in_any_grouping(
    one: list[TableSettings], two: list[TableSettings], three: list[TableSettings]
) -> None:
    left = TableRegistry([*TableRegistry([*one, *two]).all_settings(), *three])
    right = TableRegistry([*one, *TableRegistry([*two, *three]).all_settings()])
    assert known(left) == known(right)


@given(heard)
def test_merge_tells_the_truth_about_change(settings: list[TableSettings]) -> None:
    registry = TableRegistry()
    for each in settings:
        before = known(registry)
        assert registry.merge(each) == (known(registry) != before)
        assert not registry.merge(each)


@given(heard)
def test_live_tables_and_names_agree(settings: list[TableSettings]) -> None:
    registry = TableRegistry(settings)
    live = [each for each in registry.all_settings() if not each.dropped]
    assert sorted(live, key=lambda table: (table.name, table.id)) == registry.tables()
    for name in ("carts", "users"):
        named = [table for table in registry.tables() if table.name == name]
        assert registry.by_name(name) == (named[0] if named else None)
        assert registry.conflicts(name) == (tuple(named) if len(named) > 1 else ())
    for each in settings:
        held = registry.live(each.id)
        assert held is None or not held.dropped
