"""Hints go home: within the receiver's credit, oldest first, dropped only once they are there."""

from collections import deque
from itertools import count

import pytest

from kvorum.config import NodeConfig
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.record import first_record
from kvorum.protocol import handoff
from kvorum.protocol.background import RECORD_TAKEN
from kvorum.protocol.hints import Hints
from kvorum.wire.handoff_messages import HandoffCredit, HandoffOffer
from kvorum.wire.link import LATER, NOT_TAKEN, OK, STALE_GENERATION, UNWRITABLE
from tests.support.recording import OneNode, a_record, answers_payload, entries_of, number_of
from tests.support.records import dot, value
from tests.support.wired import Cluster

BOOK = first_record(value(dot(8, 1), b"book"))
PEN = first_record(value(dot(9, 1), b"pen"))
STEP = 20_000


class Story:
    """Member 1 keeps hints for member 2, which is away at first."""

    def __init__(self, hints: int = 1, record: bytes = BOOK, config: NodeConfig | None = None):
        self.one = OneNode(count=4, config=config)
        self.one.connect(3, 4)
        keys = (b"k%d" % number for number in count())
        self.names = [self._foreign(keys) for _ in range(hints)]
        self.keys = [self.one.key(name) for name in self.names]
        for name in self.names:
            self.keep(name, record)
            self.one.advance(10)

    def _foreign(self, keys: "count[bytes]") -> bytes:
        return next(key for key in keys if 1 not in self.one.owners_of(key))  # type: ignore[call-overload]

    def keep(self, name: bytes, record: bytes, owner: int = 2) -> None:
        holding = pack_holding(NO_OWN, name, record)
        assert self.hints.take(self.one.key(name), owner, 1, 0, holding) == OK

    @property
    def hints(self) -> Hints:
        return self.one.node.hints

    def back(self, entries: int = 100, size: int = 1 << 20) -> "Story":
        """Member 2 is back and gives credit."""
        self.one.connect(2)
        self.one.advance(STEP)
        self.credit(entries, size)
        return self

    def credit(self, entries: int, size: int = 1 << 20) -> None:
        assert self.one.node.on_control(2, HandoffCredit(entries, size)) is None
        self.one.advance(STEP)

    def offers(self) -> list[HandoffOffer]:
        return [m for to, m in self.one.env.sent if to == 2 and isinstance(m, HandoffOffer)]

    def sent(self) -> list[bytes]:
        return [entry.key for entry in self.one.asked(2)]

    def pass_time(self, microseconds: int) -> None:
        """Member 2 answers every probe meanwhile, and nothing else."""
        for _ in range(microseconds // 100_000):
            self.one.advance(100_000)
            batches = self.one.unanswered.get((2, False), deque())
            while batches and not entries_of(batches[0]):
                answer = answers_payload(number_of(batches.popleft()), [])
                self.one.env.links[2].on_answers(answer, self.one.env.now)

    def deliver(self) -> None:
        """Member 2 takes what it was sent, and has it on its disk."""
        self.one.accepts(2)
        self.one.marks(2)
        self.one.advance(STEP)


def test_a_hint_goes_home_as_a_put_and_is_dropped_once_the_owner_has_it_on_its_disk() -> None:
    story = Story()
    assert story.offers() == []
    story.back()
    assert [(offer.entries, offer.bytes > 0) for offer in story.offers()] == [(1, True)]
    assert story.sent() == story.keys
    story.one.accepts(2)
    assert story.hints.count == 1, "an ack is no disk"
    story.one.marks(2)
    assert story.hints.count == 0
    assert "hints_home" in story.one.env.events
    assert story.one.env.counters.hints_handed == story.one.env.counters.hints_offered == 1


def test_an_owner_without_a_disk_need_only_take_it() -> None:
    story = Story()
    story.one.node.peering.volatile[2] = True
    story.back()
    story.one.accepts(2)
    assert story.hints.count == 0


def test_nothing_is_sent_without_credit_or_beyond_it() -> None:
    story = Story(hints=10)
    story.one.connect(2)
    story.one.advance(STEP)
    assert story.sent() == []
    story.credit(4)
    assert story.sent() == story.keys[:4], "the oldest first"
    story.one.advance(STEP)
    assert len(story.sent()) == 4
    story.deliver()
    assert story.sent() == story.keys[4:8]


def test_credit_is_of_bytes_as_well_and_lets_one_large_hint_pass() -> None:
    story = Story(hints=5, record=first_record(value(dot(8, 1), b"x" * 1_000)))
    story.back(size=2_000)
    assert len(story.sent()) == 2
    story.deliver()
    assert len(story.sent()) == 2
    story.deliver()
    story.credit(10, 1)
    assert story.hints.count == 1
    assert len(story.sent()) == 1


def test_credit_runs_out_and_is_asked_for_again() -> None:
    story = Story(hints=3).back(entries=0)
    story.pass_time(500_000)
    before = len(story.offers())
    story.pass_time(2_500_000)
    assert len(story.offers()) >= before + 2
    assert story.sent() == []
    story.credit(1)
    assert len(story.sent()) == 1


def test_what_was_under_way_when_the_connection_ended_is_sent_again() -> None:
    story = Story(hints=3).back()
    assert len(story.sent()) == 3
    story.one.disconnect(2)
    assert story.hints.count == 3
    story.back()
    assert story.sent() == story.keys
    story.deliver()
    assert story.hints.count == 0


def test_an_ack_without_its_mark_drops_nothing() -> None:
    story = Story().back()
    story.one.accepts(2)
    story.one.disconnect(2)
    assert story.hints.count == 1


def test_a_hint_that_has_grown_since_it_was_sent_is_sent_again() -> None:
    story = Story().back()
    assert len(story.sent()) == 1
    story.keep(story.names[0], PEN)
    story.deliver()
    assert story.hints.count == 1
    assert story.sent() == story.keys
    story.deliver()
    assert story.hints.count == 0


def test_each_owner_is_served_by_itself() -> None:
    story = Story()
    story.keep(story.names[0], BOOK, owner=3)
    story.back()
    story.deliver()
    hint = story.hints.hint(story.keys[0])
    assert hint is not None
    assert hint.owners == (3,)


def test_an_owner_that_cannot_write_is_asked_after_pauses_that_double() -> None:
    story = Story().back()
    story.one.answers(2, (UNWRITABLE, b"full"))
    story.one.advance(50_000)
    assert story.sent() == []
    story.one.advance(600_000)
    assert len(story.sent()) == 1
    story.one.answers(2, (UNWRITABLE, b"full"))
    story.one.advance(150_000)
    assert story.sent() == []
    assert story.one.env.counters.hints_put_off == 2


def test_a_key_that_the_owner_will_not_have_holds_nobody_up() -> None:
    story = Story(hints=2).back(entries=1)
    story.one.answers(2, (NOT_TAKEN, b"the table has been dropped"))
    story.pass_time(1_000_000)
    story.credit(1)
    assert story.sent() == story.keys[1:]
    story.deliver()
    assert story.hints.count == 1
    story.pass_time(12_000_000)
    story.credit(1)
    assert story.sent() == story.keys[:1], "it is tried again after a while"


def test_an_owner_that_answers_a_put_with_a_record_has_not_taken_it() -> None:
    story = Story().back()
    story.one.answers(2, a_record(BOOK))
    story.pass_time(100_000)
    assert story.sent() == story.keys
    story.deliver()
    assert story.hints.count == 0


def test_a_full_queue_holds_the_rest_back() -> None:
    config = NodeConfig(peer_queue_bytes_max=1 << 16)
    record = first_record(value(dot(8, 1), b"x" * 30_000))
    story = Story(hints=3, record=record, config=config).back()
    assert story.sent() == story.keys[:2]
    story.deliver()
    assert story.sent() == story.keys[2:]
    story.deliver()
    assert story.hints.count == 0


def test_only_so_many_keys_are_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff, "PARKED_MAX", 1)
    story = Story(hints=2).back()
    story.one.answers(2, (NOT_TAKEN, b"why"), (NOT_TAKEN, b"why"))
    story.pass_time(1_000_000)
    story.credit(2)
    assert story.sent() == story.keys[1:], "for the second one there was no room"


