"""Send one replica what a get has found it to lack; nobody waits for the answer.

What is sent was read under a generation. Where a reap round has come between, the peer refuses
it and tells the higher one: this node enters that too, reads its own copy again, and sends what
it holds now. Whatever else becomes of a repair, exchange finds what is left unequal. (Dynamo
paper, section 5.)
"""

from kvorum.protocol.replica_set import Owner, ReplicaSet
from kvorum.wire.link import STALE_GENERATION, Asker


class ReadRepair(Asker):
    """One repair of one replica."""

    __slots__ = ("_key", "_large_bytes", "_owner", "_replicas")

    def __init__(self, key: bytes, replicas: ReplicaSet, owner: Owner, large_bytes: int) -> None:
        self.wants_disk = False
        self._key = key
        self._replicas = replicas
        self._owner = owner
        self._large_bytes = large_bytes

    def send(self, holding: bytes, generation: int) -> None:
        """``holding`` as it travels, read under ``generation``."""
        owner = self._owner
        link = owner.large_link if len(holding) > self._large_bytes else owner.link
        link.put(self._key, holding, self._replicas.epoch, generation, self)

    def on_ok(self, peer: int) -> None:
        """It has what it lacked."""

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        """No answer to a put."""

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        if status == STALE_GENERATION:
            held, generation = self._replicas.copies.read_again(self._key, payload)
            if held:
                self.send(held, generation)

    def on_lost(self, peer: int) -> None:
        """The connection has ended; the next one begins with an exchange."""
