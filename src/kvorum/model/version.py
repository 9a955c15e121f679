"""What has been seen of one key: a version vector, and the few runs of dots beyond it.

Every write is a **dot**: an actor and a counter. What somebody has seen of a key is a set of
dots, kept as a version vector (per actor the counter up to which nothing is missing) plus the
dots beyond a gap; a gap that closes is folded into the vector. This is the dot context of
delta-CRDTs (Almeida, Shoker, Baquero 2018), after Preguiça et al.'s dotted version vectors; the
Dynamo paper's section 4.4 has the plain vector clocks that both mend. Dots beyond a gap are
kept as runs, (actor, first, last), not one by one: a writer who goes on from the contexts its
puts return, beside one sibling it never reads, would else carry a dot more after every put.

An actor is twelve bytes, its store's id (8) and a stamp (4, big-endian); a dot is an actor and
a counter (4, big-endian). Big-endian, so that the order of bytes is the canonical order and two
entries of one actor compare as bytes. The same sixteen bytes serve as a vector's entry, where
the counter means "all up to here".

Records and contexts carry such a set encoded: entries (16 bytes), then runs (20), each sorted.
``descends`` compares two encoded sets where they lie; ``Seen`` is the set taken apart, for the
slow path.
"""

from bisect import bisect_right
from struct import Struct
from typing import Final

ACTOR_BYTES: Final = 12
DOT_BYTES: Final = 16
ENTRY_BYTES: Final = 16  # of a vector: actor, counter
RUN_BYTES: Final = 20  # actor, first, last
COUNTER_MAX: Final = 0xFFFFFFFF
NO_ACTOR: Final = b"\0" * ACTOR_BYTES

_counter = Struct(">I")
_pack_counter = _counter.pack
_unpack_counter = _counter.unpack_from
pack_stamp = _counter.pack  # the last four bytes of an actor
_dot = Struct(">8s4sI")
pack_dot = _dot.pack  # of a store id, a stamp and a counter
unpack_dot = _dot.unpack_from
_run = Struct(">II")
_pack_run = _run.pack
_unpack_run = _run.unpack_from


def make_actor(store_id: bytes, stamp: int) -> bytes:
    """The actor that mints under ``stamp`` of the store ``store_id`` (8 bytes)."""
    return store_id + _pack_counter(stamp)


def make_dot(actor: bytes, counter: int) -> bytes:
    return actor + _pack_counter(counter)


def counter_of(dot: bytes) -> int:
    counter: int = _unpack_counter(dot, ACTOR_BYTES)[0]
    return counter


def find_entry(encoded: bytes, offset: int, entry_count: int, actor: bytes) -> int:
    """Where ``actor``'s entry stands in an encoded vector that begins at ``offset``, or -1."""
    position = encoded.find(actor, offset, offset + ENTRY_BYTES * entry_count)
    while position >= 0 and (position - offset) % ENTRY_BYTES:
        # Found astride two entries by chance; an actor only ever starts at an entry.
        position = encoded.find(actor, position + 1, offset + ENTRY_BYTES * entry_count)
    return position


def descends(
    newer: bytes, newer_offset: int, newer_entries: int, newer_runs: int,
    older: bytes, older_offset: int, older_entries: int, older_runs: int,
) -> bool:  # fmt: skip
    """True if the encoded set ``newer`` holds every dot of the encoded set ``older``.

    Offsets are those of the first entry. Sets that are plain vectors are compared in place.
    """
    if newer_runs or older_runs:
        return Seen.decode(newer, newer_offset, newer_entries, newer_runs).covers_all(
            Seen.decode(older, older_offset, older_entries, older_runs)
        )
    if older_entries > newer_entries:
        return False
    position = newer_offset
    end = newer_offset + ENTRY_BYTES * newer_entries
    older_position = older_offset
    older_end = older_offset + ENTRY_BYTES * older_entries
    while older_position < older_end:
        entry = older[older_position : older_position + ENTRY_BYTES]
        candidate = b""
        while position < end:
            candidate = newer[position : position + ENTRY_BYTES]
            position += ENTRY_BYTES
            if candidate >= entry:
                break
        if candidate < entry or candidate[:ACTOR_BYTES] != entry[:ACTOR_BYTES]:
            return False
        older_position += ENTRY_BYTES
    return True


