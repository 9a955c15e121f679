"""What the administration port answers: health, metrics, JSON for people's tools, and the page."""

import base64
import binascii
import hashlib
import re
from importlib.resources import files
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kvorum.admin.cluster import Cluster
from kvorum.admin.documents import (
    context_from_text,
    found_document,
    stored_document,
    table_document,
)
from kvorum.admin.explanation import explain_document, judge, merged_of
from kvorum.admin.guard import Guard
from kvorum.admin.metrics import make_registry
from kvorum.admin.openapi import encode_openapi
from kvorum.admin.overview import (
    about_document,
    event_document,
    overview_document,
    topology_document,
)
from kvorum.admin.problems import problem, problem_of
from kvorum.admin.queries import number_of, query_of
from kvorum.admin.repairs import repairs_document
from kvorum.admin.status import status_document
from kvorum.admin.turnstile import Turnstile
from kvorum.errors import BadRequest, KvorumError, TooLarge
from kvorum.model.tables import DEFAULT_TABLE
from kvorum.server.running import RunningNode

JSON: Final = "application/json"
ENCODINGS: Final = ("text", "hex", "base64")
SHOWN_BYTES_MAX: Final = 256 << 10  # of one value; the page is no way to fetch files
BODY_BYTES_MAX: Final = 512 << 10  # of a put: what may be shown, in base64; nor to bring them


