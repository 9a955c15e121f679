"""What a store keeps under an engine key."""

import pytest

from kvorum.model.holding import (
    HEAD_BYTES,
    NO_OWN,
    checked_record_offset,
    own_dot,
    pack_holding,
    partition_key_of,
    plain_successor,
    record_of,
    record_offset,
    with_own,
)
from kvorum.model.record import RecordInvalid, first_record, lww_record, pack_value
from kvorum.model.siblings import seen_of, update
from kvorum.model.version import make_actor, make_dot
from tests.support.records import dot, record_of_dots

RECORD = record_of_dots([], [dot(1, 1)])
HOLDING = pack_holding(dot(1, 1), b"alice", RECORD)


def test_a_holding_gives_back_its_parts() -> None:
    assert own_dot(HOLDING) == dot(1, 1)
    assert partition_key_of(HOLDING) == b"alice"
    assert record_of(HOLDING) == RECORD
    assert HOLDING[record_offset(HOLDING) :] == RECORD


def test_the_own_dot_changes_alone() -> None:
    sent = with_own(HOLDING, NO_OWN)
    assert sent == pack_holding(NO_OWN, b"alice", RECORD)
    assert with_own(sent, dot(1, 1)) == HOLDING


def test_a_sound_holding_passes() -> None:
    assert checked_record_offset(HOLDING) == HEAD_BYTES + 5
    assert checked_record_offset(pack_holding(NO_OWN, b"", RECORD)) == HEAD_BYTES


@pytest.mark.parametrize(
    ("mangled", "problem"),
    [
        (b"", "a holding is cut short"),
        (HOLDING[: HEAD_BYTES - 1], "a holding is cut short"),
        (b"\x02" + HOLDING[1:], "holding format 2 is unknown"),
        (HOLDING[: HEAD_BYTES + 4], "a record is cut short"),
        (HOLDING[:2] + b"\xff\xff" + HOLDING[4:], "a record is cut short"),
        (HOLDING + b"!", "do not end where it ends"),
    ],
)
def test_what_cannot_be_a_holding_is_told_why(mangled: bytes, problem: str) -> None:
    with pytest.raises(RecordInvalid, match=problem):
        checked_record_offset(mangled)


ONE, TWO = make_actor(b"node-one", 7), make_actor(b"node-two", 9)
FIRST, BETWEEN, LAST = (make_actor(store, 1) for store in (b"node-man", b"node-sea", b"node-zoo"))
KEY_BYTES = b"alice"


def written(actor: bytes, counter: int, data: bytes = b"book") -> bytes:
    return pack_value(make_dot(actor, counter), 1_000, 0, b"p" * 16, False, b"", data)


def deleted(actor: bytes, counter: int) -> bytes:
    return pack_value(make_dot(actor, counter), 1_000, 0, b"p" * 16, True, b"", b"")


def by_both(counter: int) -> bytes:
    """A record of two actors, last written by the first."""
    record = first_record(written(TWO, 1))
    for number in range(1, counter + 1):
        record = update(record, seen_of(record), written(ONE, number))
    return record


def by_one_more(actor: bytes, counter: int) -> bytes:
    """What ``actor``, new to it, makes of ``by_both(2)`` by so many writes."""
    record = by_both(2)
    for number in range(1, counter + 1):
        record = update(record, seen_of(record), written(actor, number))
    return record


def last_entry_first(record: bytes) -> bytes:
    """The three entries of ``record``'s vector, the last one first."""
    return record[:8] + record[40:56] + record[8:40] + record[56:]


def last_two_swapped(record: bytes) -> bytes:
    return record[:24] + record[40:56] + record[24:40] + record[56:]


def said_to_hold_two(record: bytes) -> bytes:
    """``record``, whose head counts a value more than there is."""
    return record[:6] + b"\2" + record[7:]


def expires(actor: bytes) -> bytes:
    return pack_value(make_dot(actor, 1), 1_000, 2_000, b"p" * 16, False, b"", b"book")


EXPIRING = first_record(expires(ONE))


def never_written(record: bytes) -> bytes:
    """``record``, with the counter of its last entry, and of its value's dot, at nought."""
    return record[:52] + bytes(4) + record[56:68] + bytes(4) + record[72:]


def travelling(record: bytes) -> bytes:
    return pack_holding(NO_OWN, KEY_BYTES, record)


