"""``kvorum trace`` against real nodes: the steps of a request, and who was late."""

import json

from typer.testing import CliRunner

from kvorum.cli.main import app
from tests.support.cluster import RunningCluster, running_cluster


def said(cluster: RunningCluster, *command: str, as_json: bool = True) -> str:
    options = ["--nodes", ",".join(cluster.addresses), *(["--json"] if as_json else [])]
    done = CliRunner().invoke(app, ["trace", *command, *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_put_is_traced_to_all_disks_and_a_get_to_all_replicas() -> None:
    with running_cluster(engine="lmdb") as cluster:
        put = json.loads(said(cluster, "put", "alice", "book"))
        assert put["outcome"]["outcome"] == "ok"
        steps = [(event["node"], event["what"]) for event in put["events"]]
        coordinator = put["coordinator"]
        others = sorted(set("abc") - {coordinator})
        assert steps[:2] == [(coordinator, "taken"), (coordinator, "written")]
        for name in others:
            assert [what for node, what in steps if node == name] == ["asked", "ok", "on disk"]
        assert (coordinator, "on disk") in steps
        assert (coordinator, "answered") in steps
        times = [event["at_us"] for event in put["events"]]
        assert times == sorted(times)
        assert 0 < times[-1] < 10_000_000

        get = json.loads(said(cluster, "get", "alice"))
        assert get["outcome"]["values"] == [{"text": "book"}]
        assert [event["what"] for event in get["events"]].count("record") >= 1

        table = said(cluster, "get", "alice", as_json=False)
        assert "answered after" in table
        with cluster.connect() as client:
            assert client.table("default").get("alice").value == b"book"


def test_a_mute_replica_is_late() -> None:
    with running_cluster(engine="lmdb") as cluster:
        first = json.loads(said(cluster, "put", "alice", "book"))
        mute = next(name for name in "abc" if name != first["coordinator"])
        cluster.processes[mute].pause()
        try:
            told = said(cluster, "put", "alice", "pen", "--blind", "--w", "2")
        finally:
            cluster.processes[mute].resume()
        events = json.loads(told)["events"]
        if json.loads(told)["coordinator"] != mute:
            assert (mute, "late") in [(event["node"], event["what"]) for event in events]


def test_a_refusal_is_told_with_its_steps_and_fails() -> None:
    with running_cluster() as cluster:
        nodes = ",".join(cluster.addresses)
        done = CliRunner().invoke(
            app, ["trace", "put", "alice", "book", "--w", "9", "--blind", "--nodes", nodes]
        )
        assert "answered" in done.output
        assert "w=9: must lie between 1 and n=3" in str(done.exception)


def test_a_node_that_owns_no_copy_passes_the_request_on() -> None:
    with running_cluster(nodes=4) as cluster:
        passed_on = 0
        for name, process in cluster.processes.items():
            done = CliRunner().invoke(
                app, ["trace", "put", "alice", name, "--via", "--nodes", process.address, "--json"]
            )
            assert done.exit_code == 0, done.output
            what = [event["what"] for event in json.loads(done.output)["events"]]
            passed_on += "passed on" in what
            assert what[-1] == "answered" or "passed on" not in what
        assert passed_on == 1
