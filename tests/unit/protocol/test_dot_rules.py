"""Dots are never reused: for each rule what it prevents, and that without it a write is lost.

Each story is told twice: as the node does it, and with one rule broken on purpose. The broken
one must fail, so that a test that could not fail does not stand here.
"""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kvorum.model.context import context_of_seen
from kvorum.model.holding import NO_OWN, own_dot, pack_holding
from kvorum.model.record import LWW as LWW_RECORD
from kvorum.model.record import Value, head_of
from kvorum.model.siblings import alive, encode_shown, merge, seen_of, shown_values
from kvorum.model.tables import DEFAULT_TABLE_ID, TableSettings
from kvorum.model.version import ACTOR_BYTES, counter_of, make_dot
from kvorum.protocol.minting import MINTED, Minter
from kvorum.storage.commit import Commit
from tests.property.test_three_replicas import ThreeReplicas
from tests.support.recording import OneNode
from tests.support.records import seen_of_dots
from tests.support.replicas import KEY, LWW, NOBODY, PARTITION_KEY, SIBLINGS, OneReplica

Story = Callable[[type[OneReplica]], list[bytes]]


def dot_after_a_seen_one(store_id: bytes, record: bytes) -> bytes:
    """Breaks rule 3: an actor of our store that is found in the record is taken for our own."""
    runs = seen_of(record).runs if record and not record[1] & LWW_RECORD else {}
    mine = [actor for actor in sorted(runs) if actor[:8] == store_id]
    return make_dot(mine[-1], runs[mine[-1]][-1][1] + 1) if mine else b""


class ContinuesASeenActor(Minter):
    def _live_dot(self, own: bytes, record: bytes, context: bytes) -> bytes:
        return dot_after_a_seen_one(self._store.store_id, record) or super()._live_dot(
            own, record, context
        )


class WithoutRule3(OneReplica):
    def _start(self) -> None:
        self.minting = ContinuesASeenActor
        super()._start()


class WithoutRule2(OneReplica):
    """A new disk goes on under the old store id, and stamps begin anew."""

    def wipe(self) -> None:
        store_id = self.store.store_id
        super().wipe()
        self.store.store_id = store_id


class WithoutRule4(OneReplica):
    """The incarnation goes on after an unclean stop, and a copy is not told from its original."""

    def restart(self, clean: bool, holding: bytes | None) -> None:
        super().restart(True, holding)
        self.minter.confirmed = True


def told(*replicas: OneReplica) -> list[bytes]:
    """What a reader finds once all replicas have met."""
    together = b""
    for record in filter(None, [replica.record for replica in replicas]):
        together = merge(together, record) if together else record
    return sorted(one.data for one in shown_values(together, 0))


def three(kind: type[OneReplica]) -> list[OneReplica]:
    tape: list[int] = []
    return [kind(tape) for _ in range(3)]


def a_dropped_copy_comes_back_stale(kind: type[OneReplica]) -> list[bytes]:
    a, b, c = three(kind)
    a.put(b"one")
    b.receive(a.record)
    a.put(b"two")
    c.receive(a.record)
    a.drop()
    a.receive(b.record)
    a.put(b"three")
    return told(a, b, c)


def a_wiped_disk(kind: type[OneReplica]) -> list[bytes]:
    a, b, _ = three(kind)
    a.put(b"one")
    b.receive(a.record)
    a.wipe()
    a.put(b"two")
    return told(a, b)


def an_unclean_stop(kind: type[OneReplica]) -> list[bytes]:
    a, b, _ = three(kind)
    a.put(b"one")
    on_disk = a.holding
    a.put(b"two")
    b.receive(a.record)
    a.restart(False, on_disk)
    a.put(b"three")
    return told(a, b)


def a_copied_directory(kind: type[OneReplica]) -> list[bytes]:
    """Both come up from the same clean stop; neither has heard of anybody yet."""
    a, b, _ = three(kind)
    a.put(b"one")
    b.store = a.store
    for replica in (a, b):
        replica.restart(True, a.holding)
    a.put(b"two")
    b.put(b"three")
    return told(a, b)


@pytest.mark.parametrize(
    ("story", "broken", "expected"),
    [
        (a_dropped_copy_comes_back_stale, WithoutRule3, [b"one", b"three", b"two"]),
        (a_wiped_disk, WithoutRule2, [b"one", b"two"]),
        (an_unclean_stop, WithoutRule4, [b"one", b"three", b"two"]),
        (a_copied_directory, WithoutRule4, [b"one", b"three", b"two"]),
    ],
)
def test_no_acknowledged_write_is_lost_by(
    story: Story, broken: type[OneReplica], expected: list[bytes]
) -> None:
    assert story(OneReplica) == expected
    assert story(broken) != expected, "the story would not notice a broken rule"


