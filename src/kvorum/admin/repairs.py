"""What is still to be mended in a cluster, and what is being done about it.

Made out of what the nodes say of themselves, as ``kvorum status`` is: what waits (hints for each
owner, partitions that have to catch up, copies that differ) and the counters of the work itself.
"""

from typing import Any, Final, NamedTuple

from kvorum.admin.status import Statuses
from kvorum.wire.messages import UNEQUAL, PeerStatus, StatusAnswer

ROWS_MAX: Final = 100  # of hints, and of pairs that differ: a hundred nodes have 9,900 pairs

# Counters of the work, by its kind. A test sees to it that a new one stands here or below.
WORK: Final[dict[str, tuple[str, ...]]] = {
    "hints": (
        "hints_sent", "hint_refusals_met", "hints_taken", "hints_refused", "hints_shed",
        "hints_damaged", "fallback_puts", "fallback_reads",
    ),
    "handoff": ("hints_offered", "hints_put_off", "hints_handed"),
    "repair": ("read_repairs", "own_repairs", "resent_puts", "quarantined"),
    "exchange": (
        "exchange_rounds", "exchange_equal", "exchange_narrowed", "exchange_leaves",
        "exchange_sent", "exchange_bytes", "exchange_received", "caught_up", "records_scanned",
        "leaves_mended",
    ),
    "reaping": (
        "reap_rounds", "reap_rounds_void", "reaped_records", "retired_actors",
        "stale_generations", "partitions_set_aside", "records_set_aside", "dropped_records",
    ),
}  # fmt: skip
# Fields of the status that say what a node itself has yet to do.
TO_DO: Final = (
    "partitions_behind", "partitions_not_ready", "leaves_stale", "records_aside", "deletes_noted",
)  # fmt: skip


class Owed(NamedTuple):
    """Hints that one node keeps for one owner."""

    keeper: str
    owner: str
    hints: int
    size: int  # bytes
    waiting: int  # microseconds that the oldest has waited


def _pairs(statuses: Statuses) -> list[tuple[str, PeerStatus]]:
    return [
        (name, peer)
        for name, answer in statuses.items()
        if isinstance(answer, StatusAnswer)
        for peer in answer.peers
    ]


def hints_owed(statuses: Statuses) -> list[Owed]:
    """Who keeps what for whom."""
    return [
        Owed(name, peer.name, peer.hints, peer.hint_bytes, peer.hints_waiting)
        for name, peer in _pairs(statuses)
        if peer.hints
    ]


def repairs_document(statuses: Statuses, wall: int) -> dict[str, Any]:
    """All of it. ``wall``: when, in microseconds."""
    owed = sorted(hints_owed(statuses), key=lambda one: -one.waiting)
    differ = [(name, peer.name) for name, peer in _pairs(statuses) if peer.equal_for == UNEQUAL]
    answers = {name: one for name, one in statuses.items() if isinstance(one, StatusAnswer)}
    return {
        "at_us": wall,
        "hints": sum(answer.hints for answer in answers.values()),
        "hint_bytes": sum(answer.hint_bytes for answer in answers.values()),
        "hints_oldest_us": max((one.waiting for one in owed), default=0),
        "owed": [
            {
                "keeper": one.keeper,
                "owner": one.owner,
                "hints": one.hints,
                "bytes": one.size,
                "oldest_us": one.waiting,
            }
            for one in owed[:ROWS_MAX]
        ],
        "owed_left_out": max(len(owed) - ROWS_MAX, 0),
        "differ": [{"node": node, "peer": peer} for node, peer in differ[:ROWS_MAX]],
        "differ_left_out": max(len(differ) - ROWS_MAX, 0),
        "to_do": {
            name: {field: getattr(answer, field) for field in TO_DO}
            for name, answer in answers.items()
        },
        "work": {
            kind: {
                counter: sum(answer.counters.get(counter, 0) for answer in answers.values())
                for counter in counters
            }
            for kind, counters in WORK.items()
        },
    }