def is_canonical(encoded: bytes, offset: int, entry_count: int, run_count: int) -> bool:
    """True if the encoded set is the one that its own decoded form encodes to.

    For bytes from outside this process; they must hold all entries and runs announced.
    """
    if not run_count:
        # A plain vector, as nearly all are: actors ascend, and counters begin at 1.
        last_actor = b""
        for position in range(offset, offset + ENTRY_BYTES * entry_count, ENTRY_BYTES):
            actor = encoded[position : position + ACTOR_BYTES]
            if actor <= last_actor:
                return False
            if encoded[position + ACTOR_BYTES : position + ENTRY_BYTES] == b"\0\0\0\0":
                return False
            last_actor = actor
        return True
    seen = Seen()
    seen.merge(Seen.decode(encoded, offset, entry_count, run_count))
    for runs in seen.runs.values():
        for first, last in runs:
            if first < 1 or last < first:
                return False
    end = offset + ENTRY_BYTES * entry_count + RUN_BYTES * run_count
    return seen.encode() == (entry_count, run_count, encoded[offset:end])


class Seen:
    """A set of dots, taken apart: for each actor the runs of counters that have been seen.

    Invariant: an actor's runs are sorted, none is empty, and between two of them at least one
    counter is missing; so equal sets have equal fields, and ``encode`` gives equal bytes. A
    set has at most one run more per actor than it has gaps, however long its history.
    """

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: dict[bytes, list[tuple[int, int]]] = {}  # actor -> (first, last) seen

    @staticmethod
    def decode(encoded: bytes, offset: int, entry_count: int, run_count: int) -> "Seen":
        seen = Seen()
        for _ in range(entry_count):
            last = int(_unpack_counter(encoded, offset + ACTOR_BYTES)[0])
            seen.runs[encoded[offset : offset + ACTOR_BYTES]] = [(1, last)]
            offset += ENTRY_BYTES
        for _ in range(run_count):
            first, last = _unpack_run(encoded, offset + ACTOR_BYTES)
            actor = encoded[offset : offset + ACTOR_BYTES]
            seen.runs.setdefault(actor, []).append((int(first), int(last)))
            offset += RUN_BYTES
        return seen

    def encode(self) -> tuple[int, int, bytes]:
        """(entries, runs, bytes): the vector's entries, then the runs beyond, both sorted."""
        entries: list[bytes] = []
        runs: list[bytes] = []
        for actor in sorted(self.runs):
            for first, last in self.runs[actor]:
                if first == 1:
                    entries.append(actor + _pack_counter(last))
                else:
                    runs.append(actor + _pack_run(first, last))
        return len(entries), len(runs), b"".join(entries + runs)

    def covers(self, dot: bytes) -> bool:
        runs = self.runs.get(dot[:ACTOR_BYTES])
        if runs is None:
            return False
        counter = counter_of(dot)
        position = bisect_right(runs, (counter, COUNTER_MAX))  # of the first run that is later
        return position > 0 and runs[position - 1][1] >= counter

    def covers_all(self, other: "Seen") -> bool:
        for actor, theirs in other.runs.items():
            ours = self.runs.get(actor, [])
            position = 0
            for first, last in theirs:
                while position < len(ours) and ours[position][1] < last:
                    position += 1
                # Runs never touch, so a run of theirs lies within one of ours or not at all.
                if position == len(ours) or ours[position][0] > first:
                    return False
        return True

    def add(self, dot: bytes) -> None:
        counter = counter_of(dot)
        self._join(dot[:ACTOR_BYTES], [(counter, counter)])

    def merge(self, other: "Seen") -> None:
        """Take in every dot of ``other``."""
        for actor, runs in other.runs.items():
            self._join(actor, runs)

    def without(self, dots: list[bytes]) -> "Seen":
        """This set less ``dots``: each of them leaves a gap."""
        less = Seen()
        taken: dict[bytes, list[int]] = {}
        for dot in sorted(dots):
            taken.setdefault(dot[:ACTOR_BYTES], []).append(counter_of(dot))
        for actor, runs in self.runs.items():
            kept: list[tuple[int, int]] = []
            counters = taken.get(actor, [])
            position = 0
            for first, last in runs:
                while position < len(counters) and counters[position] <= last:
                    counter = counters[position]
                    position += 1
                    if first <= counter:
                        if first < counter:
                            kept.append((first, counter - 1))
                        first = counter + 1
                if first <= last:
                    kept.append((first, last))
            if kept:
                less.runs[actor] = kept
        return less

    def _join(self, actor: bytes, runs: list[tuple[int, int]]) -> None:
        joined: list[tuple[int, int]] = []
        for first, last in sorted(self.runs.get(actor, []) + runs):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        self.runs[actor] = joined