@pytest.mark.parametrize("broken", [WithoutRule2, WithoutRule3, WithoutRule4])
def test_the_state_machine_finds_a_broken_rule(broken: type[OneReplica]) -> None:
    class Broken(ThreeReplicas):
        kind = broken

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Broken,
            settings=settings(
                max_examples=1_000, stateful_step_count=40, phases=[Phase.generate], database=None
            ),
        )


def test_reading_and_minting_are_one_step() -> None:
    """Rule 1: whoever mints on what was read before another put hands a dot out twice."""
    replica, _, _ = three(OneReplica)
    replica.put(b"one")
    before = replica.holding
    first, _ = replica.put(b"two")
    second, _ = replica.put(b"three")
    assert first != second
    assert told(replica) == [b"one", b"three", b"two"]

    late, _, _ = three(OneReplica)
    late.put(b"one")
    before = late.holding
    first, _ = late.put(b"two")
    late.store.get = {KEY: before}.get  # type: ignore[assignment,arg-type]
    second, _ = late.put(b"three")
    assert first == second, "read, then written after another put: the dot was not new"


def test_a_second_mint_continues_the_own_actor_and_a_fresh_copy_a_new_one() -> None:
    a, b, _ = three(OneReplica)
    first, _ = a.put(b"one")
    second, _ = a.put(b"two")
    assert second == make_dot(first[:ACTOR_BYTES], 2)
    b.receive(a.record)
    a.drop()
    a.receive(b.record)
    third, _ = a.put(b"three")
    assert third[:8] == first[:8], "the same store"
    assert third[8:ACTOR_BYTES] > first[8:ACTOR_BYTES], "under its next stamp"
    assert counter_of(third) == 1


@pytest.mark.parametrize("table", [None, LWW], ids=["siblings", "lww"])
def test_the_own_actor_stays_whatever_arrives(table: object) -> None:
    tape: list[int] = []
    a, b = (OneReplica(tape, table=LWW) if table else OneReplica(tape) for _ in range(2))
    first, _ = a.put(b"one")
    b.receive(a.record)
    b.put(b"two", b.read())
    a.receive(b.record)
    assert a.record == b.record
    assert a.holding is not None
    assert own_dot(a.holding) == first
    assert a.put(b"three", a.read())[0] == make_dot(first[:ACTOR_BYTES], 2)


def test_a_later_write_known_only_beyond_a_gap_ends_the_incarnation_too() -> None:
    """The vector alone did not show it: the writer had not read what stands between."""
    a, b, _ = three(OneReplica)
    a.put(b"one")
    on_disk, store_id = a.holding, a.store.store_id
    a.put(b"two")
    _, context = a.put(b"three")
    b.put(b"four", context)
    assert on_disk is not None
    a.store.put(KEY, on_disk)
    a.receive(b.record)
    assert a.store.store_id != store_id


@pytest.mark.parametrize("by", ["a record", "a context"])
def test_a_later_write_under_our_live_actor_ends_the_incarnation(by: str) -> None:
    """Rule 4: somebody has seen what this store never wrote, so it is a clone or has lost it."""
    a, b, _ = three(OneReplica)
    a.put(b"one")
    on_disk, store_id = a.holding, a.store.store_id
    a.put(b"two")
    b.receive(a.record)
    assert on_disk is not None
    a.store.put(KEY, on_disk)  # rolled back, and nobody noticed
    if by == "a record":
        a.receive(b.record)
        dot, _ = a.put(b"three")
    else:
        dot, _ = a.put(b"three", b.read())
    assert a.store.store_id != store_id
    assert dot[:8] == a.store.store_id
    assert a.environment.reported == ["incarnation_ended"]
    assert b"three" in told(a, b)


def test_a_put_sent_again_elsewhere_is_one_value_to_readers() -> None:
    """Rule 5: two dots under one put id; who reads them deletes both."""
    a, b, c = three(OneReplica)
    put_id = b"a client" + (7).to_bytes(8, "little")
    a.put(b"book", put_id=put_id)
    b.put(b"book", put_id=put_id)
    c.receive(a.record)
    c.receive(b.record)
    assert c.record is not None
    assert head_of(c.record)[4] == 2
    assert told(c) == [b"book"]
    context = c.read()
    c.put(b"", context, tombstone=True)
    assert [one.tombstone for one in shown_values(merge_all(a, b, c), 0)] == [True]

    # With a context of only what is shown, the other half would come back.
    d, _, _ = three(OneReplica)
    d.receive(a.record)
    d.receive(b.record)
    assert d.record is not None
    shown = [Value(each).dot for each in alive(encode_shown(d.record, 0)).values()]
    d.put(b"", context_of_seen(KEY, seen_of_dots(shown), 0), tombstone=True)
    assert sorted(one.tombstone for one in shown_values(d.record, 0)) == [False, True]


