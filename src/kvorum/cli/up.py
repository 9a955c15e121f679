"""``kvorum up``: a cluster on this machine, one process a node, as long as the command runs."""

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from kvorum.cli.options import AdminPort, EngineChoice, HttpPort, Json
from kvorum.cli.outcome import CommandFailed, PortInUse
from kvorum.cli.output import Output
from kvorum.cli.processes import TOPOLOGY_FILE, LocalCluster, NodeProcess, port_problem
from kvorum.cli.settings import read_config, read_topology
from kvorum.errors import SettingsInvalid
from kvorum.model.quorum import Durability
from kvorum.model.topology import (
    DEFAULT_N,
    DEFAULT_PARTITIONS,
    ENTROPY_BYTES,
    MAX_MEMBER_ID,
    Member,
    Topology,
    make_topology,
)

FIRST_PORT: Final = 7401
PORT_MAX: Final = 65535
HTTP_DISTANCE: Final = 80  # of a node's HTTP port from its native one
ADMIN_DISTANCE: Final = 90  # and of its administration port
HOST: Final = "127.0.0.1"
WATCH_SECONDS: Final = 0.2


def up(
    nodes: Annotated[
        int, typer.Option(min=1, max=100, help="How many nodes, each a process of its own.")
    ] = 3,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where everything is kept; made if missing.")
    ] = Path("kvorum-data"),
    engine: Annotated[
        EngineChoice, typer.Option(help="lmdb; or memory, which forgets all when it stops.")
    ] = EngineChoice.lmdb,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The first node's port; the others follow.")
    ] = FIRST_PORT,
    http_port: HttpPort = None,
    admin_port: AdminPort = None,
    partitions: Annotated[
        int, typer.Option(help="Equal parts of the ring, a power of two, fixed for ever.")
    ] = DEFAULT_PARTITIONS,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings of the nodes as TOML.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a cluster on this machine until Ctrl-C, which stops all nodes cleanly.

    The data stays, and the next kvorum up goes on with it. A node that dies is reported and the
    others go on; the exit code is 1 then.
    """
    out = Output(as_json)
    read_config(config)
    topology = local_topology(data, nodes, engine.value, port, partitions)
    check_ports(topology)
    options = ["--config", str(config.absolute())] if config is not None else []
    http_usual = port + max(HTTP_DISTANCE, nodes)
    http_ports = choose_ports(out, topology, http_port, http_usual, "--http-port")
    admin_usual = max(port + ADMIN_DISTANCE, http_usual + nodes)
    admin_ports = choose_ports(out, topology, admin_port, admin_usual, "--admin-port")
    with (
        stop_signals() as stop,
        LocalCluster(topology, data, engine.value, options, admin_ports, http_ports) as cluster,
    ):
        cluster.start()
        cluster.wait_until_ready(while_waiting=stop.check)
        _say_ready(out, cluster)
        dead = _watch(out, cluster, stop)
        out.note("stopping")
        cluster.stop()
    if dead:
        raise CommandFailed(f"{', '.join(dead)} died; see the logs in {data}")
    out.note(f"stopped; the data is in {data}")


class Stop:
    """Whether we were asked to stop. Who asks twice does not want to wait for a clean end."""

    def __init__(self) -> None:
        self.number = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number

    def check(self) -> None:
        if self.number:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Take SIGINT and SIGTERM as a wish to stop, while inside."""
    stop = Stop()
    wishes = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        wishes.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop.ask) for number in wishes}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def local_topology(data: Path, nodes: int, engine: str, port: int, partitions: int) -> Topology:
    """The topology in ``data``, made there if it is missing."""
    file = data / TOPOLOGY_FILE
    if file.exists():
        topology = read_topology(file)
        if len(topology.members) != nodes:
            raise SettingsInvalid(
                f"{file} is of a cluster of {len(topology.members)} nodes, not {nodes}: give "
                f"--nodes {len(topology.members)}, or another directory with --data"
            )
        if topology.members[0].port != port:
            raise SettingsInvalid(
                f"{file} is of a cluster whose first port is {topology.members[0].port}, not "
                f"{port}: give --port {topology.members[0].port}, or another directory"
            )
        if engine == "memory" and topology.default_durability != Durability.NONE:
            raise SettingsInvalid(
                f"{file} promises writes on disk, which --engine memory cannot keep: give another "
                "directory with --data"
            )
        return topology
    if port + nodes - 1 > MAX_MEMBER_ID:
        raise SettingsInvalid(f"--port {port}: {nodes} ports from there on do not exist")
    members = tuple(
        Member(index + 1, node_name(index), HOST, port + index) for index in range(nodes)
    )
    topology = make_topology(
        members,
        min(DEFAULT_N, nodes),
        partitions,
        os.urandom(ENTROPY_BYTES),
        default_durability=Durability.NONE if engine == "memory" else Durability.ONE,
    )
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"{data}: {error.strerror}") from None
    return topology


