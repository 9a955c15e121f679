"""One node as a process: start, signals, stop.

SIGTERM and SIGINT stop it cleanly: nothing new is taken, what is under way is answered, the log
is synced and the clean-stop marker written. A second signal ends it at once, which loses
nothing acknowledged either: the next start replays the log under a new store id.
"""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from kvorum.client.addresses import Address
from kvorum.config import NodeConfig, check_config
from kvorum.errors import SettingsInvalid
from kvorum.model.ring import Ring
from kvorum.model.topology import Member, Topology
from kvorum.protocol.node import Node
from kvorum.server.committer import Committer
from kvorum.server.datadir import InUse, OpenedData, open_data
from kvorum.server.environment import ServerEnvironment
from kvorum.server.listener import Listener
from kvorum.server.logs import configure_logs
from kvorum.server.loop import Turns
from kvorum.server.peers import OutgoingPeers
from kvorum.server.running import Door, RunningNode, is_loopback

EXIT_OK: Final = 0
EXIT_IN_USE: Final = 6
EXIT_BROKEN: Final = 70  # an invariant does not hold; the next start takes it for a crash
BACKLOG: Final = 1024
GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)
SWITCH_INTERVAL_SECONDS: Final = 0.0005


def run_node(
    *,
    topology: Topology,
    name: str,
    data: Path | None,
    engine: str,
    config: NodeConfig,
    doors: Sequence[Door] = (),
    allow_insecure_network: bool = False,
    log_json: bool = False,
    parent_fd: int = -1,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run one node, and ``doors`` beside it, until it is told to stop; the exit code.

    ``parent_fd`` is a file descriptor whose end of file stops the node too, so that a local
    cluster never outlives who started it. Raises ``SettingsInvalid``, and ``InUse`` for a port
    or data directory that another process has.
    """
    if not __debug__:
        raise SettingsInvalid("kvorum relies on its assertions: do not run it with python -O")
    check_config(config)
    ring = Ring(topology)
    member = ring.member_named(name)
    if member is None:
        known = ", ".join(one.name for one in topology.members)
        raise SettingsInvalid(f"the topology has no node {name!r}; it has {known}")
    own = Address(member.host, member.port)
    for address in (own, *(door.address for door in doors)):
        if not allow_insecure_network and not is_loopback(address.host):
            raise SettingsInvalid(
                f"node {name} would listen on {address}, beyond this machine, where anybody "
                "could read and write: there is no authentication yet. Use "
                "--allow-insecure-network if the network is yours alone"
            )
    configure_logs(name, log_json)
    # The ports first: they are free or not at once, while opening the data may replay a log.
    with contextlib.ExitStack() as bound:
        listening = bound.enter_context(contextlib.closing(_bind(own, name)))
        behind = [(door, bound.enter_context(_bind(door.address, name))) for door in doors]
        opened = open_data(topology, member, data, engine, config)
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        process = _Process(ring, member, config, opened, listening, behind, parent_fd, on_ready)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(process.run())


def _bind(wanted: Address, name: str) -> socket.socket:
    """Take an address; nobody can connect until the node listens there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsInvalid(f"cannot listen on {wanted}: {error}") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            text = f"port {wanted.port} on {wanted.host} is in use by another program"
            raise InUse(f"{text}; stop that, or give node {name} another port") from error
        raise SettingsInvalid(f"cannot listen on {wanted}: {error}") from error
    return listening


class _Process:
    """What lives from start to stop."""

    def __init__(
        self, ring: Ring, member: Member, config: NodeConfig, opened: OpenedData,
        listening: socket.socket, doors: list[tuple[Door, socket.socket]], parent_fd: int,
        on_ready: Callable[[], None] | None,
    ) -> None:  # fmt: skip
        self._ring = ring
        self._member = member
        self._config = config
        self._opened = opened
        self._listening = listening
        self._doors = doors
        self._parent_fd = parent_fd
        self._on_ready = on_ready
        self._log = structlog.get_logger("kvorum")
        self._signals = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_exception)
        stopping = asyncio.Event()
        store = self._opened.store
        env = ServerEnvironment(self._ring, self._config, self._member.id)
        turns = Turns(loop, env)
        turns.on_stop_wanted = stopping.set
        listener = Listener(turns, self._config)
        turns.node = Node(
            env, store, self._ring, self._config, self._member.id, f"kvorum {version('kvorum')}"
        )
        committer = Committer(store.buffer, turns.call_soon, turns.on_disk_news)
        turns.committer = committer
        turns.peers = OutgoingPeers(turns, self._config, self._ring, self._member.id)
        env.peers = turns.peers
        self._watch(loop, stopping)
        server = await loop.create_server(
            listener.accept,  # type: ignore[arg-type]
            sock=self._listening,
            backlog=BACKLOG,
        )
        turns.begin()
        running = RunningNode(self._member, self._config, turns, listener, self._opened)
        for door, socket_of_it in self._doors:
            await door.open(running, socket_of_it)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        self._log.info(
            "listening", address=self._member.address, member=self._member.id,
            engine=self._opened.engine.capabilities.name, store_id=store.store_id.hex(),
            start=store.start_count, clean=store.clean_start, cut_log_bytes=store.cut_bytes,
        )  # fmt: skip
        if self._on_ready is not None:
            self._on_ready()
        await stopping.wait()
        server.close()
        for door, _ in self._doors:
            door.refuse()
        await self._finish(turns, listener)
        for door, _ in self._doors:
            await door.close()
        await turns.peers.stop()
        listener.end_all()
        await asyncio.sleep(0)
        turns.stop()
        committer.stop()
        clean = self._opened.close(turns.node.clock.last, turns.node.parting())
        self._log.info("stopped", clean=clean, reason=env.stop_reason or "asked to")
        return EXIT_IN_USE if env.stop_reason else EXIT_OK

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the process if an invariant is broken: what it would go on with is not sound.

        A turn that breaks off would otherwise never end, and the node be mute and not dead. What
        goes wrong with one connection's input, and is no broken invariant, ends that connection.
        """
        error = context.get("exception")
        connection = "protocol" in context or "transport" in context
        if error is None or isinstance(error, OSError) or (
            connection and not isinstance(error, AssertionError)
        ):  # fmt: skip
            self._log.error("unexpected", what=context.get("message"), error=repr(error))
            if error is not None and not isinstance(error, OSError):
                traceback.print_exception(error)
            return
        traceback.print_exception(error)
        self._log.critical("broken_invariant", what=context.get("message"), error=repr(error))
        os._exit(EXIT_BROKEN)

    def _watch(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        """Stop at the first signal, at the end of whoever started us; exit at the second."""

        def on_signal() -> None:
            self._signals += 1
            if self._signals > 1:
                os._exit(130)
            stopping.set()

        def on_parent() -> None:
            with contextlib.suppress(BlockingIOError):
                if os.read(self._parent_fd, 1) == b"":
                    loop.remove_reader(self._parent_fd)
                    stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        if self._parent_fd >= 0:
            os.set_blocking(self._parent_fd, False)
            loop.add_reader(self._parent_fd, on_parent)

    async def _finish(self, turns: Turns, listener: Listener) -> None:
        """Let requests that are under way be answered, for a while."""
        listener.closing = True
        deadline = turns.loop.time() + self._config.stop_timeout_ms / 1000
        while turns.loop.time() < deadline:
            turns.begin()
            if not turns.node.requests.in_flight and not turns.node.forwarder.busy:
                break
            await asyncio.sleep(0.01)
        if not turns.env.stop_reason:
            turns.begin()
            turns.node.leave()
        await asyncio.sleep(0)