@pytest.mark.parametrize("table", [SIBLINGS, LWW], ids=["siblings", "lww"])
def test_a_put_sent_again_where_its_value_is_is_not_written_again(table: TableSettings) -> None:
    """Rule 5: the coordinator's answer was lost, its record has arrived, and it is sent here."""
    tape: list[int] = []
    a, b = OneReplica(tape, table=table), OneReplica(tape, table=table)
    put_id = b"a client" + (7).to_bytes(8, "little")
    if table is SIBLINGS:
        b.put(b"other")
    dot, context = a.put(b"book", put_id=put_id)
    b.receive(a.record)
    before = b.holding
    again, context_again = b.put(b"book", put_id=put_id)
    assert again == dot
    assert b.holding == before
    assert b.minter.sent == pack_holding(NO_OWN, PARTITION_KEY, b.record or b"")
    assert b.environment.counters.retries_found == 1
    assert context_again == context
    for data, other in ((b"pen", put_id), (b"book", put_id[:-1] + b"\1"), (b"book", NOBODY)):
        assert b.put(data, put_id=other)[0][:8] == b.store.store_id
    assert b.environment.counters.retries_found == 1


def test_who_has_read_only_half_of_a_put_sent_twice_deletes_only_half() -> None:
    """So a client sends a put elsewhere only where its caller has allowed it (``test_session.py``).

    The coordinator's answer was lost, its record is on its way to ``b``, and the put is sent there.
    """
    a, b, c = three(OneReplica)
    put_id = b"a client" + (7).to_bytes(8, "little")
    a.put(b"book", put_id=put_id)
    c.receive(a.record)
    b.put(b"book", put_id=put_id)
    context = c.read()
    a.put(b"", context, tombstone=True)
    left = shown_values(merge_all(a, b, c), 0)
    assert sorted((one.tombstone, one.data) for one in left) == [(False, b"book"), (True, b"")]
    # Whoever reads this covers both.
    for replica in (a, b, c):
        replica.receive(merge_all(a, b, c))
    a.put(b"", a.read(), tombstone=True)
    assert [one.tombstone for one in shown_values(merge_all(a, b, c), 0)] == [True]


class Racing:
    """Puts of one key on a real store, between any two steps of its overlays' way to the engine."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.one = OneNode()
        self.store = self.one.store
        self.key = self.one.key()
        self.commit: Commit | None = None
        self.read: list[bytes | None] = []  # by puts whose read of the engine has left the loop
        self.dots: list[bytes] = []

    def mint(self) -> None:
        table = self.one.node.tables.registry.live(DEFAULT_TABLE_ID)
        assert table is not None
        outcome = self.one.node.minter.mint(
            self.key, b"alice", table, b"", False, 0, NOBODY, b"", b"book"
        )
        assert outcome == MINTED, self.one.node.minter.refusal
        self.dots.append(self.one.node.minter.dot)

    def mint_on_what_was_read(self) -> None:
        """Looks again in the overlays, and goes on with the engine's answer of before."""
        buffer = self.store.buffer
        earlier = self.read.pop(self.random.randrange(len(self.read)))
        frozen = buffer.frozen.overlay if buffer.frozen is not None else {}
        held = buffer._active.get(self.key) or frozen.get(self.key) or earlier
        honest = self.store.get
        self.store.get = {self.key: held}.get  # type: ignore[assignment,arg-type]
        try:
            self.mint()
        finally:
            self.store.get = honest

    def step(self, off_the_loop: bool) -> None:
        chance = self.random.random()
        buffer = self.store.buffer
        if chance < 0.3 and off_the_loop:
            stored = self.one.engine.get(self.key)
            self.read.append(stored[4:] if stored else None)
        elif chance < 0.6 and self.read:
            self.mint_on_what_was_read()
        elif chance < 0.6 and not off_the_loop:
            self.mint()
        elif chance < 0.7:
            self.one.sync()
            buffer.freeze()
        elif (frozen := buffer.committable) is not None:
            if self.commit is None:
                self.commit = Commit(buffer.engine, frozen)
            if not self.commit.done:
                self.commit.step()
            else:
                buffer.retire()
                self.commit = None


@pytest.mark.parametrize("off_the_loop", [False, True], ids=["on the loop", "off the loop"])
def test_a_read_that_left_the_loop_would_hand_a_dot_out_twice(off_the_loop: bool) -> None:
    """An overlay may be retired between the engine's answer and the put (decision 0004)."""
    reused = minted = 0
    for seed in range(120):
        racing = Racing(seed)
        for _ in range(40):
            racing.step(off_the_loop)
        minted += len(racing.dots)
        reused += len(racing.dots) != len(set(racing.dots))
    assert minted > 500
    assert (reused > 0) is off_the_loop


def merge_all(*replicas: OneReplica) -> bytes:
    together = b""
    for record in filter(None, [replica.record for replica in replicas]):
        together = merge(together, record) if together else record
    return together
