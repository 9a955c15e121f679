"""Hints as they are kept: encoded, read back, joined."""

import pytest

from kvorum.model.hint import Hint, OtherKey, decode_hint, hinted_holding, joined, joined_holding
from kvorum.model.holding import NO_OWN, own_dot, pack_holding, record_of
from kvorum.model.record import first_record, next_record, pack_value
from kvorum.model.siblings import merge
from kvorum.model.version import make_actor, make_dot

ALICE = make_actor(b"store 01", 1)
BOB = make_actor(b"store 02", 1)


def value(actor: bytes, counter: int, data: bytes = b"book") -> bytes:
    return pack_value(make_dot(actor, counter), 7, 0, b"p" * 16, False, b"", data)


FIRST = first_record(value(ALICE, 1))
SECOND = next_record(FIRST, value(ALICE, 2, b"pen"))
assert SECOND is not None
OTHER = first_record(value(BOB, 1, b"cup"))


def hint(record: bytes, *owners: int, own: bytes = NO_OWN, key: bytes = b"alice") -> Hint:
    return Hint(2, 1, 1_000, owners, pack_holding(own, key, record))


def test_a_hint_is_read_back_as_it_was_written() -> None:
    encoded = Hint(3, 2, 1 << 50, (2, 7, 65_535), pack_holding(NO_OWN, b"alice", FIRST)).encode()
    read = decode_hint(encoded)
    assert (read.w, read.disks, read.created, read.owners) == (3, 2, 1 << 50, (2, 7, 65_535))
    assert record_of(read.holding) == FIRST
    assert hinted_holding(encoded) == read.holding
    assert read.encode() == encoded


def test_the_largest_promise_the_oldest_age_and_all_owners_are_kept() -> None:
    one = Hint(3, 1, 500, (2, 7), pack_holding(NO_OWN, b"alice", FIRST))
    other = Hint(1, 2, 400, (3,), pack_holding(NO_OWN, b"alice", FIRST))
    both = joined(one, other)
    assert (both.w, both.disks, both.created, both.owners) == (3, 2, 400, (2, 3, 7))


def test_the_later_record_stays_under_the_own_actor_of_the_one_that_was_held() -> None:
    mine = make_dot(BOB, 5)
    held = hint(FIRST, 2, own=mine)
    assert record_of(joined(held, hint(SECOND, 2)).holding) == SECOND
    assert own_dot(joined(held, hint(SECOND, 2)).holding) == mine
    assert joined(hint(SECOND, 2), hint(FIRST, 2)).holding == hint(SECOND, 2).holding
    assert own_dot(joined(hint(FIRST, 2), hint(SECOND, 2)).holding) == NO_OWN


def test_concurrent_records_are_merged() -> None:
    mine = make_dot(BOB, 1)
    both = joined_holding(
        pack_holding(mine, b"alice", OTHER), pack_holding(NO_OWN, b"alice", FIRST)
    )
    assert record_of(both) == merge(FIRST, OTHER)
    assert own_dot(both) == mine


@pytest.mark.parametrize("key", [b"alicf", b"alic", b"alice2"])
def test_holdings_of_different_keys_are_never_merged(key: bytes) -> None:
    with pytest.raises(OtherKey):
        joined(hint(FIRST, 2), hint(SECOND, 2, key=key))
