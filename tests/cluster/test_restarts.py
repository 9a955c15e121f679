"""Nodes of a real cluster are killed and restarted under load; what was promised stays.

SIGKILL takes nothing that the log has: whatever a node has acknowledged at the level ``os`` or
``disk`` is there when it is back, and whoever stopped cleanly goes on under the same store id.
"""

import time
from random import Random

import pytest

from kvorum.client.store import DurabilityName
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.writers import Writers

CONFIG = {"flush_bytes": 100_000, "request_timeout_ms": 2000}  # So that overlays often move.


def identity_of(cluster: RunningCluster, name: str) -> tuple[bytes, int, bool]:
    with cluster.connect(name) as client:
        status = client.status(name)
        return status.store_id, status.start_count, status.clean_start


@pytest.mark.parametrize("durability", ["one", "quorum"])
def test_kill_9_at_any_moment(durability: DurabilityName) -> None:
    random = Random(f"kill {durability}")
    with running_cluster(engine="lmdb", config=CONFIG) as cluster:
        store_ids = [identity_of(cluster, name)[0] for name in "abc"]
        with Writers(cluster, 2, durability) as writers:
            for _ in range(3):
                name = random.choice("abc")
                writers.wait_for(random.randrange(20, 120))
                time.sleep(random.random() * 0.05)
                cluster.processes[name].kill()
                writers.wait_for(40)
                cluster.start_again(name)
                store_id, _, clean = identity_of(cluster, name)
                assert not clean
                assert store_id not in store_ids, "dots could be given out twice"
                store_ids.append(store_id)
        assert not writers.failed, writers.failed[:3]
        writers.check_promises()


def test_all_three_killed_at_once() -> None:
    with running_cluster(engine="lmdb", config=CONFIG) as cluster:
        for round_number in range(2):
            writers = Writers(cluster, 2, timeout_seconds=1.0, prefix=f"round-{round_number}")
            with writers:
                writers.wait_for(150)
                for node in cluster.processes.values():
                    node.kill()
            for node in cluster.processes.values():
                node.start()
            cluster.wait_until_ready()
            writers.check_promises()


def test_a_rolling_restart_goes_unnoticed() -> None:
    """Each node in turn is stopped cleanly and started again; every put is ok in the end."""
    with running_cluster(engine="lmdb", config=CONFIG) as cluster:
        before = {name: identity_of(cluster, name) for name in "abc"}
        with Writers(cluster, 2) as writers:
            for name, node in cluster.processes.items():
                writers.wait_for(50)
                assert node.stop() == 0
                writers.wait_for(20)
                cluster.start_again(name)
                store_id, start_count, clean = identity_of(cluster, name)
                assert (store_id, clean) == (before[name][0], True)
                assert start_count == before[name][1] + 1
        assert not writers.failed, writers.failed[:3]
        writers.check_promises()


def test_the_whole_cluster_stopped_and_started() -> None:
    with running_cluster(engine="lmdb", config=CONFIG) as cluster:
        before = {name: identity_of(cluster, name)[0] for name in "abc"}
        with Writers(cluster, 1) as writers:
            writers.wait_for(100)
        for node in cluster.processes.values():
            node.ask_to_stop()
        assert [node.wait() for node in cluster.processes.values()] == [0, 0, 0]
        for node in cluster.processes.values():
            node.start()
        cluster.wait_until_ready()
        assert {name: identity_of(cluster, name)[0] for name in "abc"} == before
        writers.check_promises()
        with Writers(cluster, 1, prefix="after") as later:
            later.wait_for(50)
        later.check_promises()
        assert {name: identity_of(cluster, name)[0] for name in "abc"} == before