class TestPlainSuccessor:
    def test_the_next_write_of_the_same_actors_is_kept_as_it_came(self):
        received = travelling(by_both(3))
        assert plain_successor(travelling(by_both(2)), received) == (received, 2)

    def test_the_own_dot_stays(self):
        own = make_dot(TWO, 1)
        held = pack_holding(own, KEY_BYTES, by_both(2))
        kept = pack_holding(own, KEY_BYTES, by_both(3))
        assert plain_successor(held, travelling(by_both(3))) == (kept, 2)

    def test_a_later_write_under_the_own_actor_is_looked_at_closely(self):
        held = pack_holding(make_dot(ONE, 2), KEY_BYTES, by_both(2))
        assert plain_successor(held, travelling(by_both(3))) is None

    @pytest.mark.parametrize("joins", [FIRST, BETWEEN, LAST], ids=["first", "between", "last"])
    @pytest.mark.parametrize("counter", [1, 2])
    def test_the_first_write_of_one_more_actor_is_kept_as_it_came(self, joins: bytes, counter: int):
        received = travelling(by_one_more(joins, counter))
        assert plain_successor(travelling(by_both(2)), received) == (received, 3)
        own = make_dot(TWO, 1)
        held = pack_holding(own, KEY_BYTES, by_both(2))
        assert plain_successor(held, received) == (with_own(received, own), 3)

    @pytest.mark.parametrize(
        ("held", "received"),
        [
            (by_both(2), by_one_more(LAST, 1)[:-1]),
            (by_both(2), by_one_more(LAST, 1) + b"?"),
            (by_both(2), by_one_more(LAST, 1)[:30]),
            (by_both(2), by_one_more(LAST, 1)[:76]),
            (by_both(2), by_one_more(LAST, 1)[:90]),
            (by_both(1), by_one_more(LAST, 1)),
            (by_both(2), update(by_both(2), None, written(LAST, 1))),
            (by_both(2), update(by_both(2), seen_of(by_both(2)), deleted(LAST, 1))),
            (update(by_both(2), None, written(TWO, 2)), by_one_more(LAST, 1)),
            (lww_record(written(ONE, 2)), by_one_more(LAST, 1)),
            (by_both(2), last_entry_first(by_one_more(LAST, 1))),
            (by_both(2), last_two_swapped(by_one_more(BETWEEN, 1))),
            (by_both(1), by_one_more(FIRST, 1)),
            (EXPIRING, update(EXPIRING, seen_of(EXPIRING), expires(LAST))),
            (update(by_both(2), None, written(ONE, 4)), by_one_more(LAST, 1)),
            (by_both(2), by_one_more(LAST, 1)[:2] + b"\4" + by_one_more(LAST, 1)[3:]),
            (by_both(2), said_to_hold_two(by_one_more(LAST, 1))),
            (by_both(2), never_written(by_one_more(LAST, 1))),
        ],
        ids=[
            "a byte short", "a byte over", "half a vector", "no value", "half a value",
            "two writes later", "a sibling", "a delete", "over siblings", "over an lww winner",
            "a greater actor first", "a lesser actor last", "a write that was not seen",
            "over what expires", "over a gap", "an entry too many", "a value too few",
            "a counter of nought",
        ],
    )  # fmt: skip
    def test_whatever_else_joins_is_looked_at_closely(self, held: bytes, received: bytes):
        assert plain_successor(travelling(held), travelling(received)) is None

    def test_another_key_is_looked_at_closely(self):
        received = pack_holding(NO_OWN, b"bobby", by_one_more(LAST, 1))
        assert plain_successor(travelling(by_both(2)), received) is None

    def test_another_actor_of_the_own_store_is_looked_at_closely(self):
        held = pack_holding(make_dot(ONE, 2), KEY_BYTES, by_both(2))
        other = make_actor(b"node-one", 8)
        assert plain_successor(held, travelling(by_one_more(other, 1))) is None

    @pytest.mark.parametrize(
        "received",
        [
            travelling(by_both(2)),
            travelling(by_both(1)),
            travelling(first_record(written(ONE, 3))),
            travelling(update(by_both(2), None, written(ONE, 3))),
            travelling(lww_record(written(ONE, 3))),
            pack_holding(NO_OWN, b"bobby", by_both(3)),
            pack_holding(make_dot(ONE, 3), KEY_BYTES, by_both(3)),
            travelling(by_both(3))[:-1],
            travelling(by_both(3))[:70],
            travelling(by_both(3)) + b"?",
            b"",
        ],
        ids=[
            "the same", "older", "other actors", "a sibling", "lww", "another key",
            "with an own dot", "a byte short", "no value", "a byte over", "nothing",
        ],
    )  # fmt: skip
    def test_whatever_else_comes_is_looked_at_closely(self, received: bytes):
        assert plain_successor(travelling(by_both(2)), received) is None

    def test_a_delete_is_looked_at_closely_whatever_it_follows(self):
        by_delete = update(by_both(2), seen_of(by_both(2)), deleted(ONE, 3))
        assert plain_successor(travelling(by_both(2)), travelling(by_delete)) is None
        again = update(by_delete, seen_of(by_delete), deleted(ONE, 4))
        assert plain_successor(travelling(by_delete), travelling(again)) is None
        back = update(by_delete, seen_of(by_delete), written(ONE, 4))
        assert plain_successor(travelling(by_delete), travelling(back)) is None

    def test_a_key_of_siblings_or_of_lww_is_looked_at_closely(self):
        siblings = update(by_both(2), None, written(TWO, 2))
        assert plain_successor(travelling(siblings), travelling(by_both(3))) is None
        winner = travelling(lww_record(written(ONE, 2)))
        assert plain_successor(winner, travelling(lww_record(written(ONE, 3)))) is None
