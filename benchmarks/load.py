"""The load generator as a child process that keeps every key's context from step to step."""

import json
import subprocess
from typing import Any, Final, NamedTuple

from benchmarks.clusters import HELLO, Cluster, pinned
from benchmarks.programs import program

TABLE_DURABILITY: Final = 255


class Step(NamedTuple):
    """One load: so many connections with so many requests in flight on each."""

    connections: int
    depth: int
    put_percent: int
    warm_seconds: float
    seconds: float

    def __str__(self) -> str:
        shape = f"{self.connections}x{self.depth}"
        return f"{shape} {self.put_percent} {self.warm_seconds} {self.seconds}"


class LoadFailed(RuntimeError):
    """The load generator ended, or saw what no correct cluster answers."""


class Load:
    """A load generator bound to one cluster, pinned to a core of its own."""

    def __init__(
        self, cluster: Cluster, core: int, keys: int, value_bytes: int, durability: int
    ) -> None:
        arguments = {
            "-p": ",".join(map(str, cluster.ports)),
            "-P": ",".join(map(str, cluster.pids)),
            "-H": HELLO.hex(),
            "-k": str(keys),
            "-v": str(value_bytes),
            "-D": str(durability),
        }
        options = [part for pair in arguments.items() for part in pair]
        with pinned(core):
            self._process = subprocess.Popen(
                [program("loadgen"), *options, "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def fill(self) -> dict[str, Any]:
        """Put every key, once through each node."""
        return self._run("fill")

    def run(self, step: Step) -> dict[str, Any]:
        return self._run(str(step))

    def _run(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise LoadFailed(f"the load generator ended at step {line!r}")
        result: dict[str, Any] = json.loads(answer)
        wrong = {name: result[name] for name in ("errors", "siblings") if result[name]}
        if wrong:
            raise LoadFailed(f"step {line!r} met {wrong}")
        return result
