"""Quorum arithmetic: enough, not yet, or never. (Dynamo paper, sections 4.5 and 4.6.)

The nodes that one request may count are numbered by their place in its preference list, and
each fact about them is a bit mask over these places: who acked, who has it on disk, who may
still answer, whose copy can never reach a disk. So one node never counts twice, and every
question is a few machine operations without a branch per node.

Not here: whom to ask, and when to give up on somebody. That is the coordinators' affair.
"""

from enum import IntEnum
from typing import Final


class Durability(IntEnum):
    """How many of a put's ``w`` acks must come from a disk. The numbers stand on the wire."""

    NONE = 0
    ONE = 1
    QUORUM = 2
    ALL = 3


class Resolution(IntEnum):
    """What becomes of concurrent writes: both kept, or the later one. The numbers are wire."""

    SIBLINGS = 0
    LWW = 1


class AckLevel(IntEnum):
    """How durable one acked copy is: it survives nothing, the process, or the power."""

    MEMORY = 0
    OS = 1
    DISK = 2


NOT_YET: Final = 0
ENOUGH: Final = 1
NEVER: Final = 2

TOO_FEW_NODES: Final = 1
TOO_FEW_DISKS: Final = 2


def disk_acks_needed(durability: int, w: int) -> int:
    """Return how many of ``w`` acks must be ``disk``."""
    if durability == 1:
        return 1
    if durability == 0:
        return 0
    if durability == 2:
        return w // 2 + 1
    return w


def ack_level_needed(durability: int) -> int:
    """Return what the acks that need not come from a disk must be, at the least."""
    return 0 if durability == 0 else 1


def clamp_quorum(wanted: int, counting_owners: int) -> int:
    """Count ``r`` or ``w`` down to the counting owners there are, and never below one."""
    if wanted > counting_owners:
        wanted = counting_owners
    return wanted if wanted > 0 else 1


def put_verdict(
    acked: int, on_disk: int, pending: int, diskless: int, w: int, disk_needed: int
) -> int:
    """Judge a put: ``ENOUGH``, ``NOT_YET`` or ``NEVER``.

    ``pending`` are those who were asked, or may still be asked, and have not failed.
    ``diskless`` are those from whom no mark can come any more: volatile nodes, a failed sync,
    a connection that closed between ack and mark.
    """
    if acked.bit_count() >= w and (acked & on_disk).bit_count() >= disk_needed:
        return ENOUGH
    hopeful = acked | pending
    if hopeful.bit_count() < w:
        return NEVER
    if (hopeful & (on_disk | ~diskless)).bit_count() < disk_needed:
        return NEVER
    return NOT_YET


def get_verdict(answered: int, pending: int, r: int) -> int:
    """Judge a get: ``ENOUGH``, ``NOT_YET`` or ``NEVER``."""
    if answered.bit_count() >= r:
        return ENOUGH
    if (answered | pending).bit_count() < r:
        return NEVER
    return NOT_YET


def put_shortage(able: int, diskless: int, w: int, disk_needed: int) -> int:
    """Say before anything is minted what a put lacks: 0, too few nodes or too few disks.

    ``able`` are the nodes that may count and are believed alive.
    """
    if able.bit_count() < w:
        return TOO_FEW_NODES
    if (able & ~diskless).bit_count() < disk_needed:
        return TOO_FEW_DISKS
    return 0


def shortage_text(able: int, diskless: int, w: int, disk_needed: int) -> str:
    """Name the shortage for the person whose put was refused; empty if there is none."""
    shortage = put_shortage(able, diskless, w, disk_needed)
    if shortage == TOO_FEW_NODES:
        return (
            f"w={w} nodes must take this write, but only {able.bit_count()} that may count "
            "are believed alive; nothing was written"
        )
    if shortage == TOO_FEW_DISKS:
        return (
            f"{disk_needed} of w={w} copies must reach a disk, but only "
            f"{(able & ~diskless).bit_count()} of the {able.bit_count()} nodes alive keep data "
            "on one; nothing was written"
        )
    return ""
