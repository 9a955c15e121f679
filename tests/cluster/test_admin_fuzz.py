"""Administration ports are given garbage: see ``tests/support/garbage.py`` and the tests below.

No node may die, answer 500, keep the memory, take a request for what it is not, or let somebody
wait who asks it whether it lives, on a new connection each time, as those do who watch over nodes.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random

import pytest

from kvorum.admin import door
from kvorum.client.addresses import Address
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.garbage import (
    HEAD,
    SEED,
    answers,
    check,
    good_client,
    no_node_grows,
    send_garbage,
    send_header_floods,
    send_smuggled,
)
from tests.support.http import ask

ALLOWED = {100, 200, 400, 403, 404, 405, 409, 413, 421, 503, 504}


def put_of(key: str, value: str = "x") -> bytes:
    wish = {"table": "default", "key": key, "context": "", "value": value}
    return json.dumps(wish).encode()


def post(body: bytes, fields: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return POST + length + fields + b"\r\n" + body


POST = b"POST /api/key HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
CHUNK = put_of("k")
CORPUS = [
    *(
        b"GET %s HTTP/1.1\r\n" % path + HEAD + b"\r\n"
        for path in (
            b"/", b"/health", b"/health/live", b"/health/ready", b"/metrics", b"/openapi.json",
            b"/api/about", b"/api/status", b"/api/overview", b"/api/topology", b"/api/tables",
            b"/api/events?after=3", b"/api/key?key=a%2Fb&sort_key=c", b"/api/explain?key=k",
            b"/api/key?table=default&key=ff&encoding=hex", b"/../etc/passwd", b"/api/%2e%2e/health",
            b"http://localhost/health", b"//evil.example/", b"*",
        )
    ),
    b"HEAD /metrics HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"GET /metrics HTTP/1.1\r\n" + HEAD + b"Accept: application/openmetrics-text\r\n\r\n",
    b"GET /health HTTP/1.0\r\n" + HEAD + b"\r\n",
    b"GET /health HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nvalue",
    b"GET /health HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n",
    b"CONNECT localhost:1 HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n",
    post(put_of("k")),
    post(put_of("k"), b"Expect: 100-continue\r\n"),
    post(put_of("k"), b"Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"),
    POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n",
    post(b'{"table": "default", "key": "k", "value": "\\ud800", "context": "AQID"}'),
    POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(CHUNK), CHUNK),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster(nodes=3, engine="lmdb", admin=True) as cluster:
        for name in cluster.processes:
            for path in ("/metrics", "/api/status", "/api/key?key=warm"):
                assert ask(door_of(cluster, name), path).status == 200
        yield cluster


def door_of(cluster: RunningCluster, name: str) -> Address:
    address = cluster.processes[name].admin
    assert address is not None
    return address


@contextmanager
def nothing_worse(cluster: RunningCluster, name: str) -> Iterator[None]:
    """Afterwards all nodes run, were seen to live all the time, and have not grown."""

    def ask_whether_it_lives() -> None:
        answer = ask(door_of(cluster, name), "/health/live")
        assert answer.status == 200, answer

    with no_node_grows(cluster):
        with good_client(ask_whether_it_lives):
            yield
        assert "admin_failed" not in cluster.processes[name].said()


@pytest.mark.parametrize("name", ["a", "b"])
def test_garbage_harms_nobody(cluster: RunningCluster, name: str) -> None:
    with nothing_worse(cluster, name):
        send_garbage(door_of(cluster, name), Random(f"{SEED} {name}"), CORPUS, ALLOWED)


def test_what_is_smuggled_is_never_carried_out(cluster: RunningCluster) -> None:
    address = door_of(cluster, "a")
    with nothing_worse(cluster, "a"):
        random = Random(f"{SEED} smuggling")
        send_smuggled(address, random, POST, post(put_of("smuggled")), ALLOWED)
    assert ask(address, "/api/key?key=smuggled").json()["values"] == []


def test_floods_of_headers_are_cut_short(cluster: RunningCluster) -> None:
    with nothing_worse(cluster, "b"):
        send_header_floods(door_of(cluster, "b"), b"HTTP/1.1 400 ")


def test_who_dawdles_on_every_connection_keeps_nobody_out(cluster: RunningCluster) -> None:
    """Slowloris: more connections than there may be, a byte on each now and then."""
    address = door_of(cluster, "a")
    request = b"GET /metrics HTTP/1.1\r\n" + HEAD + b"X: " + b"y" * 1000
    with ExitStack() as stack:
        slow: dict[int, socket.socket] = {}
        with nothing_worse(cluster, "a"):
            for at in range(1000):
                number = at % (door.CONNECTIONS_MAX + 20)
                if number not in slow:
                    made = socket.create_connection(tuple(address), timeout=10)
                    slow[number] = stack.enter_context(made)
                try:
                    slow[number].sendall(request[at % 1000 : at % 1000 + 1])
                except ConnectionError:
                    del slow[number]
                time.sleep(0.002)


def test_answers_that_nobody_reads_keep_nobody_out(cluster: RunningCluster) -> None:
    address = door_of(cluster, "a")
    with ExitStack() as stack, nothing_worse(cluster, "a"):
        for _ in range(door.CONNECTIONS_MAX + 20):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(0.05)
            connection.connect(tuple(address))
            with suppress(OSError):
                connection.sendall((b"GET /metrics HTTP/1.1\r\n" + HEAD + b"\r\n") * 200)
        time.sleep(2)


def test_long_bodies_are_refused_before_they_are_kept(cluster: RunningCluster) -> None:
    """Many at once, none of which ever ends."""
    address = door_of(cluster, "a")
    with ExitStack() as stack, nothing_worse(cluster, "a"):
        connections = []
        for at in range(40):
            connection = socket.create_connection(tuple(address), timeout=0.2)
            connections.append(stack.enter_context(connection))
            if at % 2:
                head = POST + b"Content-Length: %d\r\n\r\n" % (20 << 20)
            else:
                head = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (20 << 20)
            with suppress(OSError):
                connection.sendall(head + b" " * (19 << 20))
        for connection in connections:
            said = answers(connection)
            assert not said or said.startswith(b"HTTP/1.1 413 "), said[:200]


def test_lengths_that_are_lies_are_believed_by_nobody(cluster: RunningCluster) -> None:
    address = door_of(cluster, "a")
    body = put_of("lied")
    lies = (0, 1, len(body) - 1, len(body) + 1, 10**6, 10**18, 2**64, 2**70)
    with nothing_worse(cluster, "a"):
        for lie in lies:
            sent = POST + b"Content-Length: %d\r\n\r\n" % lie + body
            with socket.create_connection(tuple(address), timeout=10) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                said = answers(connection)
            check(said, sent, ALLOWED - {200})
    assert ask(address, "/api/key?key=lied").json()["values"] == []
