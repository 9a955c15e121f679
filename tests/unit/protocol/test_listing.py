"""Listing keys: pages in the order of the ring, from whichever owner answers."""

from kvorum.model.hashing import SPACE_HINTS, engine_key
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.protocol.background import RECORD_READ
from kvorum.protocol.listing import EXAMINED_MAX, LISTINGS_MAX, PATIENCE, SLICE
from kvorum.storage.engine import EngineFailed
from kvorum.wire.codec import encode
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.listing_messages import KeysAnswer, KeysQuery, LocalKeys, LocalKeysAnswer
from kvorum.wire.messages import ControlRefused
from kvorum.wire.requests import BAD_REQUEST, OVERLOADED, TOMBSTONE, UNKNOWN_TABLE
from tests.support.recording import OneNode, RecordingPort
from tests.support.wired import Cluster


def query(prefix: bytes = b"", start: bytes = b"", limit: int = 1000) -> KeysQuery:
    return KeysQuery(5, DEFAULT_TABLE_ID, prefix, start, limit)


def filled(count: int, one: OneNode | None = None) -> OneNode:
    one = one or OneNode(count=1, n=1, durable=False)
    for number in range(count):
        one.put(b"key-%d" % number, durability=0)
    one.client.take()
    return one


def page(one: OneNode, asked: KeysQuery, patience: int = 1_000_000) -> KeysAnswer:
    one.question(asked)
    one.advance(patience)
    answer = one.client.message()
    assert isinstance(answer, KeysAnswer)
    assert answer.request == asked.request
    return answer


def ring_order(one: OneNode, keys: list[bytes]) -> list[bytes]:
    return sorted(keys, key=lambda key: engine_key(one.ring.hash_key, DEFAULT_TABLE_ID, key, b""))


def test_keys_come_in_the_order_of_the_ring() -> None:
    one = filled(200)
    answer = page(one, query())
    keys = [key for key, _ in answer.keys]
    assert keys == ring_order(one, [b"key-%d" % number for number in range(200)])
    assert (answer.start, answer.text) == (b"", "")


def test_a_page_goes_on_where_the_last_one_ended() -> None:
    one = filled(100)
    found: list[bytes] = []
    start = b""
    while True:
        answer = page(one, query(start=start, limit=9))
        found += [key for key, _ in answer.keys]
        start = answer.start
        if not start:
            break
        assert len(answer.keys) == 9
        one.put(b"key-0", b"again", durability=0)  # What is written meanwhile confuses nothing.
        one.client.take()
    assert found == ring_order(one, [b"key-%d" % number for number in range(100)])


def test_only_keys_with_a_value_count() -> None:
    one = filled(3)
    one.put(b"key-1", b"", durability=0, flags=TOMBSTONE, context=one_context(one, b"key-1"))
    one.put(b"short", durability=0, ttl=1_000)
    one.put(b"long", durability=0, ttl=60_000_000)
    one.put(b"other", durability=0, sort_key=b"sorted")
    one.client.take()
    one.advance(10_000)
    answer = page(one, query())
    assert sorted(answer.keys) == [
        (b"key-0", b""), (b"key-2", b""), (b"long", b""), (b"other", b"sorted"),
    ]  # fmt: skip
    assert page(one, query(prefix=b"lo")).keys == [(b"long", b"")]


def one_context(one: OneNode, key: bytes) -> bytes:
    one.client.take()
    one.get(key)
    return one.client.outcome().context  # type: ignore[union-attr]


def test_a_page_ends_when_enough_has_been_looked_at() -> None:
    one = filled(EXAMINED_MAX + SLICE)
    answer = page(one, query(prefix=b"none"), 10_000_000)
    assert answer.keys == []
    assert answer.start
    answer = page(one, query(prefix=b"none", start=answer.start))
    assert (answer.keys, answer.start) == ([], b"")


def test_long_keys_end_a_page_too() -> None:
    one = OneNode(count=1, n=1, durable=False)
    for number in range(200):
        one.put(b"%d" % number + b"x" * 2000, durability=0)
    one.client.take()
    answer = page(one, query())
    assert 100 < len(answer.keys) < 200
    assert len(page(one, query(start=answer.start)).keys) == 200 - len(answer.keys)


def test_scans_take_turns_under_the_budget() -> None:
    one = filled(SLICE * 3)
    other = RecordingPort()
    one.question(query())
    one.question(query(), other)
    one.advance(1_000)
    assert one.client.payloads == other.payloads == []
    assert one.node.background.busy
    one.advance(100_000)
    assert len(one.client.take()) == len(other.take()) == 1
    assert one.node.background.spent >= 2 * 3 * SLICE * RECORD_READ
    assert not one.node.background.busy


def test_what_cannot_be_listed_is_refused() -> None:
    one = filled(1)
    for asked, code in (
        (KeysQuery(5, b"no table", b"", b"", 10), UNKNOWN_TABLE),
        (query(limit=0), BAD_REQUEST),
        (query(limit=1001), BAD_REQUEST),
        (query(start=b"\0lease"), BAD_REQUEST),
        (query(start=SPACE_HINTS), BAD_REQUEST),
        (query(start=b"\x01"), BAD_REQUEST),
    ):
        one.question(asked)
        refused = one.client.message()
        assert isinstance(refused, ControlRefused)
        assert refused.code == code


