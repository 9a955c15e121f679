"""Listing the keys of a table, page by page, in the order of the ring.

Each stretch of the ring is read from one of its owners, this node if it is one: a listing is what
single replicas hold, no quorum, and says so in the documentation. A page ends when it is full, or
when so much has been looked at that its caller should hear how far it is.

Scanning is background work, under the node's one budget for it.
"""

from collections import deque
from typing import Final

from kvorum.model.hashing import (
    SECOND_HASH_OFFSET,
    SORT_KEY_OFFSET,
    SPACE_HINTS,
    SPACE_RECORDS,
    TABLE_ID_OFFSET,
)
from kvorum.model.holding import partition_key_of, record_offset
from kvorum.model.record import holds_value
from kvorum.model.ring import Ring
from kvorum.model.tables import TableRegistry
from kvorum.protocol.background import BYTES_SHIFT, RECORD_READ, Background, Task
from kvorum.protocol.environment import ClientPort, Environment, first_number
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store
from kvorum.wire.codec import encode
from kvorum.wire.listing_messages import (
    KeyPair,
    KeysAnswer,
    KeysQuery,
    LocalKeys,
    LocalKeysAnswer,
)
from kvorum.wire.messages import ControlRefused
from kvorum.wire.requests import BAD_REQUEST, OVERLOADED, UNKNOWN_TABLE

PAGE_KEYS_MAX: Final = 1000
PAGE_BYTES_MAX: Final = 256 << 10  # of keys
EXAMINED_MAX: Final = 4096  # records looked at for one page of one owner
SLICE: Final = 64  # records read at a time, at the most
PATIENCE: Final = 3_000_000  # for an owner's answer
LISTINGS_MAX: Final = 64  # under way at a time, of clients and of other members


class _Scan:
    """A local scan of one range, for a page or for another member."""

    __slots__ = ("end", "examined", "keys", "limit", "prefix", "size", "start", "table_id", "to")

    def __init__(
        self, to: "_Page | tuple[int, int]", table_id: bytes, prefix: bytes, start: bytes,
        end: bytes, limit: int,
    ) -> None:  # fmt: skip
        self.to = to  # a page; or the member that asks, and its number
        self.table_id = table_id
        self.prefix = prefix
        self.start = start
        self.end = end
        self.limit = limit
        self.keys: list[KeyPair] = []
        self.size = 0
        self.examined = 0

    @property
    def done(self) -> bool:
        return (
            self.start >= self.end
            or len(self.keys) >= self.limit
            or self.size > PAGE_BYTES_MAX
            or self.examined >= EXAMINED_MAX
        )


class _Page(Timed):
    """One query of a client, until its page is full."""

    __slots__ = (
        "asked_at", "client", "end", "keys", "listing", "number", "query", "size", "start", "tried",
    )  # fmt: skip

    def __init__(self, listing: "Listing", client: ClientPort, query: KeysQuery) -> None:
        self.listing = listing
        self.client = client
        self.query = query
        self.keys: list[KeyPair] = []
        self.size = 0
        self.start = query.start or SPACE_RECORDS
        self.end = b""  # of the range that an owner has been asked for
        self.tried: dict[int, None] = {}  # owners that have been asked for this range
        self.number = 0  # under which another member was asked; 0: none is
        self.asked_at = 0

    def on_timer(self) -> None:
        self.listing.on_silence(self)


