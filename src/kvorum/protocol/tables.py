"""Tables on this node: kept durably, told to the others, created and changed for clients.

Settings are a registry that merges (``model/tables.py``); what it learns is written under meta
keys of the store. A change is told at once to every connected member, and gossip brings it to those
that were away: they find that their version of all tables is another one. A client
hears of its change when this node has it on disk and every connected member has confirmed, or
after a second, with the names of those who have not.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from kvorum.model.hashing import SPACE_RECORDS
from kvorum.model.quorum import Durability, Resolution
from kvorum.model.ring import Ring
from kvorum.model.tables import (
    DEFAULT_TABLE,
    DEFAULT_TABLE_ID,
    TableRegistry,
    TableSettings,
    default_table,
    difference,
    settings_problem,
)
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.ports import HintKeeper
from kvorum.protocol.timers import Timed, Timers
from kvorum.storage.engine import EngineFailed
from kvorum.storage.store import Store
from kvorum.wire.codec import encode
from kvorum.wire.messages import (
    ControlRefused,
    TableAnswer,
    TableCreate,
    TableDrop,
    TableList,
    TableQuery,
    TableSet,
    TablesUpdate,
    TablesUpdated,
)
from kvorum.wire.requests import BAD_REQUEST, OVERLOADED, UNKNOWN_TABLE

SPACE_TABLES: Final = b"\x00table"  # meta keys: settings, by table id
SPACE_SWEPT: Final = b"\x00swept"  # meta keys: ids of dropped tables whose records are all gone
BEYOND_IDS: Final = b"\xff" * 9  # above every table id, one of eight bytes 0xff included
CONFIRM_PATIENCE: Final = 1_000_000
TABLES_MAX: Final = 10_000
PATH_STEPS: Final = (".", "..")  # no new table is called so
BEYOND_HINTS: Final = b"\x03"
DROP_SLICE: Final = 256  # records of a dropped table removed at a time

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TableSettings).decode


class _Change(Timed):
    """A client's change, until everybody who can has confirmed it."""

    __slots__ = ("client", "done", "number", "position", "request", "settings", "tables", "waiting")

    def __init__(
        self, tables: "Tables", client: ClientPort, request: int, settings: TableSettings,
        number: int, waiting: dict[int, None], position: int,
    ) -> None:  # fmt: skip
        self.tables = tables
        self.client = client
        self.request = request
        self.settings = settings
        self.number = number
        self.waiting = waiting  # members that have not confirmed yet
        self.position = position  # in our own log
        self.done = False

    def on_timer(self) -> None:
        self.tables.finish(self)


