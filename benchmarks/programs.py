"""The C programs of ``limit/``: compiled when their source is newer than what is there."""

import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "limit"
BUILT: Final = SOURCES / "build"
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def program(name: str) -> Path:
    """The program made of ``limit/NAME.c``, compiled if need be."""
    source = SOURCES / f"{name}.c"
    built = BUILT / name
    newest = max(file.stat().st_mtime for file in (source, *SOURCES.glob("*.h")))
    if not built.exists() or built.stat().st_mtime < newest:
        BUILT.mkdir(exist_ok=True)
        # Compiled aside and moved, so that two runs at once never meet half a program.
        fresh = built.with_name(f"{name}.{Path('/proc/self').resolve().name}")
        subprocess.run(["gcc", *FLAGS, "-o", fresh, source], check=True)
        fresh.rename(built)
    return built
