"""Which fallbacks stand in for which owners of one put.

A put that has lost sight of an owner, by silence, a lost connection or a refusal, gives the
record to the next listed fallback, with a hint. A fallback that fails in its turn is replaced by
the next one, for the same owner. Each is tried once for one put, in the order of the list, so
no node is counted twice and the walk ends. (Dynamo paper, section 4.6.)
"""

from kvorum.protocol.replica_set import Owner, ReplicaSet


class StandIns:
    """The fallbacks of one put; made when the first owner is missed."""

    __slots__ = ("_myself_free", "_replaced", "_replicas", "_tried", "owed_to", "skipped")

    def __init__(self, replicas: ReplicaSet) -> None:
        self._replicas = replicas
        self._tried = 0  # fallbacks asked, or passed over
        self._replaced = 0  # owners in whose stead somebody was asked
        # A fallback that coordinates stands in for the first owner that is missed.
        self._myself_free = bool(replicas.my_bit & replicas.fallback_mask)
        self.skipped = 0  # fallbacks that could not be asked when their turn came
        self.owed_to: dict[int, int] = {}  # fallback -> the owner for which it was asked

    def next_for(self, absent: int) -> Owner | None:
        """The fallback to be asked because ``absent``, an owner or a fallback, has failed.

        None if somebody stands in for that owner already, or nobody is left to.
        """
        owner = self.owed_to.get(absent, absent)
        if absent == owner and self._replaced & self._replicas.bits[owner]:
            return None
        if self._myself_free:
            self._myself_free = False
            self._replaced |= self._replicas.bits[owner]
            return None
        for fallback in self._replicas.fallbacks:
            if self._tried & fallback.bit:
                continue
            self._tried |= fallback.bit
            if self._replicas.takes_hints(fallback):
                self._replaced |= self._replicas.bits[owner]
                self.owed_to[fallback.member] = owner
                return fallback
            self.skipped |= fallback.bit
        self._replaced &= ~self._replicas.bits[owner]
        return None

    @property
    def asked(self) -> int:
        """The fallbacks that have been asked."""
        return self._tried & ~self.skipped

    def retry(self, bit: int) -> None:
        """A fallback that was passed over may be asked after all."""
        self._tried &= ~bit
        self.skipped &= ~bit

    def begin_again(self, acked: int) -> None:
        """The put is carried through once more: only those who hold the write are done."""
        bits = self._replicas.bits
        self._tried &= acked
        self.skipped = 0
        self._replaced = 0
        # Of the others, answers may still come.
        for fallback, owner in self.owed_to.items():
            if bits[fallback] & acked:
                self._replaced |= bits[owner]
