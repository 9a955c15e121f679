"""What a test may not leave behind: threads, open files and sockets, tasks, child processes.

A leak in one test makes another one flaky, hours later and elsewhere; so the test that leaves
something is the one that fails. What fixtures of a wider scope hold open existed before the test
began and does not count.
"""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS = 2.0
OPEN_FILES = "/proc/self/fd"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was there before a test: descriptors with their targets, threads, child processes."""

    descriptors: dict[str, str]
    threads: frozenset[int]
    children: frozenset[str]


def snapshot() -> Snapshot:
    return Snapshot(
        descriptors=_descriptors(),
        threads=frozenset(thread.ident or 0 for thread in threading.enumerate()),
        children=frozenset(_children()),
    )


def leaks_since(before: Snapshot) -> list[str]:
    """What is there now and was not ``before``, after a moment for threads that are ending."""
    found = _compare(before)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        found = _compare(before)
    return found


def _compare(before: Snapshot) -> list[str]:
    found = [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread.ident not in before.threads
    ]
    found += [f"child process {child}" for child in _children() if child not in before.children]
    found += [f"task {task!r}" for task in _pending_tasks()]
    found += [
        f"open file {target}"
        for number, target in _descriptors().items()
        if before.descriptors.get(number) != target
    ]
    return found


def _descriptors() -> dict[str, str]:
    """What each open descriptor stands for; numbers alone are reused too soon to tell."""
    targets: dict[str, str] = {}
    for number in os.listdir(OPEN_FILES) if os.path.isdir(OPEN_FILES) else ():
        try:
            targets[number] = os.readlink(f"{OPEN_FILES}/{number}")
        except OSError:
            continue  # It was the one that listed the folder.
    return targets


def _children() -> list[str]:
    """Process ids of the children of every thread, as the kernel lists them."""
    children: list[str] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            children += listing.read_text().split()
        except OSError:
            continue  # The thread ended while we looked.
    return children


def _pending_tasks() -> list[object]:
    """Tasks that are not done, whatever loop they belong to."""
    # Python 3.12 renamed the register; there is no public way to ask over all loops.
    name = "_scheduled_tasks" if hasattr(asyncio.tasks, "_scheduled_tasks") else "_all_tasks"
    register: Iterable[asyncio.Task[object]] = getattr(asyncio.tasks, name, ())
    return [task for task in list(register) if not task.done()]
