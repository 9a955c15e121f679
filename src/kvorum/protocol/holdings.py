"""This node's records, and what is known of all of them together.

Every write of a record goes through ``Holdings.write`` and every removal through ``forget``,
with what was held before. So whatever is kept up to date in the write path, because looking it
up later would mean a walk through everything, is kept here: the hash trees, which records are
deletes that wait for their reaping, and which have seen more actors than their owners can need.

The notes of the last two are bounded. What finds no room is found again by the slow walk over
all records, which shows each of them to ``notice``.
"""

from itertools import chain, islice
from typing import Final

from kvorum.model.holding import HEAD_BYTES
from kvorum.model.merkle import Trees
from kvorum.model.record import EXPIRES, HAS_TOMBSTONE
from kvorum.model.ring import Ring
from kvorum.storage.store import Store

NOTES_KEPT: Final = 4096  # from one run to the next
NOTED_MAX: Final = 256  # keys noted for one partition; the next ones wait until these are done
GOES: Final = EXPIRES | HAS_TOMBSTONE  # record flags of what may be reaped one day


class Holdings:
    """The records of one store."""

    __slots__ = (
        "_actors_usual", "_change", "_put", "_replace", "_shift", "_store", "get", "overgrown",
        "trees", "unreaped",
    )  # fmt: skip

    def __init__(self, store: Store, ring: Ring, trees: Trees) -> None:
        self._store = store
        self.trees = trees
        self._shift = ring.shift
        self._actors_usual = ring.n
        self.get = store.get
        self._put = store.put
        self._change = trees.change
        self._replace = trees.replace
        # Partition -> keys, as noted; an entry may be out of date and is looked at again.
        self.unreaped: dict[int, dict[bytes, None]] = {}  # records with a tombstone
        self.overgrown: dict[int, dict[bytes, None]] = {}  # with more actors than owners

    def write(self, key: bytes, held: bytes | None, holding: bytes) -> None:
        """Keep ``holding`` in place of ``held``, which is what ``get`` returns at this moment."""
        offset = HEAD_BYTES + (holding[2] | holding[3] << 8)
        if (
            holding[offset + 1] & HAS_TOMBSTONE
            or holding[offset + 2] > self._actors_usual
            or holding[offset + 3]
        ):
            self._take_note(key, holding, HAS_TOMBSTONE)
        self._change(key, held, holding)
        self._put(key, holding)

    def rewrite(self, key: bytes, held: bytes, holding: bytes, actors: int) -> None:
        """``write``, where an undamaged record is followed by one that is no delete.

        ``actors`` is how many that one has seen. So nothing has to be looked up in it.
        """
        if actors > self._actors_usual:
            self._note(self.overgrown, key)
        self._replace(key, held, holding)
        self._put(key, holding)

    def forget(self, key: bytes, held: bytes | None) -> None:
        """Hold nothing under ``key`` any more, not even that it was deleted."""
        self.trees.change(key, held, None)
        self._store.delete(key)
        self.done(self.unreaped, key)
        self.done(self.overgrown, key)

    def done(self, notes: dict[int, dict[bytes, None]], key: bytes) -> None:
        """The key waits for no round any more. Its partition stays, to be looked at once more."""
        noted = notes.get((key[1] << 8 | key[2]) >> self._shift)
        if noted:
            noted.pop(key, None)

    def notice(self, key: bytes, holding: bytes) -> None:
        """Look at a record that the slow walk has come by."""
        self._take_note(key, holding, GOES)

    def doubt(self, key: bytes) -> None:
        """Let a round look at a record that another owner has otherwise, whatever is in it."""
        self._note(self.overgrown, key)

    def encoded_notes(self) -> list[bytes]:
        """Keys that are noted, for the next start after a clean stop: the walk may take days."""
        notes = (*self.unreaped.values(), *self.overgrown.values())
        return list(islice(dict.fromkeys(chain.from_iterable(notes)), NOTES_KEPT))

    def take_notes(self, keys: list[bytes]) -> None:
        """What was noted at the last stop is looked at once more."""
        for key in keys:
            held = self.get(key)
            if held:
                self.notice(key, held)

    @property
    def noted(self) -> int:
        """How many records wait to be looked at by a reap round, as far as they are noted."""
        notes = (*self.unreaped.values(), *self.overgrown.values())
        return sum(len(noted) for noted in notes)

    def _take_note(self, key: bytes, holding: bytes, goes: int) -> None:
        """Note a record that has one of the flags ``goes``, or too many actors."""
        offset = HEAD_BYTES + (holding[2] | holding[3] << 8)
        if holding[offset + 1] & goes:
            self._note(self.unreaped, key)
        if holding[offset + 2] > self._actors_usual or holding[offset + 3]:
            self._note(self.overgrown, key)

    def _note(self, notes: dict[int, dict[bytes, None]], key: bytes) -> None:
        partition = (key[1] << 8 | key[2]) >> self._shift
        noted = notes.get(partition)
        if noted is None:
            notes[partition] = {key: None}
        elif len(noted) < NOTED_MAX:
            noted[key] = None
