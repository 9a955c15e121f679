"""The HTTP door of real nodes: what a client over sockets sees, also when things go wrong."""

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from tests.support.cluster import RunningCluster, running_cluster
from tests.support.processes import resident_bytes

SHORT = {
    "http_request_timeout_ms": 1_000,
    "http_idle_timeout_ms": 3_000,
    "request_timeout_ms": 4_000,
    "clients_max": 200,
    "http_body_bytes_max": 32 << 20,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    # Five nodes with two copies each: most keys are not the node's that is asked.
    with running_cluster(nodes=5, n=2, http=True, config=SHORT) as cluster:
        yield cluster


@contextmanager
def connected(cluster: RunningCluster, name: str = "a") -> Iterator[http.client.HTTPConnection]:
    address = cluster.processes[name].http
    assert address is not None
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    with closing(connection):
        yield connection


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    with connection.getresponse() as response:
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read()


def code(body: bytes) -> str:
    return str(json.loads(body)["code"])


def raw(cluster: RunningCluster, name: str = "a") -> socket.socket:
    address = cluster.processes[name].http
    assert address is not None
    return socket.create_connection((address.host, address.port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the node ends the connection."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def test_any_node_takes_any_key(cluster: RunningCluster) -> None:
    for number in range(30):
        path = f"/tables/default/keys/any-{number}"
        with connected(cluster, "abcde"[number % 5]) as first:
            status, headers, _ = ask(first, "PUT", path, b"%d" % number, Content_Type="text/plain")
            assert status == 204
            assert len(headers["x-kvorum-acks"].split(", ")) == 2
        with connected(cluster, "abcde"[(number + 1) % 5]) as other:
            status, headers, body = ask(other, "GET", path)
            assert (status, body) == (200, b"%d" % number)
            assert headers["content-type"] == "text/plain"


def test_both_doors_open_on_the_same_data(cluster: RunningCluster) -> None:
    with connected(cluster) as connection, cluster.connect() as client:
        table = client.table("default")
        stored = table.put("both", b"native", content_type="text/native")
        status, headers, body = ask(connection, "GET", "/tables/default/keys/both")
        assert (body, headers["content-type"]) == (b"native", "text/native")
        given = {"X_Kvorum_Context": headers["x-kvorum-context"]}
        status, headers, _ = ask(connection, "PUT", "/tables/default/keys/both", b"http", **given)
        assert status == 204
        found = table.get("both")
        assert found.value == b"http"
        assert found.siblings[0].put_id.hex() == headers["x-kvorum-put-id"].partition("-")[2]
        table.put("both", b"old context", context=stored.context)
        assert ask(connection, "GET", "/tables/default/keys/both")[0] == 300


def test_large_values_come_and_go(cluster: RunningCluster) -> None:
    value = bytes(range(256)) * (8 << 12)
    with connected(cluster) as connection:
        connection.putrequest("PUT", "/tables/default/keys/large")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for at in range(0, len(value), 100_000):
            chunk = value[at : at + 100_000]
            connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        connection.send(b"0\r\n\r\n")
        with connection.getresponse() as response:
            assert response.status == 204
        assert ask(connection, "GET", "/tables/default/keys/large")[2] == value
        _, headers, body = ask(
            connection, "GET", "/tables/default/keys/large", Accept_Encoding="gzip"
        )
        assert headers["content-encoding"] == "gzip"
        assert len(body) < len(value)
        assert gzip.decompress(body) == value


def test_keys_of_all_nodes_are_listed_by_any(cluster: RunningCluster) -> None:
    with connected(cluster, "c") as connection:
        assert ask(connection, "PUT", "/tables/listed")[0] == 201
        names = [f"key-{number:03}" for number in range(250)]
        requests = [{"op": "put", "key": name, "value": "v"} for name in names]
        _, _, body = ask(
            connection, "POST", "/tables/listed/batch",
            json.dumps({"requests": requests}).encode(), Content_Type="application/json",
        )  # fmt: skip
        assert {each["status"] for each in json.loads(body)["results"]} == {204}
        orders = []
        for name in "abcde":
            with connected(cluster, name) as other:
                found: list[str] = []
                query = "?limit=100"
                while query:
                    _, _, body = ask(other, "GET", f"/tables/listed/keys{query}")
                    document = json.loads(body)
                    found += [each["key"]["text"] for each in document["keys"]]
                    cursor = document["cursor"]
                    query = f"?limit=100&after={cursor}" if cursor else ""
                orders.append(found)
        assert sorted(orders[0]) == names
        assert all(order == orders[0] for order in orders)
        assert ask(connection, "DELETE", "/tables/listed")[0] == 204
        assert ask(connection, "GET", "/tables/listed/keys")[0] == 404


def test_one_put_id_is_one_write_at_every_node(cluster: RunningCluster) -> None:
    put_id = f"{int(time.time() * 1000)}-{'0123456789abcdef' * 2}"
    for name in "abcde":
        with connected(cluster, name) as connection:
            status, headers, _ = ask(
                connection, "PUT", "/tables/default/keys/once", b"v", X_Kvorum_Put_Id=put_id
            )
            assert (status, headers["x-kvorum-put-id"]) == (204, put_id)
            assert ask(connection, "GET", "/tables/default/keys/once")[0] == 200


def test_owners_that_are_silent_make_outcomes_unknown(cluster: RunningCluster) -> None:
    with connected(cluster) as connection:
        path = "/tables/default/keys/silent"
        put_ids = []
        for name in "bcde":
            cluster.processes[name].pause()
        try:
            time.sleep(0.1)
            for number in range(12):
                status, headers, body = ask(connection, "PUT", f"{path}-{number}", b"v")
                if status == 504:
                    assert code(body) == "outcome_unknown"
                    put_ids.append((number, headers["x-kvorum-put-id"]))
                else:
                    assert (status, code(body)) == (503, "quorum_not_met")
                    assert headers["retry-after"] == "1"
                if put_ids:
                    break
        finally:
            for name in "bcde":
                cluster.processes[name].resume()
        cluster.wait_until_ready()
        for number, put_id in put_ids:
            given = {"X_Kvorum_Put_Id": put_id}
            deadline = time.monotonic() + 20
            while ask(connection, "PUT", f"{path}-{number}", b"v", **given)[0] != 204:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert ask(connection, "GET", f"{path}-{number}")[0] == 200


def test_slow_senders_are_given_up_and_hold_up_nobody(cluster: RunningCluster) -> None:
    slow = [raw(cluster) for _ in range(60)]
    try:
        for number, connection in enumerate(slow):
            head = b"PUT /tables/default/keys/slow HTTP/1.1\r\nHost: localhost\r\n"
            connection.sendall(head + (b"Content-Length: 5\r\n\r\n" if number % 2 else b"X: "))
        with connected(cluster) as good:
            for _ in range(20):
                assert ask(good, "GET", "/")[0] == 200
                for connection in slow:
                    connection.sendall(b"")
                time.sleep(0.05)
        for connection in slow:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"request_timeout" in answer
    finally:
        for connection in slow:
            connection.close()


def test_who_dawdles_on_every_connection_keeps_nobody_out(cluster: RunningCluster) -> None:
    """More connections than there may be, each with a byte of a request now and then."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1000
    slow: dict[int, socket.socket] = {}
    ended = 0
    try:
        for at in range(1000):
            number = at % (SHORT["clients_max"] + 20)
            if number not in slow:
                slow[number] = raw(cluster)
            try:
                slow[number].sendall(request[at : at + 1])
            except ConnectionError:
                slow.pop(number).close()
                ended += 1
            if at % 20 == 0:
                with connected(cluster) as newcomer:
                    began = time.monotonic()
                    assert ask(newcomer, "GET", "/")[0] == 200
                    assert time.monotonic() - began < 2
        assert ended, "there were as many as they liked"
    finally:
        for connection in slow.values():
            connection.close()


def test_idle_connections_end_and_the_oldest_makes_room(cluster: RunningCluster) -> None:
    idle = [raw(cluster, "b") for _ in range(SHORT["clients_max"] + 20)]
    try:
        with connected(cluster, "b") as good:
            assert ask(good, "GET", "/")[0] == 200
        deadline = time.monotonic() + 10
        for connection in idle:
            connection.settimeout(max(deadline - time.monotonic(), 0.1))
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""
    finally:
        for connection in idle:
            connection.close()


def test_lengths_that_lie_cost_nothing(cluster: RunningCluster) -> None:
    node = cluster.processes["a"]
    before = resident_bytes(node.pid)
    liars = []
    head = "PUT /tables/default/keys/lie HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    for length in (10**18, 1 << 40, (16 << 20) + 1, 16 << 20):
        for _ in range(10):
            connection = raw(cluster)
            connection.sendall(f"{head}{length}\r\n\r\nstart".encode())
            liars.append((length, connection))
    for length, connection in liars:
        with connection:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 413 " if length > 16 << 20 else b"HTTP/1.1 408 ")
    assert resident_bytes(node.pid) - before < 16 << 20


def test_bodies_together_are_bounded(cluster: RunningCluster) -> None:
    node = cluster.processes["d"]
    head = "PUT /tables/default/keys/full HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000000"
    senders = [raw(cluster, "d") for _ in range(8)]
    try:
        for sender in senders:
            sender.sendall(f"{head}\r\n\r\n".encode())
        for sender in senders:
            with suppress(BrokenPipeError, ConnectionResetError):
                sender.sendall(b"x" * 8_000_000)
        assert resident_bytes(node.pid) < 250 << 20
    finally:
        for sender in senders:
            sender.close()
    with connected(cluster, "d") as connection:
        deadline = time.monotonic() + 10
        while ask(connection, "PUT", "/tables/default/keys/full", b"v")[0] != 204:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_who_does_not_read_is_bounded_too(cluster: RunningCluster) -> None:
    node = cluster.processes["e"]
    with connected(cluster, "e") as connection:
        assert ask(connection, "PUT", "/tables/default/keys/big", b"x" * 1_000_000)[0] == 204
    before = resident_bytes(node.pid)
    with raw(cluster, "e") as greedy:
        request = b"GET /tables/default/keys/big HTTP/1.1\r\nHost: localhost\r\n\r\n"
        greedy.settimeout(1.0)
        with suppress(OSError):
            for _ in range(3000):
                greedy.sendall(request)
        time.sleep(0.5)
        assert resident_bytes(node.pid) - before < 200 << 20
    with connected(cluster, "e") as connection:
        assert ask(connection, "GET", "/")[0] == 200


def test_a_half_closed_connection_is_answered(cluster: RunningCluster) -> None:
    with raw(cluster) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"}\n")


def test_an_answer_reaches_who_is_still_sending(cluster: RunningCluster) -> None:
    with raw(cluster) as connection:
        head = "PUT /tables/default/keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999"
        connection.sendall(f"{head}\r\n\r\n".encode() + b"x" * 500_000)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_node_stops_cleanly_with_connections_open() -> None:
    with running_cluster(nodes=1, http=True, engine="lmdb") as cluster:
        with connected(cluster) as connection, raw(cluster) as idle, raw(cluster) as sending:
            assert ask(connection, "PUT", "/tables/default/keys/k", b"v")[0] == 204
            sending.sendall(b"PUT /tables/default/keys/half HTTP/1.1\r\nHost: localhost\r\n")
            assert cluster.processes["a"].stop() == 0
            assert read_all(idle) == b""
        cluster.start_again("a")
        with connected(cluster) as connection:
            assert ask(connection, "GET", "/tables/default/keys/k")[2] == b"v"
        with cluster.connect() as client:
            assert client.status("a").clean_start


def test_a_port_that_is_taken_is_named() -> None:
    with running_cluster(nodes=1) as cluster:
        node: Any = cluster.processes["a"]
        node.stop()
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            node._command += ["--http", f"127.0.0.1:{port}"]
            node.start()
            assert node.wait() == 6
            assert f"port {port}" in node.said()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1:7480", "--allow-insecure-network"),
        ("127.0.0.1:x", "--http"),
        ("", "--http"),
    ],
)
def test_an_address_that_cannot_be_is_refused(address: str, expected: str) -> None:
    with running_cluster(nodes=1) as cluster:
        node: Any = cluster.processes["a"]
        node.stop()
        node._command += ["--http", address]
        node.start()
        assert node.wait() == 2
        assert expected in node.said()
