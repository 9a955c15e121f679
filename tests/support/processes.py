"""What the kernel says of a process, for tests that hold a node to a bound."""

from pathlib import Path

PAGE = 1024


def resident_bytes(pid: int) -> int:
    """Memory that the process has in use now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * PAGE
    raise AssertionError(f"process {pid} has no memory: it has ended")
