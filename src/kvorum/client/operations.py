"""What takes several requests: a read-modify-write, and many requests in a window.

An operation says which requests to make next and takes note of what became of them; the
shells wait. So it is written once for both.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

from kvorum.client.requests import Get, Put, Request, make_get, make_put
from kvorum.client.store import Key, Merge, PutItem, Stored
from kvorum.errors import BadRequest, KvorumError, OutcomeUnknown
from kvorum.wire.requests import TOMBSTONE

WINDOW: Final = 256  # requests in flight at once
WINDOW_BYTES: Final = 8 << 20  # and the keys and values in them

T = TypeVar("T")


class Update:
    """Get, merge, put; and where the put's outcome stays in doubt, find out or do it again.

    The shell runs ``request`` until it is done and calls ``advance``, again and again until
    that says False. The put is held: it may be sent to any owner and asked for again under its
    put id, which is one write wherever that id is met.
    """

    def __init__(
        self, table: str, key: Key, merge: Merge, sort_key: Key, ttl_seconds: float | None,
        r: int | None, w: int | None, durability: str | None, sloppy: bool | None,
        content_type: str, attempts: int,
    ) -> None:  # fmt: skip
        if attempts < 1:
            raise BadRequest(f"attempts={attempts}: must be at least 1")
        self._get = (table, key, sort_key, r, sloppy)
        self._put = (sort_key, ttl_seconds, w, durability, sloppy, content_type, True)
        self._key = key
        self._table = table
        self._merge = merge
        self._attempts = attempts
        self.puts: list[Put] = []  # every one made; released when all is over
        self.again = False  # ``request`` is a put that was asked for before
        self.request: Get | Put = make_get(*self._get)

    def advance(self) -> bool:
        """Take note that ``request`` is done; False if that was the last one."""
        self.again = False
        request = self.request
        if isinstance(request, Get):
            if request.error is not None:
                return False
            self._go_on_from(request)
            return True
        if isinstance(request.error, OutcomeUnknown) and self._attempts:
            self.request = make_get(*self._get)
            return True
        return False

    def _go_on_from(self, request: Get) -> None:
        found = request.outcome()
        put = self.puts[-1] if self.puts else None
        if put is not None and any(one.put_id == put.put_id for one in found.siblings):
            # It is there; asked for again, it is answered when as many hold it as was wanted.
            self._attempts -= 1
            self.request = put
            self.again = True
            return
        self._attempts -= 1
        merged = self._merge(found.values)
        value = b"" if merged is None else merged
        made = make_put(self._table, self._key, value, found.context, *self._put)
        if merged is None:
            made.flags |= TOMBSTONE
        made.held = True
        self.puts.append(made)
        self.request = made

    def outcome(self) -> Stored:
        request = self.request
        if isinstance(request, Get):
            put = self.puts[-1] if self.puts else None
            if put is not None and request.error is not None:
                raise OutcomeUnknown(
                    f"and it could not be read again: {request.error}", put.put_id
                ) from request.error
            request.outcome()
            raise AssertionError("a get that succeeds is followed by a put")
        return request.outcome()


class Pipeline(Generic[T]):
    """Many requests, of which a bounded number is in flight at once.

    The shell submits what ``refill`` returns, waits until some are done, and begins again,
    until ``finished``. A request that could not even be made counts as one that was refused.
    """

    def __init__(self, requests: Iterable[Request[T] | KvorumError]) -> None:
        self._source: Iterator[Request[T] | KvorumError] = iter(requests)
        self._results: list[T | KvorumError | None] = []
        self._open: dict[int, Request[T]] = {}  # by index in the results
        self._exhausted = False

    def refill(self) -> list[Request[T]]:
        """The next requests to submit; empty while the window is full, and at the end."""
        size = self._take_results()
        made: list[Request[T]] = []
        while not self._exhausted and len(self._open) < WINDOW and size < WINDOW_BYTES:
            following = next(self._source, None)
            if following is None:
                self._exhausted = True
            elif isinstance(following, KvorumError):
                self._results.append(following)
            else:
                self._open[len(self._results)] = following
                self._results.append(None)
                made.append(following)
                size += following.size
        return made

    def _take_results(self) -> int:
        """Put by what is done, so that its bytes are let go; return the bytes still open."""
        size = 0
        for index, request in list(self._open.items()):
            if request.done:
                error = request.error
                self._results[index] = error if error is not None else request.outcome()
                del self._open[index]
            else:
                size += request.size
        return size

    @property
    def finished(self) -> bool:
        return self._exhausted and not self._open

    def open_requests(self) -> list[Request[T]]:
        return list(self._open.values())

    def results(self) -> list[T | KvorumError]:
        """Results and errors in the order of the requests."""
        return [result for result in self._results if result is not None]


def all_succeeded(results: list[T | KvorumError]) -> list[T]:
    """The results, if none is an error; else the first error is raised."""
    for result in results:
        if isinstance(result, KvorumError):
            raise result
    return [result for result in results if not isinstance(result, KvorumError)]


def gets_of(
    table: str, keys: Iterable[Key], r: int | None, sloppy: bool | None
) -> Iterator[Get | KvorumError]:
    for key in keys:
        try:
            yield make_get(table, key, b"", r, sloppy)
        except KvorumError as error:
            yield error


def puts_of(
    table: str, items: Iterable[PutItem], ttl_seconds: float | None, w: int | None,
    durability: str | None, sloppy: bool | None, content_type: str, retry: bool,
) -> Iterator[Put | KvorumError]:  # fmt: skip
    for item in items:
        key, value = item[0], item[1]
        context = item[2] if len(item) == 3 else None
        try:
            yield make_put(
                table, key, value, context, b"", ttl_seconds, w, durability, sloppy,
                content_type, retry,
            )  # fmt: skip
        except KvorumError as error:
            yield error
