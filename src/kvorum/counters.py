"""Named counts of what a node has done and met: the operator's metrics, and the tests' probes.

Each node has one ``Counters`` of its own, handed to whoever counts; nothing here is global.
Every name has its meaning beside it, and the reference page of counters is made from these.

Beside the plain counts stand those of each table and operation: how many requests were refused
or in doubt, and how long each answered one took. Counting one costs its coordinator a look into
a table of bytes and one increment in a list, so the durations lie in buckets: 64 us wide at
first, then four to an octave.
"""

from typing import Final

MEANINGS: Final[dict[str, str]] = {
    "puts": "puts and deletes taken from clients to coordinate here",
    "gets": "gets taken from clients to coordinate here",
    "puts_ok": "puts answered ok",
    "puts_refused": "puts refused: nothing was written",
    "puts_unknown": "puts answered unknown",
    "gets_ok": "gets answered",
    "gets_refused": "gets refused",
    "gets_that_may_miss": "gets answered with the help of owners that are behind",
    "forwarded": "requests relayed to an owner",
    "retries_known": "puts that arrived again under a known id",
    "retries_found": "puts that another node had taken, whose value was found here already",
    "retries_expired": "puts refused an answer because their id is older than the retry window",
    "siblings_seen": "gets answered with more than one value",
    "siblings_made": "puts that left a sibling beside their value",
    "lww_dropped": "concurrent writes that a last-write-wins merge dropped",
    "read_repairs": "records sent to replicas that a get found behind",
    "own_repairs": "own records mended by what a get brought",
    "hedged_gets": "gets that asked one more replica because another was slow",
    "silences": "answers that did not come within the adaptive timeout",
    "resent_puts": "puts sent again to an owner whose connection had ended",
    "hints_sent": "records given to a fallback because an owner did not answer",
    "hint_refusals_met": "of these, those for which the fallback had no room",
    "fallback_puts": "puts coordinated here because no owner answers",
    "fallback_reads": "fallbacks asked by gets because too few owners answered",
    "hints_taken": "hints taken from coordinators, or minted here",
    "hints_refused": "hints refused because no more fit here",
    "hints_offered": "hints sent to their owner, those sent again included",
    "hints_put_off": "of these, those that the owner refused for now",
    "hints_damaged": "hints given up because they were damaged on the disk here",
    "hints_shed": "hints let go for want of room: owners hold them as was promised",
    "hints_handed": "hints that their owner has taken, durably",
    "replica_puts": "records taken from coordinators",
    "replica_merges": "of these, those that had to be merged with what was held",
    "replica_gets": "reads answered to coordinators",
    "replica_refusals": "puts and gets of coordinators that were refused here",
    "quarantined": "records found damaged here",
    "incarnations_ended": "new store ids drawn since the start",
    "clock_refusals": "last-write-wins puts refused because this clock is off",
    "overloads": "requests refused because a bound was reached",
    "bad_frames": "connections ended because of malformed bytes",
    "handshakes_refused": "connections refused at their first message",
    "log_refusals": "turns whose log write was refused by the disk",
    "peer_connects": "connections to peers made",
    "peer_losses": "connections to peers lost",
    "dropped_records": "records removed because their table was dropped",
    "exchange_rounds": "hashes of all that is shared, sent to another owner",
    "exchange_equal": "such hashes that came and were equal to ours",
    "exchange_narrowed": "searches for the records in which another owner differs",
    "exchange_leaves": "leaves of the hash trees whose records were compared one by one",
    "exchange_sent": "records sent to another owner because it lacked them or had others",
    "exchange_bytes": "bytes of these records",
    "exchange_received": "records that other owners sent in searches begun here",
    "caught_up": "partitions that count for r again, after an unclean stop or on a new disk",
    "records_scanned": "records read to count leaves of the hash trees, or to check them",
    "leaves_mended": "leaves that were found wrong and put right; report it if it is not 0",
    "stale_generations": "records refused because they were read under an older reap generation",
    "reap_rounds": "reap rounds that this node raised",
    "reap_rounds_void": "of these, those that proved nothing",
    "reaped_records": "deleted or expired records that a round let this node forget",
    "retired_actors": "actors that a round let this node forget in records that stay",
    "partitions_set_aside": "partitions whose copy was behind a reap and has been set aside",
    "records_set_aside": "records and hints in them",
    "probes": "members asked whether they are there, one in each round",
    "probes_failed": "of these, those that nobody could reach",
    "indirect_probes": "requests to others to probe a member that did not answer",
    "suspicions": "members that this node began to suspect",
    "false_suspicions": "of these, those that refuted it",
    "refutations": "suspicions and worse about this node that it refuted",
    "deaths_declared": "members that this node declared dead",
    "push_pulls": "comparisons with one member of all that is known of all",
}

