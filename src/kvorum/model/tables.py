"""Tables: what is set for each, and how members come to agree about it without asking anybody.

A table is a name, a random id that is hashed into every key, and settings with a version.
Settings travel in handshakes and gossip; whoever meets a newer version takes it over. Each id
is one register whose states are totally ordered, and ``merge`` takes the higher state, so it
is commutative, associative and idempotent. In that order:

- dropped beats everything: a drop ends the id for good;
- then the resolution, ``siblings`` above ``lww``. It is fixed when a table is created and no
  node ever changes it; should a broken one try, the cluster agrees on what loses no write;
- then the version (hybrid clock, member id), and at last the encoded bytes.

Two ids under one name, created on two sides of a cut, are both kept and shown as a conflict
until a person drops one. The table ``default`` is always there and has a fixed id.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from kvorum.model.hashing import TABLE_ID_BYTES
from kvorum.model.quorum import Durability, Resolution

DEFAULT_TABLE: Final = "default"
DEFAULT_TABLE_ID: Final = b"default\0"

MAX_SIBLINGS: Final = 100
MAX_RECORD_BYTES: Final = 32 << 20  # two values of the largest size may stand side by side
LONGEST_TTL_SECONDS: Final = 100 * 366 * 86_400

VERSION_BYTES: Final = 8

TABLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class TableSettings(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version of what is set for one table. Fields are only ever added at the end."""

    name: str
    id: bytes
    r: int
    w: int
    resolution: Resolution = Resolution.SIBLINGS
    durability: Durability = Durability.ONE
    sloppy: bool = True
    ttl_seconds: int = 0  # 0: values do not expire by themselves
    max_siblings: int = MAX_SIBLINGS
    max_record_bytes: int = MAX_RECORD_BYTES
    version: tuple[int, int] = (0, 0)  # hybrid clock, id of the member that made it
    dropped: bool = False


CHOICES: Final = (
    "resolution",
    "r",
    "w",
    "durability",
    "sloppy",
    "ttl_seconds",
    "max_siblings",
    "max_record_bytes",
)


def settings_problem(settings: TableSettings, n: int) -> str:
    """Say what is wrong with settings in a cluster that keeps ``n`` copies; empty if nothing."""
    if TABLE_NAME.fullmatch(settings.name) is None:
        return (
            f"table name {settings.name!r}: must be 1 to 128 characters, each a letter of the "
            "English alphabet, a digit, or one of _ . -"
        )
    if len(settings.id) != TABLE_ID_BYTES:
        return f"table id: must be {TABLE_ID_BYTES} bytes, not {len(settings.id)}"
    if settings.dropped and settings.id == DEFAULT_TABLE_ID:
        return f"table {DEFAULT_TABLE!r} cannot be dropped"
    for letter, wanted in (("r", settings.r), ("w", settings.w)):
        if not 1 <= wanted <= n:
            return f"{letter}={wanted}: must lie between 1 and n={n}, the copies this cluster keeps"
    if not 0 <= settings.ttl_seconds <= LONGEST_TTL_SECONDS:
        return f"ttl_seconds={settings.ttl_seconds}: must lie between 0 and {LONGEST_TTL_SECONDS}"
    if not 1 <= settings.max_siblings <= 10_000:
        return f"max_siblings={settings.max_siblings}: must lie between 1 and 10000"
    clock, member = settings.version
    if not (0 <= clock < 1 << 63 and 0 <= member <= 0xFFFF):
        return f"version {settings.version}: no clock and member are like that"
    if not 1024 <= settings.max_record_bytes <= 1 << 30:
        return f"max_record_bytes={settings.max_record_bytes}: must lie between 1024 and {1 << 30}"
    return ""


def difference(held: TableSettings, wanted: TableSettings) -> str:
    """Name the choices in which two settings differ; empty when creating again changes nothing."""
    parts = []
    for choice in CHOICES:
        old = getattr(held, choice)
        new = getattr(wanted, choice)
        if old != new:
            parts.append(f"{choice} is {_shown(old)}, not {_shown(new)}")
    return ", ".join(parts)


