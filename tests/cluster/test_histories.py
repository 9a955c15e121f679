"""Histories in which replicated stores are known to go wrong, told of real processes.

Nodes are killed, paused, and lose or get back their disks; no network is needed. What nodes hold
is seen by local reads, which mend nothing. The simulation tells the same step by step
(``tests/simulation/test_histories.py``). Told elsewhere: the counter that goes back
(``test_faults_copies.py``, a wiped directory), the rolling restart under load
(``test_restarts.py``). For a read repair that lands after a reap the sending node holds it back
itself, since a network delays a whole connection.

Most histories share two clusters, as their start takes longest; each has keys of its own.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvorum.client.blocking import Client
from tests.cluster.test_faults_hints import HOME_SECONDS, answers, owners_of, wait_for
from tests.support.broken_node import REPAIR_LATE_SECONDS, break_nodes
from tests.support.cluster import RunningCluster, running_cluster

SHORT = {
    "probe_interval_ms": 200, "probe_timeout_ms": 80, "peer_dead_timeout_ms": 600,
    "reconnect_last_ms": 200, "exchange_interval_ms": 300, "reap_interval_ms": 100,
    "retry_window_ms": 500, "request_timeout_ms": 2000,
}  # fmt: skip
BELIEVED_SECONDS = 1.2  # after which all know that a node is away, with these settings
AWAY_SECONDS = 2.0  # longer than any of them


class Keys:
    """The keys of one history: written, deleted, and looked at where they lie."""

    patience = HOME_SECONDS  # how long what must come about may take

    def __init__(self, cluster: RunningCluster, prefix: str) -> None:
        self._cluster = cluster
        self.names = [f"{prefix}-{number}" for number in range(24)]
        self.contexts: dict[str, bytes] = {}  # that the last writer holds

    def client(self, node: str = "") -> Client:
        """Of one node; or of all that run."""
        nodes = self._cluster.processes
        if node:
            return Client(nodes[node].address, only_given=True)
        return Client([each.address for each in nodes.values() if each.wanted])

    def put(self, text: str, node: str = "", w: int | None = None, blind: bool = False) -> None:
        with self.client(node) as client:
            table = client.table("default")
            for key in self.names:
                context = None if blind else self.contexts.get(key)
                stored = table.put(key, f"{key} {text}".encode(), context=context, w=w)
                self.contexts[key] = stored.context

    def delete(self, node: str) -> None:
        with self.client(node) as client:
            for key in self.names:
                client.table("default").delete(key, self.contexts[key])

    def held(self, *nodes: str) -> list[tuple[str, bool, list[str]]]:
        """What each owner among these nodes has: its key, if it knows of it, and its values."""
        found: list[tuple[str, bool, list[str]]] = []
        with self.client() as client:
            numbers = {one.name: one.id for one in client.topology.members}
            for node in nodes:
                owned = [key for key in self.names if numbers[node] in owners_of(client, key)]
                copies = client.local_get_many("default", owned, node=node)
                for key, copy in zip(owned, copies, strict=True):
                    texts = sorted(value.decode().removeprefix(key + " ") for value in copy.values)
                    found.append((key, copy.known, texts))
        assert found
        return found

    def all_hold(self, *texts: str) -> bool:
        """Whether every owner has just these values of every key; of none, not even a delete."""
        held = self.held(*self._cluster.processes)
        assert len(held) == 3 * len(self.names)
        return all(known == bool(texts) and got == [*texts] for _, known, got in held)

    def wait_until_all_hold(self, *texts: str) -> None:
        wait_for(f"all owners hold {texts}", lambda: self.all_hold(*texts), self.patience)

    def sum_of(self, field: str) -> int:
        with self.client() as client:
            return sum(int(getattr(one, field)) for one in answers(client))


@contextmanager
def history(cluster: RunningCluster, prefix: str) -> Iterator[Keys]:
    """Everybody runs before and after; nobody reads, so no read may have mended anything."""
    keys = Keys(cluster, prefix)
    yield keys
    wait_for("hints are home", lambda: keys.sum_of("hints") == 0)
    with keys.client() as client:
        assert sum(one.counters["read_repairs"] for one in answers(client)) == 0
    cluster.wait_until_ready(whole=True)


def wait_until_gone(cluster: RunningCluster, keys: Keys) -> None:
    keys.wait_until_all_hold()
    with cluster.connect() as client:
        found = client.table("default").get_many(keys.names, r=3)
    assert not any(each.values for each in found)


def zombie(cluster: RunningCluster, how: str) -> None:
    """Keys are deleted while an owner is away that has their values; the reap waits for it."""
    with history(cluster, f"zombie-{how}") as keys:
        keys.put("old", w=3)
        node = cluster.processes["c"]
        getattr(node, how)()
        time.sleep(BELIEVED_SECONDS)
        keys.delete("a")
        time.sleep(AWAY_SECONDS)
        assert all(known and not texts for _, known, texts in keys.held(*"abd")), "reaped without c"
        if how == "kill":
            node.start()
        node.resume()
        cluster.wait_until_ready()
        wait_until_gone(cluster, keys)


def late_value(cluster: RunningCluster) -> None:
    """One node sends it, another its delete; the owner reads both late, and then enters a round."""
    with history(cluster, "late") as keys:
        cluster.processes["c"].pause()
        keys.put("old", node="b")
        keys.delete("a")
        time.sleep(BELIEVED_SECONDS)
        assert all(known and not texts for _, known, texts in keys.held(*"abd")), "reaped without c"
        cluster.processes["c"].resume()
        cluster.wait_until_ready()
        wait_until_gone(cluster, keys)


def doomstone(cluster: RunningCluster, tmp_path: Path) -> None:
    """A node gets back a disk with old deletes, and hints of them, of keys written anew."""
    with history(cluster, "doomstone") as keys:
        keys.put("old", w=3)
        cluster.processes["c"].kill()
        time.sleep(BELIEVED_SECONDS)
        keys.delete("a")
        with keys.client("d") as client:
            assert client.status("d").hints, "d stands in for c nowhere"
        node = cluster.processes["d"]
        node.kill()
        shutil.copytree(node.data, tmp_path / "old")
        cluster.start_again("c")
        time.sleep(BELIEVED_SECONDS)
        assert all(known for _, known, _ in keys.held(*"abc")), "reaped without d"
        cluster.start_again("d")
        wait_until_gone(cluster, keys)
        keys.put("new", w=3, blind=True)
        node.kill()
        shutil.rmtree(node.data)
        shutil.copytree(tmp_path / "old", node.data)
        cluster.start_again("d")
        keys.wait_until_all_hold("new")
        time.sleep(1.0)
        assert keys.all_hold("new")
        with keys.client("d") as client:
            assert client.status("d").counters["partitions_set_aside"] > 0


def both_sides(cluster: RunningCluster) -> None:
    """Two nodes run, then the two others, and no word passes between them."""
    nodes = cluster.processes
    with history(cluster, "sides") as keys:
        for name in "cd":
            nodes[name].kill()
        time.sleep(BELIEVED_SECONDS)
        keys.put("left", blind=True)
        for name in "ab":
            nodes[name].kill()
        for name in "cd":
            nodes[name].start()
        cluster.wait_until_ready()
        time.sleep(BELIEVED_SECONDS)
        keys.put("right", blind=True)
        for name in "ab":
            nodes[name].start()
        cluster.wait_until_ready()
        keys.wait_until_all_hold("left", "right")


def long_absence(cluster: RunningCluster) -> None:
    """An owner is away for longer than anything waits; what happened meanwhile is all there."""
    with history(cluster, "absence") as keys:
        keys.put("one", w=3)
        cluster.processes["c"].kill()
        time.sleep(BELIEVED_SECONDS)
        keys.put("two")
        time.sleep(AWAY_SECONDS)
        cluster.start_again("c")
        keys.wait_until_all_hold("two")


def turnover(cluster: RunningCluster) -> None:
    """Every disk is replaced by an empty one, node after node; nobody reads, nothing is lost."""
    with history(cluster, "turnover") as keys:
        keys.put("kept", w=3)
        for name, node in cluster.processes.items():
            with keys.client(name) as client:
                before = client.status(name).store_id
            node.kill()
            shutil.rmtree(node.data)
            cluster.start_again(name)
            cluster.wait_until_ready(whole=True)
            with keys.client(name) as client:
                assert client.status(name).store_id != before
        assert keys.all_hold("kept"), "a disk was replaced, and what was on it is lost"


def late_repair(cluster: RunningCluster) -> None:
    """A read repair is on its way while its key is deleted and reaped."""
    keys = Keys(cluster, "repair")
    keys.put("old", node="a", w=2)
    with keys.client("b") as client:
        asked = time.monotonic()
        found = client.table("default").get_many(keys.names, r=3)
        assert all(each.values for each in found)
        mended = client.status("b").counters["read_repairs"]
    assert mended == len(keys.names), "c has had what it was to lack"
    with keys.client("a") as client:
        for key in keys.names:
            client.table("default").delete(key, keys.contexts[key], w=3)
    wait_for("the keys are reaped", keys.all_hold, seconds=REPAIR_LATE_SECONDS)
    assert time.monotonic() < asked + REPAIR_LATE_SECONDS, "too slow: the repairs have landed"
    with keys.client("c") as client:

        def landed() -> int:
            return client.status("c").counters["stale_generations"]

        refused = landed()
        time.sleep(max(asked + REPAIR_LATE_SECONDS - time.monotonic(), 0))
        time.sleep(0.5)
        assert keys.all_hold(), "a repair of what had been read before the reap brought it back"
        assert landed() - refused >= len(keys.names), "the repairs were not refused"


def test_what_is_deleted_stays_deleted_and_what_is_written_anew_stays(tmp_path: Path) -> None:
    with running_cluster(4, engine="lmdb", config=SHORT, partitions=8) as cluster:
        zombie(cluster, "kill")
        zombie(cluster, "pause")
        late_value(cluster)
        doomstone(cluster, tmp_path)


def test_whoever_was_away_has_everything_again_though_nobody_reads() -> None:
    with running_cluster(4, engine="lmdb", config=SHORT, partitions=8) as cluster:
        long_absence(cluster)
        both_sides(cluster)
        turnover(cluster)


@pytest.mark.parametrize(
    ("told", "said"),
    [(long_absence, "not in time: all owners hold"), (turnover, "what was on it is lost")],
    ids=["absence", "turnover"],
)
def test_a_history_is_missed_by_nodes_that_are_broken_on_purpose(
    told: Callable[[RunningCluster], None], said: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Else nobody would notice that it has stopped looking."""
    break_nodes(monkeypatch, tmp_path, "never_fills_up", "owes_nothing")
    monkeypatch.setattr(Keys, "patience", 4.0)
    with (
        running_cluster(4, engine="lmdb", config=SHORT, partitions=8) as cluster,
        pytest.raises(AssertionError, match=said),
    ):
        told(cluster)


@pytest.mark.parametrize("broken", [False, True], ids=["sound", "broken"])
def test_a_read_repair_that_lands_after_a_reap_brings_nothing_back(
    broken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    breaks = ["messages_to_c_are_late", *["takes_what_was_read_before_a_reap"] * broken]
    break_nodes(monkeypatch, tmp_path, *breaks)
    settings = SHORT | {"exchange_interval_ms": 60_000}
    with running_cluster(3, engine="lmdb", config=settings, partitions=8) as cluster:
        if not broken:
            late_repair(cluster)
            return
        with pytest.raises(AssertionError, match="brought it back"):
            late_repair(cluster)