@pytest.mark.parametrize("end", ["mark", "loss"])
def test_what_comes_after_a_delivery_changes_nothing(end: str) -> None:
    """An owner without a disk has it when it says so; its mark, or its end, is no news."""
    story = Story(hints=2)
    story.one.node.peering.volatile[2] = True
    story.back(entries=1)
    story.one.accepts(2)
    assert story.hints.count == 1
    debt = story.one.node.handoff._debts[2]
    if end == "mark":
        story.one.marks(2)
        assert debt.credit_until > story.one.env.now, "no reason to ask for credit anew"
    else:
        story.one.disconnect(2)
    assert story.hints.count == 1
    assert debt.bytes >= 0
    assert story.one.env.counters.hints_handed == 1


def test_later_means_ask_again() -> None:
    story = Story().back()
    story.one.answers(2, LATER)
    story.pass_time(600_000)
    assert story.sent() == story.keys


def test_a_hint_read_under_an_older_generation_is_read_again() -> None:
    story = Story().back()
    higher = 1 << 16 | 2
    story.one.answers(2, (STALE_GENERATION, higher.to_bytes(8, "little") + bytes(8)))
    partition = story.one.node.generations.partition_of(story.keys[0])
    assert story.one.node.generations.of(story.keys[0]) == higher
    story.one.advance(STEP)
    assert story.sent() == story.keys
    assert story.one.node.generations.ready(partition)


