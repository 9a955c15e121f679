"""Requests of the administration port take turns with the rest of the loop."""

import asyncio
from collections import Counter
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from kvorum.admin.turnstile import Turnstile

REQUESTS = 20


def test_one_request_begins_in_a_turn_in_the_order_of_arrival() -> None:
    turns = 0
    begun: list[tuple[int, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append((scope["number"], turns))

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(begun) < REQUESTS:
            asyncio.get_running_loop().call_soon(turn)

    async def scene() -> None:
        asyncio.get_running_loop().call_soon(turn)
        await _all_at_once(Turnstile(app))

    asyncio.run(scene())
    assert [number for number, _ in begun] == list(range(REQUESTS))
    assert max(Counter(at for _, at in begun).values()) == 1


def test_one_that_waits_for_others_keeps_nobody() -> None:
    answered: list[int] = []
    others = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["number"]:
            await others.wait()
        answered.append(scope["number"])
        if len(answered) == REQUESTS - 1:
            others.set()

    async def scene() -> None:
        async with asyncio.timeout(5):
            await _all_at_once(Turnstile(app))

    asyncio.run(scene())
    assert answered == [*range(1, REQUESTS), 0]


async def _all_at_once(turnstile: Turnstile) -> None:
    unused = cast(Any, None)
    await asyncio.gather(
        *(turnstile({"number": number}, unused, unused) for number in range(REQUESTS))
    )
