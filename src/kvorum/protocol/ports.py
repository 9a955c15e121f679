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


class Mender:
    """Who merges into this node's own copy what a get has brought."""

    __slots__ = ()

    def mend(self, key: bytes, holding: bytes) -> None:
        raise NotImplementedError
