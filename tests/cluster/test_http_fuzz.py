"""Nodes are given garbage over HTTP: requests nearly right, cut, joined, doubled, and none at all.

None may die, answer 500, keep the memory, take a request for what it is not, or let a good client
wait. Every run tries the same garbage; ``KVORUM_FUZZ_SEED`` tries other, ``KVORUM_FUZZ_ROUNDS``
more.
"""

import http.client
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from random import Random

import pytest

from tests.support.cluster import RunningCluster, running_cluster
from tests.support.processes import resident_bytes

SEED = int(os.environ.get("KVORUM_FUZZ_SEED", "20260401"))
ROUNDS = int(os.environ.get("KVORUM_FUZZ_ROUNDS", "600"))
MEMORY_MAY_GROW = 64 << 20
GOOD_CLIENT_SECONDS = 2.0
STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)
ALLOWED = {
    100, 200, 201, 204, 300, 304, 400, 404, 405, 408, 409, 411, 413, 414, 415, 417, 421, 431, 501,
    503, 504, 505,
}  # fmt: skip
_numbers = count(1)

HEAD = b"Host: localhost\r\n"
CORPUS = [
    b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"GET /openapi.json HTTP/1.1\r\n" + HEAD + b"Accept-Encoding: gzip\r\n\r\n",
    b"GET /tables HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"GET /tables/default/keys/a%2Fb/c?r=2&timeout_ms=500 HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"HEAD /tables/default/keys/k HTTP/1.1\r\n" + HEAD + b'If-None-Match: W/"a", *\r\n\r\n',
    b"GET /tables/default/keys/k HTTP/1.1\r\n" + HEAD + b"Accept: application/json;q=0.5\r\n\r\n",
    b"GET /tables/default/keys?prefix=a&limit=10 HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"GET /tables/default/keys?after=AAAA HTTP/1.0\r\n\r\n",
    b"PUT /tables/default/keys/k HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nvalue",
    b"PUT /tables/default/keys/k?w=1&ttl_seconds=9 HTTP/1.1\r\n" + HEAD
    + b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"PUT /tables/default/keys/k HTTP/1.1\r\n" + HEAD
    + b"X-Kvorum-Context: AQABAAEAAABfoa33ToFwNQAAAAAtc014\r\nContent-Length: 1\r\n\r\nv",
    b"PUT /tables/default/keys/k HTTP/1.1\r\n" + HEAD
    + b"X-Kvorum-Put-Id: 1767225600000-8f14e45fceea167a5a36dedd4bea2543\r\n"
    + b"Content-Length: 1\r\n\r\nv",
    b"PUT /tables/default/keys/k HTTP/1.1\r\n" + HEAD
    + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nv",
    b"DELETE /tables/default/keys/k HTTP/1.1\r\n" + HEAD + b"If-Match: *\r\n\r\n",
    b"DELETE /tables/default/keys/k?durability=none HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"PUT /tables/fuzz HTTP/1.1\r\n" + HEAD
    + b'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"w":1}',
    b"PATCH /tables/fuzz HTTP/1.1\r\n" + HEAD
    + b'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"r":1}',
    b"DELETE /tables/fuzz HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"POST /tables/default/batch HTTP/1.1\r\n" + HEAD
    + b"Content-Type: application/json\r\nContent-Length: 74\r\n\r\n"
    + b'{"requests":[{"op":"get","key":"a"},{"op":"put","key":"b","value":"book"}]}'[:74],
    b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n",
]  # fmt: skip
PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%", b"%2", b"%zz", b"/", b"//", b"/../",
    b"?", b"#", b"&", b"=", b"HTTP/1.1", b"HTTP/2.0", b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b" folded\r\n",
    b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Expect: x\r\n",
    b"Host: evil.example\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"1;x=y\r\n", b"-1\r\n",
    b"\xff\xfe", b"\xe2\x80\xa8", b"A" * 300, b"X: " + b"y" * 3000 + b"\r\n", b"[" * 500, b"{}",
    b'"\\ud800"', b"1e999", b"Accept-Encoding: gzip;q=\r\n", b"If-None-Match: \r\n",
]  # fmt: skip