def test_a_partition_that_is_set_aside_hands_nothing_off() -> None:
    story = Story()
    story.one.node.generations.current[story.one.node.generations.partition_of(story.keys[0])] = -1
    story.back()
    assert story.sent() == []
    assert story.hints.count == 1


def test_hints_of_dropped_tables_are_let_go_and_damaged_ones_given_up() -> None:
    story = Story(hints=2)
    story.one.node.tables.registry.dropped_ids[story.keys[0][17:25]] = None
    story.back()
    assert story.hints.count == 0
    assert story.sent() == []


def test_a_damaged_hint_is_given_up_and_counted() -> None:
    story = Story(hints=1)
    story.one.sync()
    story.one.restart()
    stored = b"\2" + story.keys[0][1:]
    story.one.engine.records[stored] = story.one.engine.records[stored][:-1] + b"\0\0"
    story.back()
    story.one.advance(1_000_000)
    assert story.hints.count == 0
    assert story.one.env.counters.hints_damaged == 1


def test_large_hints_go_over_the_connection_for_large_values() -> None:
    story = Story(record=first_record(value(dot(8, 1), b"x" * 100_000))).back()
    assert story.sent() == []
    assert len(story.one.asked(2, large=True)) == 1


def test_an_owner_that_has_gone_silent_is_left_alone() -> None:
    story = Story(hints=2)
    story.one.connect(2)
    story.one.env.links[2].silent = True
    story.one.advance(3_000)
    story.credit(5)
    assert story.sent() == []
    assert story.offers() == []


def test_a_handoff_goes_on_after_a_restart() -> None:
    story = Story(hints=20)
    story.back(entries=5)
    story.deliver()
    left = story.hints.count
    assert 0 < left < 20
    story.one.sync()
    story.one.restart(clean=False)
    assert story.hints.count == left
    story.back()
    story.deliver()
    assert story.hints.count == 0


def test_while_nothing_can_be_written_a_delivered_hint_stays_on_the_list() -> None:
    story = Story().back()
    story.one.end_turn()
    story.one.accepts(2)
    story.one.store.buffer.fail("the engine has failed")
    story.one.marks(2)
    assert story.hints.count == 1


# The receiving end.


