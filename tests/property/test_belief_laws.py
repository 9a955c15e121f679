"""Beliefs merge in whatever order they come, and a refutation always wins."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kvorum.model.members import (
    NEEDED_LEAD,
    Belief,
    Members,
    State,
    doubted,
    is_news,
    merge,
    rank,
    refuted,
)

ME = 1
beliefs = st.builds(
    Belief,
    member=st.just(ME),
    state=st.sampled_from(State),
    incarnation=st.integers(0, 3),
    store_id=st.sampled_from([b"", b"store 01", b"store 02"]),
    start_count=st.integers(0, 2),
    nonce=st.sampled_from([b"", b"nonce 08"]),
    by=st.integers(0, 3),
)


@given(beliefs, beliefs)
def test_merging_is_commutative(one: Belief, other: Belief) -> None:
    assert merge(one, other) == merge(other, one)


@given(beliefs, beliefs, beliefs)
def test_merging_is_associative(one: Belief, other: Belief, third: Belief) -> None:
    assert merge(merge(one, other), third) == merge(one, merge(other, third))


@given(beliefs, beliefs)
def test_merging_is_idempotent(one: Belief, other: Belief) -> None:
    assert merge(one, one) == one
    assert merge(merge(one, other), other) == merge(one, other)


@given(beliefs, beliefs)
def test_news_is_what_the_order_says_whoever_says_it(held: Belief, heard: Belief) -> None:
    assert is_news(held, heard) == (rank(heard)[:-1] > rank(held)[:-1])


@given(beliefs, beliefs)
def test_the_transition_table_says_what_the_order_does(held: Belief, heard: Belief) -> None:
    lead = heard.incarnation - held.incarnation
    if held.state != heard.state or lead:
        assert is_news(held, heard) == (lead >= NEEDED_LEAD[held.state, heard.state])


@given(st.lists(beliefs))
def test_incarnations_only_grow(heard: list[Belief]) -> None:
    members = Members([ME], 0)
    for belief in heard:
        before = members.of(ME)
        members.take(belief, 5)
        after = members.of(ME)
        assert before is not None
        assert after is not None
        assert after.incarnation >= before.incarnation
        assert rank(after)[:-1] >= rank(before)[:-1]
        assert (ME in members.gone) == (after.state >= State.DEAD)


@given(st.lists(beliefs), st.randoms())
def test_whoever_hears_the_same_in_another_order_believes_the_same(
    heard: list[Belief], random: Random
) -> None:
    one, other = Members([ME], 0), Members([ME], 0)
    for belief in heard:
        one.take(belief, 0)
    random.shuffle(heard)
    for belief in heard:
        other.take(belief, 0)
    ours, theirs = one.of(ME), other.of(ME)
    assert ours is not None
    assert theirs is not None
    assert rank(ours)[:-1] == rank(theirs)[:-1]


@given(beliefs, st.lists(beliefs))
def test_a_refutation_wins_over_all_that_was_said_before(own: Belief, heard: list[Belief]) -> None:
    own = doubted(own, State.ALIVE, 0)
    for belief in heard:
        own = refuted(own, belief) or own
    members = Members([ME], 0)
    for belief in [*heard, own, *heard]:
        members.take(belief, 0)
    believed = members.of(ME)
    assert believed is not None
    assert (believed.state, believed.incarnation) == (State.ALIVE, own.incarnation)


@given(beliefs)
def test_a_member_does_not_refute_its_own_word(own: Belief) -> None:
    own = doubted(own, State.ALIVE, 0)
    assert refuted(own, own) is None
    older = Belief(ME, State.LEFT, own.incarnation - 1)
    assert refuted(own, older) is None
