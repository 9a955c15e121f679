"""Real processes find out who is there: killed, paused, stopped, and back again."""

import time

from kvorum.client.blocking import Client
from kvorum.wire.messages import StatusAnswer
from tests.support.cluster import RunningCluster, running_cluster

PATIENCE = 30.0  # seconds; what is waited for takes a few
STEP = 0.05


def beliefs_about(client: Client, member: str) -> set[str]:
    """What the nodes that answer believe of one member."""
    found = set()
    for name, answer in client.statuses().items():
        if isinstance(answer, StatusAnswer) and name != member:
            found |= {peer.belief for peer in answer.peers if peer.name == member}
    return found


def wait_for_belief(cluster: RunningCluster, member: str, belief: str) -> float:
    """Wait until all others believe it; the seconds that took."""
    begin = time.monotonic()
    others = [node.address for name, node in cluster.processes.items() if name != member]
    with Client(others, timeout_seconds=2.0) as client:
        while (found := beliefs_about(client, member)) != {belief}:
            taken = time.monotonic() - begin
            assert taken < PATIENCE, f"{member} is believed {found} and not {belief}"
            time.sleep(STEP)
    return time.monotonic() - begin


def test_nodes_that_die_hang_or_stop_are_found_and_found_again() -> None:
    with running_cluster(nodes=5) as cluster:
        cluster.processes["b"].kill()
        wait_for_belief(cluster, "b", "dead")
        cluster.start_again("b")
        wait_for_belief(cluster, "b", "alive")
        cluster.processes["c"].pause()
        wait_for_belief(cluster, "c", "dead")
        cluster.processes["c"].resume()
        wait_for_belief(cluster, "c", "alive")
        assert cluster.processes["d"].stop() == 0
        assert wait_for_belief(cluster, "d", "left") < PATIENCE / 2
        cluster.start_again("d")
        wait_for_belief(cluster, "d", "alive")
        with cluster.connect("a") as client:
            status = client.status("a")
        assert status.counters["push_pulls"] >= 3
        assert status.counters["probes"] > 10


def test_a_table_made_while_a_node_was_away_is_there_when_it_is_back() -> None:
    with running_cluster() as cluster:
        cluster.processes["c"].kill()
        with cluster.connect("a") as client:
            client.create_table("carts", w=1)
        cluster.start_again("c")
        begin = time.monotonic()
        with cluster.connect("c") as client:
            while not [table for table in client.tables() if table.name == "carts"]:
                assert time.monotonic() - begin < PATIENCE
                time.sleep(STEP)
