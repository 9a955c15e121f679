"""How components see each other: the few calls that one makes on another.

Components never import each other; the node hands each of them the others as one of these.
"""


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