def node_name(index: int) -> str:
    """a, b, ... z, and then n27, n28, ..."""
    return chr(ord("a") + index) if index < 26 else f"n{index + 1}"


def check_ports(topology: Topology) -> None:
    """Raise ``PortInUse``, naming it, if a port of the cluster is another process's."""
    problems = [
        text
        for member in topology.members
        if (text := port_problem(member.name, member.host, member.port))
    ]
    if problems:
        raise PortInUse("; ".join(problems))


def choose_ports(
    out: Output, topology: Topology, first: int | None, usual: int, option: str
) -> list[int]:
    """The further ports of all nodes for which ``option`` is; none if they are not wanted.

    Those that nobody asked for are not worth failing for: if one is taken, there are none.
    """
    members = topology.members
    if first == 0:
        return []
    asked_for = first is not None
    if first is None:
        first = usual
    ports = [first + index for index in range(len(members))]
    problems = [
        text
        for member, port in zip(members, ports, strict=True)
        if (text := _further_port_problem(member, port))
    ]
    if not problems:
        return ports
    if asked_for:
        raise PortInUse("; ".join(problems))
    out.note(f"none of the ports of {option}, since {problems[0]}")
    return []


def _further_port_problem(member: Member, port: int) -> str:
    if port > PORT_MAX:
        return f"there is no port {port}, for node {member.name}"
    return port_problem(member.name, member.host, port)


def _say_ready(out: Output, cluster: LocalCluster) -> None:
    addresses = ",".join(cluster.addresses)
    if out.as_json:
        nodes = {
            node.name: {
                "address": node.address,
                "http": f"http://{node.http}" if node.http else None,
                "admin": f"http://{node.admin}/" if node.admin else None,
                "pid": node.pid,
                "log": str(node.log),
            }
            for node in cluster.processes.values()
        }
        out.json({"ready": True, "addresses": addresses, "nodes": nodes})
        return
    out.table(
        ["node", "address", "http", "admin page", ">process", "log"],
        [
            [
                node.name,
                node.address,
                f"http://{node.http}" if node.http else "none",
                f"http://{node.admin}/" if node.admin else "none",
                str(node.pid),
                str(node.log),
            ]
            for node in cluster.processes.values()
        ],
    )
    out.line()
    first = next(iter(cluster.processes.values())).member
    out.line("Ready. In another terminal:")
    if (first.host, first.port) != (HOST, FIRST_PORT):
        out.line(f"  export KVORUM_NODES={shlex.quote(addresses)}")
    out.line("  kvorum put alice book")
    out.line("  kvorum get alice")
    out.line("  kvorum status")
    http = next(iter(cluster.processes.values())).http
    if http is not None:
        out.line(f"  curl -i http://{http}/tables/default/keys/alice")
    out.line("Ctrl-C stops all nodes; the data stays.")


def _watch(out: Output, cluster: LocalCluster, stop: Stop) -> list[str]:
    """Wait until we are asked to stop or nobody is left; the names of the nodes that died."""
    dead: list[str] = []
    nodes = cluster.processes
    while not stop.number and len(dead) < len(nodes):
        for node in nodes.values():
            if node.name not in dead and not node.running:
                dead.append(node.name)
                _say_dead(out, node)
        time.sleep(WATCH_SECONDS)
    return dead


def _say_dead(out: Output, node: NodeProcess) -> None:
    code = node.exit_code or 0
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if out.as_json:
        out.json({"died": node.name, "exit_code": code})
        return
    out.line(f"node {node.name} {how}; the others go on. Its log: {node.log}")
    last = node.said().rstrip().splitlines()[-3:]
    for line in last if code != -signal.SIGKILL else []:
        out.line(f"  {line}")
