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
KEY_BYTES = b"alice"


def written(actor: bytes, counter: int, data: bytes = b"book") -> bytes:
    return pack_value(make_dot(actor, counter), 1_000, 0, b"p" * 16, False, b"", data)


def by_both(counter: int) -> bytes:
    """A record of two actors, last written by the first."""
    record = first_record(written(TWO, 1))
    for number in range(1, counter + 1):
        record = update(record, seen_of(record), written(ONE, number))
    return record


def travelling(record: bytes) -> bytes:
    return pack_holding(NO_OWN, KEY_BYTES, record)


class TestPlainSuccessor:
    def test_the_next_write_of_the_same_actors_is_kept_as_it_came(self):
        received = travelling(by_both(3))
        assert plain_successor(travelling(by_both(2)), received) == received

    def test_the_own_dot_stays(self):
        own = make_dot(TWO, 1)
        held = pack_holding(own, KEY_BYTES, by_both(2))
        assert plain_successor(held, travelling(by_both(3))) == pack_holding(
            own, KEY_BYTES, by_both(3)
        )

    def test_a_later_write_under_the_own_actor_is_looked_at_closely(self):
        held = pack_holding(make_dot(ONE, 2), KEY_BYTES, by_both(2))
        assert plain_successor(held, travelling(by_both(3))) is None

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

    def test_a_key_of_siblings_or_of_lww_is_looked_at_closely(self):
        siblings = update(by_both(2), None, written(TWO, 2))
        assert plain_successor(travelling(siblings), travelling(by_both(3))) is None
        winner = travelling(lww_record(written(ONE, 2)))
        assert plain_successor(winner, travelling(lww_record(written(ONE, 3)))) is None
