"""Two clients over and over on one key: siblings and contexts stay few and small.

A client that reads, thinks and writes while the other does the same is Dynamo's everyday life.
However stale their reads are, at most two values are ever alive, neither destroys what it has not
seen, and the context that goes to and fro does not grow with the number of writes.
"""

from collections.abc import Callable
from random import Random

import pytest

from kvorum.model.context import context_of_seen, context_seen
from kvorum.model.record import Value
from kvorum.model.siblings import alive, merge, seen_of, shown_values
from kvorum.model.version import Seen
from tests.support import replicas
from tests.support.replicas import KEY, OneReplica

WRITES = 1_000
CONTEXT_BYTES_MAX = 160
NOTHING: frozenset[int] = frozenset()


class Clients:
    """Two clients, the replicas they write to, and which writes each of them has seen."""

    def __init__(self, seed: int, nodes: int) -> None:
        tape: list[int] = []
        self.random = Random(seed)
        self.replicas = [OneReplica(tape) for _ in range(nodes)]
        self.contexts = [(b"", NOTHING)] * 2
        self.written = 0
        self.seen_by_a_writer: set[int] = set()  # what some write has covered, knowing it
        self.context_bytes = 0
        self.siblings = 0

    def read(self, client: int) -> None:
        """A get of two replicas, or of the only one; the slower one is repaired later."""
        asked = self.random.sample(self.replicas, min(2, len(self.replicas)))
        reader = OneReplica([], table=asked[0].table)
        for replica in asked:
            reader.receive(replica.record)
        values = [] if reader.record is None else shown_values(reader.record, 0)
        known = self.contexts[client][1] | {int(one.data) for one in values}
        self.contexts[client] = (reader.read(), known)

    def write(self, client: int) -> None:
        """A put acked by two replicas, or by the only one; its context is kept."""
        context, known = self.contexts[client]
        at = self.random.randrange(len(self.replicas))
        replica = self.replicas[at]
        _, after = replica.put(b"%d" % self.written, context)
        self.seen_by_a_writer |= known
        self.contexts[client] = (after, known | {self.written})
        self.written += 1
        self.context_bytes = max(self.context_bytes, len(after))
        assert replica.record is not None
        self.siblings = max(self.siblings, len(alive(replica.record)))
        for other in self.random.sample(range(len(self.replicas)), min(2, len(self.replicas))):
            self.replicas[other].receive(replica.record)

    def wander(self) -> None:
        """Some replica hears of another, as by exchange; or not."""
        here, there = self.random.choice(self.replicas), self.random.choice(self.replicas)
        if self.random.random() < 0.3:
            here.receive(there.record)

    def judge(self) -> None:
        together = b""
        for record in filter(None, [replica.record for replica in self.replicas]):
            together = merge(together, record) if together else record
        kept = {int(Value(each).data) for each in alive(together).values()}
        lost = set(range(self.written)) - self.seen_by_a_writer - kept
        assert not lost, "a value that no writer had seen is gone"
        assert len(kept) <= 2, "more than two values stand side by side"
        assert self.siblings <= 2, "more than two values stand side by side"
        assert self.context_bytes <= CONTEXT_BYTES_MAX, "the context grows"


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_interleaved_stale_read_modify_writes(nodes: int, seed: int) -> None:
    clients = Clients(seed, nodes)
    while clients.written < WRITES:
        # Both read before either writes, so one of the two is always stale.
        for client in (0, 1):
            clients.read(client)
        for client in (0, 1):
            clients.write(client)
        clients.wander()
    clients.judge()


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_two_clients_going_on_from_the_contexts_their_puts_returned(nodes: int, seed: int) -> None:
    clients = Clients(seed, nodes)
    while clients.written < WRITES:
        clients.write(clients.random.randrange(2))
        clients.wander()
    clients.judge()


def returns_the_records_vector(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replicas, "context_after_put", lambda record, dot: seen_of(record))


def _returns(patch: pytest.MonkeyPatch, after: Callable[[bytes, bytes], bytes]) -> None:
    """A put gives back what follows from the context given and the new dot."""
    honest = OneReplica.put

    def put(self: OneReplica, data: bytes, context: bytes = b"") -> tuple[bytes, bytes]:
        dot, _ = honest(self, data, context)
        return dot, after(context, dot)

    patch.setattr(OneReplica, "put", put)


def returns_the_context_given(patch: pytest.MonkeyPatch) -> None:
    _returns(patch, lambda context, dot: context)


def leaves_gaps_where_others_were_superseded(patch: pytest.MonkeyPatch) -> None:
    def after(context: bytes, dot: bytes) -> bytes:
        seen = context_seen(context) if context else Seen()
        seen.add(dot)
        return context_of_seen(KEY, seen, 0)

    _returns(patch, after)


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (returns_the_records_vector, "a value that no writer had seen is gone"),
        (returns_the_context_given, "more than two values stand side by side"),
        (leaves_gaps_where_others_were_superseded, "the context grows"),
    ],
)
def test_no_other_context_would_do(
    broken: Callable[[pytest.MonkeyPatch], None], noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    clients = Clients(0, 1)

    def write_and_judge() -> None:
        while clients.written < WRITES // 5:
            clients.write(clients.random.randrange(2))
            clients.judge()

    with pytest.raises(AssertionError, match=noticed):
        write_and_judge()


def test_one_client_going_on_beside_a_sibling_it_never_reads() -> None:
    """Each put leaves a gap where the other's value stands, and one gap only."""
    clients = Clients(0, 1)
    clients.write(1)
    while clients.written < WRITES:
        clients.write(0)
    clients.judge()
    assert clients.context_bytes < 100
