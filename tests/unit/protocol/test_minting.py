"""What a mint refuses, which clocks it draws, and when it takes a new actor."""

import pytest

from kvorum.model.context import context_of_seen
from kvorum.model.holding import own_dot, pack_holding, with_own
from kvorum.model.record import Value, head_of, highest_clock, lww_record, split_values
from kvorum.model.tables import TableSettings
from kvorum.model.version import COUNTER_MAX, Seen, make_dot
from kvorum.protocol.minting import MINTED
from kvorum.wire.requests import (
    BAD_CONTEXT,
    BAD_REQUEST,
    OVERLOADED,
    TOO_LARGE,
    TOO_MANY_SIBLINGS,
)
from tests.support.records import TABLE_ID, dot, value
from tests.support.replicas import KEY, LWW, NOBODY, PARTITION_KEY, SIBLINGS, OneReplica


def mint(
    replica: OneReplica, context: bytes = b"", table: TableSettings = SIBLINGS,
    partition_key: bytes = PARTITION_KEY, value: bytes = b"value", ttl: int = 0,
    tombstone: bool = False,
) -> int:  # fmt: skip
    return replica.minter.mint(
        KEY, partition_key, table, context, tombstone, ttl, NOBODY, b"", value
    )


def test_a_key_with_no_context_gets_a_sibling_and_one_that_has_seen_it_a_successor() -> None:
    replica = OneReplica([])
    assert [mint(replica), mint(replica)] == [MINTED, MINTED]
    assert head_of(replica.minter.record)[4] == 2
    assert mint(replica, replica.read()) == MINTED
    assert head_of(replica.minter.record)[4] == 1
    assert replica.environment.counters.siblings_made == 1


def test_too_many_siblings_are_refused_until_somebody_merges_them() -> None:
    replica = OneReplica([])
    table = TableSettings("carts", TABLE_ID, 2, 2, max_siblings=2)
    contexts = []
    for _ in range(2):
        assert mint(replica, table=table) == MINTED
        contexts.append(replica.read())
    held = replica.holding
    assert mint(replica, table=table) == TOO_MANY_SIBLINGS
    assert "read it, merge the values" in replica.minter.refusal
    assert replica.holding == held, "nothing was written"
    assert replica.environment.counters.siblings_made == 1, "and none was made"
    assert mint(replica, contexts[0], table) == MINTED, "one for one adds nothing"
    assert mint(replica, replica.read(), table) == MINTED


def test_a_record_may_not_grow_past_its_tables_limit() -> None:
    replica = OneReplica([])
    table = TableSettings("carts", TABLE_ID, 2, 2, max_record_bytes=1024)
    assert mint(replica, table=table, value=b"x" * 2000) == MINTED, "a value alone always fits"
    assert mint(replica, table=table) == TOO_LARGE
    assert "its table allows 1024" in replica.minter.refusal


def test_another_key_under_the_same_hash_cannot_be_stored() -> None:
    replica = OneReplica([])
    mint(replica)
    for other in (b"bobby", b"bob"):
        for context in (b"", replica.read()):
            assert mint(replica, context, partition_key=other) == BAD_REQUEST
    assert "the same hash" in replica.minter.refusal


def test_an_actor_whose_counter_is_used_up_is_followed_by_a_new_one() -> None:
    replica = OneReplica([])
    mint(replica)
    holding = replica.holding
    assert holding is not None
    last = make_dot(own_dot(holding)[:12], COUNTER_MAX)
    replica.store.put(KEY, with_own(holding, last))
    assert mint(replica, replica.read()) == MINTED
    assert replica.minter.dot[:8] == last[:8]
    assert replica.minter.dot[:12] != last[:12]


@pytest.mark.parametrize("has_read", [True, False])
def test_a_record_that_knows_more_of_our_actor_than_we_do_ends_the_incarnation(
    has_read: bool,
) -> None:
    replica = OneReplica([])
    mint(replica)
    mint(replica, replica.read())
    holding = replica.holding
    assert holding is not None
    store_id = replica.store.store_id
    replica.store.put(KEY, with_own(holding, make_dot(own_dot(holding)[:12], 1)))
    assert mint(replica, replica.read() if has_read else b"") == MINTED
    assert replica.minter.dot[:8] == replica.store.store_id != store_id


