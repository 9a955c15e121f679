"""Which connection of the administration port gives way when there are too many."""

import asyncio
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from kvorum.admin import door
from kvorum.admin.door import DAWDLES_SECONDS, AdminConnection

MAX = 5
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Ended(asyncio.Transport):
    """A transport that only notes whether it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


class Visitors:
    """Connections of one door, made at will."""

    def __init__(self) -> None:
        self.state = ServerState()
        self.config = uvicorn.Config(never_answers, log_config=None, ws="none", lifespan="off")
        self.config.load()

    def come(self) -> tuple[AdminConnection, Ended]:
        connection = AdminConnection(self.config, self.state, {})
        transport = Ended()
        connection.connection_made(transport)
        return connection, transport

    def crowd(self, count: int) -> list[Ended]:
        """So many that have asked, and do not read what comes."""
        crowd = []
        for _ in range(count):
            connection, transport = self.come()
            connection.data_received(REQUEST)
            connection.pause_writing()
            crowd.append(transport)
        return crowd

    async def leave(self) -> None:
        for connection in list(self.state.connections):
            cast(AdminConnection, connection).connection_lost(None)
        tasks = list(self.state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def never_answers(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "CONNECTIONS_MAX", MAX)


def ended(crowd: list[Ended]) -> int:
    return sum(transport.ended for transport in crowd)


def test_who_has_just_come_does_not_give_way_to_who_comes_next() -> None:
    """Its request is on its way; those that do not take their answers are the ones to go."""

    async def scene() -> None:
        visitors = Visitors()
        crowd = visitors.crowd(MAX)
        _, first = visitors.come()
        _, second = visitors.come()
        assert not first.ended
        assert not second.ended
        assert ended(crowd) == 2
        await visitors.leave()

    asyncio.run(scene())


def test_who_dawdles_gives_way_before_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        visitors = Visitors()
        _, dawdler = visitors.come()
        crowd = visitors.crowd(MAX - 1)
        began = loop.time()
        monkeypatch.setattr(loop, "time", lambda: began + DAWDLES_SECONDS + 1)
        visitors.come()
        assert dawdler.ended
        assert ended(crowd) == 0
        await visitors.leave()

    asyncio.run(scene())


def test_where_all_have_just_come_the_oldest_gives_way() -> None:
    async def scene() -> None:
        visitors = Visitors()
        everyone = [visitors.come()[1] for _ in range(MAX + 1)]
        assert everyone[0].ended
        assert ended(everyone) == 1
        await visitors.leave()

    asyncio.run(scene())
