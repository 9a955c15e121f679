"""Sending some records to one peer as ordinary puts, until each has been answered.

A record travels under the generation under which it was read. Told of a higher one, the sender
enters it, reads the record again, and sends that; what is gone by then needs no sending.
"""

from collections.abc import Callable

from kvorum.model.holding import NO_OWN, with_own
from kvorum.model.ring import Ring
from kvorum.protocol.environment import Environment
from kvorum.protocol.ports import Copies
from kvorum.wire.link import STALE_GENERATION, Asker


class Shipment:
    """Records on their way to one peer; ``done`` is called when all have their answers."""

    __slots__ = ("_done", "_sealed", "copies", "env", "failed", "left", "peer", "ring", "sent")

    def __init__(
        self, env: Environment, ring: Ring, copies: Copies, peer: int, done: Callable[[], None]
    ) -> None:
        self.env = env
        self.ring = ring
        self.copies = copies
        self.peer = peer
        self._done = done
        self._sealed = False
        self.left = 0  # on their way
        self.sent = 0  # taken by the peer
        self.failed = 0

    def add(self, key: bytes, holding: bytes, generation: int) -> int:
        """Send one record; return its size."""
        self.left += 1
        holding = with_own(holding, NO_OWN)
        if self.env.faults.hit("exchange.record_lost") or not self.send(
            key, holding, generation, _Parcel(self, key)
        ):
            self.left -= 1
            self.failed += 1
        return len(key) + len(holding)

    def seal(self) -> None:
        """Nothing is added any more."""
        self._sealed = True
        if not self.left:
            self._done()

    def send(self, key: bytes, holding: bytes, generation: int, parcel: "_Parcel") -> bool:
        env = self.env
        links = env.large_links if len(holding) > env.large_bytes else env.links
        epoch = self.ring.partition_epoch(self.ring.partition_of_engine_key(key))
        return links[self.peer].put(key, holding, epoch, generation, parcel)

    def finish(self, taken: bool) -> None:
        """One record has its answer."""
        self.left -= 1
        self.sent += taken
        self.failed += not taken
        if self._sealed and not self.left:
            self._done()


class _Parcel(Asker):
    """One record, until its answer."""

    __slots__ = ("_key", "_shipment")

    def __init__(self, shipment: Shipment, key: bytes) -> None:
        self.wants_disk = False
        self._shipment = shipment
        self._key = key

    def on_ok(self, peer: int) -> None:
        self._shipment.finish(True)

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        """No answer to a put: whoever sends it has not taken the record."""
        self._shipment.finish(False)

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        if status == STALE_GENERATION:
            self._send_again(payload)
        else:
            self._shipment.finish(False)

    def _send_again(self, stale: bytes) -> None:
        shipment = self._shipment
        held, generation = shipment.copies.read_again(self._key, stale)
        if held is None:
            shipment.finish(True)  # It was reaped: nobody has to have it.
        elif not held or not shipment.send(self._key, held, generation, self):
            shipment.finish(False)

    def on_lost(self, peer: int) -> None:
        self._shipment.finish(False)
