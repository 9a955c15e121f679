"""Garbage for doors that speak HTTP: requests nearly right, cut, joined, doubled, and none at all.

Every run makes the same; ``KVORUM_FUZZ_SEED`` makes other, ``KVORUM_FUZZ_ROUNDS`` more.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random

from kvorum.client.addresses import Address
from tests.support.cluster import RunningCluster
from tests.support.processes import resident_bytes

SEED = int(os.environ.get("KVORUM_FUZZ_SEED", "20260401"))
ROUNDS = int(os.environ.get("KVORUM_FUZZ_ROUNDS", "600"))
MEMORY_MAY_GROW = 64 << 20
GOOD_CLIENT_SECONDS = 2.0
STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)
HEAD = b"Host: localhost\r\n"
# How a second request may be hidden in the body of the first, whose length stands for %d.
SMUGGLING = (
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
)  # fmt: skip

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


@contextmanager
def good_client(once: Callable[[], None], seconds: float = GOOD_CLIENT_SECONDS) -> Iterator[None]:
    """Somebody goes on doing ``once`` meanwhile, and is served well and in time each time."""
    over = threading.Event()
    failures: list[str] = []

    def work() -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                once()
            except Exception as error:
                failures.append(repr(error))  # Whatever it is: in a thread nobody would see it.
            if time.monotonic() - began > seconds:
                failures.append(f"it took {time.monotonic() - began:.2f} s")
            over.wait(0.01)

    thread = threading.Thread(target=work, name="good-client")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failures, failures[:5]


class Garbler:
    """Makes requests that are nearly right, or not at all."""

    def __init__(self, random: Random, corpus: Sequence[bytes]) -> None:
        self.random = random
        self.corpus = corpus

    def request(self) -> bytes:
        random = self.random
        request = bytearray(random.choice(self.corpus))
        kind = random.randrange(8)
        if kind == 0:
            return bytes(request)
        if kind == 1:
            return random.randbytes(random.randrange(1, 300))
        if kind == 2:
            return bytes(request[: random.randrange(1, len(request))])
        if kind == 3:
            other = random.choice(self.corpus)
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


@contextmanager
def no_node_grows(cluster: RunningCluster) -> Iterator[None]:
    """Afterwards all nodes run, have met nothing unexpected, and have not grown."""
    before = {name: resident_bytes(node.pid) for name, node in cluster.processes.items()}
    told = {name: len(node.log.read_text()) for name, node in cluster.processes.items()}
    yield
    for name, node in cluster.processes.items():
        assert node.running, f"node {name} died: {node.exit_code}"
        grown = resident_bytes(node.pid) - before[name]
        assert grown < MEMORY_MAY_GROW, f"node {name} has {grown} bytes more than before"
        new = node.log.read_text()[told[name] :]
        assert "Traceback" not in new, f"node {name} met what it did not expect: {new[-3000:]}"


def answers(connection: socket.socket) -> bytes:
    """What the node says within a moment."""
    data = b""
    connection.settimeout(0.02)
    with suppress(OSError):
        while chunk := connection.recv(1 << 16):
            data += chunk
    return data


def check(said: bytes, sent: bytes, allowed: Collection[int]) -> None:
    found = {int(status) for status in STATUS.findall(said)}
    assert found <= set(allowed), (
        f"{sorted(found.difference(allowed))} to {sent!r}: {said[:2000]!r}"
    )
    assert not said or said.startswith(b"HTTP/1.1 "), said[:200]


def send_garbage(
    address: Address, random: Random, corpus: Sequence[bytes], allowed: set[int]
) -> None:
    """So many rounds of it; some connections are kept until the end, as if forgotten."""
    garbler = Garbler(random, corpus)
    kept: list[socket.socket] = []
    heard = 0
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
            check(said, sent, allowed)
        if random.random() < 0.1 and len(kept) < 40:
            kept.append(connection)
        else:
            connection.close()
    for connection in kept:
        connection.close()
    assert heard > ROUNDS // 3


def send_smuggled(
    address: Address, random: Random, outer: bytes, hidden: bytes, allowed: set[int]
) -> None:
    """``outer``: the first line and headers of a request that would carry the hidden one."""
    for turn in range(ROUNDS // 3):
        form = SMUGGLING[turn % len(SMUGGLING)] % len(hidden)
        request = outer + form + b"\r\n" + hidden
        with socket.create_connection((address.host, address.port), timeout=10) as connection:
            cut = random.randrange(1, len(request))
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request[:cut])
                if random.random() < 0.3:
                    time.sleep(0.001)
                connection.sendall(request[cut:])
            check(answers(connection), request, allowed)


def send_header_floods(address: Address, refusal: bytes) -> None:
    """More headers than a door may keep, in many lines or one; all it may answer is a refusal."""
    refused = 0
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
            assert not said or said.startswith(refusal), said[:100]
            refused += bool(said)
    assert refused, "a flood may drown the refusal, but not each time"
