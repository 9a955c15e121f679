"""Lets one request begin in a turn of the loop, and the data path have its turns between them.

However many requests of this port have arrived, each turn is lengthened by one of them only, and
they are begun in the order in which they came. What waits for other nodes keeps nobody else.
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send


class Turnstile:
    """In front of ``app``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turn:
            await asyncio.sleep(0)
        await self._app(scope, receive, send)
