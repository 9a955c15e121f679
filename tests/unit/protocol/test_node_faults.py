"""What a node does with a put that comes twice, a log that is refused, and a clock that steps."""

import pytest

from kvorum.client.store import Stored
from kvorum.model.holding import record_of
from kvorum.model.record import head_of
from kvorum.model.tables import DEFAULT_TABLE
from kvorum.protocol.ledger import Ledger
from kvorum.protocol.minting import Minter
from kvorum.wire.messages import TableAnswer, TableCreate
from kvorum.wire.requests import FORWARDED, OVERLOADED
from tests.support.recording import OneNode, RecordingPort, Refusal, Unknown

HOUR = 3_600_000_000
SECOND = 1_000_000


def forwarded_twice() -> tuple[int, list[object]]:
    """A client's put reaches its owner through two other members; values held, and outcomes."""
    one = OneNode().connect()
    first, second = RecordingPort(), RecordingPort()
    for port in (first, second):
        one.put(counter=7, durability=0, flags=FORWARDED, client=port)
        for member in (2, 3):
            one.accepts(member)
    holding = one.store.get(one.key())
    assert holding is not None
    return head_of(record_of(holding))[4], [first.outcome(), second.outcome()]


def test_a_put_that_is_forwarded_twice_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 5: by its id; without the ledger and a look at what is here it would be a sibling."""
    values, outcomes = forwarded_twice()
    assert values == 1
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    monkeypatch.setattr(Ledger, "recall", lambda *_: None)
    assert forwarded_twice()[0] == 1, "its value is found"
    monkeypatch.setattr(Minter, "_has_written", lambda *_: False)
    values, _ = forwarded_twice()
    assert values == 2, "the story would not notice a broken rule"


def with_full_disk() -> OneNode:
    """A node whose log has just refused a put that it minted."""
    one = OneNode().connect()
    assert one.disk is not None
    one.put()
    one.disk.free_bytes = 0
    assert not one.store.end_turn()
    one.node.on_log_refused()
    one.disk.free_bytes = 1 << 30  # So that the support can end turns; nothing is synced.
    return one


def test_the_own_write_does_not_count_while_the_log_lacks_it() -> None:
    one = with_full_disk()
    one.accepts(2)
    one.marks(2)
    assert one.client.take() == [], "one other owner and a write that no log has are not two"
    one.accepts(3)
    stored = one.client.outcome()
    assert isinstance(stored, Stored)
    assert sorted(ack.member for ack in stored.acks) == [2, 3]


def test_the_own_write_counts_again_once_it_is_on_the_disk() -> None:
    one = with_full_disk()
    one.accepts(2)
    one.sync()
    stored = one.client.outcome()
    assert isinstance(stored, Stored)
    assert [(ack.member, ack.level) for ack in stored.acks] == [(1, "disk"), (2, "os")]


def test_a_put_that_comes_again_while_the_log_lacks_it_is_not_claimed_either() -> None:
    one = with_full_disk()
    one.accepts(2)
    one.put(counter=1)
    one.accepts(2)
    assert one.client.take() == []
    one.advance(6 * SECOND)
    (_, outcome), *_ = one.client.outcomes()
    assert isinstance(outcome, Unknown)


def test_what_was_logged_before_a_refusal_goes_on_counting() -> None:
    one = OneNode().connect()
    assert one.disk is not None
    one.put(b"early")
    one.end_turn()
    one.put(b"late")
    one.disk.free_bytes = 0
    assert not one.store.end_turn()
    one.node.on_log_refused()
    one.disk.free_bytes = 1 << 30
    one.accepts(2)
    one.marks(2)
    ((number, outcome),) = one.client.outcomes()
    assert number == 1
    assert isinstance(outcome, Stored)


def with_newest_table() -> tuple[OneNode, bytes]:
    """A node with a last-write-wins table, whose peers have told it their clocks."""
    one = OneNode()
    for member in (2, 3):
        one.node.peering.learn_clock(member, one.env.now, one.env.wall)
    one.question(TableCreate(1, "newest", resolution="lww", durability="none", w=1))
    one.sync()
    one.advance(2 * SECOND)
    one.sync()
    answer = one.client.message()
    assert isinstance(answer, TableAnswer)
    assert answer.tables[0].name != DEFAULT_TABLE
    return one, answer.tables[0].id


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_clock_that_steps_is_not_used_until_it_is_judged(step: int) -> None:
    one, table = with_newest_table()
    one.put(table=table)
    assert isinstance(one.client.outcome(), Stored)
    one.env.wall += step
    one.put(b"bob", table=table)
    refusal = one.client.outcome()
    assert isinstance(refusal, Refusal)
    assert refusal.code == OVERLOADED
    assert "clock is off" in refusal.text
    last = one.node.clock.last
    one.put(b"carol", durability=0, w=1)  # Where clocks decide nothing it goes on,
    assert isinstance(one.client.outcome(), Stored)
    assert one.node.clock.last == last, "and draws the clock nowhere."
    one.env.wall -= step
    one.put(b"bob", table=table)
    assert isinstance(one.client.outcome(), Stored)
    assert one.node.clock.last <= one.env.wall + SECOND


def test_a_step_that_all_clocks_have_made_is_no_step() -> None:
    one, table = with_newest_table()
    one.env.wall += HOUR
    for member in (2, 3):
        one.node.peering.learn_clock(member, one.env.now, one.env.wall)
    one.advance(2 * SECOND)
    one.sync()
    one.put(table=table)
    assert isinstance(one.client.outcome(), Stored)


def test_no_lease_is_taken_on_a_clock_that_has_stepped() -> None:
    one, _ = with_newest_table()
    lease = one.node.clock.lease
    one.env.wall += HOUR
    one.advance(2 * SECOND)
    one.sync()
    assert one.node.clock.lease == lease