class Tables:
    """The tables as this node knows them."""

    __slots__ = (
        "_changes", "_env", "_holdings", "_me", "_number", "_ring", "_store", "_tick", "_timers",
        "dropped", "hints", "on_change", "registry",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, holdings: Holdings, ring: Ring, timers: Timers,
        me: int, tick: Callable[[], int],
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._holdings = holdings
        self._ring = ring
        self._timers = timers
        self._me = me
        self.hints: HintKeeper | None = None  # this node's, set once they are there
        self._tick = tick  # a new hybrid clock, for versions
        self.on_change: Callable[[TableSettings], None] = _nobody  # told of all that is new
        self._number = 0
        self._changes: dict[int, _Change] = {}
        topology = ring.topology
        self.registry = TableRegistry(
            [default_table(topology.default_r, topology.default_w, topology.default_durability)]
        )
        self.dropped: dict[bytes, bytes] = {}  # table id -> engine key to go on removing from
        for _, encoded in store.scan(SPACE_TABLES, SPACE_TABLES + BEYOND_IDS, TABLES_MAX):
            self._merge(_decode(encoded))
        for key, _ in store.scan(SPACE_SWEPT, SPACE_SWEPT + BEYOND_IDS, TABLES_MAX):
            self.dropped.pop(key[len(SPACE_SWEPT) :], None)

    def _merge(self, settings: TableSettings) -> bool:
        changed = self.registry.merge(settings)
        if changed and settings.dropped:
            self.dropped.setdefault(settings.id, b"\x01")
        return changed

    def _keep(self, settings: TableSettings) -> None:
        self._store.put(SPACE_TABLES + settings.id, _encode(settings))

    # Towards members.

    def on_open(self, member: int) -> None:
        """A control connection to ``member`` was made: tell it of the changes it was away for."""
        for change in self._changes.values():
            if member in change.waiting:
                self._env.send(member, TablesUpdate(change.number, [change.settings]))

    def tell(self, member: int) -> None:
        """Tell ``member`` everything."""
        self._number += 1
        self._env.send(member, TablesUpdate(self._number, self.registry.all_settings()))

    def on_update(self, update: TablesUpdate) -> TablesUpdated:
        self.learn(update.tables)
        return TablesUpdated(update.number)

    def learn(self, tables: Sequence[TableSettings]) -> None:
        """Take over what is newer than what is known here."""
        for settings in tables:
            problem = settings_problem(settings, self._ring.n)
            if problem:
                # Kept, it would stand in the way of every request and of the next start.
                self._env.report("table_refused", table=settings.name, reason=problem)
            elif self._merge(settings):
                self._keep(settings)
                self._env.report("table_learned", table=settings.name, dropped=settings.dropped)
                self.on_change(settings)

    def on_updated(self, member: int, updated: TablesUpdated) -> None:
        # What a member confirms holds every change told before: on the same connection it came
        # earlier, and a new connection begins with all that still wait for the member.
        for change in list(self._changes.values()):
            if change.number <= updated.number:
                change.waiting.pop(member, None)
                self._finish_if_ready(change)

    # Towards clients.

    def on_query(self, client: ClientPort, query: TableQuery) -> None:
        settings = self.registry.by_name(query.name)
        if settings is None:
            self._refuse(client, query.request, UNKNOWN_TABLE, _no_table(query.name))
            return
        tables = list(self.registry.conflicts(query.name)) or [settings]
        conflicts = [query.name] if len(tables) > 1 else []
        client.send(encode(TableAnswer(query.request, tables, [], conflicts)))

    def on_list(self, client: ClientPort, query: TableList) -> None:
        tables = self.registry.tables()
        names: dict[str, None] = {}
        for settings in tables:
            if self.registry.conflicts(settings.name):
                names[settings.name] = None
        client.send(encode(TableAnswer(query.request, tables, [], list(names))))

    def on_create(self, client: ClientPort, wish: TableCreate) -> None:
        default = self.registry.live(DEFAULT_TABLE_ID)
        assert default is not None
        try:
            settings = TableSettings(
                name=wish.name,
                id=self._env.entropy(8),
                r=wish.r or default.r,
                w=wish.w or default.w,
                resolution=_resolution(wish.resolution),
                durability=_durability(wish.durability, default.durability),
                sloppy=default.sloppy if wish.sloppy is None else wish.sloppy,
                ttl_seconds=wish.ttl_seconds,
                max_siblings=wish.max_siblings or default.max_siblings,
                max_record_bytes=wish.max_record_bytes or default.max_record_bytes,
                version=(self._tick(), self._me),
            )
        except ValueError as error:
            self._refuse(client, wish.request, BAD_REQUEST, str(error))
            return
        held = self.registry.by_name(wish.name)
        if held is not None:
            unlike = difference(held, settings)
            if unlike:
                text = f"table {wish.name!r} exists with other settings: {unlike}"
                self._refuse(client, wish.request, BAD_REQUEST, text)
            else:
                client.send(encode(TableAnswer(wish.request, [held])))
            return
        if wish.name in PATH_STEPS:
            text = f"table name {wish.name!r}: a step in the path of a URL, which many take out"
            self._refuse(client, wish.request, BAD_REQUEST, text)
            return
        if len(self.registry.tables()) >= TABLES_MAX:
            text = f"there are {TABLES_MAX} tables already, which is the limit"
            self._refuse(client, wish.request, OVERLOADED, text)
            return
        self._change(client, wish.request, settings)

    def on_set(self, client: ClientPort, wish: TableSet) -> None:
        held = self.registry.by_name(wish.name)
        if held is None:
            self._refuse(client, wish.request, UNKNOWN_TABLE, _no_table(wish.name))
            return
        try:
            settings = msgspec.structs.replace(
                held,
                r=wish.r or held.r,
                w=wish.w or held.w,
                durability=_durability(wish.durability, held.durability),
                sloppy=held.sloppy if wish.sloppy is None else wish.sloppy,
                ttl_seconds=held.ttl_seconds if wish.ttl_seconds < 0 else wish.ttl_seconds,
                max_siblings=wish.max_siblings or held.max_siblings,
                max_record_bytes=wish.max_record_bytes or held.max_record_bytes,
                version=(max(self._tick(), held.version[0] + 1), self._me),
            )
        except ValueError as error:
            self._refuse(client, wish.request, BAD_REQUEST, str(error))
            return
        self._change(client, wish.request, settings)

    def on_drop(self, client: ClientPort, wish: TableDrop) -> None:
        held = self.registry.by_name(wish.name)
        conflicts = self.registry.conflicts(wish.name)
        if wish.table_id:
            held = self.registry.live(wish.table_id)
        elif conflicts:
            ids = ", ".join(settings.id.hex() for settings in conflicts)
            text = f"two tables carry the name {wish.name!r}; say which by its id: {ids}"
            self._refuse(client, wish.request, BAD_REQUEST, text)
            return
        if held is None or held.name != wish.name:
            self._refuse(client, wish.request, UNKNOWN_TABLE, _no_table(wish.name))
            return
        if held.name == DEFAULT_TABLE:
            text = f"table {DEFAULT_TABLE!r} is always there and cannot be dropped"
            self._refuse(client, wish.request, BAD_REQUEST, text)
            return
        version = (max(self._tick(), held.version[0] + 1), self._me)
        settings = msgspec.structs.replace(held, dropped=True, version=version)
        self._change(client, wish.request, settings)

    def _change(self, client: ClientPort, request: int, settings: TableSettings) -> None:
        problem = settings_problem(settings, self._ring.n)
        if problem:
            self._refuse(client, request, BAD_REQUEST, problem)
            return
        if not self._store.writable:
            self._refuse(client, request, OVERLOADED, self._store.refusal)
            return
        self._merge(settings)
        self._keep(settings)
        self.on_change(settings)
        self._number += 1
        waiting: dict[int, None] = {}
        for member in self._ring.member_ids:
            if member != self._me:
                self._env.send(member, TablesUpdate(self._number, [settings]))
                waiting[member] = None
        change = _Change(
            self, client, request, settings, self._number, waiting, self._store.position
        )
        self._changes[self._number] = change
        self._timers.wake(self._env.now + CONFIRM_PATIENCE, change)
        self._finish_if_ready(change)

    def on_durable(self) -> None:
        """More of the log is on disk."""
        for change in list(self._changes.values()):
            self._finish_if_ready(change)

    def _finish_if_ready(self, change: _Change) -> None:
        store = self._store
        on_disk = store.volatile or store.durable_position >= change.position
        reachable = [m for m in change.waiting if self._env.links[m].connected]
        if on_disk and not reachable:
            self.finish(change)

    def finish(self, change: _Change) -> None:
        if change.done:
            return
        change.done = True
        del self._changes[change.number]
        if not change.client.closed:
            unreached = list(change.waiting)
            change.client.send(encode(TableAnswer(change.request, [change.settings], unreached)))

    def _refuse(self, client: ClientPort, request: int, code: int, text: str) -> None:
        client.send(encode(ControlRefused(request, code, text)))

    # Removing what dropped tables have left.

    def sweep_dropped(self) -> None:
        """Remove a slice of one dropped table's records and hints. A few times a second."""
        if not self.dropped:
            return
        table_id, position = next(iter(self.dropped.items()))
        try:
            rows = self._store.scan(position, BEYOND_HINTS, DROP_SLICE)
        except EngineFailed:
            return  # Who reads and writes meets it too, and says so; these can wait.
        if not rows:
            # A scan leaves damaged records out; it has met them all by now.
            for key in self._store.buffer.quarantined():
                if key[17:25] == table_id:
                    self._forget(key, b"")
            del self.dropped[table_id]
            self._store.put(SPACE_SWEPT + table_id, b"\x01")
            return
        for key, held in rows:
            if key[17:25] == table_id:
                self._forget(key, held)
                self._env.counters.dropped_records += 1
        self.dropped[table_id] = rows[-1][0] + b"\0"

    def _forget(self, key: bytes, held: bytes) -> None:
        if key[:1] == SPACE_RECORDS:
            self._holdings.forget(key, held)
        elif self.hints is not None:
            self.hints.forget(SPACE_RECORDS + key[1:])


def _nobody(settings: TableSettings) -> None:
    """Nobody wants to hear of changes yet."""


def _no_table(name: str) -> str:
    return f"there is no table {name!r}; create it first"


def _resolution(text: str) -> Resolution:
    if text in ("", "siblings"):
        return Resolution.SIBLINGS
    if text == "lww":
        return Resolution.LWW
    raise ValueError(f"resolution {text!r}: must be siblings or lww")


def _durability(text: str, otherwise: Durability) -> Durability:
    if not text:
        return otherwise
    for durability in Durability:
        if durability.name.lower() == text:
            return durability
    raise ValueError(f"durability {text!r}: must be none, one, quorum or all")