class PutWish(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /api/key``: what to write, over what its writer has seen."""

    table: str
    key: str
    context: str
    value: str
    sort_key: str = ""
    key_encoding: str = "text"
    value_encoding: str = "text"
    content_type: str = ""


_wish_decoder: Final = msgspec.json.Decoder(PutWish)


def make_service(node: RunningNode, cluster: Cluster, names: list[str]) -> ASGIApp:
    """The whole port as one ASGI application. ``names``: what this node goes by, see ``Guard``."""
    page = files("kvorum.admin").joinpath("page.html").read_bytes()
    service = Service(node, cluster, page)
    app = Starlette(
        routes=service.routes(),
        exception_handlers={
            KvorumError: lambda _, error: problem_of(error),
            HTTPException: _on_http_error,
            ClientDisconnect: lambda *_: Response(status_code=499),
            Exception: _on_error,
        },
    )
    app.router.redirect_slashes = False  # A path is that path, or none.
    return Turnstile(Guard(app, names, policy_of(page)))


def policy_of(page: bytes) -> str:
    """A content security policy: the page's own script and style, answers of this port, no more."""
    hashes = {
        tag: " ".join(f"'sha256-{_sha256(text)}'" for text in _contents(page, tag))
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _contents(page: bytes, tag: str) -> list[bytes]:
    return re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>".encode(), page, re.DOTALL)


def _sha256(text: bytes) -> str:
    return base64.b64encode(hashlib.sha256(text).digest()).decode()


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "there is nothing under this path", 405: "this path does not take that method"}
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "failed")
    answer = problem(error.status_code, code, texts.get(error.status_code, error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _on_error(request: Request, error: Exception) -> Response:
    structlog.get_logger("kvorum").error(
        "admin_failed", path=request.url.path, error=repr(error), exc_info=error
    )
    return problem(500, "failed", "this is a fault in kvorum; the node's log says more")


class Service:
    """Answers requests from the node's state, or by way of the cluster's clients."""

    def __init__(self, node: RunningNode, cluster: Cluster, page: bytes) -> None:
        self._node = node
        self._cluster = cluster
        self._page = page
        self._registry = make_registry(node)

    def routes(self) -> list[Route]:
        gets = {
            "/": self.page,
            "/health": self.health,
            "/health/live": self.live,
            "/health/ready": self.ready,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
            "/api/about": self.about,
            "/api/status": self.status,
            "/api/overview": self.overview,
            "/api/repairs": self.repairs,
            "/api/topology": self.topology,
            "/api/tables": self.tables,
            "/api/events": self.events,
            "/api/explain": self.explain,
        }
        routes = [Route(path, answer, methods=["GET"]) for path, answer in gets.items()]
        # One route, so that a refused method is told of both.
        return [*routes, Route("/api/key", self.key, methods=["GET", "POST"])]

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    # Health.

    async def live(self, request: Request) -> Response:
        """Whoever gets this answer knows that the node's loop turns."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        problem_text = self._why_not_ready()
        document = {"ready": not problem_text, "reason": problem_text}
        return _json(document, 503 if problem_text else 200)

    async def health(self, request: Request) -> Response:
        problem_text = self._why_not_ready()
        document = {
            "live": True,
            "ready": not problem_text,
            "reason": problem_text,
            "node": self._node.member.name,
        }
        return _json(document, 503 if problem_text else 200)

    def _why_not_ready(self) -> str:
        """Why clients had better ask another node; empty if there is no reason."""
        if self._node.stopping:
            return "the node is stopping"
        status = self._node.status()
        if not status.writable:
            return f"the node takes no writes: {status.unwritable_reason}"
        if status.peers and not any(peer.connected for peer in status.peers):
            return "the node is connected to no other node"
        return ""

    async def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})

    async def openapi(self, request: Request) -> Response:
        return Response(encode_openapi(self._node.turns.node.software), media_type=JSON)

    # What the node itself knows.

    async def about(self, request: Request) -> Response:
        query_of(request)
        node = self._node.turns.node
        return _json(about_document(node.name, node.software))

    async def events(self, request: Request) -> Response:
        after = number_of(query_of(request, "after"), "after", 0)
        found = [event for event in self._node.turns.env.events if event.number > after]
        return _json([event_document(event) for event in found])

    # What the cluster says.

    async def status(self, request: Request) -> Response:
        query_of(request)
        return _json(status_document(*await self._cluster.statuses()))

    async def overview(self, request: Request) -> Response:
        query_of(request)
        topology, statuses = await self._cluster.statuses()
        own, wall = self._node.status(), self._node.turns.env.wall
        return _json(overview_document(topology, statuses, own, wall))

    async def repairs(self, request: Request) -> Response:
        query_of(request)
        _, statuses = await self._cluster.statuses()
        return _json(repairs_document(statuses, self._node.turns.env.wall))

    async def topology(self, request: Request) -> Response:
        query_of(request)
        return _json(topology_document(self._node.turns.node.ring.topology))

    async def tables(self, request: Request) -> Response:
        query_of(request)
        client = await self._cluster.client()
        return _json([table_document(table, client.topology) for table in await client.tables()])

    async def explain(self, request: Request) -> Response:
        wanted = _wanted(request)
        client = await self._cluster.client()
        answer = await client.explain(wanted.table, wanted.key, sort_key=wanted.sort_key)
        merged = merged_of([*answer.replicas, *answer.fallbacks])
        replicas = [judge(client.topology, replica, merged) for replica in answer.replicas]
        document = explain_document(wanted.shown, client.topology, answer, replicas, merged)
        return _json(document)

    async def key(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._put_key(request)
        wanted = _wanted(request)
        client = await self._cluster.client()
        found = await client.table(wanted.table).get(wanted.key, sort_key=wanted.sort_key)
        longest = max(map(len, found.values), default=0)
        if longest > SHOWN_BYTES_MAX:
            raise TooLarge(
                f"a value has {longest} bytes, and at most {SHOWN_BYTES_MAX} are shown here; "
                "use kvorum get"
            )
        return _json(found_document(wanted.shown, found, client.topology))

    async def _put_key(self, request: Request) -> Response:
        query_of(request)
        if request.headers.get("content-type", "").partition(";")[0].strip() != JSON:
            raise BadRequest(f"the body must be {JSON}")
        body = await _body(request)
        try:
            wish = _wish_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not what was expected: {error}") from None
        client = await self._cluster.client()
        stored = await client.table(wish.table).put(
            decoded(wish.key, wish.key_encoding, "key"),
            decoded(wish.value, wish.value_encoding, "value"),
            context=context_from_text(wish.context) if wish.context else None,
            sort_key=decoded(wish.sort_key, wish.key_encoding, "sort_key"),
            content_type=wish.content_type,
        )
        return _json(stored_document(wish.key, stored, client.topology))


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status_code=status, media_type=JSON)


class _Wanted(NamedTuple):
    """The key that a query names."""

    table: str
    key: bytes
    sort_key: bytes
    shown: str  # the key as it was given


def _wanted(request: Request) -> _Wanted:
    query = query_of(request, "table", "key", "sort_key", "encoding")
    if "key" not in query:
        raise BadRequest("the query must name a key: ?table=default&key=alice")
    encoding = query.get("encoding", "text")
    return _Wanted(
        query.get("table", DEFAULT_TABLE),
        decoded(query["key"], encoding, "key"),
        decoded(query.get("sort_key", ""), encoding, "sort_key"),
        query["key"],
    )


def decoded(text: str, encoding: str, name: str) -> bytes:
    """Bytes out of what stands for them in JSON or in a query."""
    if encoding not in ENCODINGS:
        raise BadRequest(f"an encoding is one of {', '.join(ENCODINGS)}, not {encoding!r}")
    try:
        if encoding == "hex":
            return bytes.fromhex(text)
        if encoding == "base64":
            return base64.b64decode(text.encode(), validate=True)
        return text.encode()
    except (ValueError, binascii.Error):
        raise BadRequest(f"{name} is not {encoding}") from None


async def _body(request: Request) -> bytes:
    """A request's body, if it is not longer than it may be; what is longer is not gathered."""
    parts: list[bytes] = []
    size = 0
    announced = int(request.headers.get("content-length", "0"))  # the parser has looked at it
    if announced <= BODY_BYTES_MAX:
        async for part in request.stream():
            size += len(part)
            if size > BODY_BYTES_MAX:
                break
            parts.append(part)
    if max(announced, size) > BODY_BYTES_MAX:
        raise TooLarge(f"the body has more than {BODY_BYTES_MAX} bytes; use kvorum put")
    return b"".join(parts)
