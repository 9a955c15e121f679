"""Quorum verdicts against every future there could be, enumerated."""

from itertools import product

from kvorum.model.quorum import (
    ENOUGH,
    NEVER,
    NOT_YET,
    Durability,
    disk_acks_needed,
    get_verdict,
    put_shortage,
    put_verdict,
)

PLACES = range(3)

# What is known of one node: has it acked, is it on disk, may it still ack, can it still sync?
SILENT, ASKED, ASKED_DISKLESS, ACKED, ACKED_DISKLESS, ON_DISK, ON_DISK_LAST = range(7)
FUTURES = {
    SILENT: [(0, 0)],
    ASKED: [(0, 0), (1, 0), (1, 1)],
    ASKED_DISKLESS: [(0, 0), (1, 0)],
    ACKED: [(1, 0), (1, 1)],
    ACKED_DISKLESS: [(1, 0)],
    ON_DISK: [(1, 1)],
    ON_DISK_LAST: [(1, 1)],
}


def mask(states: tuple[int, ...], members: tuple[int, ...]) -> int:
    return sum(1 << place for place in PLACES if states[place] in members)


def test_every_put_verdict_is_what_the_futures_say() -> None:
    for states in product(range(7), repeat=3):
        acked = mask(states, (ACKED, ACKED_DISKLESS, ON_DISK, ON_DISK_LAST))
        on_disk = mask(states, (ON_DISK, ON_DISK_LAST))
        pending = mask(states, (ASKED, ASKED_DISKLESS))
        diskless = mask(states, (ASKED_DISKLESS, ACKED_DISKLESS, ON_DISK_LAST))
        futures = list(product(*(FUTURES[state] for state in states)))
        for w, durability in product((1, 2, 3), Durability):
            needed = disk_acks_needed(durability, w)
            enough_now = acked.bit_count() >= w and on_disk.bit_count() >= needed
            possible = any(
                sum(ack for ack, _ in future) >= w and sum(disk for _, disk in future) >= needed
                for future in futures
            )
            expected = ENOUGH if enough_now else NOT_YET if possible else NEVER
            assert put_verdict(acked, on_disk, pending, diskless, w, needed) == expected


def test_every_get_verdict_is_what_the_futures_say() -> None:
    for states in product((SILENT, ASKED, ACKED), repeat=3):
        answered = mask(states, (ACKED,))
        pending = mask(states, (ASKED,))
        for r in (1, 2, 3):
            best = states.count(ACKED) + states.count(ASKED)
            expected = ENOUGH if states.count(ACKED) >= r else NOT_YET if best >= r else NEVER
            assert get_verdict(answered, pending, r) == expected


def test_a_put_is_short_exactly_when_it_could_never_be_enough() -> None:
    for able, diskless in product(range(8), repeat=2):
        for w, durability in product((1, 2, 3), Durability):
            needed = disk_acks_needed(durability, w)
            hopeless = put_verdict(0, 0, able, diskless, w, needed) == NEVER
            assert (put_shortage(able, diskless, w, needed) != 0) == hopeless


def test_disk_acks_are_never_more_than_acks() -> None:
    for w, durability in product(range(1, 8), Durability):
        assert 0 <= disk_acks_needed(durability, w) <= w
