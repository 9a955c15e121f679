"""Real nodes on hosts of their own: killed, paused, cut off, slowed down, with packets lost.

Clients go on all the while. Every operation here is *entitled* to succeed: its client reaches a
running node that reaches enough owners, since only one of three nodes is ever harmed at a time.
"""

import os
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.network_cluster import (
    NetworkCluster,
    Probes,
    longest_gap,
    network_cluster,
    share_within,
)
from tests.support.requirements import requires

pytestmark = requires("root", "namespaces", "packet-filter")

KEYS = int(os.environ.get("KVORUM_DRILL_KEYS", "3000"))
FAULT_SECONDS = 4.0
CALM_SECONDS = 2.0
HEAL_SECONDS = 10.0

Fault = Callable[[NetworkCluster], None]


def kill(cluster: NetworkCluster) -> None:
    cluster.processes["c"].kill()


def pause(cluster: NetworkCluster) -> None:
    cluster.processes["c"].pause()


def cut_off(cluster: NetworkCluster) -> None:
    cluster.hosts.isolate("c", "a", "b")


def deafen(cluster: NetworkCluster) -> None:
    """What the others send never reaches it; what it sends reaches them."""
    for sender in "ab":
        cluster.hosts.cut_one_way(sender, "c")


def lose_packets(cluster: NetworkCluster) -> None:
    cluster.hosts.lose("c", 0.05)


def slow_down(cluster: NetworkCluster) -> None:
    cluster.hosts.delay("c", 0.03)


FAULTS: list[Fault] = [kill, pause, cut_off, deafen, lose_packets, slow_down]


def mend(cluster: NetworkCluster) -> None:
    cluster.hosts.heal()
    node = cluster.processes["c"]
    node.resume()
    if not node.running:
        node.start()
    cluster.wait_until_whole()


def phase(probes: Probes, name: str, start: float, end: float) -> str:
    """What one fault did to the clients; a line for people."""
    operations = probes.between(start, end)
    share = share_within(operations, 1.0)
    failed = sum(bool(each.error) for each in operations)
    gap = longest_gap(operations)
    return (
        f"{name}: {len(operations)} operations, {share:.2%} within 1 s, {failed} failed, "
        f"longest time without a success {gap:.2f} s"
    )


@pytest.mark.timeout(600)
def test_clients_go_on_whatever_happens_to_one_node_and_copies_become_equal() -> None:
    with network_cluster(3) as cluster:
        keys = cluster.fill(KEYS)
        times: list[tuple[str, float, float]] = []
        with cluster.probing() as probes:
            time.sleep(CALM_SECONDS)
            for fault in FAULTS:
                start = time.time()
                fault(cluster)
                time.sleep(FAULT_SECONDS)
                times.append((fault.__name__, start, time.time()))
                mend(cluster)
                time.sleep(CALM_SECONDS)
        healed = time.monotonic()
        lines = [phase(probes, *each) for each in times]
        for line, (name, start, end) in zip(lines, times, strict=True):
            operations = probes.between(start, end)
            assert share_within(operations, 1.0) >= 0.99, (name, lines)
            assert longest_gap(operations) < 1.0, (name, lines)
            sys.stdout.write(f"{line}\n")  # Shown by pytest -s, and when something fails.
        time.sleep(max(HEAL_SECONDS - (time.monotonic() - healed), 0))
        written = [*keys, *probes.written]
        differing = cluster.differing(written)
        assert not differing, f"{len(differing)} of {len(written)} keys differ: {lines}"
