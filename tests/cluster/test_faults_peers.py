"""Members and clients that are there and do not do their part, and clocks that step.

Writes go on meanwhile: a request needs ``w`` of the owners and waits for none in particular.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import kvorum
from kvorum.client.blocking import Client
from kvorum.wire.framing import frame
from kvorum.wire.kinds import PUT_OK
from kvorum.wire.messages import Welcome
from kvorum.wire.requests import DEFAULT, get_frame, put_frame
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.fake_member import FakeMember, says_nothing, welcomes_and_falls_silent
from tests.support.processes import peak_bytes, resident_bytes
from tests.support.requirements import requires
from tests.support.shim import Shim
from tests.support.stranger import Stranger, client_hello
from tests.support.writers import Writers, value_of

CLOCK_IS_OFF = "clock is off the median of its peers"
DEFAULT_TABLE_ID = b"default\0"


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


# Members.


def test_a_paused_node_does_not_stop_writes_and_catches_up() -> None:
    with running_cluster(engine="lmdb") as cluster:
        with Writers(cluster, 2) as writers:
            writers.wait_for(50)
            cluster.processes["b"].pause()
            time.sleep(3.0)
            missed = list(writers.written)[-50:]
            cluster.processes["b"].resume()
            writers.wait_for(50)
        assert not writers.failed, writers.failed[:3]
        assert writers.longest_gap() < 1.0
        writers.check_promises()
        with cluster.connect() as client:
            client.table("default").get_many(missed, r=3)
        with Client(cluster.processes["b"].address, only_given=True) as to_b:

            def has_caught_up() -> bool:
                found = to_b.table("default").get_many(missed, r=1)
                return [one.value for one in found] == [value_of(key) for key in missed]

            wait_for("b has what was read", has_caught_up)


@pytest.mark.parametrize("answer", [says_nothing, welcomes_and_falls_silent])
def test_a_member_that_never_answers(answer: Callable[..., None]) -> None:
    with running_cluster(engine="lmdb", config={"peer_dead_timeout_ms": 1500}) as cluster:
        cluster.processes["c"].stop()
        addresses = [cluster.processes[name].address for name in "ab"]
        with FakeMember(cluster, "c", answer) as fake:
            with Client(addresses, only_given=True) as client:
                table = client.table("default")
                slowest = 0.0
                deadline = time.monotonic() + 2.5
                count = 0
                while time.monotonic() < deadline:
                    count += 1
                    began = time.monotonic()
                    table.put(f"key-{count}", b"value")
                    assert table.get(f"key-{count}").value == b"value"
                    slowest = max(slowest, time.monotonic() - began)
                assert slowest < 1.0
            with Writers(cluster, 1) as writers:  # Who knows c as an owner, and tries it too.
                writers.wait_for(100)
            assert not writers.failed, writers.failed[:3]
            assert fake.connection_count >= 6
        cluster.start_again("c")
        with cluster.connect() as client:
            for number in range(1, count + 1, 10):
                assert client.table("default").get(f"key-{number}", r=3).value == b"value"


# Clients.


@pytest.mark.parametrize("at_once", [True, False], ids=["all at once", "bit by bit"])
def test_a_client_that_never_reads_is_cut_off(at_once: bool) -> None:
    config = {"client_output_bytes_max": 8 << 20, "unread_timeout_ms": 1000}
    with running_cluster(nodes=1, engine="memory", config=config) as cluster:
        node = cluster.processes["a"]
        with cluster.connect() as client:
            client.table("default").put("large", b"v" * 1_000_000)
        get = get_frame(1, 0, DEFAULT_TABLE_ID, b"large", b"", 1, DEFAULT)
        before = resident_bytes(node.pid)
        with Stranger(node.address) as stranger:
            assert isinstance(stranger.greet(client_hello()), Welcome)
            if at_once:
                stranger.send(get * 5000)
            else:
                for _ in range(6):
                    stranger.send(get)
                    time.sleep(0.05)
            wait_for("it is cut off", lambda: "client_cut_off" in node.said())
            assert stranger.is_cut_off()
        assert peak_bytes(node.pid) - before < 64 << 20
        assert "does not read" in node.said() or "more than it can be sent" in node.said()
        with cluster.connect() as client:
            assert client.table("default").get("large").value == b"v" * 1_000_000


def test_a_client_that_reads_slowly_is_served() -> None:
    config = {"unread_timeout_ms": 400}
    with running_cluster(nodes=1, engine="memory", config=config) as cluster:
        with cluster.connect() as client:
            client.table("default").put("large", b"v" * 10_000_000)
        with Stranger(cluster.processes["a"].address) as stranger:
            assert isinstance(stranger.greet(client_hello()), Welcome)
            stranger.send(get_frame(1, 0, DEFAULT_TABLE_ID, b"large", b"", 1, DEFAULT))
            taken = 0
            while taken < 10_000_000:
                time.sleep(0.1)
                data = stranger.socket.recv(1_000_000)
                assert data, "cut off although it reads"
                taken += len(data)


# Clocks.


def start_with(shim: Shim, cluster: RunningCluster, name: str) -> None:
    cluster.processes[name].kill()
    with shim.loaded():
        cluster.start_again(name)


def lease_is_there(cluster: RunningCluster, name: str, table: str) -> bool:
    """Whether the node has what a last-write-wins put needs: a clock, and a lease on disk."""
    with Client(cluster.processes[name].address, only_given=True) as client:
        try:
            client.table(table).put(f"lease of {name}", b"value")
        except kvorum.Overloaded:
            return False
    return True


@requires("compiler")
def test_a_clock_that_steps_back_loses_no_successor(tmp_path: Path) -> None:
    """Within the allowed skew: whoever has seen a write, or made one, is never behind it."""
    with running_cluster(engine="lmdb") as cluster:
        shim = Shim(tmp_path)
        start_with(shim, cluster, "a")
        with cluster.connect() as client:
            client.create_table("newest", resolution="lww")
        for name in "abc":
            wait_for("leases", lambda name=name: lease_is_there(cluster, name, "newest"))
        with (
            Client(cluster.processes["a"].address, only_given=True) as to_a,
            Client(cluster.processes["b"].address, only_given=True) as to_b,
        ):
            a, b = to_a.table("newest"), to_b.table("newest")
            for number, back in enumerate([0, -2, -5, -9, 0, -9]):
                shim.move_clock(back)
                key = f"key-{number}"
                b.put(key, b"one")
                a.put(key, b"two", context=a.get(key).context)
                assert b.get(key, r=3).value == b"two", f"{back} s: lost to what it had seen"
                a.put(key, b"three")
                assert b.get(key, r=3).value == b"three", f"{back} s: lost to its own record"
                context = b.put(key, b"four", context=b.get(key).context).context
                a.put(key, b"five", context=context)
                assert b.get(key, r=3).value == b"five"
            # What an earlier start has written is not ahead of this one either.
            shim.move_clock(0)
            for number in range(20):
                a.put("before", b"%d" % number)
            shim.move_clock(-9)
            start_with(shim, cluster, "a")
            wait_for("a lease", lambda: lease_is_there(cluster, "a", "newest"))
            a.put("before", b"after")
            assert b.get("before", r=3).value == b"after"


@requires("compiler")
def test_a_clock_that_is_far_off_is_not_used(tmp_path: Path) -> None:
    """Last-write-wins puts are refused with the reason; all else goes on, put ids included."""
    with running_cluster(engine="lmdb") as cluster:
        shim = Shim(tmp_path)
        start_with(shim, cluster, "a")
        node = cluster.processes["a"]
        with cluster.connect() as client:
            client.create_table("newest", resolution="lww")
            wait_for("a lease", lambda: lease_is_there(cluster, "a", "newest"))
        put = b""
        with Stranger(node.address) as stranger:
            welcome = stranger.greet(client_hello())
            assert isinstance(welcome, Welcome)
            put = put_frame(
                7, 0, DEFAULT_TABLE_ID, b"sent twice", b"", b"", b"value", b"", b"stranger", 1,
                welcome.steady, 1, 0, DEFAULT, DEFAULT, 0,
            )  # fmt: skip
            stranger.send(put)
            answer = stranger.next_payload()
            assert answer is not None
            assert answer[0] == PUT_OK
        for step in (-3600, 3600):
            shim.move_clock(step)
            with Client(node.address, only_given=True, timeout_seconds=3.0) as to_a:
                newest = to_a.table("newest")
                wait_for("refused", lambda newest=newest: refuses(newest, CLOCK_IS_OFF))
                began = time.monotonic()
                to_a.table("default").update("plain", lambda values: b"value")
                assert to_a.table("default").get("plain").value == b"value"
                assert newest.get("lease of a").value == b"value"
                assert time.monotonic() - began < 1.0, "a timeout was taken from the wall clock"
            with cluster.connect() as client:  # Another owner takes it.
                client.table("newest").put(f"key {step}", b"value")
            with Stranger(node.address) as stranger:
                assert isinstance(stranger.greet(client_hello()), Welcome)
                stranger.send(put)
                answer = stranger.next_payload()
                assert answer is not None
                assert answer[0] == PUT_OK
            shim.move_clock(0)
            wait_for("a's clock is right", lambda: lease_is_there(cluster, "a", "newest"))
        with cluster.connect() as client:
            found = client.table("default").get("sent twice", r=3)
            assert len(found.siblings) == 1, "the put was written again"


def refuses(table: kvorum.client.store.Table, text: str) -> bool:
    try:
        table.put("lease of a", b"value")
    except kvorum.Overloaded as error:
        return text in str(error)
    return False


def test_a_client_whose_bytes_come_one_by_one_is_served() -> None:
    with (
        running_cluster(nodes=1, engine="memory") as cluster,
        Stranger(cluster.processes["a"].address) as stranger,
    ):
        assert isinstance(stranger.greet(client_hello()), Welcome)
        for byte in get_frame(9, 0, DEFAULT_TABLE_ID, b"key", b"", 1, DEFAULT):
            stranger.send(bytes((byte,)))
        assert stranger.next_payload() is not None
        stranger.send(frame(b"\x7f"))
        assert stranger.is_cut_off()
