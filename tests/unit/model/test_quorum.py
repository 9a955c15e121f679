"""Quorum arithmetic: what a person who set r, w and durability may expect."""

import pytest

from kvorum.model.quorum import (
    ENOUGH,
    NEVER,
    NOT_YET,
    TOO_FEW_DISKS,
    TOO_FEW_NODES,
    AckLevel,
    Durability,
    Resolution,
    ack_level_needed,
    clamp_quorum,
    disk_acks_needed,
    get_verdict,
    put_shortage,
    put_verdict,
    shortage_text,
)


def test_the_numbers_on_the_wire_never_change() -> None:
    assert [(d.name, int(d)) for d in Durability] == [
        ("NONE", 0),
        ("ONE", 1),
        ("QUORUM", 2),
        ("ALL", 3),
    ]
    assert [(r.name, int(r)) for r in Resolution] == [("SIBLINGS", 0), ("LWW", 1)]
    assert AckLevel.MEMORY < AckLevel.OS < AckLevel.DISK


@pytest.mark.parametrize(
    ("durability", "disk_of_1", "disk_of_2", "disk_of_3", "rest"),
    [
        (Durability.NONE, 0, 0, 0, AckLevel.MEMORY),
        (Durability.ONE, 1, 1, 1, AckLevel.OS),
        (Durability.QUORUM, 1, 2, 2, AckLevel.OS),
        (Durability.ALL, 1, 2, 3, AckLevel.OS),
    ],
)
def test_durability_says_how_many_disks(
    durability: Durability, disk_of_1: int, disk_of_2: int, disk_of_3: int, rest: AckLevel
) -> None:
    found = [disk_acks_needed(durability, w) for w in (1, 2, 3)]
    assert found == [disk_of_1, disk_of_2, disk_of_3]
    assert ack_level_needed(durability) == rest


def test_r_and_w_are_counted_down_to_the_owners_there_are() -> None:
    assert clamp_quorum(2, 3) == 2
    assert clamp_quorum(3, 1) == 1
    assert clamp_quorum(2, 0) == 1


def test_a_put_is_enough_with_w_acks_and_the_disks_asked_for() -> None:
    assert put_verdict(0b011, 0b001, 0b100, 0, w=2, disk_needed=1) == ENOUGH
    assert put_verdict(0b011, 0b000, 0b000, 0, w=2, disk_needed=1) == NOT_YET
    assert put_verdict(0b001, 0b001, 0b010, 0, w=2, disk_needed=1) == NOT_YET


def test_a_put_is_hopeless_when_too_few_may_still_answer() -> None:
    assert put_verdict(0b001, 0b001, 0b000, 0, w=2, disk_needed=1) == NEVER


def test_a_put_is_hopeless_when_too_few_disks_are_left() -> None:
    assert put_verdict(0b011, 0b000, 0b000, 0b011, w=2, disk_needed=1) == NEVER
    assert put_verdict(0b011, 0b000, 0b100, 0b011, w=2, disk_needed=1) == NOT_YET


def test_a_mark_that_came_counts_though_no_other_can_come() -> None:
    """A connection that closes after the mark takes nothing back."""
    assert put_verdict(0b001, 0b001, 0b010, 0b001, w=2, disk_needed=1) == NOT_YET


def test_a_get_counts_answers() -> None:
    assert get_verdict(0b101, 0, r=2) == ENOUGH
    assert get_verdict(0b100, 0b001, r=2) == NOT_YET
    assert get_verdict(0b100, 0b000, r=2) == NEVER


def test_a_shortage_is_seen_before_anything_is_minted() -> None:
    assert put_shortage(0b111, 0b000, w=2, disk_needed=1) == 0
    assert shortage_text(0b111, 0b000, w=2, disk_needed=1) == ""
    assert put_shortage(0b001, 0b000, w=2, disk_needed=1) == TOO_FEW_NODES
    assert "only 1 that may count" in shortage_text(0b001, 0b000, w=2, disk_needed=1)
    assert put_shortage(0b011, 0b011, w=2, disk_needed=1) == TOO_FEW_DISKS
    assert "only 0 of the 2 nodes alive" in shortage_text(0b011, 0b011, w=2, disk_needed=1)
