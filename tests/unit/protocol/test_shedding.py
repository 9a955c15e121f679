"""Hints are shed for want of room only where owners durably hold what was promised by them."""

from itertools import count

import pytest

from kvorum.config import NodeConfig
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.record import first_record, lww_record, next_record
from kvorum.model.siblings import merge
from kvorum.protocol.shedding import PAUSE, claim_of, is_covered
from kvorum.wire.handoff_messages import CoverAnswer, CoverQuery
from kvorum.wire.link import OK, OVERLOADED
from tests.support import recording
from tests.support.recording import OneNode
from tests.support.records import dot, value
from tests.support.wired import Cluster

ROOM = NodeConfig(hint_bytes_max=1_000, hint_bytes_per_peer_max=1_000)
MISSING, HELD, ON_DISK = range(3)
LOOK = 1_000_000


def record_of_bytes(size: int, actor: int = 8) -> bytes:
    return first_record(value(dot(actor, 1), b"x" * size))


BOOK = record_of_bytes(300)


class Story:
    """Member 1 keeps hints of 300 bytes for member 2, in a room of 1,000 bytes."""

    def __init__(self, hints: int = 2, w: int = 2, disks: int = 1) -> None:
        self.one = OneNode(count=4, config=ROOM).connect()
        self.one.disconnect(2)
        names = (b"k%d" % number for number in count())
        self.names = [self._foreign(names) for _ in range(hints)]
        for name in self.names:
            assert self.keep(name, w, disks) == OK
        self.one.env.sent.clear()

    def _foreign(self, names: "count[bytes]") -> bytes:
        return next(name for name in names if 1 not in self.one.owners_of(name))  # type: ignore[call-overload]

    def keep(self, name: bytes, w: int = 2, disks: int = 1, record: bytes = BOOK) -> int:
        holding = pack_holding(NO_OWN, name, record)
        return self.one.node.hints.take(self.one.key(name), 2, w, disks, holding)

    @property
    def count(self) -> int:
        return self.one.node.hints.count

    def crowd(self) -> None:
        """One more hint finds no room."""
        names = (b"c%d" % number for number in count())
        assert self.keep(self._foreign(names), record=record_of_bytes(600)) == OVERLOADED

    def questions(self) -> dict[int, CoverQuery]:
        asked = {to: m for to, m in self.one.env.sent if isinstance(m, CoverQuery)}
        self.one.env.sent = [
            each for each in self.one.env.sent if not isinstance(each[1], CoverQuery)
        ]
        return asked

    def ask(self) -> dict[int, CoverQuery]:
        """What is asked, at once or before long."""
        asked = self.questions()
        if not asked:
            self.one.advance(LOOK)
            asked = self.questions()
        return asked

    def answer(self, member: int, query: CoverQuery, *states: int) -> None:
        assert self.one.node.on_control(member, CoverAnswer(query.number, bytes(states))) is None


def test_as_long_as_there_is_room_nobody_is_asked() -> None:
    story = Story(hints=1)
    assert story.ask() == {}
    assert story.count == 1


def test_what_enough_owners_durably_cover_is_shed() -> None:
    story = Story()
    story.crowd()
    asked = story.ask()
    assert sorted(asked) == [2, 3, 4]
    assert asked[3].keys == [story.one.key(name) for name in story.names]
    story.answer(3, asked[3], ON_DISK, ON_DISK)
    assert story.count == 2, "the others may answer yet"
    story.answer(4, asked[4], ON_DISK, MISSING)
    story.answer(2, asked[2], MISSING, MISSING)
    assert story.count == 1
    assert not story.one.node.hints.holds(story.one.key(story.names[0]))
    assert story.one.env.counters.hints_shed == 1


@pytest.mark.parametrize(
    ("w", "disks", "states", "goes"),
    [
        (1, 1, (MISSING, ON_DISK, MISSING), True),
        (1, 1, (MISSING, HELD, HELD), False),
        (2, 1, (MISSING, HELD, ON_DISK), True),
        (2, 2, (MISSING, HELD, ON_DISK), False),
        (2, 0, (MISSING, HELD, HELD), True),
        (2, 1, (MISSING, MISSING, ON_DISK), False),
        (3, 1, (MISSING, ON_DISK, ON_DISK), False),
        (3, 3, (ON_DISK, ON_DISK, ON_DISK), True),
    ],
)
def test_it_takes_the_number_and_durability_that_the_hint_carries(
    w: int, disks: int, states: tuple[int, ...], goes: bool
) -> None:
    story = Story(hints=1, w=w, disks=disks)
    story.crowd()
    asked = story.ask()
    for member, state in zip((2, 3, 4), states, strict=True):
        story.answer(member, asked[member], state)
    assert (story.count == 0) is goes


def test_who_does_not_answer_is_waited_for_only_so_long_and_covers_nothing() -> None:
    story = Story()
    story.crowd()
    asked = story.ask()
    story.answer(3, asked[3], ON_DISK, ON_DISK)
    story.one.advance(2 * LOOK)
    assert story.count == 2
    later = story.questions()
    assert later == {}, "nothing could go; a pause follows"
    story.answer(4, asked[4], ON_DISK, ON_DISK)
    assert story.count == 2, "an answer to an old question"


def test_after_a_pause_it_is_asked_again() -> None:
    story = Story()
    story.crowd()
    asked = story.ask()
    for member in (2, 3, 4):
        story.answer(member, asked[member], MISSING, MISSING)
    story.one.advance(LOOK)
    assert story.questions() == {}
    story.one.advance(PAUSE)
    story.crowd()
    assert sorted(story.ask()) == [2, 3, 4]


