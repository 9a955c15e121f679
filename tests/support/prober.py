"""A client on a host of its own: goes on putting and getting, and tells how each one went.

``python -m tests.support.prober ADDRESSES THREADS`` works until its input ends, then prints one
JSON document. Each write has a key of its own; each get asks for an earlier one. Its report:

    {"operations": [[began, seconds, "put" | "get", error or ""], ...], "written": {key: value}}
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import kvorum

PAUSE_SECONDS = 0.005
TIMEOUT_SECONDS = 3.0


class Prober:
    """All threads' report."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._over = threading.Event()
        self.operations: list[tuple[float, float, str, str]] = []
        self.written: dict[str, str] = {}

    def probe(self, number: int) -> None:
        with kvorum.connect(self._addresses, timeout_seconds=TIMEOUT_SECONDS) as client:
            table = client.table("default")
            count = 0
            while not self._over.is_set():
                count += 1
                key = f"probe-{number}-{count}"
                if self._timed("put", partial(table.put, key, key.encode(), retry=True)):
                    self.written[key] = key
                self._timed("get", partial(table.get, f"probe-{number}-{count // 2 + 1}"))
                self._over.wait(PAUSE_SECONDS)

    def _timed(self, kind: str, work: Callable[[], object]) -> bool:
        began = time.time()
        start = time.monotonic()
        error = ""
        try:
            work()
        except kvorum.KvorumError as failure:
            error = f"{type(failure).__name__}: {failure}"
        self.operations.append((began, time.monotonic() - start, kind, error))
        return not error

    def run(self, threads: int) -> None:
        started = [threading.Thread(target=self.probe, args=(each,)) for each in range(threads)]
        for thread in started:
            thread.start()
        sys.stdin.read()
        self._over.set()
        for thread in started:
            thread.join()


def main() -> None:
    prober = Prober(sys.argv[1].split(","))
    prober.run(int(sys.argv[2]))
    json.dump({"operations": prober.operations, "written": prober.written}, sys.stdout)


if __name__ == "__main__":
    main()