def test_credit_is_shared_among_all_who_offer() -> None:
    one = OneNode(count=5).connect()
    first = one.node.on_control(2, HandoffOffer(10, 1_000))
    assert first == HandoffCredit(handoff.CREDIT_ENTRIES, handoff.CREDIT_BYTES)
    second = one.node.on_control(3, HandoffOffer(10, 1_000))
    assert second == HandoffCredit(handoff.CREDIT_ENTRIES // 2, handoff.CREDIT_BYTES // 2)
    one.advance(handoff.CREDIT_LASTS + 1)
    assert one.node.on_control(3, HandoffOffer(10, 1_000)) == first


def test_who_has_given_everything_shares_no_longer() -> None:
    one = OneNode(count=5).connect()
    first = one.node.on_control(2, HandoffOffer(10, 1_000))
    one.node.on_control(3, HandoffOffer(10, 1_000))
    assert one.node.on_control(3, HandoffOffer(0, 0)) == HandoffCredit(0, 0)
    assert one.node.on_control(2, HandoffOffer(10, 1_000)) == first


def charged(one: OneNode) -> int:
    return one.node.background._charged


def test_what_was_taken_since_the_last_offer_counts_as_background_work_of_the_taker() -> None:
    one = OneNode(count=5).connect()
    one.node.on_control(2, HandoffOffer(1_000, 1_000))
    assert charged(one) == 0, "nothing has come yet"
    one.advance(1_000_000)
    one.node.on_control(2, HandoffOffer(300, 1_000))
    assert charged(one) == 700 * RECORD_TAKEN
    one.advance(1_000_000)
    one.node.on_control(2, HandoffOffer(310, 1_000))  # There are more hints than before.
    assert charged(one) == 700 * RECORD_TAKEN
    one.advance(1_000_000)
    one.node.on_control(2, HandoffOffer(0, 0))
    assert charged(one) == 1_010 * RECORD_TAKEN
    one.node.on_control(2, HandoffOffer(5, 1_000))
    assert charged(one) == 1_010 * RECORD_TAKEN, "what it says now is another story"


@pytest.mark.parametrize("givers", [(2,), (2, 3, 4, 5)])
def test_a_wrong_word_charges_no_more_than_the_time_is_worth(
    givers: tuple[int, ...],
) -> None:
    one = OneNode(count=5).connect()
    for entries in (1 << 60, 0):
        for member in givers:
            one.node.on_control(member, HandoffOffer(entries, 1_000))
        one.advance(1_000_000)
    share = one.config.background_share_max_percent
    half = 1_000_000 * share // 100 // 2
    first = half // len(givers)  # While all of them were giving; fewer and fewer of them are.
    most = sum(half // left for left in range(1, len(givers) + 1))
    assert first <= charged(one) <= most
    before = charged(one)
    one.node.on_control(2, HandoffOffer(-5, -5))
    assert charged(one) == before


def test_an_owner_is_told_when_it_has_everything() -> None:
    story = Story(hints=3).back()
    story.deliver()
    assert story.hints.count == 0
    assert [offer.entries for offer in story.offers()] == [3, 0]
    story.credit(0, 0)
    story.keep(story.names[0], PEN)
    story.one.node.handoff.wake()
    story.one.advance(STEP)
    assert [offer.entries for offer in story.offers()] == [3, 0, 1], "and of more at once"
    story.credit(10)
    assert story.sent() == story.keys[:1]


def test_who_cannot_write_gives_no_credit() -> None:
    one = OneNode(count=4).connect()
    one.store.buffer.fail("the engine has failed")
    assert one.node.on_control(2, HandoffOffer(10, 1_000)) == HandoffCredit(0, 0)


@pytest.mark.parametrize("volatile", [(), (1, 2, 3, 4)])
def test_in_a_cluster_hints_go_home_by_themselves(volatile: tuple[int, ...]) -> None:
    cluster = Cluster(count=4, volatile=volatile)
    one = cluster[1]
    key = one.owned_key()
    away = next(member for member in one.owners_of(key) if member != 1)
    cluster.stop(away)
    for number in range(5):
        one.put(key=key, value=b"%d" % number, w=3, durability=0)
        cluster.settle()
    (fallback,) = one.fallbacks_of(key)
    assert cluster[fallback].node.hints.count == 1
    assert cluster.values(away, key) == []
    for other in (1, 2, 3, 4):
        if other != away:
            cluster.join(other, away)
            cluster.join(away, other)
    for _ in range(10):
        cluster.advance(100_000)
        cluster.sync()
    assert cluster[fallback].node.hints.count == 0
    charges = [charged(cluster[member]) for member in (1, 2, 3, 4)]
    assert charges == [RECORD_TAKEN * (member == away) for member in (1, 2, 3, 4)]
    assert sorted(cluster.values(away, key)) == [b"0", b"1", b"2", b"3", b"4"]
