"""The hints that one node holds: taken, bounded, counted, and found again at a start."""

from itertools import count

from kvorum.config import NodeConfig
from kvorum.model.hashing import SPACE_HINTS
from kvorum.model.hint import decode_hint
from kvorum.model.holding import NO_OWN, own_dot, pack_holding, record_of
from kvorum.model.record import first_record
from kvorum.model.siblings import merge
from kvorum.protocol.hints import LOAD_SLICE, Hints
from kvorum.wire.link import (
    ENTRY_BYTES,
    FAILED_HERE,
    LATER,
    MALFORMED,
    NOT_READY,
    NOT_TAKEN,
    OK,
    OVERLOADED,
    RECORD,
    STALE_GENERATION,
    UNWRITABLE,
    pack_hint,
)
from tests.support.recording import OneNode
from tests.support.records import dot, value

BOOK = first_record(value(dot(8, 1), b"book"))
PEN = first_record(value(dot(9, 1), b"pen"))


class Story:
    """Member 1 is the first fallback of a key that 2, 3 and 4 or others own."""

    def __init__(self, config: NodeConfig | None = None) -> None:
        self.one = OneNode(count=4, config=config)
        self.partition_key = self.one.owned_key(False)
        self.key = self.one.key(self.partition_key)
        self.owners = self.one.owners_of(self.partition_key)

    @property
    def hints(self) -> Hints:
        return self.one.node.hints

    def hint(
        self, owner: int, record: bytes = BOOK, w: int = 2, disks: int = 1, key: bytes = b"",
        generation: int = 0, own: bytes = NO_OWN,
    ) -> int:  # fmt: skip
        partition_key = key or self.partition_key
        holding = pack_holding(own, partition_key, record)
        engine_key = self.one.key(partition_key)
        entry = pack_hint(engine_key, owner, w, disks, holding, 0, generation)
        replica = self.one.node.replica
        replica.begin()
        body = entry[ENTRY_BYTES + len(engine_key) :]
        return replica.on_hint(engine_key, body, 0, generation)

    def text(self) -> str:
        return self.one.node.replica.payload.decode()

    def foreign_keys(self, number: int) -> list[bytes]:
        keys = (b"k%d" % each for each in count())
        return [next(k for k in keys if 1 not in self.one.owners_of(k)) for _ in range(number)]


def test_a_hint_is_kept_apart_from_records_with_all_that_was_asked_for() -> None:
    story = Story()
    assert story.hint(2, w=3, disks=2) == OK
    assert story.one.store.get(story.key) is None
    stored = story.one.store.get(SPACE_HINTS + story.key[1:])
    assert stored is not None
    hint = decode_hint(stored)
    assert (hint.w, hint.disks, hint.owners) == (3, 2, (2,))
    assert hint.created == story.one.env.wall
    assert record_of(hint.holding) == BOOK
    assert story.one.env.counters.hints_taken == 1


def test_hints_of_one_key_are_one_hint() -> None:
    story = Story()
    first = story.one.env.wall
    story.hint(2, BOOK, w=1, disks=0)
    story.one.advance(1_000)
    assert story.hint(3, PEN, w=3, disks=1) == OK
    hint = story.hints.hint(story.key)
    assert hint is not None
    assert (hint.w, hint.disks, hint.created, hint.owners) == (3, 1, first, (2, 3))
    assert record_of(hint.holding) == merge(BOOK, PEN)
    assert story.hints.count == 1
    assert [len(story.hints.owed[owner]) for owner in (2, 3)] == [1, 1]
    before = story.one.store.position
    assert story.hint(3, PEN, w=3, disks=1) == OK
    assert story.one.store.position == before, "nothing new was said"


def test_who_is_no_owner_is_owed_nothing_and_who_is_no_fallback_keeps_nothing() -> None:
    story = Story()
    assert story.hint(1) == NOT_TAKEN
    assert "member 1 does not own" in story.text()
    owned = story.one.owned_key()
    assert story.hint(2, key=owned) == NOT_TAKEN
    assert "no listed fallback" in story.text()
    assert story.hints.count == 0


def test_what_is_no_holding_is_refused() -> None:
    story = Story()
    assert story.hint(2, record=b"nonsense") == MALFORMED
    assert story.hint(2, own=dot(8, 1)) == MALFORMED
    assert "own actor" in story.text()