def test_a_gap_in_what_was_seen_leads_the_long_way() -> None:
    replica = OneReplica([])
    seen = Seen()
    for counter in (1, 3):
        seen.add(dot(7, counter))
    assert mint(replica, context_of_seen(KEY, seen, 0)) == MINTED
    assert head_of(replica.minter.record)[3] == 1
    assert mint(replica, replica.read()) == MINTED
    assert head_of(replica.minter.record)[4] == 1


def test_an_expiry_counts_from_now_and_a_delete_has_none() -> None:
    replica = OneReplica([])
    for tombstone, expiry in ((False, replica.environment.wall + 500), (True, 0)):
        mint(replica, replica.read(), ttl=500, tombstone=tombstone, value=b"")
        (encoded,) = split_values(replica.minter.record)
        assert Value(encoded).expiry == expiry


def test_last_write_wins_draws_above_what_is_here_and_what_the_writer_has_seen() -> None:
    replica = OneReplica([], table=LWW)
    wall = replica.environment.wall
    mint(replica, table=LWW)
    assert replica.minter.value_clock == wall
    replica.environment.wall -= 500
    mint(replica, table=LWW)
    assert replica.minter.value_clock == wall + 1
    ahead = context_of_seen(KEY, Seen(), wall + 9_000)
    mint(replica, ahead, LWW)
    assert replica.minter.value_clock == wall + 9_001
    assert highest_clock(replica.minter.record) == wall + 9_001


def test_a_time_far_ahead_is_not_let_in() -> None:
    replica = OneReplica([], table=LWW)
    clock = replica.minter.clock
    limit = replica.environment.wall + clock.max_clock_skew + clock.lease_span
    assert mint(replica, context_of_seen(KEY, Seen(), limit + 1), LWW) == BAD_CONTEXT
    assert "too far ahead" in replica.minter.refusal
    assert mint(replica, context_of_seen(KEY, Seen(), limit), LWW) == MINTED


def test_a_key_written_far_ahead_is_not_followed_there() -> None:
    replica = OneReplica([], table=LWW)
    clock = replica.minter.clock
    limit = replica.environment.wall + clock.max_clock_skew + clock.lease_span
    replica.receive(lww_record(value(dot(1, 1), clock=limit + 1)))
    assert mint(replica, table=LWW) == OVERLOADED
    assert "too far ahead" in replica.minter.refusal


def test_no_clock_is_issued_beyond_the_lease() -> None:
    replica = OneReplica([], table=LWW)
    replica.minter.clock.lease = replica.environment.wall
    assert mint(replica, table=LWW) == MINTED
    assert mint(replica, table=LWW) == OVERLOADED
    assert "lease" in replica.minter.refusal


def test_a_first_mint_beside_what_others_wrote_keeps_it() -> None:
    a, b = OneReplica([]), OneReplica([9, 9, 9])
    mint(b)
    assert b.record is not None
    a.store.put(KEY, pack_holding(b"\0" * 16, PARTITION_KEY, b.record))
    assert mint(a) == MINTED
    assert head_of(a.minter.record)[4] == 2
    assert mint(a, b.read()) == MINTED
    assert head_of(a.minter.record)[4] == 2


def test_a_loss_that_no_new_store_id_can_follow_refuses_every_put_until_one_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The context shows a later write of this store's own, and the disk takes no new id."""
    replica = OneReplica([])
    assert mint(replica) == MINTED
    earlier = replica.holding
    assert mint(replica, replica.read()) == MINTED
    later = replica.read()
    assert earlier is not None
    replica.store.put(KEY, earlier)

    def refuse(reason: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(replica.store, "renew", refuse)
    assert [mint(replica, later), mint(replica)] == [OVERLOADED, OVERLOADED]
    assert replica.minter.refusal == "this node's data directory cannot be written: no space left"
    assert replica.holding == earlier
    monkeypatch.undo()

    assert mint(replica, later) == MINTED
    assert replica.environment.counters.incarnations_ended == 1
