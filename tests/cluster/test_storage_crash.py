"""kill -9 in the middle of group commits: whatever was acknowledged is there afterwards."""

import subprocess
import sys
from pathlib import Path
from random import Random

from tests.support.storage_child import batch, open_there

ROUNDS = 6


def run_and_kill(folder: Path, first: int, lines_wanted: int) -> tuple[int, int]:
    """Return the last batch acknowledged at level os and at level disk."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.storage_child", str(folder), str(first)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    told = {"os": first - 1, "disk": first - 1}
    lines = 0
    for line in child.stdout:
        level, number = line.decode().split()
        assert int(number) == told[level] + 1, "acknowledged in order"
        told[level] = int(number)
        lines += 1
        if lines == lines_wanted:
            child.kill()
    child.stdout.close()
    child.wait()
    assert lines >= lines_wanted, "the child ended by itself"
    return told["os"], told["disk"]


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    random = Random(11)
    folder = tmp_path / "data"
    first = 0
    acknowledged: list[int] = []
    for _ in range(ROUNDS):
        on_os, on_disk = run_and_kill(folder, first, random.randint(50, 1500))
        assert on_os >= on_disk
        acknowledged += range(first, on_os + 1)
        files, engine, store = open_there(str(folder))
        assert not store.clean_start
        for number in acknowledged:
            for key, holding in batch(number).items():
                if not key.startswith(b"\x01shared"):
                    assert store.get(key) == holding, f"batch {number} of {on_os}"
        for key in batch(0):
            if key.startswith(b"\x01shared"):
                found = store.get(key)
                assert found is not None
                assert int(found[:8]) >= on_os, "never older than what was acknowledged last"
                assert found == batch(int(found[:8]))[key]
        assert store.buffer.quarantine_count == 0
        first = on_os + 100  # what was written but not acknowledged may be there as well
        store.close_abruptly()
        engine.close()
        files.close()
    assert len(acknowledged) > 100
