"""Two nodes that differ become equal by exchange, whatever is lost on the way."""

from kvorum.config import NodeConfig
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.model.record import first_record
from kvorum.protocol.exchange import Talk
from kvorum.protocol.generations import FIRST, make_generation
from kvorum.protocol.narrowing import KEYS_MAX
from kvorum.wire.reaping_messages import GenerationState
from tests.support.fault_points import HitsAt
from tests.support.records import dot, value
from tests.support.wired import Cluster

SECOND = 1_000_000
INTERVAL = 5 * SECOND
MOMENT = 20_000
BOOK = first_record(value(dot(8, 1), b"book"))
PEN = first_record(value(dot(9, 1), b"pen"))


class Pair:
    """Two nodes that hold the same, and what each of them was written while it was alone."""

    def __init__(self, same: int = 200, interval: int = INTERVAL) -> None:
        config = NodeConfig(exchange_interval_ms=interval // 1000)
        self.cluster = Cluster(count=2, n=2, config=config)
        for number in range(same):
            for member in (1, 2):
                self.hold(member, b"k%d" % number)
        self.cluster.advance(3 * SECOND)
        assert self.sent == 0

    def hold(self, member: int, name: bytes, record: bytes = BOOK) -> None:
        one = self.cluster[member]
        key = one.key(name)
        one.node.holdings.write(key, one.store.get(key), pack_holding(NO_OWN, name, record))

    def differ(self, count: int) -> None:
        """Member 1 holds so many records that member 2 lacks."""
        for number in range(count):
            self.hold(1, b"more%d" % number)

    @property
    def sent(self) -> int:
        """Records sent by either because of an exchange."""
        return sum(one.env.counters.exchange_sent for one in self.cluster.nodes.values())

    @property
    def equal(self) -> bool:
        one, two = (node.node.holdings.trees for node in self.cluster.nodes.values())
        return one.leaves == two.leaves

    def until_equal(self, seconds: int = 40) -> "Pair":
        for _ in range(seconds * 10):
            if self.equal:
                return self
            self.cluster.advance(SECOND // 10)
        raise AssertionError("they do not become equal")

    def apart(self) -> None:
        self.cluster.lose(1, 2)
        self.cluster.lose(2, 1)

    def together(self) -> None:
        self.cluster.join(1, 2)
        self.cluster.join(2, 1)
        self.cluster.settle()

    @property
    def talks(self) -> list[Talk]:
        return [self.cluster[member].node.exchange.talks[3 - member] for member in (1, 2)]

    def inject(self, *names: str) -> None:
        for one in self.cluster.nodes.values():
            one.env.faults = HitsAt(*names)


def test_only_what_differs_is_sent_and_both_ways() -> None:
    pair = Pair()
    pair.hold(1, b"only here")
    pair.hold(2, b"only there")
    pair.hold(1, b"either")
    pair.hold(2, b"either", PEN)
    pair.until_equal()
    for member in (1, 2):
        assert pair.cluster.values(member, b"only here") == [b"book"]
        assert pair.cluster.values(member, b"only there") == [b"book"]
        assert sorted(pair.cluster.values(member, b"either")) == [b"book", b"pen"]
    pair.cluster.advance(10 * SECOND)
    assert pair.sent == 4
    assert sum(one.env.counters.exchange_leaves for one in pair.cluster.nodes.values()) == 3


def test_once_they_are_equal_they_know_it_soon() -> None:
    """Whoever has narrowed looks whether all is well."""
    pair = Pair(interval=60 * SECOND)
    pair.apart()
    pair.differ(1)
    pair.together()
    pair.until_equal()
    pair.cluster.advance(SECOND)
    assert any(talk.equal_for >= 0 for talk in pair.talks)
    pair.cluster.advance(150 * SECOND)
    assert all(talk.equal_for >= 0 for talk in pair.talks)


def test_a_question_that_is_lost_costs_time_and_nothing_else() -> None:
    pair = Pair()
    pair.inject("exchange.question_lost")
    pair.differ(5)
    pair.cluster.advance(INTERVAL * 2)
    assert not pair.equal
    pair.inject()
    pair.until_equal()
    assert pair.sent == 5


def test_a_record_that_is_lost_is_sent_in_a_later_round() -> None:
    pair = Pair()
    pair.inject("exchange.record_lost")
    pair.differ(5)
    pair.hold(2, b"only there")
    pair.cluster.advance(INTERVAL * 2)
    assert not pair.equal
    assert any(talk.failures for talk in pair.talks)
    pair.inject()
    pair.until_equal()


def test_after_a_lost_connection_it_goes_on_with_what_is_left() -> None:
    pair = Pair(same=0)
    pair.differ(400)
    while pair.sent < 100:
        pair.cluster.advance(MOMENT)
    pair.apart()
    assert not pair.equal
    pair.cluster.advance(SECOND)
    before = pair.sent
    assert before < 400
    pair.together()
    pair.until_equal()
    assert pair.sent <= 400 + KEYS_MAX, "only what was under way is sent again"


def test_a_record_under_an_older_generation_is_sent_again_under_the_one_that_is_told() -> None:
    pair = Pair()
    pair.differ(1)
    key = pair.cluster[1].key(b"more0")
    partition = pair.cluster[1].ring.partition_of_engine_key(key)
    second = make_generation(2, 2)
    pair.cluster[2].node.on_control(1, GenerationState(partition, second, FIRST))
    pair.until_equal()
    assert pair.cluster[1].node.generations.of(key) == second
    assert pair.cluster[2].env.counters.stale_generations > 0
    assert pair.cluster.values(2, b"more0") == [b"book"]


def test_a_copy_that_was_set_aside_is_filled_again_and_counts_then() -> None:
    pair = Pair()
    two = pair.cluster[2].node
    partition = two.ring.partition_of_engine_key(pair.cluster[2].key(b"k0"))
    second, third = make_generation(2, 2), make_generation(3, 2)
    one = pair.cluster[1].node
    one.on_control(2, GenerationState(partition, second, FIRST))
    one.on_control(2, GenerationState(partition, third, FIRST))
    one.generations.note_drop(partition, third)
    two.on_control(1, one.generations.state_of(partition))
    assert two.catch_up.owes(partition)
    pair.cluster.advance(SECOND // 10)
    assert not pair.equal
    pair.until_equal()
    pair.cluster.advance(3 * SECOND)
    assert two.catch_up.count == 0


def test_a_node_catches_up_though_the_two_are_equal_at_no_moment() -> None:
    """Under load some write is always on its way; nothing may wait for equal digests."""
    pair = Pair()
    two = pair.cluster[2].node
    pair.apart()
    pair.differ(50)
    two.catch_up.owe_all()
    pair.together()
    equal_before = two.env.counters.exchange_equal
    busy = [b"busy%d" % number for number in range(2_000)]
    for place, name in enumerate(busy):
        pair.hold(1, name)
        assert not pair.equal
        pair.cluster.advance(5_000)
        if place > 4:
            pair.hold(2, busy[place - 4])
        if not two.catch_up.count:
            break
    assert two.catch_up.count == 0
    assert two.env.counters.exchange_equal == equal_before
    assert all(pair.cluster.values(2, b"more%d" % number) == [b"book"] for number in range(50))


def test_writes_go_on_while_records_are_exchanged() -> None:
    pair = Pair()
    pair.differ(100)
    for number in range(20):
        pair.cluster[1].put(key=b"new%d" % number, durability=0)
        pair.cluster.advance(MOMENT)
    pair.until_equal()
    assert pair.sent <= 100 + 2 * 20
