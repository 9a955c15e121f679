"""What may go of a record, and what is left when it has gone. Pure arithmetic on records.

Whether it *does* go is settled by a round among all who may hold a copy (``protocol/reaping.py``).
"""

from kvorum.model.record import LWW, Value, split_values
from kvorum.model.siblings import alive, encode, seen_of
from kvorum.model.version import ACTOR_BYTES


def is_gone(record: bytes, expired_by: int) -> bool:
    """Whether nothing in the record is alive: tombstones, and values that expired long ago.

    ``expired_by`` is the wall clock in microseconds, less what clocks may differ by.
    """
    for encoded in split_values(record):
        value = Value(encoded)
        if not value.tombstone and not 0 < value.expiry <= expired_by:
            return False
    return True


def dead_actors(record: bytes, minting: dict[bytes, None]) -> list[bytes]:
    """The actors of the record that no owner can mint under, and that no value here rests on.

    ``minting`` are the actors under which the owners' own stores would go on for this key.
    """
    if record[1] & LWW:
        return []
    resting = {dot[:ACTOR_BYTES] for dot in alive(record)}
    return [
        actor for actor in sorted(seen_of(record).runs)
        if actor not in minting and actor not in resting
    ]  # fmt: skip


def without_actors(record: bytes, actors: list[bytes]) -> bytes:
    """``record`` as if it had never seen these actors, but for those that a value rests on."""
    seen = seen_of(record)
    values = alive(record)
    resting = {dot[:ACTOR_BYTES] for dot in values}
    for actor in actors:
        if actor not in resting:
            seen.runs.pop(actor, None)
    return encode(seen, values)