def _shown(choice: object) -> str:
    if isinstance(choice, Durability | Resolution):
        return choice.name.lower()
    return str(choice)


def default_table(r: int, w: int, durability: Durability) -> TableSettings:
    """Return the settings of the table ``default`` as the topology gives them, version zero."""
    return TableSettings(DEFAULT_TABLE, DEFAULT_TABLE_ID, r, w, durability=durability)


def _rank(settings: TableSettings) -> tuple[bool, int, tuple[int, int], bytes]:
    return (
        settings.dropped,
        -settings.resolution,
        settings.version,
        msgspec.msgpack.encode(settings),
    )


class TableRegistry:
    """All tables that this node has heard of, those dropped included.

    Two registries that have merged the same settings, in whatever order, are equal.
    """

    __slots__ = ("_by_id", "_by_name", "_live", "_version", "dropped_ids", "live")

    def __init__(self, known: Iterable[TableSettings] = ()) -> None:
        self._by_id: dict[bytes, TableSettings] = {}
        self._live: dict[bytes, TableSettings] = {}
        # A table by its id, unless it is unknown or dropped. For every request.
        self.live: Callable[[bytes], TableSettings | None] = self._live.get
        self.dropped_ids: dict[bytes, None] = {}  # ended for good; asked for every record sent
        self._by_name: dict[str, list[bytes]] = {}  # live ids, ascending; more than one: conflict
        self._version = 0  # 0: not worked out since the last change
        for settings in known:
            self.merge(settings)

    def merge(self, settings: TableSettings) -> bool:
        """Take over settings if they are newer than what is known; tell whether they were."""
        if settings.id == DEFAULT_TABLE_ID and (settings.dropped or settings.name != DEFAULT_TABLE):
            return False  # No honest node sends this; the default table is always there.
        held = self._by_id.get(settings.id)
        if held is not None and _rank(settings) <= _rank(held):
            return False
        self._by_id[settings.id] = settings
        self._version = 0
        if held is not None and not held.dropped:
            self._forget_name(held)
        if settings.dropped:
            self.dropped_ids[settings.id] = None
        else:
            self._live[settings.id] = settings
            ids = self._by_name.setdefault(settings.name, [])
            ids.append(settings.id)
            ids.sort()
        return True

    def _forget_name(self, held: TableSettings) -> None:
        del self._live[held.id]
        ids = self._by_name[held.name]
        ids.remove(held.id)
        if not ids:
            del self._by_name[held.name]

    def by_id(self, table_id: bytes) -> TableSettings | None:
        """Return what is known of an id, dropped or not."""
        return self._by_id.get(table_id)

    def by_name(self, name: str) -> TableSettings | None:
        """Return the live table of a name; in a conflict that of the lowest id, on every node."""
        ids = self._by_name.get(name)
        return None if ids is None else self._live[ids[0]]

    def conflicts(self, name: str) -> tuple[TableSettings, ...]:
        """Return all live tables of a name if there is more than one, else nothing."""
        ids = self._by_name.get(name, [])
        return tuple(self._live[table_id] for table_id in ids) if len(ids) > 1 else ()

    def tables(self) -> list[TableSettings]:
        """Return the live tables by name, then id, for people."""
        return sorted(self._live.values(), key=lambda table: (table.name, table.id))

    @property
    def version(self) -> int:
        """A number that stands for all that is known: equal where equal settings are."""
        if not self._version:
            known = msgspec.msgpack.encode(self.all_settings())
            digest = blake2b(known, digest_size=VERSION_BYTES).digest()
            self._version = int.from_bytes(digest, "little") | 1
        return self._version

    def all_settings(self) -> list[TableSettings]:
        """Return everything known, by id, dropped ids too: what a handshake hands over."""
        return [self._by_id[table_id] for table_id in sorted(self._by_id)]
