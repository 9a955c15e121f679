"""Nodes are given garbage, as clients, as members and as the other side of their own connections.

None may die, hang, lose a write of somebody else, or keep the memory. Every run tries the same
garbage, from the seed below; ``KVORUM_FUZZ_SEED`` tries other, ``KVORUM_FUZZ_ROUNDS`` more.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from random import Random

import pytest

import kvorum
from kvorum.client.blocking import Client
from kvorum.model.hashing import engine_key
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.topology import Topology
from kvorum.wire.codec import encode
from kvorum.wire.framing import FrameReader
from kvorum.wire.link import Asker, Link
from kvorum.wire.messages import (
    NODE_ROLES,
    ROLE_CLIENT,
    ROLE_CONTROL,
    ROLE_DATA,
    ROLE_FORWARD,
    ROLE_LARGE,
    Hello,
    Reject,
    Welcome,
)
from tests.golden.samples import RECORDS, samples
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.garbage import good_client
from tests.support.processes import resident_bytes
from tests.support.stranger import START, Stranger, client_hello, member_hello

SEED = int(os.environ.get("KVORUM_FUZZ_SEED", "20260401"))
ROUNDS = int(os.environ.get("KVORUM_FUZZ_ROUNDS", "600"))
MEMORY_MAY_GROW = 64 << 20
GOOD_CLIENT_SECONDS = 1.0
WARM = {f"warm-{number}": b"v" * 1000 for number in range(2000)}
_numbers = count(1)
ABSENT = "d"  # a member of the topology that does not run; the fuzzer takes its place


@contextmanager
def fuzzed_cluster() -> Iterator[RunningCluster]:
    with running_cluster(nodes=4, engine="lmdb", config={"reconnect_last_ms": 200}) as cluster:
        cluster.processes[ABSENT].stop()
        with cluster.connect() as client:
            client.table("default").put_many(WARM.items())
        yield cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with fuzzed_cluster() as cluster:
        yield cluster


class Garbler:
    """Makes frames that are nearly right, or not at all."""

    def __init__(self, random: Random, topology: Topology) -> None:
        self.random = random
        self.corpus = [
            body
            for name, body in samples().items()
            if name.startswith(("message/", "request/", "link/"))
        ]
        self.corpus += _real_batches(topology)

    def frame(self) -> bytes:
        random = self.random
        frame = bytearray(random.choice(self.corpus))
        kind = random.randrange(10)
        if kind == 0:
            return bytes(frame)  # A good frame, most likely in the wrong place.
        if kind == 1:
            return random.randbytes(random.randrange(1, 200))
        if kind == 2:
            return len(frame[5:]).to_bytes(4, "little") + random.randbytes(len(frame) - 4)
        if kind == 3:
            return random.choice((0, 1, 1 << 16, 1 << 24, 1 << 27, (1 << 32) - 1)).to_bytes(
                4, "little"
            ) + bytes(frame[4:])
        if kind == 4:
            cut = frame[4 : random.randrange(5, len(frame) + 1)]
            return len(cut).to_bytes(4, "little") + bytes(cut)
        if kind == 5:
            frame += random.randbytes(random.randrange(1, 50))
            return (len(frame) - 4).to_bytes(4, "little") + bytes(frame[4:])
        if kind == 6:
            return bytes(frame[: random.randrange(1, len(frame))])  # left open
        for _ in range(random.choice((1, 1, 2, 8))):
            place = random.randrange(4, len(frame))
            if random.random() < 0.5:
                frame[place] ^= 1 << random.randrange(8)
            else:
                frame[place] = random.choice((0, 1, 2, 127, 128, 254, 255))
        return bytes(frame)

    def frames(self) -> bytes:
        return b"".join(self.frame() for _ in range(self.random.randrange(1, 12)))


def _real_batches(topology: Topology) -> list[bytes]:
    """Batches whose keys every node owns, with records of every kind under the same few keys."""
    batches = []
    for table in (b"default\0", b"table id"):
        link = Link(2, [], 1 << 20, 1 << 20)
        link.open(0)
        for number in range(3):
            name = b"fuzzed %d" % number
            key = engine_key(topology.hash_key, table, name, b"")
            for record in RECORDS.values():
                link.put(key, pack_holding(NO_OWN, name, record), 1, 0, Asker())
                link.get(key, 1, 0, Asker())
                batches += link.take(0)
        for record in RECORDS.values():
            link.put(key, pack_holding(NO_OWN, name, record), 1, 0, Asker())
        batches += link.take(0)
    return batches


@contextmanager
def nothing_worse(cluster: RunningCluster) -> Iterator[None]:
    """Afterwards all nodes run, serve a good client at once, and have not grown."""
    pids = {name: node.pid for name, node in cluster.processes.items() if name != ABSENT}
    before = {name: resident_bytes(pid) for name, pid in pids.items()}
    addresses = [cluster.processes[name].address for name in pids]
    # Only those: in the absent member's place there may be one that lies to clients too.
    with (
        Client(addresses, only_given=True) as client,
        good_client(partial(put_and_get, client), 2 * GOOD_CLIENT_SECONDS),
    ):
        yield
    for name, pid in pids.items():
        node = cluster.processes[name]
        assert node.running, f"node {name} died: {node.exit_code}"
        grown = resident_bytes(pid) - before[name]
        assert grown < MEMORY_MAY_GROW, f"node {name} has {grown} bytes more than before"
        assert "Traceback" not in node.log.read_text(), f"node {name} met what it did not expect"
    for name in pids:
        node = cluster.processes[name]
        with Client(node.address, only_given=True) as client:
            began = time.monotonic()
            client.table("default").update("afterwards", lambda values: b"still here")
            assert time.monotonic() - began < GOOD_CLIENT_SECONDS
            assert client.status(name).counters["bad_frames"] > 0


def put_and_get(client: kvorum.Client) -> None:
    number = next(_numbers)
    table = client.table("default")
    table.put(f"good-{number}", b"%d" % number)
    assert table.get(f"good-{number}").value == b"%d" % number, f"put {number} is not there"


def shake_hands(cluster: RunningCluster, stranger: Stranger, role: str, target: int) -> None:
    if role == ROLE_CLIENT:
        answer = stranger.greet(client_hello())
    else:
        absent = cluster.processes[ABSENT].member.id
        answer = stranger.greet(member_hello(cluster.topology, absent, target, role))
    assert isinstance(answer, Welcome), answer


@pytest.mark.parametrize(
    "role", ["", ROLE_CLIENT, ROLE_DATA, ROLE_LARGE, ROLE_CONTROL, ROLE_FORWARD]
)
def test_garbage_harms_nobody(cluster: RunningCluster, role: str) -> None:
    """With a role: after a valid handshake. Some connections stay open until the end."""
    random = Random(f"{SEED} {role}")
    garbler = Garbler(random, cluster.topology)
    targets = [node.member for name, node in cluster.processes.items() if name != ABSENT]
    kept: list[Stranger] = []
    with nothing_worse(cluster):
        for _ in range(ROUNDS):
            target = random.choice(targets)
            stranger = Stranger(target.address)
            if role:
                shake_hands(cluster, stranger, role, target.id)
            stranger.send(garbler.frames())
            if random.random() < 0.3:
                stranger.send(garbler.frames())
            if random.random() < 0.2 and len(kept) < 40:
                kept.append(stranger)
            else:
                stranger.close()
        for stranger in kept:
            stranger.close()


class GarblingMember:
    """Listens in the absent member's place and answers garbage to whoever connects."""

    def __init__(self, cluster: RunningCluster, garbler: Garbler) -> None:
        self._cluster = cluster
        self._garbler = garbler
        member = cluster.processes[ABSENT].member
        self._listener = socket.create_server((member.host, member.port))
        self._thread = threading.Thread(target=self._serve, name="garbling-member")
        self.answered = 0

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(1.0)
                    self._answer(connection)
                except OSError:
                    continue

    def _answer(self, connection: socket.socket) -> None:
        random = self._garbler.random
        FrameReader().feed(connection.recv(1 << 14))
        if random.random() < 0.8:
            connection.sendall(self._welcome())
            if random.random() < 0.5:
                connection.settimeout(0.1)
                with suppress(TimeoutError):
                    connection.recv(1 << 14)  # A table update, a ping or a batch.
        connection.sendall(self._garbler.frames())
        self.answered += 1

    def _welcome(self) -> bytes:
        member = self._cluster.processes[ABSENT].member
        cluster_id = self._cluster.topology.cluster_id
        return encode(Welcome(1, cluster_id, member.id, member.name, START, 0, None, False, 1))

    def __enter__(self) -> "GarblingMember":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def test_a_member_that_answers_garbage_harms_nobody(cluster: RunningCluster) -> None:
    garbler = Garbler(Random(f"{SEED} answers"), cluster.topology)
    with nothing_worse(cluster), GarblingMember(cluster, garbler) as member:
        deadline = time.monotonic() + 8.0
        while member.answered < ROUNDS // 6 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert member.answered > 10


