"""Ports for what must have several in a row, as ``kvorum up`` has."""

import os
import socket
from itertools import count
from pathlib import Path

_turn = count()


def free_row(length: int) -> int:
    """The first of so many free ports in a row, below those that the kernel lends by itself."""
    end = _lent_from()
    # Test processes that run at the same time begin at different places.
    start = 10_240 + (os.getpid() * 64 + next(_turn) * 8) % (end - 11_264)
    candidates: list[int] = [*range(start, end - length, 8), *range(10_240, start, 8)]
    for first in candidates:
        if all(_is_free(first + offset) for offset in range(length)):
            return first
    raise AssertionError("no free ports")


def _lent_from() -> int:
    """Where the ports begin that the kernel takes for outgoing connections."""
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(setting.read_text().split()[0]) if setting.exists() else 0
    return first if first > 16_384 else 32_768


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
