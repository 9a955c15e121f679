"""Owners that are away, on real processes: fallbacks stand in, and what they keep goes home.

Nobody reads a key before it is shown, by local reads, that its owners have it.
"""

import time
from collections.abc import Callable

import pytest

import kvorum
from kvorum.model.hashing import engine_key
from kvorum.model.ring import Ring
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.wire.messages import StatusAnswer
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.writers import Writers, value_of

HOME_SECONDS = 20.0


def wait_for(what: str, holds: Callable[[], bool], seconds: float = HOME_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)


def owners_of(client: kvorum.Client, key: str) -> tuple[int, ...]:
    ring = Ring(client.topology)
    return ring.owners_of_engine_key(engine_key(ring.hash_key, DEFAULT_TABLE_ID, key.encode(), b""))


def answers(client: kvorum.Client) -> list[StatusAnswer]:
    found = list(client.statuses().values())
    assert all(isinstance(one, StatusAnswer) for one in found)
    return [one for one in found if isinstance(one, StatusAnswer)]


def lacking(client: kvorum.Client, keys: list[str], node: str) -> list[str]:
    """Which of the keys that a node owns it does not hold itself, as they were written."""
    number = next(one.id for one in client.topology.members if one.name == node)
    owned = [key for key in keys if number in owners_of(client, key)]
    found: list[str] = []
    for first in range(0, len(owned), 500):
        some = owned[first : first + 500]
        copies = client.local_get_many("default", some, node=node)
        found += [
            key for key, copy in zip(some, copies, strict=True) if {*copy.values} != {value_of(key)}
        ]
    return found


def test_a_killed_owner_is_whole_again_without_a_read() -> None:
    with running_cluster(5, engine="lmdb") as cluster:
        with Writers(cluster, 2, w=3) as writers:
            writers.wait_for(50)
            cluster.processes["b"].kill()
            before = len(writers.written)
            writers.wait_for(200)
            during = list(writers.written)[before:]
        assert not writers.failed, writers.failed[:3]
        assert writers.longest_gap() < 1.0
        stood_in = [stored for stored in writers.written.values() if stored.fallbacks_acked]
        assert stood_in, "nobody stood in for b"
        assert all(stored.primaries_acked + stored.fallbacks_acked >= 3 for stored in stood_in)

        with cluster.connect("a") as client:
            kept = sum(one.hints for one in (client.status(name) for name in "acde"))
            assert kept > 0
            owed = [
                peer
                for name in "acde"
                for peer in client.status(name).peers
                if peer.name == "b" and peer.hints
            ]
            assert owed
            assert all(peer.hints_waiting > 0 for peer in owed)

        cluster.start_again("b")
        with cluster.connect() as client:
            wait_for("all hints are home", lambda: sum(one.hints for one in answers(client)) == 0)
            wait_for("b is whole", lambda: not lacking(client, during, "b"))
            assert sum(one.counters["hints_handed"] for one in answers(client)) > 0
            assert sum(one.counters["read_repairs"] for one in answers(client)) == 0
        writers.check_promises()


def test_a_table_that_is_strict_counts_owners_only() -> None:
    with running_cluster(4, engine="lmdb") as cluster, cluster.connect() as client:
        client.create_table("strict", w=3, sloppy=False)
        client.create_table("sloppy", w=3)
        cluster.processes["b"].kill()
        number = next(one.id for one in client.topology.members if one.name == "b")

        def key_of_b(table: str) -> str:
            ring = Ring(client.topology)
            (found,) = [one for one in client.tables() if one.name == table]
            for each in range(10_000):
                key = engine_key(ring.hash_key, found.table_id, b"%d" % each, b"")
                if number in ring.owners_of_engine_key(key):
                    return str(each)
            raise AssertionError("b owns nothing")

        time.sleep(1.0)
        stored = client.table("sloppy").put(key_of_b("sloppy"), b"value")
        assert stored.fallbacks_acked == 1
        with pytest.raises((kvorum.QuorumNotMet, kvorum.OutcomeUnknown)):
            client.table("strict").put(key_of_b("strict"), b"value")


def test_without_any_owner_a_key_is_written_and_read_and_both_survive_the_keepers() -> None:
    """A hint is as durable as any copy: its keepers are killed before the owners come back."""
    with running_cluster(5, engine="lmdb") as cluster:
        with cluster.connect() as client:
            names = {one.id: one.name for one in client.topology.members}
            owners = [names[member] for member in owners_of(client, "alice")]
            keepers = [name for name in names.values() if name not in owners]
        for name in owners:
            cluster.processes[name].kill()
        time.sleep(0.5)
        with cluster.connect(keepers[0]) as client:
            stored = client.table("default").put("alice", b"book", w=2, durability="all")
            assert (stored.primaries_acked, stored.fallbacks_acked) == (0, 2)
            found = client.table("default").get("alice", r=2)
            assert found.value == b"book"
            assert found.fallback_read
        restart_all(cluster, keepers, owners)
        with cluster.connect() as client:
            for name in owners:
                wait_for(
                    f"{name} has what was written without it",
                    lambda name=name: (
                        client.local_get_many("default", ["alice"], node=name)[0].values
                        == (b"book",)
                    ),
                )  # type: ignore[misc]
            wait_for("all hints are home", lambda: sum(one.hints for one in answers(client)) == 0)


def restart_all(cluster: RunningCluster, keepers: list[str], owners: list[str]) -> None:
    for name in keepers:
        cluster.processes[name].kill()
    for name in [*keepers, *owners]:
        cluster.processes[name].start()
    cluster.wait_until_ready()
