"""When no owner answers a fallback coordinates, and mints in the hint that it keeps for them."""

import pytest

from kvorum.client.store import Found, Stored
from kvorum.config import NodeConfig
from kvorum.model.hint import Hint
from kvorum.model.holding import own_dot
from kvorum.model.record import Value, split_values
from kvorum.wire.link import OK, OP_HINT, OP_PUT
from kvorum.wire.requests import (
    FORWARDED,
    NOT_OWNER,
    OVERLOADED,
    QUORUM_NOT_MET,
    READ_FIRST,
    TOMBSTONE,
)
from tests.support.recording import OneNode, Refusal, a_record
from tests.support.wired import Cluster

NONE = 0


class Story:
    """Member 1 of five is a fallback of a key; so is ``other``, and the rest own it."""

    def __init__(self, first: bool = True, config: NodeConfig | None = None) -> None:
        self.one = OneNode(count=5, config=config)
        self.key = next(
            key
            for key in (b"%d" % number for number in range(1000))
            if 1 in self.one.fallbacks_of(key) and (self.one.fallbacks_of(key)[0] == 1) is first
        )
        self.owners = self.one.owners_of(self.key)
        (self.other,) = (m for m in self.one.fallbacks_of(self.key) if m != 1)

    def put(self, value: bytes = b"book", context: bytes = b"", w: int = 2, **options: int) -> None:
        self.one.put(key=self.key, value=value, context=context, w=w, durability=NONE, **options)

    def hint(self) -> Hint:
        hint = self.one.node.hints.hint(self.one.key(self.key))
        assert hint is not None
        return hint

    def stored(self) -> Stored:
        outcome = self.one.client.outcome()
        assert isinstance(outcome, Stored)
        return outcome

    def refused(self) -> Refusal:
        outcome = self.one.client.outcome()
        assert isinstance(outcome, Refusal)
        return outcome


def test_the_first_fallback_mints_in_its_hint_and_owes_it_to_every_owner() -> None:
    story = Story()
    story.one.connect(story.other)
    story.put(w=2)
    assert story.one.store.get(story.one.key(story.key)) is None
    assert story.hint().owners == tuple(sorted(story.owners))
    assert own_dot(story.hint().holding)[:8] == story.one.store.store_id
    (entry,) = story.one.asked(story.other)
    assert entry.op == OP_HINT
    story.one.answers(story.other, OK)
    stored = story.stored()
    assert {ack.member: ack.fallback for ack in stored.acks} == {1: True, story.other: True}
    assert (stored.primaries_acked, stored.fallbacks_acked) == (0, 2)
    assert story.one.env.counters.fallback_puts == 1


def test_it_goes_on_under_the_actor_of_its_hint() -> None:
    story = Story()
    story.put(w=1)
    first = own_dot(story.hint().holding)
    context = story.stored().context
    story.put(b"pen", context, w=1)
    second = own_dot(story.hint().holding)
    assert second[:12] == first[:12]
    assert second > first
    story.stored()
    story.put(b"cup", w=1)
    record = story.hint().holding[20 + len(story.key) :]
    assert {Value(each).data for each in split_values(record)} == {b"pen", b"cup"}


def test_its_actor_ends_with_the_hint() -> None:
    story = Story()
    story.put(w=1)
    first = own_dot(story.hint().holding)
    story.one.node.hints.forget(story.one.key(story.key))
    story.put(b"pen", w=1)
    assert own_dot(story.hint().holding)[:12] != first[:12]


def test_a_fallback_that_reaches_an_owner_or_a_fallback_before_it_forwards() -> None:
    story = Story()
    story.one.connect(story.owners[0])
    story.put()
    assert story.one.env.forward_wanted == [story.owners[0]]

    story = Story(first=False)
    story.one.connect(story.other)
    story.put()
    assert story.one.env.forward_wanted == [story.other]
    story.one.get(key=story.key)
    assert story.one.env.forward_wanted == [story.other, story.other]