def test_so_many_listings_at_a_time() -> None:
    one = filled(1)
    for _ in range(LISTINGS_MAX):
        one.question(query())
    one.question(query())
    refused = one.client.message()
    assert isinstance(refused, ControlRefused)
    assert refused.code == OVERLOADED
    one.advance(1_000_000)
    assert len(one.client.take()) == LISTINGS_MAX
    assert page(one, query()).keys


def test_a_client_that_has_gone_is_told_nothing() -> None:
    one = filled(SLICE * 2)
    one.question(query())
    one.client.closed = True
    one.advance(1_000_000)
    assert one.client.payloads == []
    assert one.node.listing.open == 0


def cluster_with_keys(count: int) -> tuple[Cluster, list[bytes]]:
    cluster = Cluster(count=5, n=2, volatile=(1, 2, 3, 4, 5))
    keys = [b"key-%d" % number for number in range(count)]
    for key in keys:
        cluster[1].put(key, durability=0, w=2)
        cluster.settle()
    cluster[1].client.take()
    return cluster, keys


def run(cluster: Cluster, rounds: int = 400) -> None:
    for _ in range(rounds):
        cluster.settle()
        for member in cluster.nodes:
            cluster[member].advance(1_000)


def test_what_others_hold_is_asked_of_them() -> None:
    cluster, keys = cluster_with_keys(60)
    one = cluster[1]
    assert len(one.ring.partitions_of(1)) < one.ring.partitions
    one.question(query())
    run(cluster)
    answer = one.client.message()
    assert isinstance(answer, KeysAnswer)
    assert [key for key, _ in answer.keys] == ring_order(one, keys)
    assert answer.start == b""


def test_another_owner_stands_in_for_one_that_is_silent_or_gone() -> None:
    cluster, keys = cluster_with_keys(60)
    one = cluster[1]
    cluster.stop(2)
    one.question(query())
    run(cluster)
    answer = one.client.message()
    assert isinstance(answer, KeysAnswer)
    assert len(answer.keys) == len(keys)


def test_where_nobody_answers_the_page_says_so() -> None:
    one = OneNode(count=3, n=1, durable=False)
    mine = one.ring.partitions_of(1)
    first_other = next(p for p in range(one.ring.partitions) if p not in mine)
    one.question(query())
    one.advance(PATIENCE * 2)
    answer = one.client.message()
    assert isinstance(answer, KeysAnswer)
    assert answer.text == f"no owner of partition {first_other} answers"
    assert one.ring.partition_of_engine_key(answer.start.ljust(3, b"\0")) == first_other


def asked_of_others(one: OneNode) -> LocalKeys:
    return next(each for _, each in reversed(one.env.sent) if isinstance(each, LocalKeys))


def test_an_answer_that_makes_no_sense_is_as_none() -> None:
    one = OneNode(count=2, n=1, durable=False)
    one.question(query(limit=10))
    one.advance(1_000_000)
    asked = asked_of_others(one)
    one.node.on_control(2, LocalKeysAnswer(asked.request, [(b"x", b"")], b"", ""))
    answer = one.client.message()
    assert isinstance(answer, KeysAnswer)
    assert answer.text
    one.node.on_control(2, LocalKeysAnswer(asked.request, [(b"late", b"")], asked.end, ""))
    assert one.client.take() == []


def test_the_end_of_the_ring_may_be_anothers() -> None:
    one = OneNode(count=2, n=1, durable=False)
    start = b""
    for _ in range(one.ring.partitions):
        one.question(query(start=start))
        one.advance(1_000_000)
        while not one.client.payloads:
            asked = asked_of_others(one)
            one.node.on_control(2, LocalKeysAnswer(asked.request, [(b"x", b"")], asked.end, ""))
            one.advance(1_000_000)
        answer = one.client.message()
        assert isinstance(answer, KeysAnswer)
        assert answer.text == ""
        start = answer.start
        if not start:
            break
    assert start == b""


def test_a_member_is_told_what_is_here() -> None:
    one = filled(10, OneNode(durable=False).connect())
    one.env.sent.clear()
    one.node.on_control(2, LocalKeys(9, DEFAULT_TABLE_ID, b"", b"", b"\xff", 4))
    one.node.on_control(2, LocalKeys(10, DEFAULT_TABLE_ID, b"", b"", b"\xff", 0))
    one.advance(100_000)
    answers = [each for _, each in one.env.sent if isinstance(each, LocalKeysAnswer)]
    refused, answer = answers
    assert (refused.request, bool(refused.text)) == (10, True)
    assert (answer.request, len(answer.keys), answer.text) == (9, 4, "")
    assert b"\x01" < answer.start < SPACE_HINTS


def test_an_engine_that_fails_is_passed_by() -> None:
    one = filled(10)

    def broken(*_: object) -> list[tuple[bytes, bytes]]:
        raise EngineFailed("found by a test")

    one.store.scan = broken
    answer = page(one, query())
    assert answer.text == "no owner of partition 0 answers"
    one.node.on_control(2, LocalKeys(9, DEFAULT_TABLE_ID, b"", b"", b"\xff", 4))
    one.advance(100_000)
    told = [each for _, each in one.env.sent if isinstance(each, LocalKeysAnswer)]
    assert told[-1].text == "found by a test"


def test_a_query_survives_its_encoding() -> None:
    one = filled(1)
    one.node.on_client(one.client, encode(query())[LENGTH_BYTES:])
    one.advance(100_000)
    assert one.client.message().keys == [(b"key-0", b"")]  # type: ignore[union-attr]
