"""Many seeds, others for each commit: whatever the faults, every promise holds."""

import os
import time

import pytest

from kvorum.simulator.run import Totals, run_seeds
from tests.support.seeds import first_seed

SECONDS = 110  # of wall time, when there is time
SEEDS_MIN = 1_000
SEEDS_MAX = 1 << 20
OPERATIONS_MIN = 150  # a seed, on average
FAULTS_MIN = 5
PROCESSES = max(2, len(os.sched_getaffinity(0)))


@pytest.mark.timeout(1200)
def test_every_promise_holds_in_every_seed() -> None:
    totals = Totals()
    first = first_seed()
    end = time.monotonic() + SECONDS
    for result in run_seeds(range(first, first + SEEDS_MAX), PROCESSES):
        totals.add(result)
        replay = f"kvorum simulate --seed {result.seed} --trace"
        assert not result.failures, "\n".join([*result.failures, f"replay: {replay}"])
        if totals.seeds >= SEEDS_MIN and time.monotonic() > end:
            break
    assert totals.operations >= OPERATIONS_MIN * totals.seeds
    assert totals.fault_count >= FAULTS_MIN * totals.seeds
    assert totals.inside * 2 >= totals.seeds, "half of the seeds leave every promise standing"
    assert not totals.points_never_hit, "each fault point of the code is hit by some seed"
    assert totals.counts["put ok"] * 2 > totals.operations // 4, "clients are served at all"
