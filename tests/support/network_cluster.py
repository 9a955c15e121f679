"""A cluster whose nodes are on hosts of their own, and what its clients there meet.

with network_cluster(3) as cluster:
    with cluster.probing() as probes:
        cluster.hosts.isolate("c", "a", "b")
        ...
    probes.report()               # how operations went, and when
    cluster.differing(keys)       # keys whose copies differ, each node asked for its own
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from kvorum.cli.processes import LocalCluster
from kvorum.model.quorum import Durability
from kvorum.model.topology import ENTROPY_BYTES, Member, make_topology
from tests.support.hosts import Hosts

PORT = 7401
CLIENT = "client"
NAMES = "abcdefghi"
READY_SECONDS = 60.0


class Operation(NamedTuple):
    """One put or get of a prober."""

    began: float  # wall clock, seconds
    seconds: float
    kind: str
    error: str


class Probes:
    """A prober at work on the client's host, and afterwards what it has met."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.operations: list[Operation] = []
        self.written: dict[str, str] = {}

    def end(self) -> None:
        said, _ = self._process.communicate("")
        assert self._process.returncode == 0, said
        report: dict[str, Any] = json.loads(said)
        self.operations = [Operation(*each) for each in report["operations"]]
        self.written = report["written"]

    def between(self, start: float, end: float) -> list[Operation]:
        return [each for each in self.operations if start <= each.began < end]


def share_within(operations: list[Operation], seconds: float) -> float:
    """Which share of these succeeded in so many seconds."""
    good = sum(not each.error and each.seconds <= seconds for each in operations)
    return good / len(operations)


def longest_gap(operations: list[Operation]) -> float:
    """The longest time without a success ending, in seconds."""
    times = sorted(each.began + each.seconds for each in operations if not each.error)
    return max(later - earlier for earlier, later in pairwise(times))


class NetworkCluster(LocalCluster):
    """Node processes, each on its host."""

    hosts: Hosts

    def enter(self, hosts: Hosts) -> None:
        """From now on every node starts on its own host."""
        self.hosts = hosts
        for name, node in self.processes.items():
            node._command[:0] = hosts.enter(name)

    def from_client(self, *arguments: str, text: str = "") -> str:
        """Run Python on the client's host; what it said."""
        done = subprocess.run(
            [*self.hosts.enter(CLIENT), sys.executable, *arguments], input=text,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_until_whole(self) -> None:
        """Every node answers, is connected to all others, and serves what it holds."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            problem = self.from_client("-m", "tests.support.questions", "problem", *self.addresses)
            if not problem:
                return
            assert time.monotonic() < deadline, problem
            for node in self.processes.values():
                node.check()
            time.sleep(0.2)

    @contextmanager
    def probing(self, threads: int = 4) -> Iterator[Probes]:
        """Clients that put and get all the while."""
        command = [*self.hosts.enter(CLIENT), sys.executable, "-m", "tests.support.prober"]
        process = subprocess.Popen(
            [*command, ",".join(self.addresses), str(threads)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        probes = Probes(process)
        try:
            yield probes
        finally:
            probes.end()

    def fill(self, count: int) -> list[str]:
        """Put so many keys; their names."""
        self.from_client("-m", "tests.support.questions", "fill", str(count), *self.addresses)
        return [f"key-{number}" for number in range(count)]

    def differing(self, keys: list[str]) -> list[str]:
        """The keys that not all nodes hold alike; each is asked for its own copies only."""
        said = self.from_client(
            "-m", "tests.support.questions", "differing", *self.addresses, text="\n".join(keys)
        )
        return said.split()


@contextmanager
def network_cluster(nodes: int = 3, n: int = 3) -> Iterator[NetworkCluster]:
    """A cluster that is ready, with data on disks, and a host for clients beside it."""
    names = list(NAMES[:nodes])
    with Hosts([*names, CLIENT]) as hosts, TemporaryDirectory(prefix="kvorum-test-") as temporary:
        members = tuple(
            Member(index + 1, name, hosts.address[name], PORT) for index, name in enumerate(names)
        )
        topology = make_topology(
            members, n, 64, os.urandom(ENTROPY_BYTES), default_durability=Durability.ONE
        )
        options = ["--allow-insecure-network"]
        with NetworkCluster(topology, Path(temporary), "lmdb", options) as cluster:
            cluster.enter(hosts)
            cluster.start()
            try:
                cluster.wait_until_whole()
                yield cluster
            except BaseException:
                for node in cluster.processes.values():
                    sys.stdout.write(f"--- log of {node.name}\n{node.said()}\n")
                raise
