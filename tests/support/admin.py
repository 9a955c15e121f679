"""The administration port without sockets: an application that is asked, a node that only stands.

node = standing_node(OneNode())
answer = ask(make_service(node, cluster, []), "/health")
"""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from starlette.types import ASGIApp, Message

from kvorum.counters import OperationCounts
from kvorum.server.environment import Event
from kvorum.server.running import RunningNode
from tests.support.recording import OneNode


class Answer(NamedTuple):
    """What the port answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def standing_node(
    one: OneNode, *, path: str = "", stopping: bool = False, events: tuple[Event, ...] = ()
) -> RunningNode:
    """A node as the port sees it, with nothing around it that moves."""
    member = one.ring.member(one.me)
    assert member is not None
    env = SimpleNamespace(events=events, wall=one.env.wall)
    turns = SimpleNamespace(node=one.node, lags=OperationCounts().durations, env=env)
    listener = SimpleNamespace(client_count=2, open={1: None, 2: None, 3: None}, closing=stopping)
    opened = SimpleNamespace(store=one.store, engine=one.engine, path=path)
    return RunningNode(member, one.config, cast(Any, turns), cast(Any, listener), cast(Any, opened))


def ask(
    app: ASGIApp, target: str, *, method: str = "GET", headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Answer:  # fmt: skip
    """One request; ``headers`` are over a ``Host`` of ``127.0.0.1:7490``, unless it is empty."""
    path, _, query = target.partition("?")
    given = {"host": "127.0.0.1:7490", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 7490),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    return Answer(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
