"""Three replicas of one key against an explicit causal history, whatever happens to them.

The model knows no vectors: a replica is the set of all writes it has heard of, a context is such
a set too, and what is alive is what no other write of the set has seen. The replicas are the
real minting and merging (``tests/support/replicas.py``), and after every step they must say
exactly what the model says. That is more than that nothing is lost and nothing comes back: a
context that claimed a write its holder had not seen would differ as well.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from kvorum.model.context import context_seen
from kvorum.model.record import Value, supersedes
from kvorum.model.siblings import alive, merge, seen_of
from tests.support.records import dots_of
from tests.support.replicas import OneReplica

NOTHING: frozenset[int] = frozenset()
COUNT = 3
CLIENTS = 2

replica_numbers = st.integers(0, COUNT - 1)
client_numbers = st.integers(0, CLIENTS - 1)


class ThreeReplicas(RuleBasedStateMachine):
    """Writes are numbered; the model holds sets of these numbers."""

    kind = OneReplica

    @initialize()
    def begin(self) -> None:
        tape: list[int] = []
        self.replicas = [self.kind(tape) for _ in range(COUNT)]
        self.heard = [NOTHING] * COUNT  # the model: what each replica has heard of
        self.synced: list[tuple[bytes | None, frozenset[int]]] = [(None, NOTHING)] * COUNT
        self.contexts = [(b"", NOTHING)] * CLIENTS  # held by each client
        self.past: list[frozenset[int]] = []  # what each write had seen
        self.dots: dict[bytes, int] = {}

    def alive_of(self, heard: frozenset[int]) -> frozenset[int]:
        seen = NOTHING.union(*(self.past[write] for write in sorted(heard)))
        return heard - seen

    def write(self, at: int, context: tuple[bytes, frozenset[int]], tombstone: bool) -> None:
        number = len(self.past)
        encoded, known = context
        data = b"" if tombstone else b"%d" % number
        dot, after = self.replicas[at].put(data, encoded, tombstone, number.to_bytes(16, "big"))
        assert dot not in self.dots, "a dot was handed out twice"
        self.dots[dot] = number
        self.past.append(known)
        self.heard[at] |= known | {number}
        self.last = (after, self.heard[at] - self.alive_of(self.heard[at]) | {number})

    @rule(at=replica_numbers, client=client_numbers)
    def read(self, at: int, client: int) -> None:
        self.contexts[client] = (self.replicas[at].read(), self.heard[at])

    # Each write also reaches the replica ``to``, which is nobody else where it is ``at`` itself.
    @rule(at=replica_numbers, to=replica_numbers, client=client_numbers, goes_on=st.booleans())
    def put_with_the_held_context(self, at: int, to: int, client: int, goes_on: bool) -> None:
        self.write(at, self.contexts[client], False)
        self.send(at, to)
        if goes_on:
            self.contexts[client] = self.last

    @rule(at=replica_numbers, to=replica_numbers)
    def put_blindly(self, at: int, to: int) -> None:
        self.write(at, (b"", NOTHING), False)
        self.send(at, to)

    @rule(at=replica_numbers, to=replica_numbers, client=client_numbers)
    def delete(self, at: int, to: int, client: int) -> None:
        self.write(at, self.contexts[client], True)
        self.send(at, to)

    @rule(at=replica_numbers, to=replica_numbers)
    def read_and_put_at_once(self, at: int, to: int) -> None:
        self.write(at, (self.replicas[at].read(), self.heard[at]), False)
        self.send(at, to)

    @rule(here=replica_numbers, there=replica_numbers)
    def send(self, here: int, there: int) -> None:
        self.replicas[there].receive(self.replicas[here].record)
        self.heard[there] |= self.heard[here]

    @rule(here=replica_numbers, step=st.integers(1, COUNT - 1), comes_back=st.booleans())
    def give_away_and_drop(self, here: int, step: int, comes_back: bool) -> None:
        self.send(here, (here + step) % COUNT)
        self.replicas[here].drop()
        self.heard[here] = NOTHING
        if comes_back:  # from the third one, where it may be stale
            self.send((here - step) % COUNT, here)

    @rule(at=replica_numbers)
    def sync(self, at: int) -> None:
        self.synced[at] = (self.replicas[at].holding, self.heard[at])

    @rule(at=replica_numbers)
    def wipe_the_disk(self, at: int) -> None:
        self.replicas[at].wipe()
        self.heard[at] = NOTHING
        self.synced[at] = (None, NOTHING)

    @rule(at=replica_numbers)
    def crash_and_restart(self, at: int) -> None:
        holding, heard = self.synced[at]
        self.replicas[at].restart(False, holding)
        self.heard[at] = heard

    @rule(at=replica_numbers, answered=st.booleans())
    def restart_cleanly(self, at: int, answered: bool) -> None:
        replica = self.replicas[at]
        replica.restart(True, replica.holding)
        # Before the first mint some other member must have answered, or a new id is drawn.
        replica.minter.confirmed = answered
        self.sync(at)

    @precondition(lambda self: len(self.past) > 3)
    @rule()
    def meet_all(self) -> None:
        for here in range(COUNT):
            for there in range(COUNT):
                self.send(here, there)
        first = self.replicas[0].record
        assert all(replica.record == first for replica in self.replicas), "equal, byte by byte"

    @invariant()
    def replicas_say_what_the_model_says(self) -> None:
        for replica, heard in zip(self.replicas, self.heard, strict=True):
            record = replica.record
            if record is None:
                assert not heard
                continue
            assert {self.dots[each] for each in dots_of(seen_of(record))} == heard
            kept = {self.dots[each] for each in alive(record)}
            assert kept == self.alive_of(heard)
            for each in alive(record).values():
                one = Value(each)
                number = self.dots[one.dot]
                assert one.put_id == number.to_bytes(16, "big"), "another write's value"
                assert one.data == (b"" if one.tombstone else b"%d" % number)

    @invariant()
    def contexts_claim_what_was_seen(self) -> None:
        for encoded, known in self.contexts:
            if encoded:
                assert {self.dots[each] for each in dots_of(context_seen(encoded))} == known

    @invariant()
    def no_unseen_write_is_lost_and_none_comes_back(self) -> None:
        """Whatever the replicas would agree on: all that some replica still must hold."""
        together = b""
        for record in filter(None, (replica.record for replica in self.replicas)):
            together = merge(together, record) if together else record
            assert supersedes(together, record)
        kept = {self.dots[each] for each in alive(together)} if together else set()
        assert kept == self.alive_of(NOTHING.union(*self.heard))


TestThreeReplicas = ThreeReplicas.TestCase
TestThreeReplicas.settings = settings(stateful_step_count=40)
