"""Nodes are given garbage over HTTP: requests nearly right, cut, joined, doubled, and none at all.

None may die, answer 500, keep the memory, take a request for what it is not, or let a good client
wait. See ``tests/support/garbage.py`` for what they are given.
"""

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from random import Random

import pytest

from kvorum.client.addresses import Address
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.garbage import (
    HEAD,
    SEED,
    good_client,
    no_node_grows,
    send_garbage,
    send_header_floods,
    send_smuggled,
)

ALLOWED = {
    100, 200, 201, 204, 300, 304, 400, 404, 405, 408, 409, 411, 413, 414, 415, 417, 421, 431, 501,
    503, 504, 505,
}  # fmt: skip
_numbers = count(1)

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
    address = door_of(cluster, "a")
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    with (
        no_node_grows(cluster),
        closing(connection),
        good_client(partial(put_and_get, connection)),
    ):
        yield


def put_and_get(connection: http.client.HTTPConnection) -> None:
    path = f"/tables/default/keys/good-{next(_numbers)}"
    for method, body in (("PUT", path.encode()), ("GET", None)):
        connection.request(method, path, body)
        with connection.getresponse() as response:
            got = response.read()
            assert response.status in (200, 204), (method, path, response.status, got[:200])
            assert body is not None or got == path.encode(), (path, got[:200])


def door_of(cluster: RunningCluster, name: str) -> Address:
    address = cluster.processes[name].http
    assert address is not None
    return address


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_garbage_harms_nobody(cluster: RunningCluster, name: str) -> None:
    with nothing_worse(cluster):
        send_garbage(door_of(cluster, name), Random(f"{SEED} {name}"), CORPUS, ALLOWED)


def test_what_is_smuggled_is_never_carried_out(cluster: RunningCluster) -> None:
    """Whatever stands around it, a second request hidden in the first one is not run."""
    address = door_of(cluster, "a")
    outer = b"PUT /tables/default/keys/outer HTTP/1.1\r\n" + HEAD
    hidden = (
        b"PUT /tables/default/keys/smuggled HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\n\r\nx"
    )
    with nothing_worse(cluster):
        send_smuggled(address, Random(f"{SEED} smuggling"), outer, hidden, ALLOWED)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    connection.request("GET", "/tables/default/keys/smuggled")
    with connection.getresponse() as response:
        assert response.status == 404
    connection.close()


def test_floods_of_headers_are_cut_short(cluster: RunningCluster) -> None:
    with nothing_worse(cluster):
        send_header_floods(door_of(cluster, "b"), b"HTTP/1.1 431 ")
