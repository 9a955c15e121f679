"""Who may talk to the administration port: a person's own browser, and programs, but no website.

The port has no passwords yet, so what protects it from a page elsewhere that the operator's
browser shows is that browsers say whence a request comes. A request is refused if its ``Host``
is a name that this node does not go by (a foreign domain can be made to lead here), if its
``Origin`` is another one than the port's own, or if the browser says that another site made it.
Addresses in figures always pass as ``Host``: no domain can look like one.

The answers forbid a browser to load anything from elsewhere, or to show the page in a frame.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvorum.admin.problems import problem

FOREIGN_SITES: Final = ("cross-site", "same-site")  # another port of this host is foreign too
MISDIRECTED: Final = 421
FORBIDDEN: Final = 403


class Guard:
    """Lets requests through to ``app``, or says why not."""

    def __init__(self, app: ASGIApp, names: Iterable[str], policy: str) -> None:
        self._app = app
        self._names = known_names(names)
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # Nothing else is served; the server drops it then.

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        headers = Headers(scope=scope)
        status, text = self._judge(scope["method"], scope["path"], headers)
        answer = problem(status, "forbidden", text) if status else self._app
        await answer(scope, receive, send_guarded)

    def _judge(self, method: str, path: str, headers: Headers) -> tuple[int, str]:
        """(status, why) if the request is refused; (0, "") if not."""
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self.knows(host):
            return MISDIRECTED, f"this node does not go by the name {host!r}"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (
            f"http://{host.lower()}",
            f"https://{host.lower()}",
        ):
            return FORBIDDEN, f"pages of {origin} may not use this port"
        if headers.get("sec-fetch-site") in FOREIGN_SITES and not (
            method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"
        ):
            return FORBIDDEN, "pages of other sites may not use this port"
        return 0, ""

    def knows(self, host: str) -> bool:
        """Whether this node goes by the host of a ``Host`` header, on whatever port."""
        name = host_of(host)
        return bool(name) and (name in self._names or _is_address(name))


def known_names(names: Iterable[str]) -> frozenset[str]:
    """What this node goes by: what it was told, and what the machine is called."""
    machine = socket.gethostname()
    return frozenset(name.lower().rstrip(".") for name in ("localhost", machine, *names) if name)


def host_of(header: str) -> str:
    """The host in a ``Host`` header; empty if it is none."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_address(name):
            return ""
        port = rest[1:]
    else:
        name, _, port = text.partition(":")
    return name.rstrip(".") if not port or port.isdecimal() else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
