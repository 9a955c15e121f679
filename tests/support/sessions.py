"""Documents whose terminal sessions and Python blocks are run as they stand.

In a ``console`` block, lines that begin with ``$`` are typed into one shell after the other, and
what follows must be their output, as doctest would have it: runs of spaces are alike, ``...``
stands for anything, and so does what comes after ``ok:``, since any two of the owners may be
first. ``kvorum up`` runs on in the background with ports of its own until the document
ends, and so does what ends with ``&``; what is typed may name the usual ports for HTTP, 7481 and
so on, and for administration, 7491 and so on, and means those of the cluster then. A ``python``
block is a program; the lines of a comment that begins with ``# prints`` are what it prints.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
USUAL = "127.0.0.1:7401"
USUAL_PORTS = re.compile(r"\b(748|749)([1-9])\b")
PATIENCE_SECONDS = 45.0  # a little more than a cluster may take to start


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that is typed, and what is to come of it."""

    text: str
    expected: str


def blocks(document: str) -> Iterator[tuple[str, str]]:
    """(language, text) of every block that is to be run."""
    for match in FENCE.finditer(document):
        yield match[1], match[2]


def commands(block: str) -> Iterator[Command]:
    for typed in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        text, _, expected = typed.partition("\n")
        while text.endswith("\\"):
            more, _, expected = expected.partition("\n")
            text = text[:-1] + more.lstrip("> ")
        yield Command(text, expected)


def matches(expected: str, said: str) -> bool:
    """Whether a command said what the document says it does."""
    pattern = re.escape(_normal(expected)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, _normal(said), re.DOTALL) is not None


def _normal(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.strip().splitlines()]
    return "\n".join(re.sub(r"^ok: .*", "ok:", line) for line in lines)


class Shell:
    """Runs what a document says, in a folder, against a cluster that it starts itself.

    Its ports are in one row: those of the nodes, then those for administration and for HTTP.
    """

    def __init__(self, folder: Path, port: int, nodes: int = 3) -> None:
        self.folder = folder
        self.port = port
        self.admin_port = port + nodes
        self.http_port = port + 2 * nodes
        self.running: list[subprocess.Popen[bytes]] = []
        tools = Path(sys.executable).parent
        path = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
        self.environment = os.environ | {"PATH": path, "KVORUM_NODES": f"127.0.0.1:{port}"}

    def run(self, document: str) -> int:
        """Run every block; how many commands and programs there were."""
        count = 0
        for language, block in blocks(document):
            if language == "python":
                self.program(block)
                count += 1
                continue
            for command in commands(block):
                self.enter(command)
                count += 1
        return count

    def enter(self, command: Command) -> None:
        if command.text.startswith("kvorum up"):
            ports = f"--port {self.port} --admin-port {self.admin_port}"
            ports += f" --http-port {self.http_port}"
            self.start(f"exec {command.text} {ports}", "Ready.")
        elif command.text.endswith("&"):
            self.start(f"exec {command.text[:-1]}", "listening")
        else:
            self.compare(command)

    def start(self, text: str, sign: str) -> None:
        """Start something that runs on, and wait until it says that it is there."""
        log = self.folder / f"background{len(self.running)}.log"
        with log.open("wb") as file:
            self.running.append(
                subprocess.Popen(
                    ["bash", "-c", text],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sign not in log.read_text():
            assert self.running[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{text}: never said {sign!r}: {log.read_text()}"
            time.sleep(0.05)

    def compare(self, command: Command) -> None:
        # A cluster takes a moment to notice what happened to it; a person would look again.
        deadline = time.monotonic() + PATIENCE_SECONDS
        patient = command.text.startswith(("kvorum status", "kvorum explain"))
        while True:
            said = self.output(["bash", "-c", self._with_ports(command.text)])
            if matches(self._with_ports(command.expected), said):
                return
            if not patient or time.monotonic() > deadline:
                told = f"--- the document says\n{command.expected}--- it said\n{said}"
                raise AssertionError(f"$ {command.text}\n{told}")
            time.sleep(0.2)

    def _with_ports(self, text: str) -> str:
        firsts = {"748": self.http_port, "749": self.admin_port}
        return USUAL_PORTS.sub(lambda usual: str(firsts[usual[1]] + int(usual[2]) - 1), text)

    def program(self, text: str) -> None:
        program = text.replace(USUAL, f"127.0.0.1:{self.port}")
        said = self.output([sys.executable, "-c", program])
        expected = "\n".join(re.findall(r"# prints (.*)", text))
        assert matches(expected, said), f"{text}\n--- it said\n{said}"

    def output(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        return done.stdout.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait()
