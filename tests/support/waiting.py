"""Waiting for what other processes do."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 20.0


def wait_until(condition: Callable[[], object], what: str) -> float:
    """How many seconds it took until ``condition`` held; ``what`` is wrong if it never does."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + PATIENCE_SECONDS, what
        time.sleep(0.05)
    return time.monotonic() - begun
