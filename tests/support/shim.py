"""A node whose wall clock a test can move and whose syncs it can make fail (``shim.c``).

    shim = Shim(tmp_path)
    with shim.loaded():
        cluster.processes["a"].start()
    shim.move_clock(-3600)

Tests that use it need a compiler: mark them with ``requires("compiler")``.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

SOURCE = Path(__file__).with_name("shim.c")
_control = Struct("<qq")


class Shim:
    """The compiled library, and the file that rules it. One for each node that is to be ruled."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "shim.so"
        self._file = folder / "shim.control"
        self._offset = 0
        self._failing = False
        self._write()
        command = ["gcc", "-O1", "-fPIC", "-shared", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)

    def _write(self) -> None:
        mode = "r+b" if self._file.exists() else "w+b"
        with self._file.open(mode) as file:  # In place: the nodes have it mapped.
            file.write(_control.pack(self._offset, self._failing))

    def move_clock(self, seconds: float) -> None:
        """Let the node's wall clock be off by so much."""
        self._offset = round(seconds * 1_000_000)
        self._write()

    def fail_syncs(self, failing: bool = True) -> None:
        self._failing = failing
        self._write()

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Processes that are started in here are ruled by this."""
        ours = {"LD_PRELOAD": str(self._library), "KVORUM_TEST_SHIM": str(self._file)}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                del os.environ[name]