class Garbler:
    """Makes requests that are nearly right, or not at all."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def request(self) -> bytes:
        random = self.random
        request = bytearray(random.choice(CORPUS))
        kind = random.randrange(8)
        if kind == 0:
            return bytes(request)
        if kind == 1:
            return random.randbytes(random.randrange(1, 300))
        if kind == 2:
            return bytes(request[: random.randrange(1, len(request))])
        if kind == 3:
            other = random.choice(CORPUS)
            cut = random.randrange(1, len(request))
            return bytes(request[:cut]) + other[random.randrange(len(other)) :]
        if kind == 4:
            lines = bytes(request).split(b"\r\n")
            lines.insert(random.randrange(len(lines)), random.choice(lines))
            return b"\r\n".join(lines)
        for _ in range(random.choice((1, 1, 2, 5))):
            place = random.randrange(len(request) + 1)
            if random.random() < 0.6:
                request[place:place] = random.choice(PIECES)
            elif place < len(request):
                request[place] = random.randrange(256)
        return bytes(request)

    def requests(self) -> bytes:
        return b"".join(self.request() for _ in range(self.random.choice((1, 1, 2, 6))))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    config = {"http_request_timeout_ms": 1_000, "http_idle_timeout_ms": 5_000}
    with running_cluster(nodes=3, engine="lmdb", http=True, config=config) as cluster:
        with cluster.connect() as client:
            warm = {f"warm-{number}": b"v" * 1000 for number in range(2000)}
            client.table("default").put_many(warm.items())
        yield cluster


@contextmanager
def nothing_worse(cluster: RunningCluster) -> Iterator[None]:
    """Afterwards all nodes run, have served a good client at once, and have not grown."""
    before = {name: resident_bytes(node.pid) for name, node in cluster.processes.items()}
    with good_client(cluster):
        yield
    for name, node in cluster.processes.items():
        assert node.running, f"node {name} died: {node.exit_code}"
        grown = resident_bytes(node.pid) - before[name]
        assert grown < MEMORY_MAY_GROW, f"node {name} has {grown} bytes more than before"
        assert "Traceback" not in node.log.read_text(), f"node {name} met what it did not expect"


@contextmanager
def good_client(cluster: RunningCluster) -> Iterator[None]:
    over = threading.Event()
    failures: list[str] = []
    address = cluster.processes["a"].http
    assert address is not None

    def work() -> None:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
        while not over.is_set():
            path = f"/tables/default/keys/good-{next(_numbers)}"
            began = time.monotonic()
            for method, body in (("PUT", path.encode()), ("GET", None)):
                connection.request(method, path, body)
                with connection.getresponse() as response:
                    got = response.read()
                    if response.status not in (200, 204) or (body is None and got != path.encode()):
                        failures.append(f"{method} {path}: {response.status} {got[:200]!r}")
            if time.monotonic() - began > GOOD_CLIENT_SECONDS:
                failures.append(f"{path} took {time.monotonic() - began:.2f} s")
            over.wait(0.01)
        connection.close()

    thread = threading.Thread(target=work, name="good-client")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failures, failures[:5]


def answers(connection: socket.socket) -> bytes:
    """What the node says within a moment."""
    data = b""
    connection.settimeout(0.02)
    with suppress(OSError):
        while chunk := connection.recv(1 << 16):
            data += chunk
    return data


def check(said: bytes, sent: bytes) -> None:
    found = {int(status) for status in STATUS.findall(said)}
    assert found <= ALLOWED, f"{sorted(found - ALLOWED)} to {sent!r}: {said[:2000]!r}"
    assert not said or said.startswith(b"HTTP/1.1 "), said[:200]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_garbage_harms_nobody(cluster: RunningCluster, name: str) -> None:
    random = Random(f"{SEED} {name}")
    garbler = Garbler(random)
    address = cluster.processes[name].http
    assert address is not None
    kept: list[socket.socket] = []
    heard = 0
    with nothing_worse(cluster):
        for _ in range(ROUNDS):
            connection = socket.create_connection((address.host, address.port), timeout=10)
            sent = b""
            with suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(random.choice((1, 1, 3))):
                    data = garbler.requests()
                    sent += data
                    if random.random() < 0.2:
                        cut = random.randrange(len(data))
                        connection.sendall(data[:cut])
                        connection.sendall(data[cut:])
                    else:
                        connection.sendall(data)
                said = answers(connection)
                heard += bool(said)
                check(said, sent)
            if random.random() < 0.1 and len(kept) < 40:
                kept.append(connection)
            else:
                connection.close()
        for connection in kept:
            connection.close()
    assert heard > ROUNDS // 3


def test_what_is_smuggled_is_never_carried_out(cluster: RunningCluster) -> None:
    """Whatever stands around it, a second request hidden in the first one is not run."""
    random = Random(f"{SEED} smuggling")
    address = cluster.processes["a"].http
    assert address is not None
    hidden = (
        b"PUT /tables/default/keys/smuggled HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\n\r\nx"
    )
    lengths = [
        b"Content-Length: %d\r\n", b"Content-Length:%d\r\n", b"content-length: 0%d\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: identity\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding : chunked\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding:\tchunked\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: x\r\n chunked\r\n",
        b"Content-Length: %d\r\nX: y\rTransfer-Encoding: chunked\r\n",
        b"Content-Length: %d\r\nX: y\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: %d\r\nContent-Length: 0\r\n",
        b"Content-Length: %d\r\nConnection: Content-Length\r\n",
    ]  # fmt: skip
    with nothing_worse(cluster):
        for turn in range(ROUNDS // 3):
            form = lengths[turn % len(lengths)] % len(hidden)
            path = b"/tables/default/keys/outer-%d" % random.randrange(50)
            request = b"PUT " + path + b" HTTP/1.1\r\n" + HEAD + form + b"\r\n" + hidden
            with socket.create_connection((address.host, address.port), timeout=10) as connection:
                cut = random.randrange(1, len(request))
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(request[:cut])
                    if random.random() < 0.3:
                        time.sleep(0.001)
                    connection.sendall(request[cut:])
                check(answers(connection), request)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    connection.request("GET", "/tables/default/keys/smuggled")
    with connection.getresponse() as response:
        assert response.status == 404
    connection.close()


def test_floods_of_headers_are_cut_short(cluster: RunningCluster) -> None:
    address = cluster.processes["b"].http
    assert address is not None
    with nothing_worse(cluster):
        for turn in range(20):
            with socket.create_connection((address.host, address.port), timeout=10) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD)
                line = (b"X-%d: " % turn) + b"y" * (turn * 500) + (b"\r\n" if turn % 2 else b"")
                with suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range((4 << 20) // len(line)):
                        connection.sendall(line)
                said = b""
                with suppress(OSError):
                    said = connection.recv(1 << 16)
                assert not said or said.startswith(b"HTTP/1.1 431 "), said[:100]
