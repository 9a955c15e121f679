"""A put counts each node once, fallbacks only where they may count, and answers neither too early
nor too late: against a count by hand, over whatever befalls the nodes it has asked.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.client.store import Stored
from kvorum.model.quorum import disk_acks_needed
from kvorum.wire.link import OP_HINT, OVERLOADED, UNWRITABLE
from tests.support.recording import OneNode, Unknown

ACTIONS = ("ok", "ok and mark", "unwritable", "overloaded", "lose", "silence", "back")
steps = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(ACTIONS)), max_size=24)


class Put:
    """One put of the default table's key at member 1, an owner; n=3 of 6, three fallbacks."""

    def __init__(self, w: int, durability: int, sloppy: bool, absent: set[int]) -> None:
        self.one = OneNode(count=6)
        key = next(
            b"%d" % number
            for number in range(1000)
            if 1 in self.one.ring.owners_of_engine_key(self.one.key(b"%d" % number))
        )
        self.owners = self.one.ring.owners_of_engine_key(self.one.key(key))
        self.members = [member for member in self.one.others if member not in absent]
        if self.members:
            self.one.connect(*self.members)
        self.one.put(key=key, w=w, durability=durability, sloppy=int(sloppy))
        self.needed = disk_acks_needed(durability, w)
        self.w = w
        self.acked = {1}
        self.on_disk: set[int] = set()
        self.outcome: object = None

    def look(self) -> None:
        for payload in self.one.client.outcomes():
            assert self.outcome is None, "answered twice"
            self.outcome = payload[1]

    @property
    def enough(self) -> bool:
        return len(self.acked) >= self.w and len(self.acked & self.on_disk) >= self.needed

    def step(self, choice: int, action: str) -> None:
        one = self.one
        if action == "back":
            gone = [m for m in one.others if not one.env.links[m].connected]
            if gone:
                one.connect(gone[choice % len(gone)])
            return
        asked = [member for member in one.others if one.asked(member)]
        if not asked:
            return
        member = asked[choice % len(asked)]
        if action.startswith("ok"):
            one.accepts(member)
            self.acked.add(member)
            if action == "ok and mark":
                one.marks(member)
                self.on_disk.add(member)
        elif action == "lose":
            one.disconnect(member)
        elif action == "silence":
            for batch in list(one.env.links[member].in_flight):
                for asker in batch.askers:
                    asker.on_silence(member)
        else:
            status = UNWRITABLE if action == "unwritable" else OVERLOADED
            one.answers(member, (status, b"no"))


@pytest.mark.parametrize("sloppy", [True, False])
@given(
    st.integers(1, 3), st.sampled_from((0, 1, 2, 3)), st.sets(st.integers(2, 6), max_size=3), steps
)
def test_a_put_is_answered_at_the_moment_when_enough_hold_it(
    sloppy: bool, w: int, durability: int, absent: set[int], steps: list[tuple[int, str]]
) -> None:
    put = Put(w, durability, sloppy, absent)
    put.look()
    if put.outcome is not None and not isinstance(put.outcome, Stored):
        able = [m for m in put.members if sloppy or m in put.owners]
        assert 1 + len(able) < w, "refused though enough nodes are believed alive"
        assert all(not put.one.asked(member) for member in put.members), "refused, and sent"
        return
    for choice, action in steps:
        put.step(choice, action)
        put.look()
        for member in put.one.others:
            entries = put.one.asked(member)
            assert len(entries) <= 1, "one node is asked twice at a time"
            if member not in put.owners:
                assert sloppy or not entries, "a strict put asked a fallback"
                assert all(entry.op == OP_HINT for entry in entries)
        if isinstance(put.outcome, Stored):
            members = [ack.member for ack in put.outcome.acks]
            assert len(set(members)) == len(members) >= w
            assert set(members) <= put.acked
            assert put.outcome.fallbacks_acked == len(set(members) - set(put.owners))
            assert put.outcome.primaries_acked == len(set(members) & set(put.owners))
            assert put.outcome.on_disk >= put.needed
            return
        assert not put.enough, "enough hold it, and there is no answer"
        if put.outcome is not None:
            assert isinstance(put.outcome, Unknown)
            return
