"""The rules that guard the other tests: leaks are found, missing things are skipped or failed."""

import asyncio
import socket
import subprocess
import threading

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.support import leaks, requirements
from tests.support.seeds import first_seed


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_thread_left_running_is_a_leak() -> None:
    before = leaks.snapshot()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    thread.start()
    found = leaks.leaks_since(before)
    stop.set()
    thread.join()
    assert found == ["thread left-behind"]
    assert leaks.leaks_since(before) == []


@pytest.mark.usefixtures("impatient")
def test_a_socket_left_open_is_a_leak() -> None:
    before = leaks.snapshot()
    with socket.socket():
        found = leaks.leaks_since(before)
    assert len(found) == 1
    assert found[0].startswith("open file socket:")


@pytest.mark.usefixtures("impatient")
def test_a_child_process_left_running_is_a_leak() -> None:
    before = leaks.snapshot()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    found = leaks.leaks_since(before)
    child.communicate()
    assert f"child process {child.pid}" in found


@pytest.mark.usefixtures("impatient")
def test_a_task_left_pending_is_a_leak() -> None:
    async def forget() -> list[str]:
        task = asyncio.ensure_future(asyncio.Event().wait())
        await asyncio.sleep(0)
        found = leaks.leaks_since(leaks.snapshot())
        task.cancel()
        return found

    assert any("Event.wait" in leak for leak in asyncio.run(forget()))


def test_what_is_missing_skips_a_test_and_fails_it_where_all_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements, "missing", lambda name: "there is none")
    monkeypatch.delenv("KVORUM_REQUIRE", raising=False)
    with pytest.raises(Skipped, match="requires loop-mounts: there is none"):
        requirements.require("loop-mounts")
    monkeypatch.setenv("KVORUM_REQUIRE", "all")
    with pytest.raises(Failed, match="requires loop-mounts: there is none"):
        requirements.require("loop-mounts")


def test_an_unknown_requirement_is_refused() -> None:
    with pytest.raises(ValueError, match="no requirement is called 'moon'"):
        requirements.requires("moon")


@pytest.mark.parametrize("name", list(requirements.CHECKS))
def test_each_check_can_be_tried_and_cleans_up(name: str) -> None:
    assert isinstance(requirements.CHECKS[name](), str)


def test_a_commit_has_its_own_seeds_and_keeps_them() -> None:
    assert first_seed() == first_seed()
    assert 0 <= first_seed() < 1 << 32
