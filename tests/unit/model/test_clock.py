"""The hybrid clock, its lease, and judging one's own clock by those of the peers."""

from kvorum.model.clock import HybridClock, is_off, median_offset, off_by

SECOND = 1_000_000


def test_it_follows_the_wall_clock() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND)
    assert clock.tick(1000) == 1000
    assert clock.tick(2000) == 2000


def test_a_wall_clock_that_stands_or_steps_back_does_not_stop_it() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND)
    assert [clock.tick(1000), clock.tick(1000), clock.tick(10)] == [1000, 1001, 1002]


def test_a_tick_is_above_what_was_witnessed() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND)
    clock.witness(5000)
    clock.witness(4000)
    assert clock.tick(1000) == 5001


def test_a_tick_can_be_asked_to_be_above_a_record() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND)
    assert clock.tick_above(1000, 7000) == 7001
    assert clock.tick_above(1000, 50) == 7002


def test_it_begins_above_the_last_lease() -> None:
    clock = HybridClock(floor=9000, max_clock_skew=SECOND)
    assert clock.tick(1000) == 9001


def test_clocks_too_far_ahead_are_told_apart() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND)
    assert not clock.is_ahead(5 * SECOND, 4 * SECOND)
    assert clock.is_ahead(5 * SECOND + 1, 4 * SECOND)


def test_nothing_is_covered_before_the_first_lease_is_on_disk() -> None:
    clock = HybridClock(floor=1000, max_clock_skew=SECOND)
    assert not clock.is_covered(500)
    assert clock.needs_lease(500) == 1000 + clock.lease_span
    clock.extend_lease(1000 + clock.lease_span)
    assert clock.is_covered(500)
    assert clock.tick(500) <= clock.lease


def test_a_lease_covers_ticks_up_to_its_end_and_no_further() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND, lease_span=10)
    clock.extend_lease(10)
    assert clock.is_covered(10)
    assert not clock.is_covered(11)
    clock.tick(10)
    assert not clock.is_covered(5)


def test_a_new_lease_is_wanted_when_half_of_the_last_is_used() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND, lease_span=100)
    clock.extend_lease(100)
    assert clock.needs_lease(49) == 0
    assert clock.needs_lease(50) == 150
    clock.tick(60)
    assert clock.needs_lease(0) == 160


def test_a_lease_is_never_taken_back() -> None:
    clock = HybridClock(floor=0, max_clock_skew=SECOND)
    clock.extend_lease(100)
    clock.extend_lease(50)
    assert clock.lease == 100


def test_the_median_of_the_peers_is_what_counts() -> None:
    assert median_offset([3, -900, 5]) == 3
    assert median_offset([-7]) == -7
    assert off_by([-7]) == 7


def test_an_even_median_gives_the_benefit_of_the_doubt() -> None:
    assert median_offset([10, 20]) == 10
    assert median_offset([-20, -10]) == -10
    assert median_offset([-20, 10]) == 0


def test_nobody_to_ask_means_not_off() -> None:
    assert median_offset([]) == 0
    assert not is_off([], 0)


def test_more_than_the_allowed_skew_is_off() -> None:
    assert not is_off([SECOND], SECOND)
    assert is_off([SECOND + 1], SECOND)
    assert is_off([-SECOND - 1], SECOND)
