"""What a client gives back, and the interface that every client offers.

The blocking client returns the values below, the asyncio client coroutines of them; all else is
the same, and is described here once. Times and durations that a user meets carry their unit
in the name.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from kvorum.errors import KvorumError, SiblingsError
from kvorum.model.record import Value
from kvorum.model.topology import Topology
from kvorum.wire.messages import ExplainAnswer, StatusAnswer
from kvorum.wire.trace_messages import TraceAnswer

Key = bytes | str  # text stands for its UTF-8 bytes
PutItem = tuple[Key, bytes] | tuple[Key, bytes, bytes | None]  # key, value, perhaps a context
Merge = Callable[[tuple[bytes, ...]], bytes | None]
DurabilityName = Literal["none", "one", "quorum", "all"]
ResolutionName = Literal["siblings", "lww"]

LEVEL_NAMES = ("memory", "os", "disk")

T = TypeVar("T")
# What a blocking client returns, or what is awaited of an asyncio client.
Result: TypeAlias = T | Awaitable[T]


class Ack(NamedTuple):
    """One replica that holds a write, and how durably it did when the answer was sent."""

    member: int
    level: str  # "memory", "os" (survives the process) or "disk" (synced)
    fallback: bool  # it stands in for an owner, with a hint


@dataclass(frozen=True, slots=True)
class Stored:
    """A write that is done: what to go on from, and who holds it."""

    context: bytes  # the context given, and this write; pass it to this writer's next put
    acks: tuple[Ack, ...]
    w: int  # the acks that were needed
    coordinator: int
    put_id: bytes

    @property
    def replicas(self) -> tuple[int, ...]:
        """The members that held the write when the answer was sent."""
        return tuple(ack.member for ack in self.acks)

    @property
    def primaries_acked(self) -> int:
        """How many of the key's owners held it."""
        return sum(not ack.fallback for ack in self.acks)

    @property
    def fallbacks_acked(self) -> int:
        """How many stood in for an owner; what they hold goes home when that owner is back."""
        return sum(ack.fallback for ack in self.acks)

    @property
    def on_disk(self) -> int:
        """How many of them had it on disk; others may have followed since."""
        return sum(ack.level == "disk" for ack in self.acks)


@dataclass(frozen=True, slots=True)
class Sibling:
    """One value alive under a key, a delete among them, with all that is known of its write."""

    value: bytes | None  # None: a delete
    dot: bytes
    clock: int  # hybrid clock of the write, microseconds since the Unix epoch
    expiry: int  # when it ends, microseconds since the Unix epoch; 0: never
    content_type: str
    put_id: bytes


def sibling_of(version: Value) -> Sibling:
    return Sibling(
        None if version.tombstone else version.data,
        version.dot,
        version.clock,
        version.expiry,
        version.content_type.decode("utf-8", "replace"),
        version.put_id,
    )


class Found:
    """The answer to a get: the values alive under a key, and the context to write with.

    A key that was never written, and one that was deleted, both have no values; the second has
    a context all the same, and a put should carry it.
    """

    __slots__ = ("_versions", "context", "coordinator", "fallback_read", "known",
                 "may_miss_acknowledged", "replicas", "values")  # fmt: skip

    def __init__(
        self, versions: list[Value], context: bytes, known: bool, coordinator: int,
        replicas: tuple[int, ...], may_miss_acknowledged: bool, fallback_read: bool = False,
    ) -> None:  # fmt: skip
        self._versions = versions
        self.values = tuple(version.data for version in versions if not version.tombstone)
        self.context = context
        self.known = known  # the key has a record, if only of a delete
        self.coordinator = coordinator
        self.replicas = replicas  # the members that were read
        # An owner that is still catching up after an unclean stop was counted.
        self.may_miss_acknowledged = may_miss_acknowledged
        # Too few owners answered, and a fallback was counted in an owner's stead.
        self.fallback_read = fallback_read

    @property
    def value(self) -> bytes | None:
        """The one value; None if there is none. Raises ``SiblingsError`` if there are several."""
        if len(self.values) > 1:
            raise SiblingsError(self.values, self.context)
        return self.values[0] if self.values else None

    @property
    def deleted(self) -> bool:
        """True if the key was written once and has no value now."""
        return self.known and not self.values

    @property
    def siblings(self) -> tuple[Sibling, ...]:
        """Everything alive under the key in detail, deletes included."""
        return tuple(map(sibling_of, self._versions))

    def __repr__(self) -> str:
        return f"Found(values={self.values!r}, deleted={self.deleted})"


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """What one node itself holds of a key, read without asking anybody and without repair."""

    values: tuple[bytes, ...]  # alive, in no order that means anything
    known: bool  # it holds a record, if only of a delete
    damaged: bool  # its copy is damaged; the next good one heals it
    on_disk: bool  # all that it holds is on its disk
    hint_for: tuple[int, ...] = ()  # owners for whom it keeps what follows, beside its own copy
    hint_values: tuple[bytes, ...] = ()
    hint_seconds: float = 0.0  # how long that has waited