def test_a_hint_for_a_dropped_table_or_on_a_full_disk_is_refused() -> None:
    story = Story()
    story.one.node.tables.registry.dropped_ids[story.key[17:25]] = None
    assert story.hint(2) == NOT_TAKEN
    assert "dropped" in story.text()
    del story.one.node.tables.registry.dropped_ids[story.key[17:25]]
    story.one.store.buffer.fail("the engine has failed")
    assert story.hint(2) == UNWRITABLE


def test_a_hint_read_under_another_generation_is_judged_as_any_record() -> None:
    story = Story()
    generations = story.one.node.generations
    partition = generations.partition_of(story.key)
    assert story.hint(2, generation=5 << 16) == LATER
    generations.enter(partition, 1 << 16 | 2, 0)
    assert story.hint(2, generation=0) == STALE_GENERATION
    assert story.hint(2, generation=1 << 16 | 2) == OK
    generations.current[partition] = -1
    assert story.hint(2) == NOT_READY


def test_a_fallback_answers_gets_with_what_it_keeps() -> None:
    story = Story()
    replica = story.one.node.replica
    assert replica.on_get(story.key, 0, 0, False) == OK
    story.hint(2)
    assert replica.on_get(story.key, 0, 0, False) == RECORD
    assert replica.payload == BOOK
    story.one.node.generations.enter(
        story.one.node.generations.partition_of(story.key), 1 << 16 | 2, 0
    )
    assert replica.on_get(story.key, 0, 0, False) == STALE_GENERATION
    assert replica.on_get(story.key, 0, 1 << 16 | 2, False) == RECORD


def sized(record_bytes: int) -> bytes:
    return first_record(value(dot(8, 1), b"x" * record_bytes))


def test_a_hint_beyond_the_bound_of_all_is_refused_and_only_that() -> None:
    story = Story(NodeConfig(hint_bytes_max=1_000, hint_bytes_per_peer_max=1_000))
    first, second, third = story.foreign_keys(3)
    owner = story.one.owners_of(first)[0]
    assert story.hint(owner, sized(400), key=first) == OK
    other = story.one.owners_of(second)[0]
    assert story.hint(other, sized(600), key=second) == OVERLOADED
    assert "no more hints fit here" in story.text()
    assert story.one.env.counters.hints_refused == 1
    assert story.hints.bytes <= 1_000
    assert story.hint(other, sized(100), key=third) in (OK, OVERLOADED)
    assert story.hint(owner, sized(400), key=first) == OK, "what is held already is no more"


def test_a_hint_beyond_the_bound_of_its_owner_is_refused() -> None:
    story = Story(NodeConfig(hint_bytes_max=10_000, hint_bytes_per_peer_max=700))
    keys = story.foreign_keys(8)
    for key in keys:
        assert story.hint(2, sized(400), key=key) in (OK, OVERLOADED, NOT_TAKEN)
    assert 0 < story.hints.owed_bytes[2] <= 700
    key = next(k for k in keys if 3 in story.one.owners_of(k))
    assert story.hint(3, sized(300), key=key) == OK


def test_a_hint_that_grows_beyond_the_bound_stays_as_it_was() -> None:
    story = Story(NodeConfig(hint_bytes_max=500, hint_bytes_per_peer_max=500))
    assert story.hint(2, sized(100)) == OK
    bigger = first_record(value(dot(9, 1), b"y" * 300))
    assert story.hint(2, bigger) == OVERLOADED
    held = story.hints.holding(story.key)
    assert held is not None
    assert record_of(held) == sized(100)
    assert story.hint(3, sized(100)) == OK, "one owner more takes two bytes"


def test_a_node_that_keeps_no_hints_refuses_the_first() -> None:
    story = Story(NodeConfig(hint_bytes_max=0, hint_bytes_per_peer_max=0))
    assert story.hint(2) == OVERLOADED


def test_a_hint_is_let_go_for_one_owner_after_the_other_unless_it_has_changed() -> None:
    story = Story()
    story.hint(2)
    story.hint(3)
    sent = story.hints.holding(story.key)
    assert sent is not None
    story.hint(2, PEN)
    assert not story.hints.settle(story.key, 2, sent), "more has come in since it was sent"
    now = story.hints.holding(story.key)
    assert now is not None
    assert story.hints.settle(story.key, 2, now)
    hint = story.hints.hint(story.key)
    assert hint is not None
    assert hint.owners == (3,)
    assert story.hints.owed_bytes[2] == 0
    assert story.hints.settle(story.key, 3, now)
    assert story.hints.hint(story.key) is None
    assert (story.hints.bytes, story.hints.count) == (0, 0)
    assert story.one.env.counters.hints_handed == 2
    assert story.hints.settle(story.key, 3, now), "let go already"


