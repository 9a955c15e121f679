"""The hybrid clock only ever rises, whatever the wall clock does."""

from hypothesis import given
from hypothesis import strategies as st

from kvorum.model.clock import HybridClock, median_offset

walls = st.integers(0, 1_000)


@given(
    st.integers(0, 1_000),
    st.lists(st.tuples(st.sampled_from(["tick", "above", "witness"]), walls, walls)),
)
def test_every_tick_is_above_all_that_went_before(
    floor: int, steps: list[tuple[str, int, int]]
) -> None:
    clock = HybridClock(floor, max_clock_skew=100)
    highest = floor
    for step, wall, other in steps:
        if step == "witness":
            clock.witness(other)
            highest = max(highest, other)
            continue
        if step == "above":
            ticked = clock.tick_above(wall, other)
            highest = max(highest, other)
        else:
            ticked = clock.tick(wall)
        assert ticked == max(wall, highest + 1)
        highest = ticked


@given(st.lists(walls))
def test_a_restart_is_above_every_tick_that_a_lease_covered(seen: list[int]) -> None:
    clock = HybridClock(0, max_clock_skew=100, lease_span=200)
    issued = [0]
    for wall in seen:
        wanted = clock.needs_lease(wall)
        if wanted:
            clock.extend_lease(wanted)
        assert clock.is_covered(wall)
        issued.append(clock.tick(wall))
    successor = HybridClock(clock.lease, max_clock_skew=100)
    assert successor.tick(0) > max(issued)


@given(st.lists(st.integers(-1000, 1000), min_size=1))
def test_the_median_has_as_many_on_either_side(offsets: list[int]) -> None:
    median = median_offset(offsets)
    assert 2 * sum(offset < median for offset in offsets) <= len(offsets)
    assert 2 * sum(offset > median for offset in offsets) <= len(offsets)
