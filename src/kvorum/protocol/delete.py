"""A delete without a context: read what is there, then put a tombstone over what was read.

A delete with a context is a put of a tombstone and needs nothing of its own. One without reads
at the table's ``r`` first, so that it covers the values that are there instead of adding a
sibling beside them; what it has not seen stays. Until the tombstone is minted nothing is
written, so a read that fails refuses the delete.
"""

from kvorum.protocol.environment import ClientPort
from kvorum.protocol.ports import Reader


class Finisher:
    """Who goes on when the read is done: the node, seen from here."""

    __slots__ = ()

    def finish_delete(self, delete: "DeleteCoordinator", record: bytes) -> None:
        raise NotImplementedError

    def refuse_delete(self, delete: "DeleteCoordinator", code: int, text: str) -> None:
        raise NotImplementedError


class DeleteCoordinator(Reader):
    """One delete between its read and its put; the get tells it what was found."""

    __slots__ = ("_finisher", "client", "key", "payload", "request")

    def __init__(
        self, finisher: Finisher, client: ClientPort, request: int, key: bytes, payload: bytes
    ) -> None:
        self._finisher = finisher
        self.client = client
        self.request = request
        self.key = key
        self.payload = payload  # the client's request, to be taken up again

    def on_read(self, record: bytes) -> None:
        """The merged record; empty if the key has none."""
        self._finisher.finish_delete(self, record)

    def on_read_failed(self, code: int, text: str) -> None:
        self._finisher.refuse_delete(self, code, text)
