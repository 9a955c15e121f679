"""Real clusters for tests: separate node processes, ports from the kernel, a folder that goes.

    with running_cluster(engine="lmdb") as cluster:
        cluster.processes["b"].kill()
        with kvorum.connect(cluster.addresses) as client:
            ...
        cluster.processes["b"].start()
        cluster.wait_until_ready()

If the test fails, the ends of all nodes' logs are printed, so that its report holds them.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kvorum.cli.processes import IN_USE, LocalCluster, NodeFailed, NodeProcess, free_ports
from kvorum.client.blocking import Client
from kvorum.model.quorum import Durability
from kvorum.model.topology import ENTROPY_BYTES, Member, make_topology

ATTEMPTS = 5
NAMES = "abcdefghijklmnopqrstuvwxyz"


class RunningCluster(LocalCluster):
    """A local cluster that a test holds: see ``LocalCluster`` and ``NodeProcess``."""

    def data_dir(self, name: str) -> Path:
        """Where the node keeps its data; nothing is there with the memory engine."""
        return self.processes[name].data

    def connect(self, name: str = "", *, timeout_seconds: float = 10.0) -> Client:
        """A client that is told every node's address, or only the address of ``name``."""
        addresses = [self.processes[name].address] if name else self.addresses
        return Client(addresses, timeout_seconds=timeout_seconds)

    def start_again(self, name: str) -> None:
        """Start a node that was stopped or killed, and wait until all are connected again."""
        node = self.processes[name]
        for _ in range(ATTEMPTS):
            node.start()
            try:
                self.wait_until_ready()
            except NodeFailed as failure:
                # The kernel may have lent the port to somebody's outgoing connection meanwhile.
                if failure.exit_code != IN_USE or "port" not in str(failure):
                    raise
            else:
                return
        raise AssertionError(f"node {name} did not get its port {node.address} back")

    def http_url(self, name: str) -> str:
        return f"http://{self.processes[name].http}"

    def logs(self) -> str:
        parts = [f"--- log of {node.name}\n{node.said()}" for node in self.processes.values()]
        return "\n".join(parts)


@contextmanager
def running_cluster(
    nodes: int = 3,
    engine: str = "memory",
    config: Mapping[str, int] | None = None,
    *,
    n: int = 3,
    partitions: int = 64,
    durability: Durability | None = None,
    options: tuple[str, ...] = (),
    admin: bool = False,
    http: bool = False,
) -> Iterator[RunningCluster]:
    """A cluster that is ready. ``config`` sets what ``NodeConfig`` has, the same on every node.

    With ``admin`` each node has an administration port, ``processes["a"].admin``; with ``http``
    one for HTTP, ``processes["a"].http``.

    The durability of the default table is ``none`` with the memory engine and else ``one``.
    """
    if durability is None:
        durability = Durability.NONE if engine == "memory" else Durability.ONE
    with TemporaryDirectory(prefix="kvorum-test-") as temporary:
        for attempt in range(1, ATTEMPTS + 1):
            folder = Path(temporary, str(attempt))
            folder.mkdir()
            given = [*options, *_settings(folder, config)]
            ports = free_ports((1 + admin + http) * nodes)
            admin_ports = ports[nodes : 2 * nodes] if admin else []
            http_ports = ports[-nodes:] if http else []
            members = tuple(
                Member(index + 1, NAMES[index], "127.0.0.1", port)
                for index, port in enumerate(ports[:nodes])
            )
            topology = make_topology(
                members,
                min(n, nodes),
                partitions,
                os.urandom(ENTROPY_BYTES),
                default_durability=durability,
            )
            with RunningCluster(
                topology, folder, engine, given, admin_ports, http_ports
            ) as cluster:
                try:
                    cluster.start()
                    cluster.wait_until_ready(whole=True)
                except NodeFailed as failure:
                    if failure.exit_code == IN_USE and attempt < ATTEMPTS:
                        continue  # Somebody was faster to take a port that was free just now.
                    raise
                try:
                    yield cluster
                except BaseException:
                    sys.stdout.write(cluster.logs())
                    raise
                return


def _settings(folder: Path, config: Mapping[str, int] | None) -> list[str]:
    if not config:
        return []
    file = folder / "settings.toml"
    file.write_text("".join(f"{name} = {value}\n" for name, value in config.items()))
    return ["--config", str(file)]


__all__ = ["NodeFailed", "NodeProcess", "RunningCluster", "running_cluster"]