class Listing(Task):
    """All listings under way on this node, its own clients' and those of other members."""

    __slots__ = (
        "_asked", "_background", "_env", "_me", "_number", "_registry", "_ring", "_scans",
        "_store", "_timers", "open",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, ring: Ring, timers: Timers, me: int,
        registry: TableRegistry, background: Background,
    ) -> None:  # fmt: skip
        self._env = env
        self._background = background
        self._store = store
        self._ring = ring
        self._timers = timers
        self._me = me
        self._registry = registry
        self._number = first_number(env)
        self._asked: dict[int, _Page] = {}  # number -> who waits for that member's answer
        self._scans: deque[_Scan] = deque()
        self.open = 0  # pages of clients

    # Towards clients.

    def on_query(self, client: ClientPort, query: KeysQuery) -> None:
        problem = ""
        code = BAD_REQUEST
        if self._registry.live(query.table_id) is None:
            code = UNKNOWN_TABLE
            problem = f"there is no table with the id {query.table_id.hex()}"
        elif not 1 <= query.limit <= PAGE_KEYS_MAX:
            problem = f"limit {query.limit}: must lie between 1 and {PAGE_KEYS_MAX}"
        elif query.start and not SPACE_RECORDS < query.start < SPACE_HINTS:
            problem = "the position is none that a page ended with"
        elif self.open >= LISTINGS_MAX:
            code = OVERLOADED
            problem = f"{self.open} listings are under way here, which is the limit"
        if problem:
            client.send(encode(ControlRefused(query.request, code, problem)))
            return
        self.open += 1
        self._go_on(_Page(self, client, query))

    def _go_on(self, page: _Page) -> None:
        """Ask the next owner for the next range; or this one, where the last one failed."""
        if page.client.closed:
            self.open -= 1
            return
        partition = self._ring.partition_of_engine_key(page.start.ljust(3, b"\0"))
        owners = self._ring.owners(partition)
        order = sorted(owners, key=lambda owner: owner != self._me)
        for owner in order:
            if owner not in page.tried:
                page.tried[owner] = None
                page.end = self._range_end(partition, owner)
                if self._ask(page, owner):
                    return
        self._finish(page, page.start, f"no owner of partition {partition} answers")

    def _range_end(self, partition: int, owner: int) -> bytes:
        """The end of the stretch from ``partition`` on that ``owner`` holds as a whole."""
        while partition + 1 < self._ring.partitions and self._ring.is_owner(owner, partition + 1):
            partition += 1
        return self._ring.partition_range(partition)[1]

    def _ask(self, page: _Page, owner: int) -> bool:
        query = page.query
        limit = query.limit - len(page.keys)
        if owner == self._me:
            scan = _Scan(page, query.table_id, query.prefix, page.start, page.end, limit)
            self._scan(scan)
            return True
        self._number += 1
        message = LocalKeys(self._number, query.table_id, query.prefix, page.start, page.end, limit)
        if not self._env.send(owner, message):
            return False
        page.number = self._number
        page.asked_at = self._env.now
        self._asked[page.number] = page
        self._timers.wake(self._env.now + PATIENCE, page)
        return True

    def on_silence(self, page: _Page) -> None:
        if not page.number or self._env.now - page.asked_at < PATIENCE:
            return  # It has been answered since.
        del self._asked[page.number]
        page.number = 0
        self._go_on(page)

    def on_local_answer(self, answer: LocalKeysAnswer) -> None:
        page = self._asked.pop(answer.request, None)
        if page is None:
            return
        page.number = 0
        if not page.start < answer.start <= page.end:
            self._go_on(page)  # It could not read, or is no help.
        else:
            self._take(page, answer.keys, answer.start)

    def _take(self, page: _Page, keys: list[KeyPair], start: bytes) -> None:
        page.tried.clear()
        page.keys += keys
        page.size += sum(len(key) + len(sort_key) for key, sort_key in keys)
        at_end = start == SPACE_HINTS
        if (
            at_end
            or start < page.end  # The owner has looked at as much as one page is worth.
            or len(page.keys) >= page.query.limit
            or page.size > PAGE_BYTES_MAX
        ):
            self._finish(page, b"" if at_end else start, "")
        else:
            page.start = start
            self._go_on(page)

    def _finish(self, page: _Page, start: bytes, text: str) -> None:
        self.open -= 1
        if not page.client.closed:
            page.client.send(encode(KeysAnswer(page.query.request, page.keys, start, text)))

    # Towards members.

    def on_local_keys(self, member: int, message: LocalKeys) -> None:
        if len(self._scans) >= LISTINGS_MAX or not 1 <= message.limit <= PAGE_KEYS_MAX:
            refusal = LocalKeysAnswer(message.request, [], message.start, "no room, or no sense")
            self._env.send(member, refusal)
            return
        start = max(message.start, SPACE_RECORDS)
        end = min(message.end, SPACE_HINTS)
        to = (member, message.request)
        self._scan(_Scan(to, message.table_id, message.prefix, start, end, message.limit))

    # Scanning.

    def _scan(self, scan: _Scan) -> None:
        self._scans.append(scan)
        self._background.wake(self)

    def step(self, allowance: int) -> int:
        """Read a slice of the scan whose turn it is."""
        if not self._scans:
            return 0
        scan = self._scans.popleft()
        problem = ""
        cost = RECORD_READ
        try:
            cost += self._slice(scan, min(allowance // RECORD_READ + 1, SLICE))
        except EngineFailed as error:
            problem = str(error) or "the engine has failed"
        if problem or scan.done:
            self._end_scan(scan, problem)
        else:
            self._scans.append(scan)
        return cost

    def _slice(self, scan: _Scan, records: int) -> int:
        """Read so many records; what that has cost."""
        rows = self._store.scan(scan.start, scan.end, records)
        if not rows:
            scan.start = scan.end
        wall = self._env.wall
        cost = 0
        for key, holding in rows:
            cost += RECORD_READ + (len(holding) >> BYTES_SHIFT)
            scan.examined += 1
            scan.start = key + b"\0"
            if key[TABLE_ID_OFFSET:SECOND_HASH_OFFSET] != scan.table_id:
                continue
            partition_key = partition_key_of(holding)
            if partition_key.startswith(scan.prefix) and holds_value(
                holding, record_offset(holding), wall
            ):
                sort_key = key[SORT_KEY_OFFSET:]
                scan.keys.append((partition_key, sort_key))
                scan.size += len(partition_key) + len(sort_key)
                if len(scan.keys) >= scan.limit:
                    break
        return cost

    def _end_scan(self, scan: _Scan, problem: str) -> None:
        to = scan.to
        if isinstance(to, _Page):
            if problem:
                self._go_on(to)
            else:
                self._take(to, scan.keys, scan.start)
            return
        member, request = to
        if problem:
            scan.keys = []
        self._env.send(member, LocalKeysAnswer(request, scan.keys, scan.start, problem))
