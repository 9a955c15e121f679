"""Records on their way to one peer: each is sent once, and counted when it has its answer."""

from struct import pack

import pytest

from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.record import first_record
from kvorum.protocol.generations import FIRST, make_generation
from kvorum.protocol.replica import OwnCopies
from kvorum.protocol.shipment import Shipment
from kvorum.wire.link import LATER, NOT_TAKEN, OK, OP_PUT, RECORD, STALE_GENERATION, UNWRITABLE
from tests.support.fault_points import HitsAt
from tests.support.recording import Answer, OneNode
from tests.support.records import dot, value

SECOND = make_generation(2, 2)
THIRD = make_generation(3, 2)
NAMES = (b"alice", b"bob", b"carol")
STALE: Answer = (STALE_GENERATION, pack("<QQ", SECOND, FIRST))


class Story:
    """Member 1 holds a few records, and sends them to member 2."""

    def __init__(self, size: int = 4) -> None:
        self.one = OneNode().connect()
        self.keys = [self.one.key(name) for name in NAMES]
        self.record = first_record(value(dot(8, 1), b"x" * size))
        for name, key in zip(NAMES, self.keys, strict=True):
            self.one.node.holdings.write(key, None, pack_holding(dot(1, 1), name, self.record))
        self.done = 0
        node = self.one.node
        copies = OwnCopies(node.replica, self.one.store, node.holdings, node.generations)
        self.shipment = Shipment(self.one.env, self.one.ring, copies, 2, self.on_done)

    def on_done(self) -> None:
        self.done += 1

    def add(self, count: int = 1) -> "Story":
        for key in self.keys[:count]:
            held = self.one.store.get(key)
            assert held
            self.shipment.add(key, held, FIRST)
        return self

    def write_meanwhile(self, record: bytes) -> None:
        self.one.node.replica.keep(self.keys[0], pack_holding(NO_OWN, NAMES[0], record))

    def sealed(self) -> "Story":
        self.shipment.seal()
        return self

    @property
    def result(self) -> tuple[int, int, int]:
        """How many were taken, how many not, and how often anybody was told so."""
        return (self.shipment.sent, self.shipment.failed, self.done)


def test_a_record_travels_as_a_put_without_this_nodes_own_actor() -> None:
    story = Story().add()
    (entry,) = story.one.asked(2)
    assert (entry.op, entry.key) == (OP_PUT, story.keys[0])
    assert entry.body == pack_holding(NO_OWN, b"alice", story.record)


def test_its_size_is_told_to_whoever_pays_for_it() -> None:
    story = Story()
    held = story.one.store.get(story.keys[0])
    assert held
    size = story.shipment.add(story.keys[0], held, FIRST)
    assert size == len(story.keys[0]) + len(pack_holding(NO_OWN, b"alice", story.record))


def test_it_is_done_when_all_that_was_added_has_been_answered_and_nothing_else_comes() -> None:
    story = Story().add(2)
    story.one.answers(2, OK, OK)
    assert story.result == (2, 0, 0), "more may be added"
    story.shipment.add(story.keys[2], story.one.store.get(story.keys[2]) or b"", FIRST)
    story.sealed()
    assert story.result == (2, 0, 0), "one is under way"
    story.one.answers(2, OK)
    assert story.result == (3, 0, 1)


def test_what_holds_nothing_is_done_at_once() -> None:
    assert Story().sealed().result == (0, 0, 1)


@pytest.mark.parametrize(
    "answer",
    [NOT_TAKEN, UNWRITABLE, (RECORD, b"no answer to a put")],
    ids=["not taken", "unwritable", "record"],
)
def test_a_record_that_is_not_taken_is_counted_and_the_others_still_are(answer: Answer) -> None:
    story = Story().add(3).sealed()
    story.one.answers(2, OK, answer, OK)
    assert story.result == (2, 1, 1)


def test_a_record_that_is_put_off_is_left_for_another_round() -> None:
    story = Story().add(2).sealed()
    story.one.answers(2, OK, LATER)
    assert story.done == 0
    story.one.advance(1_000_000)
    assert story.result == (1, 1, 1)
    assert story.one.asked(2) == []


def test_a_connection_that_ends_fails_all_that_is_under_way() -> None:
    story = Story().add(3).sealed()
    story.one.end_turn()
    story.one.disconnect(2)
    assert story.result == (0, 3, 1)


def test_without_a_connection_nothing_is_waited_for() -> None:
    story = Story()
    story.one.disconnect(2)
    story.add(2)
    assert story.result == (0, 2, 0)
    assert story.sealed().result == (0, 2, 1)


def test_a_record_that_is_lost_before_it_was_sent_has_failed() -> None:
    story = Story()
    story.one.env.faults = HitsAt("exchange.record_lost")
    story.add(2).sealed()
    assert story.one.asked(2) == []
    assert story.result == (0, 2, 1)


def test_a_large_record_takes_the_large_connection() -> None:
    story = Story(size=100_000).add().sealed()
    assert story.one.asked(2) == []
    assert [entry.key for entry in story.one.asked(2, large=True)] == story.keys[:1]
    story.one.accepts(2, large=True)
    assert story.result == (1, 0, 1)


def test_told_of_a_higher_generation_it_is_read_again_and_sent_under_that() -> None:
    story = Story().add().sealed()
    assert [entry.generation for entry in story.one.asked(2)] == [FIRST]
    story.write_meanwhile(first_record(value(dot(8, 2), b"lamp")))
    story.one.answers(2, STALE)
    assert story.one.node.generations.of(story.keys[0]) == SECOND
    assert story.done == 0
    (entry,) = story.one.asked(2)
    assert entry.generation == SECOND
    assert record_of(entry.body) == record_of(story.one.store.get(story.keys[0]) or b"")
    assert record_of(entry.body) != story.record
    story.one.accepts(2)
    assert story.result == (1, 0, 1)


def test_what_was_reaped_meanwhile_needs_no_sending() -> None:
    story = Story().add().sealed()
    story.one.node.holdings.forget(story.keys[0], story.one.store.get(story.keys[0]))
    story.one.answers(2, STALE)
    assert story.one.asked(2) == []
    assert story.result == (1, 0, 1)


@pytest.mark.parametrize(
    "told",
    [pack("<QQ", THIRD, SECOND), b"", b"no generation"],
    ids=["set aside", "nothing", "garbage"],
)
def test_what_may_no_longer_be_told_is_not_sent_again(told: bytes) -> None:
    """A copy that has missed a drop is set aside; garbage proves nothing."""
    story = Story().add().sealed()
    story.one.answers(2, (STALE_GENERATION, told))
    assert story.one.asked(2) == []
    assert story.result == (0, 1, 1)


def test_what_cannot_be_sent_again_has_failed() -> None:
    """It has grown meanwhile, and there is no connection for large ones."""
    story = Story().add().sealed()
    story.one.env.large_links[2].close()
    story.write_meanwhile(first_record(value(dot(8, 2), b"x" * 100_000)))
    story.one.answers(2, STALE)
    assert story.one.asked(2) == []
    assert story.result == (0, 1, 1)
