"""The background budget as clients meet it, on nodes whose work takes time (paper, section 6.5).

A node comes back with an empty disk, and everything is brought to it. With the controller, the
99th percentile that clients meet stays under the threshold; without it, it does not.
"""

from typing import Final

import pytest

from kvorum.protocol.background import Background, Task
from kvorum.simulator.plan import SECOND
from tests.support.loaded import LoadedCluster

RECORDS: Final = 2_000
RATE: Final = 800
MEMBERS: Final = (1, 2, 3)
LOST: Final = 3  # the member with the empty disk
EXCHANGE_MAX: Final = 5 * SECOND  # in which an exchange has finished under load


class Endless(Task):
    """Work of which there is always more."""

    def step(self, allowance: int) -> int:
        return min(allowance, 25)


def test_latency_stays_under_the_threshold_while_all_is_exchanged_which_finishes() -> None:
    cluster = LoadedCluster(RECORDS, RATE)
    cluster.replace_disk(LOST)
    unloaded = cluster.until_caught_up(LOST, EXCHANGE_MAX)
    assert [cluster.background(member).share for member in (1, 2)] == [cluster.share_max] * 2

    cluster.begin_load()
    cluster.run(2 * SECOND)
    before = cluster.p99(cluster.now - 2 * SECOND, cluster.now)
    assert before < cluster.limit // 2

    begin = cluster.now
    cluster.replace_disk(LOST)
    loaded = cluster.until_caught_up(LOST, EXCHANGE_MAX)
    p99 = cluster.p99(begin, cluster.now)
    assert before < p99 < cluster.limit
    assert unloaded < loaded, "where nobody waits the exchange has more of the time"

    cluster.end_load()
    cluster.run(SECOND)
    settle = cluster.now
    while cluster.world.checks.unequal() and cluster.now < settle + 30 * SECOND:
        cluster.run(SECOND)
    assert cluster.world.checks.unequal() == []
    assert cluster.world.failures == []


def test_the_threshold_is_passed_where_the_share_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as above with the controller broken: so that test can fail."""
    monkeypatch.setattr(Background, "_judge", lambda self, now: None)
    monkeypatch.setattr(Background, "_begin_anew", lambda self, now: None)
    cluster = LoadedCluster(RECORDS, RATE)
    cluster.begin_load()
    cluster.run(2 * SECOND)
    begin = cluster.now
    cluster.replace_disk(LOST)
    cluster.until_caught_up(LOST, EXCHANGE_MAX)
    assert cluster.shares == [cluster.share_max] * 3
    assert cluster.p99(begin, cluster.now) > cluster.limit * 5 // 4


def test_the_share_falls_when_load_sets_in_and_rises_when_it_ends() -> None:
    cluster = LoadedCluster(100, 500)
    for member in MEMBERS:
        cluster.background(member).wake(Endless())
    cluster.run(2 * SECOND)
    assert cluster.shares == [cluster.share_max] * 3

    cluster.begin_load()
    cluster.run(2 * SECOND)
    step = cluster.p99(cluster.now - 2 * SECOND, cluster.now)
    assert step > cluster.limit, "the share was too large for the load"
    assert max(cluster.shares) < cluster.share_max // 4

    spent = [cluster.background(member).spent for member in MEMBERS]
    begin = cluster.now
    cluster.run(3 * SECOND)
    # It tries again and again how much it may take, so it is under the limit most of the time.
    assert cluster.p99(begin, cluster.now) < min(step * 2 // 3, cluster.limit * 5 // 4)
    assert max(cluster.shares) < cluster.share_max // 4
    for member, before in zip(MEMBERS, spent, strict=True):
        done = cluster.background(member).spent - before
        assert done > 3 * SECOND * 20 // 1_000, "the work goes on, above the floor"

    cluster.end_load()
    cluster.run(SECOND + SECOND // 2)
    assert cluster.shares == [cluster.share_max] * 3