def test_a_hint_that_has_grown_since_is_kept() -> None:
    story = Story(hints=1)
    story.crowd()
    asked = story.ask()
    story.keep(story.names[0], record=record_of_bytes(10, actor=9))
    for member in (2, 3, 4):
        story.answer(member, asked[member], ON_DISK)
    assert story.count == 1


def test_a_nearly_full_room_is_enough_to_begin() -> None:
    story = Story(hints=2)
    assert story.one.node.hints.bytes * 8 >= 1_000 * 7
    assert sorted(story.ask()) == [2, 3, 4]


def test_an_answer_of_another_length_is_passed_over() -> None:
    story = Story()
    story.crowd()
    asked = story.ask()
    story.answer(3, asked[3], ON_DISK)
    story.answer(3, asked[3], ON_DISK, ON_DISK)
    story.answer(4, asked[4], ON_DISK, ON_DISK)
    story.answer(2, asked[2], MISSING, MISSING)
    assert story.count == 0


def test_while_nothing_can_be_written_nothing_is_shed() -> None:
    story = Story()
    story.crowd()
    asked = story.ask()
    story.one.store.buffer.fail("the engine has failed")
    for member in (2, 3, 4):
        story.answer(member, asked[member], ON_DISK, ON_DISK)
    assert story.count == 2


# The answering end.


class Owner:
    """Member 1 holds a record of a key that it owns."""

    def __init__(self, durable: bool = True) -> None:
        self.one = OneNode(durable=durable).connect()
        self.one.put(durability=0)
        self.key = self.one.key()
        held = self.one.store.get(self.key)
        assert held is not None
        self.record = held[20 + 5 :]

    def asks(self, claim: bytes, key: bytes = b"") -> object:
        return self.one.node.on_control(2, CoverQuery(7, [key or self.key], [claim]))


def test_an_owner_answers_once_what_it_holds_is_on_its_disk() -> None:
    owner = Owner()
    assert owner.asks(claim_of(owner.record)) is None
    assert not any(isinstance(m, CoverAnswer) for _, m in owner.one.env.sent)
    owner.one.sync()
    assert (2, CoverAnswer(7, bytes((ON_DISK,)))) in owner.one.env.sent
    assert owner.asks(claim_of(owner.record)) == CoverAnswer(7, bytes((ON_DISK,)))


def test_an_owner_without_a_disk_says_that_it_holds_it() -> None:
    owner = Owner(durable=False)
    assert owner.asks(claim_of(owner.record)) == CoverAnswer(7, bytes((HELD,)))


def test_an_owner_that_lacks_something_says_so_at_once() -> None:
    owner = Owner()
    missing = CoverAnswer(7, bytes((MISSING,)))
    assert owner.asks(claim_of(merge(owner.record, BOOK))) == missing
    assert owner.asks(claim_of(BOOK)) == missing
    assert owner.asks(claim_of(owner.record), owner.one.key(b"another")) == missing
    assert owner.asks(claim_of(lww_record(value(dot(8, 1))))) == missing


def test_who_is_no_owner_now_covers_nothing() -> None:
    owner = Owner()
    generations = owner.one.node.generations
    generations.owned[generations.partition_of(owner.key)] = -1
    assert owner.asks(claim_of(owner.record)) == CoverAnswer(7, bytes((MISSING,)))


def test_a_question_that_does_not_add_up_is_not_answered() -> None:
    owner = Owner()
    assert owner.one.node.on_control(2, CoverQuery(7, [owner.key], [])) is None


def test_a_claim_says_as_much_as_its_record() -> None:
    second = next_record(BOOK, value(dot(8, 2), b"more"))
    assert second is not None
    assert is_covered(claim_of(BOOK), second)
    assert not is_covered(claim_of(second), BOOK)
    assert len(claim_of(BOOK)) < 100
    early, late = (lww_record(value(dot(8, 1), b"v" * 50, clock=clock)) for clock in (3, 4))
    assert is_covered(claim_of(early), late)
    assert is_covered(claim_of(early), early)
    assert not is_covered(claim_of(late), early)


def test_in_a_cluster_a_long_absence_leaves_room_for_new_hints() -> None:
    """Scylla #8863: full hint stores must shed hints, and not refuse writes that are healthy."""
    cluster = Cluster(count=4, config=ROOM)
    one = cluster[1]
    keys = [
        key
        for key in (b"%d" % number for number in range(400))
        if 1 in one.owners_of(key) and 2 in one.owners_of(key)
    ][:30]
    cluster.stop(2)
    outcomes = []
    for key in keys:
        one.put(key=key, value=b"x" * 100, w=2, durability=1)
        cluster.settle()
        cluster.sync()
        cluster.advance(600_000)
        outcomes += one.client.outcomes()
    assert len(outcomes) == 30
    assert all(type(outcome).__name__ == "Stored" for _, outcome in outcomes)
    shed = sum(cluster[member].env.counters.hints_shed for member in (1, 3, 4))
    taken = sum(cluster[member].env.counters.hints_taken for member in (1, 3, 4))
    assert shed > 5
    assert taken > 10
    assert all(cluster[member].node.hints.bytes <= 1_000 for member in (1, 3, 4))


def test_an_answer_to_the_start_before_is_not_taken_for_one_to_this_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by seed 8000006428: an owner owed it until its disk was synced, and the asker had
    been started anew meanwhile; the hint had grown since, and was let go all the same."""
    before = Story()
    before.crowd()
    late = before.ask()
    monkeypatch.setattr(recording, "WALL", recording.WALL + 1_000)
    story = Story()
    story.crowd()
    asked = story.ask()
    for member in asked:
        story.answer(member, late[member], ON_DISK, ON_DISK)
    assert story.count == 2
    for member in asked:
        story.answer(member, asked[member], ON_DISK, ON_DISK)
    assert story.count == 0
