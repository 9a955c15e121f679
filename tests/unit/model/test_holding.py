"""What a store keeps under an engine key."""

import pytest

from kvorum.model.holding import (
    HEAD_BYTES,
    NO_OWN,
    checked_record_offset,
    own_dot,
    pack_holding,
    partition_key_of,
    record_of,
    record_offset,
    with_own,
)
from kvorum.model.record import RecordInvalid
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
