"""Which seeds a commit tries: each commit other ones, and the same again when asked again."""

import subprocess
from functools import cache
from pathlib import Path

SEED_WITHOUT_GIT = 1_000_000


@cache
def first_seed() -> int:
    """The first of the seeds that belong to the checked-out commit; a fixed one outside git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return SEED_WITHOUT_GIT
    # Thirty-two bits leave room to count upwards and are short enough to type.
    return int(done.stdout[:8], 16)
