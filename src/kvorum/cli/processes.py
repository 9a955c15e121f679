"""A cluster of node processes on this machine: started, watched, stopped, and never orphaned.

``kvorum up``, the demo and the tests all run their nodes through this. Each node is a separate
``kvorum serve`` in a process group of its own, so that Ctrl-C reaches only the one who started
them, who then stops them in order. All of them hold the reading end of one pipe whose writing
end nobody but the starter has: however the starter ends, killed even, the pipe does too, and the
nodes stop by themselves.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kvorum.client.addresses import Address
from kvorum.client.blocking import Client
from kvorum.errors import KvorumError, SettingsInvalid
from kvorum.model.topology import Member, Topology, encode_topology

TOPOLOGY_FILE: Final = "topology.json"
START_TIMEOUT_SECONDS: Final = 40.0
STOP_TIMEOUT_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 0.05
TAIL_BYTES: Final = 4000
IN_USE: Final = 6  # the exit code of a node whose port or directory another one has


class NodeFailed(KvorumError):
    """A node of a local cluster that did not come up; the text ends with what it said."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # 0 while the node runs


class NodeProcess:
    """One node of a local cluster; between its starts and stops there is no process."""

    def __init__(
        self, member: Member, command: Sequence[str], data: Path, parent: int,
        admin: Address | None = None, http: Address | None = None,
    ) -> None:  # fmt: skip
        self.member = member
        self.admin = admin  # the administration port, if it has one
        self.http = http  # where it serves HTTP, if it does
        self.name = member.name
        self.data = data
        self.log = data.with_name(f"{member.name}.log")
        self.pid_file = data.with_name(f"{member.name}.pid")
        self.wanted = False  # started, and neither stopped nor killed by us since
        self._command = list(command)
        self._parent = parent
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def address(self) -> str:
        return self.member.address

    @property
    def pid(self) -> int:
        """The process id; 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the last process ended, negative for a signal; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the node; it is ready a moment later, see ``LocalCluster.wait_until_ready``."""
        assert not self.running, f"node {self.name} runs already"
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            self._process = subprocess.Popen(
                [*self._command, "--parent-fd", str(self._parent)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self._parent,),
                process_group=0,
            )
        self.pid_file.write_text(f"{self._process.pid}\n")
        self.wanted = True

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Stop the node cleanly and return its exit code; one that hangs is killed."""
        self.ask_to_stop()
        return self.wait(timeout_seconds)

    def ask_to_stop(self) -> None:
        self.wanted = False
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # One that is paused would never hear of it.

    def wait(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        if self._process is None:
            return 0
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.pid_file.unlink(missing_ok=True)
        return code

    def kill(self) -> None:
        """End the process with SIGKILL: it gets no chance to write anything more."""
        self.wanted = False
        self.signal(signal.SIGKILL)
        self.wait()

    def restart(self) -> None:
        """Stop the node cleanly, if it runs, and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def said(self) -> str:
        """The end of what the node wrote to its log since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_offset, size - TAIL_BYTES))
            return log.read().decode("utf-8", "replace")

    def check(self) -> None:
        """Raise ``NodeFailed`` if the process has ended."""
        code = self.exit_code
        if code is not None:
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise NodeFailed(f"node {self.name} {ended}\n{self.said()}".rstrip(), code)


class LocalCluster:
    """Node processes of one topology, with their data side by side in ``folder``.

    Leaving the context stops every node, and waits until all are gone.
    """

    def __init__(
        self, topology: Topology, folder: Path, engine: str, options: Sequence[str] = (),
        admin_ports: Sequence[int] = (), http_ports: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """``admin_ports``, ``http_ports``: of the nodes in their order; empty: none has one."""
        self.topology = topology
        self.folder = folder
        self.engine = engine
        file = folder / TOPOLOGY_FILE
        try:
            if not file.exists():
                file.write_bytes(encode_topology(topology))
        except OSError as error:
            raise SettingsInvalid(f"{file}: {error.strerror}") from None
        self._parent, self._lifeline = os.pipe()
        serve = [sys.executable, "-m", "kvorum", "serve", "--topology", str(file)]
        self.processes: dict[str, NodeProcess] = {}
        for index, member in enumerate(topology.members):
            data = folder / member.name
            command = [*serve, "--name", member.name, "--engine", engine, *options]
            if engine != "memory":
                command += ["--data", str(data)]
            admin = Address(member.host, admin_ports[index]) if admin_ports else None
            http = Address(member.host, http_ports[index]) if http_ports else None
            if admin is not None:
                command += ["--admin", str(admin)]
            if http is not None:
                command += ["--http", str(http)]
            self.processes[member.name] = NodeProcess(
                member, command, data, self._parent, admin, http
            )

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.processes.values()]

    def start(self) -> None:
        for node in self.processes.values():
            node.start()

    def wait_until_ready(
        self,
        timeout_seconds: float = START_TIMEOUT_SECONDS,
        while_waiting: Callable[[], None] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        """Return when every node that runs answers and is connected to all others that run.

        With ``whole``, when each has also caught up with all others, and counts for r.
        """
        deadline = time.monotonic() + timeout_seconds
        expected = [node for node in self.processes.values() if node.wanted]
        while True:
            for node in expected:
                node.check()
            problem = self._problem_of(expected, whole)
            if not problem:
                return
            if time.monotonic() > deadline:
                said = "".join(node.said() for node in expected)
                raise NodeFailed(f"the cluster is not ready in time: {problem}\n{said}", 0)
            if while_waiting is not None:
                while_waiting()
            time.sleep(PAUSE_SECONDS)

    def _problem_of(self, expected: list[NodeProcess], whole: bool) -> str:
        """What is not ready yet, empty if all is."""
        for node in expected:
            if not _listens(node.member):
                return f"node {node.name} does not listen on {node.address}"
        ids = {node.member.id for node in expected}
        try:
            with Client([node.address for node in expected], timeout_seconds=3.0) as client:
                for node in expected:
                    status = client.status(node.name)
                    if status.partitions_not_ready:
                        return f"node {node.name} has yet to learn where its partitions stand"
                    if whole and status.partitions_behind:
                        return f"node {node.name} has yet to catch up"
                    for peer in status.peers:
                        if peer.member in ids and not peer.connected:
                            return f"node {node.name} is not connected to {peer.name}"
        except KvorumError as error:
            return str(error)
        return ""

    def stop(self) -> None:
        """Stop every node cleanly, all at the same time."""
        for node in self.processes.values():
            node.ask_to_stop()
        for node in self.processes.values():
            node.wait()

    def close(self) -> None:
        if self._parent < 0:
            return
        try:
            self.stop()
        finally:
            for node in self.processes.values():
                node.kill()
            os.close(self._lifeline)
            os.close(self._parent)
            self._parent = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            for node in self.processes.values():
                node.kill()  # Whoever interrupts does not want to wait for a clean stop.
        self.close()


def _listens(member: Member) -> bool:
    try:
        socket.create_connection((member.host, member.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def port_problem(name: str, host: str, port: int) -> str:
    """Why node ``name`` could not listen on an address now; empty if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        # As the nodes do: a port whose last connections only linger is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            return f"port {port} of {host}, for node {name}: {error.strerror}"
    return ""


def free_ports(count: int) -> list[int]:
    """Ports that the kernel picks, all different."""
    trials = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for trial in trials:
            trial.bind(("127.0.0.1", 0))
        return [int(trial.getsockname()[1]) for trial in trials]
    finally:
        for trial in trials:
            trial.close()
