"""This node's records: what is kept up to date with every write of one."""

import pytest

from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.merkle import Trees, entry_hash, leaf_of
from kvorum.model.record import pack_value
from kvorum.model.ring import Ring
from kvorum.model.siblings import seen_of, update
from kvorum.protocol.holdings import Holdings
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.store import open_store
from tests.support.members import some_topology
from tests.support.records import dot
from tests.support.replicas import KEY, PARTITION_KEY


def record(*actors: int, tombstone: bool = False) -> bytes:
    """One that these actors have written in turn; the last one's value is left."""
    made = None
    for actor in actors:
        is_last = actor == actors[-1]
        put_id = bytes(15) + bytes((actor,))
        new = pack_value(dot(actor, 1), 9, 0, put_id, tombstone and is_last, b"", b"")
        made = update(made, seen_of(made) if made else None, new)
    assert made is not None
    return made


def holding(*actors: int, tombstone: bool = False) -> bytes:
    return pack_holding(NO_OWN, PARTITION_KEY, record(*actors, tombstone=tombstone))


@pytest.fixture
def holdings() -> Holdings:
    ring = Ring(some_topology())
    assert ring.n == 3
    store = open_store(
        None, MemoryEngine(), cluster_id=bytes(16), member_id=1, member_name="a",
        draw=lambda size: bytes(size),
    )  # fmt: skip
    return Holdings(store, ring, Trees())


def noted(notes: dict[int, dict[bytes, None]]) -> list[bytes]:
    return [key for partition in notes.values() for key in partition]


def test_a_delete_and_a_record_of_more_actors_than_owners_are_noted(holdings: Holdings):
    holdings.write(KEY, None, holding(1, 2, 3))
    assert not holdings.noted
    holdings.write(KEY, holding(1, 2, 3), holding(1, 2, 3, 4))
    assert noted(holdings.overgrown) == [KEY]
    assert not holdings.unreaped

    holdings.write(KEY, holding(1, 2, 3, 4), holding(1, 2, 3, 4, 5, tombstone=True))

    assert noted(holdings.unreaped) == [KEY]
    holdings.forget(KEY, holdings.get(KEY))
    assert not holdings.noted
    assert holdings.get(KEY) is None
    assert holdings.trees.leaves[leaf_of(KEY)] == 0


@pytest.mark.parametrize("actors", [(1, 2), (1, 2, 3), (1, 2, 3, 4)])
def test_what_is_rewritten_is_kept_hashed_and_noted_as_by_a_write(
    holdings: Holdings, actors: tuple[int, ...]
):
    before, after = holding(*actors[:-1]), holding(*actors)
    holdings.write(KEY, None, before)

    holdings.rewrite(KEY, before, after, len(actors))

    assert holdings.get(KEY) == after
    assert holdings.trees.leaves[leaf_of(KEY)] == entry_hash(KEY, after)
    assert noted(holdings.overgrown) == ([KEY] if len(actors) > 3 else [])


def test_an_overgrown_record_is_noted_by_its_next_write_again(holdings: Holdings):
    """A round that could not make it leaner takes its note away: its next write may allow it."""
    before = holding(1, 2, 3, 4)
    holdings.write(KEY, None, before)
    holdings.done(holdings.overgrown, KEY)

    holdings.rewrite(KEY, before, holding(1, 2, 3, 4, 5), 5)

    assert noted(holdings.overgrown) == [KEY]
