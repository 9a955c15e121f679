"""What is learned from how long a peer takes."""

import random

from kvorum.model.latency import (
    FIRST_GUESS,
    HEDGE_MIN,
    TIMEOUT_MAX,
    TIMEOUT_MIN,
    Latency,
)


def after(*samples: int) -> Latency:
    latency = Latency()
    for sample in samples:
        latency.observe(sample)
    return latency


def test_a_stranger_is_given_time() -> None:
    latency = Latency()
    assert latency.mean == FIRST_GUESS
    assert TIMEOUT_MIN <= latency.timeout <= TIMEOUT_MAX
    assert HEDGE_MIN <= latency.hedge_after <= latency.timeout


def test_the_mean_comes_to_rest_at_what_is_usual() -> None:
    latency = after(*[300] * 200)
    assert abs(latency.mean - 300) < 10
    assert latency.deviation < 30


def test_patience_has_a_least_and_a_most() -> None:
    fast = after(*[100] * 20_000)
    assert fast.timeout == TIMEOUT_MIN
    assert fast.hedge_after == HEDGE_MIN
    slow = after(*[60_000_000] * 500)
    assert slow.timeout == TIMEOUT_MAX
    assert slow.hedge_after <= TIMEOUT_MAX


def test_one_answer_in_twenty_is_slower_than_the_95th_percentile() -> None:
    dice = random.Random(7)
    latency = Latency()
    above = 0
    for number in range(40_000):
        sample = dice.randrange(10_000, 20_000)
        if number >= 20_000 and sample > latency.p95:
            above += 1
        latency.observe(sample)
    assert 700 < above < 1_300


def test_unsteady_peers_are_given_longer() -> None:
    steady = after(*[100_000] * 300)
    unsteady = after(*[50_000, 150_000] * 150)
    assert unsteady.timeout > steady.timeout
