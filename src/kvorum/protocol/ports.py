"""How components see each other: the few calls that one makes on another.

Components never import each other; the node hands each of them the others as one of these.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvorum.model.members import Belief
    from kvorum.model.tables import TableSettings
    from kvorum.wire.gossip_messages import News


class Reader:
    """Who wants what a get has found, in the client's place."""

    __slots__ = ()

    def on_read(self, record: bytes) -> None:
        """The merged record; empty if the key has none."""
        raise NotImplementedError

    def on_read_failed(self, code: int, text: str) -> None:
        raise NotImplementedError


class Strays:
    """Who knows of copies of a key that lie outside this node's records: hints, orphans."""

    __slots__ = ()

    def holds(self, key: bytes) -> bool:
        """Whether one is held for the record under this engine key."""
        raise NotImplementedError


class HintKeeper(Strays):
    """This node's hints, as whoever removes whole ranges sees them."""

    __slots__ = ()

    def forget(self, key: bytes) -> None:
        """Let go of the hint under a record's key."""
        raise NotImplementedError


class Copies:
    """This node's own copies, as coordinators see them."""

    __slots__ = ()

    def mend(self, key: bytes, holding: bytes, generation: int) -> None:
        """Merge what a get has brought, read under ``generation``."""
        raise NotImplementedError

    def read_again(self, key: bytes, stale: bytes) -> tuple[bytes | None, int]:
        """Enter the generation that a peer has told (``stale``), then read the own holding.

        It comes as it travels, with the generation under which it was read: None if nothing is
        held, empty if what is held may not be told.
        """
        raise NotImplementedError


class Rumours:
    """Who spreads what is believed of members."""

    __slots__ = ()

    own: "Belief"  # what this node says of itself

    def learn(self, belief: "Belief") -> None:
        """Take in a belief, own or heard, and pass it on if it is news."""
        raise NotImplementedError

    def announce(self, own: "Belief") -> None:
        """This node says something new of itself."""
        raise NotImplementedError

    def news_for(self, member: int) -> "News":
        """What goes with a message to ``member``."""
        raise NotImplementedError


class Watcher:
    """Who acts on what is heard of members."""

    __slots__ = ()

    def on_belief(self, held: "Belief", belief: "Belief") -> None:
        """The belief about another member is ``belief`` now."""
        raise NotImplementedError

    def on_same(self, belief: "Belief") -> bool:
        """A suspicion that is held already was heard; whether its source is worth passing on."""
        raise NotImplementedError

    def on_own(self, heard: "Belief") -> None:
        """Something was heard of this node itself."""
        raise NotImplementedError


class Documents:
    """What gossip keeps equal beside beliefs: the topology, and the settings of tables."""

    __slots__ = ()

    @property
    def topology_epoch(self) -> int:
        """Of the newest topology document known here."""
        raise NotImplementedError

    @property
    def tables_version(self) -> int:
        """Equal on two nodes that know equal settings of equal tables."""
        raise NotImplementedError

    def topology_document(self) -> bytes:
        raise NotImplementedError

    def all_tables(self) -> "list[TableSettings]":
        raise NotImplementedError

    def tell_tables(self, member: int) -> None:
        """Tell the member all settings of all tables."""
        raise NotImplementedError

    def learn_topology(self, document: bytes) -> None:
        raise NotImplementedError

    def learn_tables(self, tables: "Sequence[TableSettings]") -> None:
        raise NotImplementedError


class Presence:
    """Who is told of every sign of life, and what it says of clocks."""

    __slots__ = ()

    def on_heard(self, member: int, nonce: bytes) -> None:
        """A message of the member's start with this nonce has come."""
        raise NotImplementedError

    def learn_clock(self, member: int, asked_at: int, wall: int) -> None:
        """The member, asked at ``asked_at``, says what its wall clock shows."""
        raise NotImplementedError
