"""The laws of hints: joined in any order, twice, they say the same.

Their records are of one history: what three replicas of a key hold at some moment, whatever they
wrote and told each other before. (Two records that nobody could ever hold side by side, having
seen the same and kept different values, need not obey any law.)
"""

from hypothesis import given
from hypothesis import strategies as st

from kvorum.model.hint import Hint, decode_hint, joined
from kvorum.model.holding import NO_OWN, own_dot, pack_holding, record_of
from kvorum.model.record import check_record, supersedes
from kvorum.model.siblings import context_after_put, merge, seen_of, update
from kvorum.model.version import Seen
from tests.support.records import dot, dots, value_of


def history(steps: list[tuple[int, int, int]]) -> list[bytes]:
    """Every record that one of three replicas held: put blindly, over all, or taken over."""
    held: list[bytes | None] = [None, None, None]
    counters = [0, 0, 0]
    records: list[bytes] = []
    for replica, other, kind in [*steps, (0, 0, 0)]:
        mine, theirs = held[replica], held[other]
        if kind == 2:
            if theirs is None:
                continue
            made = theirs if mine is None else merge(mine, theirs)
        else:
            counters[replica] += 1
            under = dot(replica + 1, counters[replica])
            context: Seen | None = seen_of(theirs) if kind == 1 and theirs is not None else None
            made = update(mine, context, value_of(under))
            assert context_after_put(made, under).covers(under)
        held[replica] = made
        records.append(made)
    return records


def hint(record: bytes, w: int, disks: int, created: int, owners: set[int]) -> Hint:
    return Hint(w, disks, created, tuple(sorted(owners)), pack_holding(NO_OWN, b"alice", record))


@st.composite
def some_hints(draw: st.DrawFn, count: int) -> list[Hint]:
    places = st.integers(0, 2)
    records = history(draw(st.lists(st.tuples(places, places, places), max_size=12)))
    return [
        hint(
            draw(st.sampled_from(records)), draw(st.integers(1, 5)), draw(st.integers(0, 5)),
            draw(st.integers(0, 9)), draw(st.sets(st.integers(1, 4), min_size=1, max_size=4)),
        )
        for _ in range(count)
    ]  # fmt: skip


@given(some_hints(1))
def test_a_hint_is_read_back_as_it_was_written(hints: list[Hint]) -> None:
    (hint,) = hints
    assert decode_hint(hint.encode()).encode() == hint.encode()


@given(some_hints(2))
def test_the_order_of_two_hints_does_not_matter(hints: list[Hint]) -> None:
    one, other = hints
    assert joined(one, other).encode() == joined(other, one).encode()


@given(some_hints(3))
def test_how_three_hints_are_paired_does_not_matter(hints: list[Hint]) -> None:
    a, b, c = hints
    assert joined(joined(a, b), c).encode() == joined(a, joined(b, c)).encode()


@given(some_hints(2))
def test_a_hint_that_comes_twice_changes_nothing_the_second_time(hints: list[Hint]) -> None:
    one, other = hints
    both = joined(one, other)
    assert joined(both, other).encode() == joined(both, one).encode() == both.encode()


@given(some_hints(2))
def test_no_promise_and_no_write_is_made_less(hints: list[Hint]) -> None:
    one, other = hints
    both = joined(one, other)
    record = record_of(both.holding)
    check_record(record)
    for each in (one, other):
        assert both.w >= each.w
        assert both.disks >= each.disks
        assert both.created <= each.created
        assert {*each.owners} <= {*both.owners}
        assert supersedes(record, record_of(each.holding))
    assert record == merge(record_of(one.holding), record_of(other.holding))


@given(some_hints(2), dots)
def test_the_own_actor_stays_whatever_comes(hints: list[Hint], own: bytes) -> None:
    one, other = hints
    one.holding = pack_holding(own, b"alice", record_of(one.holding))
    assert own_dot(joined(one, other).holding) == own
