"""Both clients behind one face, so that one suite can be run with each."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kvorum
from kvorum.client.asynchronous import AsyncClient

CLIENTS = ("blocking", "asyncio")


class Awaited:
    """An asyncio client or table whose coroutines are run to their end at every call."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if inspect.iscoroutinefunction(found):
            return self._running(found)
        if name == "table":
            return lambda table: Awaited(found(table), self._runner)
        return found

    def _running(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: self._runner.run(method(*given, **named))


@contextmanager
def connected(
    kind: str, addresses: str | list[str], timeout_seconds: float = 10.0
) -> Iterator[Any]:
    """A client of that kind that can be called like the blocking one."""
    if kind == "blocking":
        with kvorum.connect(addresses, timeout_seconds=timeout_seconds) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        asynchronous: AsyncClient = kvorum.aconnect(addresses, timeout_seconds=timeout_seconds)
        runner.run(asynchronous.connect())
        try:
            yield Awaited(asynchronous, runner)
        finally:
            runner.run(asynchronous.close())