def test_the_age_is_that_of_the_oldest() -> None:
    story = Story()
    assert story.hints.oldest(2) == 0
    first = story.one.env.wall
    keys = [k for k in story.foreign_keys(20) if 2 in story.one.owners_of(k)]
    for key in keys[:3]:
        story.hint(2, key=key)
        story.one.advance(1_000)
    assert story.hints.oldest(2) == first
    held = story.hints.holding(story.one.key(keys[0]))
    assert held is not None
    story.hints.settle(story.one.key(keys[0]), 2, held)
    assert story.hints.oldest(2) == first + 1_000


def test_a_start_finds_all_hints_again_in_slices_and_in_order_of_age() -> None:
    story = Story()
    keys = [k for k in story.foreign_keys(3 * LOAD_SLICE) if 2 in story.one.owners_of(k)]
    for key in keys:
        assert story.hint(2, key=key) == OK
        story.one.advance(10)
    before = (story.hints.bytes, list(story.hints.owed[2]), dict(story.hints.owed_bytes))
    partition = story.one.node.generations.partition_of(story.one.key(keys[0]))
    of_one = sorted(story.hints.keys_of(partition))
    story.one.sync()
    story.one.restart()
    assert not story.hints.loaded
    assert sorted(story.hints.keys_of(partition)) == of_one, "asked before all is found"
    while not story.hints.loaded:
        story.hints.load()
    assert before == (story.hints.bytes, list(story.hints.owed[2]), dict(story.hints.owed_bytes))
    assert sorted(story.hints.keys_of(partition)) == of_one


def test_a_hint_that_comes_while_the_index_is_made_is_counted_once() -> None:
    story = Story()
    for key in story.foreign_keys(2 * LOAD_SLICE):
        story.hint(story.one.owners_of(key)[0], key=key)
    story.one.sync()
    story.one.restart()
    assert not story.hints.loaded
    key = max(story.foreign_keys(2 * LOAD_SLICE), key=story.one.key)
    assert story.hint(story.one.owners_of(key)[1], PEN, key=key) == OK
    while not story.hints.loaded:
        story.hints.load()
    assert story.hints.bytes == sum(
        len(k) + len(held) for k, held in story.one.store.scan(SPACE_HINTS, b"\3", 10_000)
    )


def test_a_damaged_hint_answers_no_get_and_is_written_anew_for_all_it_was_owed_to() -> None:
    story = Story()
    story.hint(2)
    story.one.sync()
    story.one.restart()
    stored_key = SPACE_HINTS + story.key[1:]
    damaged = bytearray(story.one.engine.records[stored_key])
    damaged[-1] ^= 1
    story.one.engine.records[stored_key] = bytes(damaged)
    assert story.one.node.replica.on_get(story.key, 0, 0, False) == FAILED_HERE
    assert story.hints.read(story.key, story.partition_key) == b""
    assert story.hint(3, PEN) == OK
    hint = story.hints.hint(story.key)
    assert hint is not None
    assert hint.owners == (2, 3)


def test_another_key_under_the_same_hash_is_refused() -> None:
    story = Story()
    story.hint(2)
    holding = pack_holding(NO_OWN, b"someone else", PEN)
    assert story.hints.take(story.key, 2, 1, 0, holding) == NOT_TAKEN
    assert "key_mismatch" in story.one.env.events
    assert story.hints.read(story.key, b"someone else") == b""


def test_a_later_write_of_this_nodes_own_shows_that_it_has_lost_something() -> None:
    """Rule 4 holds for hints, too: the actor of a hint lives as long as that hint."""
    story = Story()
    one = story.one.connect()
    for owner in story.owners:
        one.disconnect(owner)
    one.put(key=story.partition_key, w=1, durability=0)
    held = story.hints.holding(story.key)
    assert held is not None
    mine = own_dot(held)
    assert mine[:8] == one.store.store_id
    later = mine[:12] + (9).to_bytes(4, "big")
    assert story.hint(2, first_record(value(later, b"from the future"))) == OK
    assert one.store.store_id != mine[:8]
    assert one.env.counters.incarnations_ended == 1
