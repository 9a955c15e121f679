"""Contexts that no get or put ever gave out: too large to be counted, or damaged."""

from kvorum.model.context import context_of_seen
from kvorum.model.record import head_of
from kvorum.model.version import Seen
from kvorum.protocol.minting import MINTED, SEEN_MAX
from kvorum.wire.requests import BAD_CONTEXT, TOO_LARGE
from tests.support.records import actor
from tests.support.replicas import KEY, LWW, NOBODY, PARTITION_KEY, SIBLINGS, OneReplica


def forged(store: int, runs: int) -> bytes:
    """A context with a checksum that fits and this many gaps."""
    seen = Seen()
    seen.runs[actor(store)] = [(2 * each, 2 * each) for each in range(1, runs + 1)]
    return context_of_seen(KEY, seen, 0)


def mint(replica: OneReplica, context: bytes, table: object = SIBLINGS) -> int:
    return replica.minter.mint(
        KEY, PARTITION_KEY, SIBLINGS if table is SIBLINGS else LWW, context, False, 0, NOBODY,
        b"", b"value",
    )  # fmt: skip


def test_forged_contexts_are_refused_before_a_record_is_full() -> None:
    replica = OneReplica([])
    for store in range(100, 140):
        outcome = mint(replica, forged(store, 3_000))
        if outcome != MINTED:
            break
    assert outcome == TOO_LARGE
    assert "more gaps than a record can hold" in replica.minter.refusal
    assert replica.record is not None
    assert head_of(replica.record)[3] <= SEEN_MAX
    assert mint(replica, replica.read()) == MINTED, "who has read the key may go on"
    assert mint(replica, b"") == MINTED


def test_one_forged_context_is_refused_where_nothing_is_held() -> None:
    assert mint(OneReplica([]), forged(100, 40_000)) == TOO_LARGE
    assert mint(OneReplica([], table=LWW), forged(100, 40_000), LWW) == TOO_LARGE


def test_a_context_of_unusual_size_may_still_be_right() -> None:
    replica = OneReplica([])
    assert mint(replica, forged(100, 300)) == MINTED
    assert mint(replica, replica.read()) == MINTED


def test_a_damaged_context_does_not_pass_for_having_read_what_is_here() -> None:
    """One flipped bit makes "seen up to 2" of "seen up to 3", which is what the record says."""
    replica = OneReplica([])
    replica.put(b"one")
    _, context = replica.put(b"two", replica.read())
    replica.put(b"three", context)
    damaged = bytearray(context)
    damaged[43] ^= 1
    assert replica.read()[28:-4] == damaged[28:-4]
    assert mint(replica, bytes(damaged)) == BAD_CONTEXT
    assert mint(replica, context[:-1]) == BAD_CONTEXT
    assert mint(replica, context) == MINTED