_STEP_BITS: Final = 6
_OVERFLOW: Final = 72
# Where the buckets of durations end, in microseconds, the end not included; the last has none.
DURATION_BOUNDS: Final = tuple(
    (index + 1) << _STEP_BITS if index < 4 else ((index & 3) + 5) << (_STEP_BITS + (index >> 2) - 1)
    for index in range(_OVERFLOW)
)


def bucket_of(duration: int) -> int:
    """The bucket of a duration in microseconds. Coordinators look it up in ``BUCKETS``."""
    steps = duration >> _STEP_BITS
    shift = steps.bit_length() - 3
    if shift <= 0:
        return steps
    return min((shift << 2) + (steps >> shift), _OVERFLOW)


BUCKETS: Final = bytes(bucket_of(steps << _STEP_BITS) for steps in range(4096))
BUCKETS_END: Final = len(BUCKETS) << _STEP_BITS  # what lasted longer is asked of ``bucket_of``


class OperationCounts:
    """What became of one operation on one table here."""

    __slots__ = ("durations", "refused", "unknown")

    def __init__(self) -> None:
        self.durations = [0] * (_OVERFLOW + 1)  # of what was answered ok; bucket -> how many
        self.refused = 0
        self.unknown = 0


class TableCounts:
    """What became of the requests for one table that were coordinated here."""

    __slots__ = ("delete", "get", "put")

    def __init__(self) -> None:
        self.get = OperationCounts()
        self.put = OperationCounts()
        self.delete = OperationCounts()


class TablesCounts(dict[bytes, TableCounts]):
    """Those of all tables, by table id; ask only for ids of tables that there are."""

    __slots__ = ()

    def __missing__(self, table_id: bytes) -> TableCounts:
        counts = self[table_id] = TableCounts()
        return counts


class Counters:
    """One node's counts, by attribute."""

    __slots__ = (*MEANINGS, "tables")

    puts: int
    gets: int
    puts_ok: int
    puts_refused: int
    puts_unknown: int
    gets_ok: int
    gets_refused: int
    gets_that_may_miss: int
    forwarded: int
    retries_known: int
    retries_found: int
    retries_expired: int
    siblings_seen: int
    siblings_made: int
    lww_dropped: int
    read_repairs: int
    own_repairs: int
    hedged_gets: int
    silences: int
    resent_puts: int
    hints_sent: int
    hint_refusals_met: int
    fallback_puts: int
    fallback_reads: int
    hints_taken: int
    hints_refused: int
    hints_offered: int
    hints_put_off: int
    hints_damaged: int
    hints_shed: int
    hints_handed: int
    replica_puts: int
    replica_merges: int
    replica_gets: int
    replica_refusals: int
    quarantined: int
    incarnations_ended: int
    clock_refusals: int
    overloads: int
    bad_frames: int
    handshakes_refused: int
    log_refusals: int
    peer_connects: int
    peer_losses: int
    dropped_records: int
    exchange_rounds: int
    exchange_equal: int
    exchange_narrowed: int
    exchange_leaves: int
    exchange_sent: int
    exchange_bytes: int
    exchange_received: int
    caught_up: int
    records_scanned: int
    leaves_mended: int
    stale_generations: int
    reap_rounds: int
    reap_rounds_void: int
    reaped_records: int
    retired_actors: int
    partitions_set_aside: int
    records_set_aside: int
    probes: int
    probes_failed: int
    indirect_probes: int
    suspicions: int
    false_suspicions: int
    refutations: int
    deaths_declared: int
    push_pulls: int

    def __init__(self) -> None:
        for name in MEANINGS:
            setattr(self, name, 0)
        self.tables = TablesCounts()

    def snapshot(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in MEANINGS}
