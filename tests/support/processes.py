"""What the kernel says of a process, for tests that hold a node to a bound."""

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Memory that the process has in use now."""
    return _field(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most memory that the process ever had in use."""
    return _field(pid, "VmHWM")


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory: it has ended")
