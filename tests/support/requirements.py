"""What a test may need that a machine may lack, found out by trying and never by guessing.

``make test`` promises to run anywhere without root and without system packages, so a test that
needs more says so with ``@requires("namespaces")`` (or calls ``require`` in a fixture). Where the
thing is missing the test is skipped and listed at the end with the reason; with
``KVORUM_REQUIRE=all``, which is how the continuous check runs, it fails instead. This is the only
way to skip a test. Whatever is named here must be something that ``make system-packages`` brings.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

REASON_PREFIX = "requires "

# A check tries the real thing and says what is missing, or returns "" if nothing is.
Check = Callable[[], str]


def requires(*names: str) -> pytest.MarkDecorator:
    """Mark a test, a class or (as ``pytestmark``) a module as needing all of ``names``."""
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"no requirement is called {name!r}; known: {', '.join(CHECKS)}")
    return pytest.mark.requires(*names)


def require(name: str) -> None:
    """Skip the running test, or fail it where everything is required, if ``name`` is lacking."""
    reason = missing(name)
    if not reason:
        return
    text = f"{REASON_PREFIX}{name}: {reason}"
    if everything_is_required():
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


@cache
def missing(name: str) -> str:
    """Why this machine cannot offer ``name``; empty if it can. Tried once per process."""
    return CHECKS[name]()


def everything_is_required() -> bool:
    return os.environ.get("KVORUM_REQUIRE") == "all"


def _try(*command: str) -> str:
    """Run a command that proves something; what it said if it failed."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    complaint = done.stderr.strip().splitlines()
    return complaint[-1] if complaint else f"{command[0]} ended with code {done.returncode}"


def _check_root() -> str:
    return "" if os.geteuid() == 0 else "the tests do not run as root"


def _check_namespaces() -> str:
    return _try("unshare", "--net", "ip", "link", "set", "lo", "up")


def _check_packet_filter() -> str:
    return _try("nft", "--version") or _try("iptables", "--version") or _try("nsenter", "--version")


def _check_tmpfs_mounts() -> str:
    with TemporaryDirectory() as folder:
        return _try("mount", "-t", "tmpfs", "-o", "size=1m", "none", folder) or _try(
            "umount", folder
        )


def _check_loop_mounts() -> str:
    with TemporaryDirectory() as folder:
        image = Path(folder, "image")
        mounted = Path(folder, "mounted")
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(4 << 20)
        return (
            _try("mkfs.ext4", "-q", str(image))
            or _try("mount", "-o", "loop", str(image), str(mounted))
            or _try("umount", str(mounted))
        )


def _check_compiler() -> str:
    return _try("gcc", "--version")


def _check_wrk() -> str:
    # It has no option that does nothing and succeeds.
    return "" if shutil.which("wrk") else "wrk is not installed"


def _check_chromium() -> str:
    return _try("chromium", "--version") or _try("chromedriver", "--version")


def _check_promtool() -> str:
    return _try("promtool", "--version")


def _check_systemd_analyze() -> str:
    return _try("systemd-analyze", "--version")


CHECKS: dict[str, Check] = {
    "root": _check_root,
    "namespaces": _check_namespaces,
    "packet-filter": _check_packet_filter,
    "tmpfs-mounts": _check_tmpfs_mounts,
    "loop-mounts": _check_loop_mounts,
    "compiler": _check_compiler,
    "wrk": _check_wrk,
    "chromium": _check_chromium,
    "promtool": _check_promtool,
    "systemd-analyze": _check_systemd_analyze,
}