def test_hellos_that_are_nearly_right_are_answered_or_cut_off(cluster: RunningCluster) -> None:
    random = Random(f"{SEED} hello")
    target = cluster.processes["a"].member
    absent = cluster.processes[ABSENT].member.id
    good = [encode(client_hello())]
    good += [encode(member_hello(cluster.topology, absent, target.id, role)) for role in NODE_ROLES]
    strange: list[Hello] = [
        Hello(1, 1, ROLE_CLIENT, member=1 << 40, start=START),
        Hello(1, 1, ROLE_CLIENT, member=-1, start=START),
        Hello(-5, 1 << 62, ROLE_CLIENT),
    ]
    with nothing_worse(cluster):
        for hello in strange:
            with Stranger(target.address) as stranger:
                assert isinstance(stranger.greet(hello), Welcome | Reject)
        for _ in range(ROUNDS):
            frame = bytearray(random.choice(good))
            for _ in range(random.choice((1, 1, 3))):
                frame[random.randrange(4, len(frame))] = random.randrange(256)
            with Stranger(target.address) as stranger:
                stranger.send(bytes(frame))
                payload = stranger.next_payload()
                assert payload is not None, "refused without a word"


def test_a_node_that_was_given_garbage_starts_again_with_everything() -> None:
    with fuzzed_cluster() as cluster:
        garbler = Garbler(Random(f"{SEED} again"), cluster.topology)
        running = [node for name, node in cluster.processes.items() if name != ABSENT]
        for turn in range(ROUNDS // 4):
            target = running[turn % len(running)].member
            with Stranger(target.address) as stranger:
                shake_hands(cluster, stranger, (ROLE_DATA, ROLE_CONTROL)[turn % 2], target.id)
                stranger.send(garbler.frames())
        for node in running:
            assert node.stop() == 0
            node.start()
        cluster.wait_until_ready()
        with cluster.connect() as client:
            found = client.table("default").get_many(WARM.keys())
            assert [one.value for one in found] == list(WARM.values())
