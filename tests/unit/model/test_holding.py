"""What a store keeps under an engine key."""

import pytest

from kvorum.model.holding import (
    HEAD_BYTES,
    NO_OWN,
    check_holding,
    own_dot,
    pack_holding,
    partition_key_of,
    record_of,
    record_offset,
    with_own,
)
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


def test_a_sound_holding_has_nothing_against_it() -> None:
    assert check_holding(HOLDING, 5) == ""
    assert check_holding(pack_holding(NO_OWN, b"", b""), 0) == ""


@pytest.mark.parametrize(
    ("mangled", "problem"),
    [
        (HOLDING[: HEAD_BYTES - 1], "cut short"),
        (b"\x02" + HOLDING[1:], "format 2 is unknown"),
        (HOLDING[:1] + b"\x01" + HOLDING[2:], "second byte"),
        (pack_holding(NO_OWN, b"longer", RECORD), "too long"),
        (HOLDING[: HEAD_BYTES + 4], "too long"),
    ],
)
def test_what_cannot_be_a_holding_is_told_why(mangled: bytes, problem: str) -> None:
    assert problem in check_holding(mangled, 5)
