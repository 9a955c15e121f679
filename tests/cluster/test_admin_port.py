"""The administration port of real nodes: true figures, an honest health, no way to hurt them."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest
from typer.testing import CliRunner

import kvorum
from kvorum.admin import door
from kvorum.cli.main import app
from kvorum.client.addresses import Address
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.http import ask, metrics_of
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    """Three nodes with administration ports, for whoever leaves them as they are."""
    with running_cluster(admin=True) as running:
        yield running


def admin_of(cluster: RunningCluster, name: str = "a") -> Address:
    admin = cluster.processes[name].admin
    assert admin is not None
    return admin


def sums(cluster: RunningCluster) -> Counter[str]:
    """Every metric, added up over the nodes."""
    added: Counter[str] = Counter()
    for name in cluster.processes:
        for metric, value in metrics_of(admin_of(cluster, name)).items():
            added[metric] += int(value)
    return added


def test_the_metrics_of_the_nodes_add_up_to_what_the_load_did(cluster: RunningCluster) -> None:
    """Each request once: those answered, refused, forwarded; counters and histograms agree."""

    async def load() -> Counter[str]:
        done: Counter[str] = Counter()
        async with kvorum.aconnect(",".join(cluster.addresses)) as client:
            await client.create_table("load")
            rows = client.table("load")

            async def worker(number: int) -> None:
                dice = Random(number)
                for index in range(150):
                    key = f"{number} {dice.randrange(40)}"
                    if dice.random() < 0.5:
                        await rows.get(key)
                        done["get"] += 1
                    elif index % 10:
                        found = await rows.get(key)
                        await rows.put(key, b"x" * dice.randrange(200), context=found.context)
                        done.update(["get", "put"])
                    else:
                        await rows.delete(key)
                        done["delete"] += 1
                with pytest.raises(kvorum.BadRequest):
                    await rows.get(b"", r=1)
                done["refused"] += 1

            await asyncio.gather(*(worker(number) for number in range(12)))
        return done

    before = sums(cluster)
    done = asyncio.run(load())
    after = sums(cluster)

    def grown(metric: str) -> int:
        return after[metric] - before[metric]

    for operation in ("get", "put", "delete"):
        labels = f'operation="{operation}"'
        requests = f'kvorum_requests_total{{{labels},outcome="ok",table="load"}}'
        durations = f'kvorum_request_duration_seconds_count{{{labels},table="load"}}'
        assert grown(requests) == grown(durations) == done[operation], operation
    assert grown("kvorum_gets_ok_total") == done["get"]
    assert grown("kvorum_puts_ok_total") == done["put"] + done["delete"]
    assert grown("kvorum_puts_unknown_total") == 0
    assert grown("kvorum_replica_puts_total") >= done["put"] + done["delete"]
    forwarded = grown("kvorum_forwarded_total")
    assert grown("kvorum_puts_total") + grown("kvorum_gets_total") - forwarded == sum(
        done[each] for each in ("get", "put", "delete")
    )


def test_the_port_and_the_command_line_say_the_same(cluster: RunningCluster) -> None:
    with cluster.connect() as client:
        client.table("default").put("alice", b"book")
    nodes = ["--nodes", ",".join(cluster.addresses), "--json"]

    def said(*command: str) -> object:
        done = CliRunner().invoke(app, [*command, *nodes])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    admin = admin_of(cluster)
    assert ask(admin, "/api/tables").json() == said("table", "list")
    assert ask(admin, "/api/explain?key=alice").json() == said("explain", "alice")
    shown = ask(admin, "/api/key?key=alice").json()
    told = said("get", "alice")
    assert isinstance(told, dict)
    for field in ("key", "values", "siblings", "deleted"):
        assert shown[field] == told[field]
    status = ask(admin, "/api/status").json()
    told = said("status")
    assert isinstance(told, dict)
    assert list(status) == list(told)
    assert list(status["nodes"]["a"]) == list(told["nodes"]["a"])


def test_siblings_are_merged_through_the_port(cluster: RunningCluster) -> None:
    with cluster.connect() as client:
        rows = client.table("default")
        rows.put("cart", b"book")
        rows.put("cart", b"pen")
        admin = admin_of(cluster, "b")
        found = ask(admin, "/api/key?key=cart").json()
        assert [value["text"] for value in found["values"]] == ["book", "pen"]
        wish = {
            "table": "default",
            "key": "cart",
            "value": "book, pen",
            "context": found["context"],
        }
        headers = {"Content-Type": "application/json"}
        body = json.dumps(wish).encode()
        answer = ask(admin, "/api/key", method="POST", body=body, headers=headers)
        assert answer.json()["outcome"] == "ok"
        assert rows.get("cart").values == (b"book, pen",)


def test_a_dead_node_shows_within_five_seconds_and_one_alone_is_not_ready() -> None:
    with running_cluster(admin=True) as cluster:
        admin = admin_of(cluster)

        def answers(name: str) -> bool:
            return bool(ask(admin, "/api/overview").json()["nodes"][name]["answers"])

        assert answers("c")
        cluster.processes["c"].kill()
        assert wait_until(lambda: not answers("c"), "c is dead and shown as alive") < 5
        assert ask(admin, "/health/ready").status == 200
        cluster.processes["b"].pause()
        assert wait_until(lambda: not answers("b"), "b is there, and mute") < 5
        cluster.processes["b"].resume()
        wait_until(lambda: answers("b"), "b answers again and is not shown")
        cluster.processes["b"].kill()
        wait_until(lambda: ask(admin, "/health/ready").status == 503, "a is alone and ready")
        assert ask(admin, "/health/live").status == 200
        cluster.start_again("b")
        wait_until(lambda: answers("b"), "b is back and not shown")
        assert ask(admin, "/health/ready").status == 200


def test_foreign_hosts_and_origins_are_refused(cluster: RunningCluster) -> None:
    admin = admin_of(cluster)
    assert ask(admin, "/health", headers={"Host": "evil.example"}).status == 421
    assert ask(admin, "/health", headers={"Origin": "http://evil.example"}).status == 403
    assert ask(admin, "/health", headers={"Host": f"localhost:{admin.port}"}).status == 200


def test_a_port_that_others_could_reach_must_be_wanted(cluster: RunningCluster) -> None:
    topology = str(cluster.folder / "topology.json")
    command = ["serve", "--topology", topology, "--name", "a", "--engine", "memory"]
    done = CliRunner().invoke(app, [*command, "--admin", "0.0.0.0:0"])
    assert "the port must be a number" in str(done.exception)
    done = CliRunner().invoke(app, [*command, "--admin", "0.0.0.0"])
    assert "node a would listen on 0.0.0.0:7490, beyond this machine" in str(done.exception)


def exchange(address: Address, sent: bytes) -> bytes:
    """What comes back for these bytes until the connection ends or a second passes in silence."""
    with socket.create_connection(tuple(address), timeout=1.0) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while data := connection.recv(65536):
                received += data
        except (TimeoutError, ConnectionError):
            pass
        return received


HOST = b"Host: localhost\r\n"
ABUSES = {
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "two lengths": b"POST /api/key HTTP/1.1\r\n" + HOST
    + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /api/key HTTP/1.1\r\n" + HOST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /api/key HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "header flood": b"GET /health HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 50_000 + b"\r\n",
    "long line": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in name": b"GET /health HTTP/1.1\r\n" + HOST + b"X y: z\r\n\r\n",
    "bad chunk": b"POST /api/key HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no http": b"\x16\x03\x01\x02\x00" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", ABUSES)
def test_what_is_no_sound_request_is_refused_and_its_connection_ended(
    cluster: RunningCluster, name: str
) -> None:
    answer = exchange(admin_of(cluster), ABUSES[name])
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 421 ")), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert ask(admin_of(cluster), "/health/live").status == 200


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fetc%2fpasswd", "/%00", "/%zz", "/api/../health", "//health", "/api/key?key=%ff%fe",
     "/api/key?key=x&encoding=%00", "/api/events?after=9999999999999999999999", "/api/key?key=",
     "/api/explain?key=x&table=%2e%2e", "*"],
)  # fmt: skip
def test_odd_paths_and_queries_are_no_fault_of_the_nodes(
    cluster: RunningCluster, path: str
) -> None:
    assert ask(admin_of(cluster), path).status < 500


def test_random_bytes_hurt_nobody(cluster: RunningCluster) -> None:
    dice = Random(4)
    admin = admin_of(cluster)
    whole = b"POST /api/key HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    whole += b"Content-Length: 20\r\n\r\n" + b'{"table": "default"}'
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(dice.randrange(1, 8)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with socket.create_connection(tuple(admin), timeout=5.0) as connection:
            connection.sendall(bytes(damaged[: dice.randrange(1, len(damaged) + 1)]))
    assert ask(admin, "/health/live").status == 200
    assert "admin_failed" not in cluster.processes["a"].said()


def test_connections_are_bounded_and_the_silent_ones_do_not_keep_others_out(
    cluster: RunningCluster,
) -> None:
    admin = admin_of(cluster)
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(tuple(admin), timeout=5.0))
            for _ in range(door.CONNECTIONS_MAX + 50)
        ]
        assert ask(admin, "/health/live").status == 200
        cut_off = [_is_cut_off(connection) for connection in silent]
        # One for each that was too many, and for the one that asked; the newest is none of them.
        assert sum(cut_off) >= len(silent) + 1 - door.CONNECTIONS_MAX
        assert sum(cut_off) < len(silent) // 2
        assert not cut_off[-1]


def _is_cut_off(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_who_does_not_send_a_whole_request_in_time_is_cut_off() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        config = door.uvicorn.Config(
            _never, http=door.AdminConnection, lifespan="off", log_config=None
        )
        config.load()
        state = door.uvicorn.server.ServerState()
        server = await loop.create_server(
            lambda: door.AdminConnection(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            begun = loop.time()
            while not reader.at_eof() and loop.time() < begun + 5:
                writer.write(b"X")  # one byte after the other
                try:
                    async with asyncio.timeout(0.05):
                        await reader.read(1)
                except (TimeoutError, ConnectionError):
                    if reader.exception() is not None:
                        break
            assert loop.time() - begun < 3
            writer.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "REQUEST_SECONDS", 0.3)
        asyncio.run(scene())


async def _never(scope: object, receive: object, send: object) -> None:
    raise AssertionError("no whole request was sent")