@dataclass(frozen=True, slots=True)
class AsideCopy:
    """A copy that a node has set aside, because it had missed that deletes were forgotten.

    It is never served. Whether what it holds is still wanted only a person can say.
    """

    table_id: bytes
    key: bytes
    sort_key: bytes
    siblings: tuple[Sibling, ...]  # deletes included
    hint_for: tuple[int, ...]  # owners for whom the node kept it; empty: its own copy
    position: bytes  # among all that are set aside there
    digest: bytes  # of what it holds, so that no other copy is discarded in its place

    @property
    def values(self) -> tuple[bytes, ...]:
        return tuple(one.value for one in self.siblings if one.value is not None)


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table and its settings, as a node told them."""

    name: str
    table_id: bytes
    r: int
    w: int
    resolution: str
    durability: str
    sloppy: bool
    ttl_seconds: int  # 0: values do not expire
    max_siblings: int
    max_record_bytes: int
    unreached: tuple[int, ...] = ()  # members that have not confirmed the change yet
    conflict: bool = False  # another table carries the same name; drop one of them


class Table(ABC):
    """One table of a store: reads and writes of its keys."""

    name: str

    @abstractmethod
    def get(
        self, key: Key, *, sort_key: Key = b"", r: int | None = None, sloppy: bool | None = None
    ) -> Result[Found]:
        """Read a key from ``r`` replicas."""

    @abstractmethod
    def put(
        self, key: Key, value: bytes, *, context: bytes | None = None, sort_key: Key = b"",
        ttl_seconds: float | None = None, w: int | None = None,
        durability: DurabilityName | None = None, sloppy: bool | None = None,
        content_type: str = "", retry: bool = False,
    ) -> Result[Stored]:  # fmt: skip
        """Write a value over what ``context`` has seen.

        Without a context this is a blind write: a sibling of whatever is there. With ``retry``
        a put whose outcome is in doubt is sent to other nodes too, under the same put id.
        """

    @abstractmethod
    def delete(
        self, key: Key, context: bytes | None = None, *, sort_key: Key = b"",
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, retry: bool = False,
    ) -> Result[Stored]:  # fmt: skip
        """Delete what ``context`` has seen; without one, all that the node reads first."""

    @abstractmethod
    def update(
        self, key: Key, merge: Merge, *, sort_key: Key = b"", ttl_seconds: float | None = None,
        r: int | None = None, w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", attempts: int = 5,
    ) -> Result[Stored]:  # fmt: skip
        """Get, give the values to ``merge``, put what it returns; None deletes.

        If the outcome of the put stays in doubt the key is read again. ``merge`` is called
        again only where that write is not found, at most ``attempts`` times in all.
        """

    @abstractmethod
    def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, sloppy: bool | None = None,
        return_exceptions: bool = False,
    ) -> Result[list[Found]] | Result[list[Found | KvorumError]]:  # fmt: skip
        """Read many keys, pipelined; the answers stand in the order of the keys.

        All are read. If any failed the first failure is raised at the end, unless
        ``return_exceptions`` asks for the exceptions in the places of their answers.
        """

    @abstractmethod
    def put_many(
        self, items: Iterable[PutItem], *, ttl_seconds: float | None = None,
        w: int | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, content_type: str = "", retry: bool = False,
        return_exceptions: bool = False,
    ) -> Result[list[Stored]] | Result[list[Stored | KvorumError]]:  # fmt: skip
        """Write many (key, value) or (key, value, context), pipelined, in no promised order.

        All are sent. If any failed the first failure is raised at the end, unless
        ``return_exceptions`` asks for the exceptions in the places of their answers.
        """


class Store(ABC):
    """A cluster as its users see it."""

    @property
    @abstractmethod
    def topology(self) -> Topology:
        """The members and who owns what, as last learned from a node."""

    @abstractmethod
    def table(self, name: str) -> Table:
        """A table by name; nothing is asked until its first use. ``default`` is always there."""

    @abstractmethod
    def create_table(
        self, name: str, *, r: int | None = None, w: int | None = None,
        resolution: ResolutionName | None = None, durability: DurabilityName | None = None,
        sloppy: bool | None = None, ttl_seconds: int | None = None,
        max_siblings: int | None = None, max_record_bytes: int | None = None,
    ) -> Result[TableDescription]:  # fmt: skip
        """Create a table; what is left out is as in ``default``. Repeating it is fine."""

    @abstractmethod
    def set_table(
        self, name: str, *, r: int | None = None, w: int | None = None,
        durability: DurabilityName | None = None, sloppy: bool | None = None,
        ttl_seconds: int | None = None, max_siblings: int | None = None,
        max_record_bytes: int | None = None,
    ) -> Result[TableDescription]:  # fmt: skip
        """Change settings of a table; what is left out stays as it is."""

    @abstractmethod
    def drop_table(self, name: str, *, table_id: bytes | None = None) -> Result[None]:
        """Drop a table for good; ``table_id`` says which, where two carry the name."""

    @abstractmethod
    def tables(self) -> Result[list[TableDescription]]:
        """Every table, by name."""

    @abstractmethod
    def status(self, node: str | int) -> Result[StatusAnswer]:
        """What one node, named by name or member id, says of itself."""

    @abstractmethod
    def statuses(self) -> Result[dict[str, StatusAnswer | KvorumError]]:
        """The status of every member by name; of one that did not answer, the error."""

    @abstractmethod
    def trace(
        self, table: str, key: Key, value: bytes | None = None, *, context: bytes | None = None,
        sort_key: Key = b"", needed: int | None = None,
    ) -> Result[TraceAnswer]:  # fmt: skip
        """Get a key, or put ``value``, and learn how that went step by step.

        ``needed`` is the ``r`` or ``w``. A traced put is sent once and never again by itself.
        """

    @abstractmethod
    def local_get_many(
        self, table: str, keys: Iterable[Key], *, node: str | int, sort_key: Key = b""
    ) -> Result[list[LocalCopy]]:
        """One node's own copies of up to 1,000 keys, without repair: for tests and operators."""

    @abstractmethod
    def list_aside(
        self, node: str | int, *, start: bytes = b"", limit: int = 256
    ) -> Result[list[AsideCopy]]:
        """Copies that one node has set aside, ``start`` and what lies behind it; at most 256.

        A page may be shorter for its size. Go on from the last ``position`` and a zero byte, until
        nothing comes.
        """

    @abstractmethod
    def discard_aside(self, node: str | int, copies: Iterable[AsideCopy]) -> Result[int]:
        """Forget up to 256 copies that one node has set aside, for good; how many there were."""

    @abstractmethod
    def explain(self, table: str, key: Key, *, sort_key: Key = b"") -> Result[ExplainAnswer]:
        """Who owns a key, and what each owner holds of it; nothing is repaired by asking."""