def test_a_fallback_to_which_is_forwarded_coordinates_with_whom_it_reaches() -> None:
    story = Story()
    story.one.connect()
    story.put(w=2, flags=FORWARDED)
    for owner in story.owners:
        (entry,) = story.one.asked(owner)
        assert entry.op == OP_PUT
        assert entry.body[4:20] == bytes(16), "its own actor stays at home"
    story.one.answers(story.owners[0], OK)
    assert {ack.member for ack in story.stored().acks} == {1, story.owners[0]}


def test_no_fallback_coordinates_where_none_may_count() -> None:
    story = Story()
    story.one.connect(story.other)
    story.put(sloppy=0, flags=FORWARDED)
    assert story.refused().code == NOT_OWNER
    story.put(sloppy=0)
    assert story.one.env.forward_wanted[-1] in story.owners


def test_it_refuses_before_it_mints_what_it_cannot_carry_through() -> None:
    story = Story()
    story.put(w=2)
    assert story.refused().code == QUORUM_NOT_MET
    assert story.one.node.hints.count == 0


def test_it_refuses_before_it_mints_where_no_hint_fits() -> None:
    story = Story(config=NodeConfig(hint_bytes_max=100, hint_bytes_per_peer_max=100))
    story.put(w=1)
    refusal = story.refused()
    assert refusal.code == OVERLOADED
    assert "no more hints fit here" in refusal.text
    assert story.one.node.hints.count == 0
    assert story.one.env.counters.hints_refused == 1


def test_a_get_counts_what_it_keeps_only_for_want_of_owners() -> None:
    story = Story()
    story.put(w=1)
    story.stored()
    story.one.get(key=story.key, r=1)
    found = story.one.client.outcome()
    assert isinstance(found, Found)
    assert found.values == (b"book",)
    assert found.fallback_read
    assert found.replicas == (1,)

    story.one.connect(story.owners[0])
    story.one.get(key=story.key, r=1, flags=FORWARDED)
    assert story.one.client.take() == []
    story.one.answers(story.owners[0], OK)
    found = story.one.client.outcome()
    assert isinstance(found, Found)
    assert found.values == (b"book",), "what it keeps is told in any case"
    assert not found.fallback_read
    (repair,) = story.one.asked(story.owners[0])
    assert repair.op == OP_PUT, "an owner that was behind is mended"


def test_a_get_at_a_fallback_mends_no_copy_of_its_own() -> None:
    story = Story()
    story.one.connect(story.other)
    story.put(w=1)
    story.stored()
    story.one.accepts(story.other)
    story.one.get(key=story.key, r=2)
    record = story.hint().holding[20 + len(story.key) :]
    story.one.answers(story.other, a_record(record))
    story.one.client.take()
    assert story.one.store.get(story.one.key(story.key)) is None
    assert story.one.env.counters.own_repairs == 0


def test_a_delete_without_context_reads_and_covers_what_fallbacks_keep() -> None:
    story = Story()
    story.one.connect(story.other)
    story.put(w=1)
    story.stored()
    story.one.accepts(story.other)
    story.one.put(key=story.key, value=b"", w=1, durability=NONE, flags=TOMBSTONE | READ_FIRST)
    story.one.answers(story.other, OK)
    story.stored()
    values = [Value(each) for each in split_values(story.hint().holding[20 + len(story.key) :])]
    assert [each.tombstone for each in values] == [True]


@pytest.mark.parametrize("member", [1, 2, 3, 4, 5])
def test_a_cluster_without_a_keys_owners_writes_and_reads_it_wherever_it_is_asked(
    member: int,
) -> None:
    cluster = Cluster(count=5)
    key = b"alice"
    one = cluster[member]
    owners = one.owners_of(key)
    if member in owners:
        return
    for owner in owners:
        cluster.stop(owner)
    one.put(key=key, w=2, durability=NONE)
    cluster.settle()
    stored = one.client.outcome()
    assert isinstance(stored, Stored)
    assert stored.fallbacks_acked == 2
    assert stored.coordinator == one.fallbacks_of(key)[0]
    one.get(key=key, r=2)
    cluster.settle()
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert found.values == (b"book",)
    assert found.fallback_read
