"""The short way of a put writes what the long way writes, whatever came before.

Two replicas live through the same story; one of them never takes the shortcut. Apart from the
clocks, of which the short way may use one more, everything they hold must be equal.
"""

from hypothesis import given
from hypothesis import strategies as st

from kvorum.model.holding import own_dot, record_of
from kvorum.model.record import Value, split_values, values_offset
from kvorum.protocol.minting import MINTED, Minter
from tests.support.records import records
from tests.support.replicas import KEY, PARTITION_KEY, SIBLINGS, OneReplica


class LongWay(Minter):
    """Mints without the shortcut."""

    def mint(self, key, partition_key, table, context, *what):
        if not self.confirmed:
            assert self._draw_unconfirmed()
        held = self._store.get(key)
        return self._mint_slowly(key, partition_key, table, context, *what, held)


def told(replica: OneReplica, outcome: int) -> object:
    """All that the rest of the node sees of a put and of what it left."""
    minter = replica.minter
    if outcome != MINTED:
        return outcome, minter.refusal
    holding = replica.holding
    assert holding is not None
    record = record_of(holding)
    assert minter.record == record
    assert own_dot(holding) == minter.dot
    kept = minter._holdings
    values = [Value(each) for each in split_values(record)]
    return (
        minter.dot,
        record[: values_offset(record)],
        [
            (each.dot, each.expiry, each.put_id, each.tombstone, each.content_type, each.data)
            for each in values
        ],
        minter.sent[:20],
        minter.sent[20:] == holding[20:],
        kept.unreaped,
        kept.overgrown,
    )


contexts = st.sampled_from(["none", "here", "older", "damaged", "cut", "foreign"])
puts = st.tuples(st.just("put"), contexts, st.booleans(), st.integers(0, 2), st.booleans())
others = st.tuples(st.sampled_from(["receive", "restart", "drop"]), records)
steps = st.lists(st.one_of(puts, puts, puts, others), max_size=25)


def context_of(kind: str, replica: OneReplica, kept: list[bytes]) -> bytes:
    here = replica.read()
    if kind == "none" or not here:
        return b""
    if kind == "older":
        return kept[len(kept) // 2] if kept else b""
    if kind == "damaged":
        return here[:-6] + bytes((here[-6] ^ 1,)) + here[-5:]
    if kind == "cut":
        return here[: len(here) // 2]
    return here[:8] + b"another key!" + here[20:] if kind == "foreign" else here


@given(steps)
def test_the_short_way_writes_what_the_long_way_writes(story: list[tuple]) -> None:
    short, long = OneReplica([]), OneReplica([], LongWay)
    kept: list[bytes] = []
    for number, step in enumerate(story):
        for replica in (short, long):
            replica.environment.wall += 10
        if step[0] == "put":
            _, kind, tombstone, ttl, keeps = step
            data = b"" if tombstone else b"%d" % number
            outcomes = []
            for replica in (short, long):
                outcomes.append(
                    replica.minter.mint(
                        KEY, PARTITION_KEY, SIBLINGS, context_of(kind, replica, kept), tombstone,
                        ttl, number.to_bytes(16, "big"), b"t" * ttl, data,
                    )
                )  # fmt: skip
            assert told(short, outcomes[0]) == told(long, outcomes[1])
            if keeps and short.read()[:20] == long.read()[:20]:
                kept.append(short.read())
            continue
        for replica in (short, long):
            if step[0] == "receive":
                replica.receive(step[1])
            elif step[0] == "restart":
                replica.restart(True, replica.holding)
            else:
                replica.drop()
    assert (short.record is None) == (long.record is None)
