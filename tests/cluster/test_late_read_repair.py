"""A replica that answers a get after the client has been answered, and is behind, is mended.

A node that is only paused while a put goes on is not behind for long: the put waits in its
socket, before any get that the same node sends later. So the owner is away during the puts, and
paused during the gets. Both other owners are, until the node that coordinates has asked both of
them; which one it prefers does not matter then. Nodes neither exchange nor hand hints over, so
nothing but a read repair can mend a copy.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvorum.client.blocking import Client
from tests.cluster.test_faults_hints import wait_for
from tests.support.broken_node import break_nodes
from tests.support.cluster import running_cluster

PATIENT = {
    "probe_interval_ms": 2_000, "peer_dead_timeout_ms": 60_000, "request_timeout_ms": 20_000,
    "reconnect_last_ms": 200, "exchange_interval_ms": 600_000,
}  # fmt: skip
KEYS = [f"late-{number}" for number in range(12)]
OLD = KEYS[::2]  # that the absent owner has an older value of; it has nothing of the others


def held(client: Client, node: str) -> list[tuple[bytes, ...]]:
    return [tuple(copy.values) for copy in client.local_get_many("strict", KEYS, node=node)]


def test_an_owner_that_answers_a_get_too_late_is_mended_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_nodes(monkeypatch, tmp_path, "never_fills_up", "owes_nothing")
    with (
        running_cluster(3, engine="lmdb", config=PATIENT, partitions=8) as cluster,
        cluster.connect() as everywhere,
        ThreadPoolExecutor(1) as aside,
        Client([cluster.processes["a"].address], only_given=True, timeout_seconds=20) as client,
    ):
        b, c = cluster.processes["b"], cluster.processes["c"]
        everywhere.create_table("strict", r=2, w=2, sloppy=False)
        table = client.table("strict")
        contexts = {key: table.put(key, b"old", w=3).context for key in OLD}
        c.kill()
        for key in KEYS:
            table.put(key, b"new", context=contexts.get(key))
        cluster.start_again("c")
        behind = [(b"old",) if key in OLD else () for key in KEYS]
        assert held(everywhere, "c") == behind

        def count(name: str) -> int:
            return client.status("a").counters[name]

        b.pause()
        c.pause()
        try:
            found = aside.submit(table.get_many, KEYS, r=2)
            wait_for("a has asked both", lambda: count("hedged_gets") == len(KEYS))
            assert not found.done()
            b.resume()
            assert [one.value for one in found.result()] == [b"new"] * len(KEYS)
            assert count("read_repairs") == 0, "c is paused, and cannot have answered"
        finally:
            b.resume()
            c.resume()
        wait_for("c is mended", lambda: held(everywhere, "c") == [(b"new",)] * len(KEYS), 5.0)
        assert count("read_repairs") == len(KEYS)
        time.sleep(0.2)
        for node in "abc":
            counters = everywhere.status(node).counters
            others = ("exchange_sent", "exchange_received", "hints_handed", "own_repairs")
            assert {name: counters[name] for name in others} == dict.fromkeys(others, 0)
