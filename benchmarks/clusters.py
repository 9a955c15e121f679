"""Three nodes on one core, as processes: kvorum's own, or the limit's in C.

A cluster is ready when each of its nodes has carried a put to all three, so that no connection
is made while something is measured.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.programs import program
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.wire.codec import encode
from kvorum.wire.framing import FrameReader
from kvorum.wire.kinds import PUT_OK, REFUSED, UNKNOWN, WELCOME
from kvorum.wire.messages import ROLE_CLIENT, Hello, StoreStart, Welcome
from kvorum.wire.requests import DEFAULT, put_frame

NODES: Final = 3
START_TIMEOUT_SECONDS: Final = 30.0
STOP_TIMEOUT_SECONDS: Final = 20.0
HELLO: Final = encode(Hello(version_min=1, version_max=1, role=ROLE_CLIENT, software="benchmark"))


class ClusterFailed(RuntimeError):
    """A cluster that did not start, or a node that died; the text says what it said."""


class Cluster(NamedTuple):
    """A running cluster, as the load generator needs it."""

    ports: list[int]
    pids: list[int]
    http_ports: tuple[int, ...] = ()  # of the same nodes, where asked for


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Child processes started inside run on ``core`` alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def limit_cluster(core: int) -> Iterator[Cluster]:
    """Three nodes in C. They end when their standard input does."""
    node = program("node")
    with pinned(core):
        processes = [
            subprocess.Popen(
                [node, str(member), _limit_welcome(member).hex()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for member in range(1, NODES + 1)
        ]
    try:
        ports = [int(_line(process).split()[1]) for process in processes]
        for index, process in enumerate(processes):
            others = [f"{i + 1} {port}" for i, port in enumerate(ports) if i != index]
            assert process.stdin is not None
            print(*others, file=process.stdin, flush=True)
        for process in processes:
            if _line(process) != "ready\n":
                raise ClusterFailed("a node of the limit did not become ready")
        yield Cluster(ports, [process.pid for process in processes])
    finally:
        for process in processes:
            _end(process)


def _limit_welcome(member: int) -> bytes:
    """What a node in C answers to every Hello."""
    start = StoreStart(store_id=bytes(8), start_count=1, nonce=bytes(8))
    return encode(Welcome(1, bytes(8), member, f"limit{member}", start, wall=0, volatile=True))


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def kvorum_cluster(
    engine: str, core: int, folder: Path, count: int = NODES, http: bool = False
) -> Iterator[Cluster]:
    """Nodes of kvorum with their data below ``folder``, as a user would start them."""
    free = _free_ports(2 * count)
    ports, http_ports = free[:count], tuple(free[count:])
    names = "abc"[:count]
    topology = folder / "topology.json"
    command = [sys.executable, "-m", "kvorum"]
    nodes = [f"{name}=127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)]
    options = [part for node in nodes for part in ("--node", node)]
    subprocess.run([*command, "init", topology, *options], check=True, stdout=subprocess.DEVNULL)
    processes: list[subprocess.Popen[str]] = []
    logs = [folder / f"{name}.log" for name in names]
    try:
        with pinned(core):
            for name, log, http_port in zip(names, logs, http_ports, strict=True):
                arguments: list[str | Path] = [
                    "--name",
                    name,
                    "--topology",
                    topology,
                    "--engine",
                    engine,
                ]
                if engine != "memory":
                    arguments += ["--data", folder / name]
                if http:
                    arguments += ["--http", f"127.0.0.1:{http_port}"]
                with log.open("w") as file:
                    processes.append(
                        subprocess.Popen(
                            [*command, "serve", *arguments],
                            stdout=file,
                            stderr=subprocess.STDOUT,
                            text=True,
                        )
                    )
        try:
            for process, port in zip(processes, ports, strict=True):
                wait_until_ready(process, port, count)
        except ClusterFailed as error:
            said = "".join(log.read_text()[-2000:] for log in logs)
            raise ClusterFailed(f"{error}\n{said}") from None
        pids = [process.pid for process in processes]
        yield Cluster(ports, pids, http_ports if http else ())
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            _end(process)


def _free_ports(count: int) -> list[int]:
    """Ports that the kernel picks. The topology names them, so they must be known beforehand."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def wait_until_ready(process: subprocess.Popen[str], port: int, count: int = NODES) -> None:
    """Return when the node at ``port`` has carried a put to all ``count`` nodes."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    problem = "nobody answered"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with closing(socket.create_connection(("127.0.0.1", port), timeout=2)) as connection:
                problem = _try_put(connection, count)
        except OSError as error:
            problem = str(error)
        if not problem:
            return
        time.sleep(0.05)
    raise ClusterFailed(f"the node on port {port} did not become ready: {problem}")


def _try_put(connection: socket.socket, count: int) -> str:
    """Put one record to all nodes; what went wrong, or an empty string."""
    reader = FrameReader(1 << 20)
    payloads = _ask(connection, reader, HELLO)
    if payloads[0][0] != WELCOME:
        return f"the Hello was answered {payloads[0]!r}"
    wall = time.time_ns() // 1000
    put = put_frame(
        0, 0, DEFAULT_TABLE_ID, b"ready", b"", b"", b"", b"", os.urandom(8), 1, wall, 1, count, 0,
        DEFAULT, 0,
    )  # fmt: skip
    answer = _ask(connection, reader, put)[0]
    if answer[0] == PUT_OK:
        return ""
    if answer[0] in (REFUSED, UNKNOWN):
        return answer[8:].decode(errors="replace")
    return f"a put was answered {answer!r}"


def _ask(connection: socket.socket, reader: FrameReader, frame: bytes) -> list[bytes]:
    connection.sendall(frame)
    payloads: list[bytes] = []
    while not payloads:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("the node closed the connection")
        payloads = reader.feed(data)
    return payloads
