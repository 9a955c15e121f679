"""Sockets, threads and tasks of both clients against a node that misbehaves as told."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import kvorum
from kvorum.wire.kinds import PUT
from tests.support.clients import CLIENTS, connected
from tests.support.fake_node import FakeNode
from tests.support.scripted import Asked


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


each_client = pytest.mark.parametrize("kind", CLIENTS)


@each_client
def test_put_and_get(node: FakeNode, kind: str) -> None:
    with connected(kind, node.address) as client:
        table = client.table("default")
        assert table.put("alice", b"book").context == b"context"
        assert table.get("alice").value == b"book"
        assert table.get("bob").values == ()
        assert client.topology == node.topology


@each_client
def test_many_requests_share_few_writes_and_keep_their_order(node: FakeNode, kind: str) -> None:
    keys = [f"key-{number}" for number in range(1000)]
    with connected(kind, node.address) as client:
        table = client.table("default")
        table.put_many((key, key.encode()) for key in keys)
        assert [found.value for found in table.get_many(keys)] == [key.encode() for key in keys]


@each_client
def test_many_requests_that_fail_in_part(node: FakeNode, kind: str) -> None:
    with connected(kind, node.address) as client:
        table = client.table("default")
        items = [("alice", b"1"), ("", b"2"), ("carol", b"3", None)]
        results = table.put_many(items, return_exceptions=True)
        assert [type(result) for result in results] == [
            kvorum.Stored, kvorum.BadRequest, kvorum.Stored,
        ]  # fmt: skip
        with pytest.raises(kvorum.BadRequest, match="the key is empty"):
            table.put_many(items)
        assert node.values == {b"alice": b"1", b"carol": b"3"}


@each_client
def test_large_values_go_through_small_socket_buffers(node: FakeNode, kind: str) -> None:
    value = bytes(range(256)) * 40_000
    with connected(kind, node.address) as client:
        table = client.table("default")
        table.put_many([(f"key-{number}", value) for number in range(4)])
        assert [one.value for one in table.get_many([f"key-{n}" for n in range(4)])] == [value] * 4


@each_client
def test_a_name_is_resolved_and_every_address_of_it_tried(node: FakeNode, kind: str) -> None:
    with connected(kind, [f"localhost:{node.port}"]) as client:
        assert client.table("default").get("alice").values == ()


@each_client
def test_a_name_that_does_not_exist_is_named(kind: str) -> None:
    with (
        pytest.raises(kvorum.NoNodeReachable, match=r"no-such-host\.invalid:7401: "),
        connected(kind, "no-such-host.invalid"),
    ):
        pass


@each_client
def test_a_closed_port_is_named(node: FakeNode, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with (
        pytest.raises(kvorum.NoNodeReachable, match=f"{address}: Connection refused"),
        connected(kind, [address]),
    ):
        pass


@each_client
def test_a_listener_that_never_greets_is_named(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with (
            pytest.raises(kvorum.NoNodeReachable, match="no answer to our greeting"),
            connected(kind, [address]),
        ):
            pass


@each_client
def test_a_connection_that_died_while_nobody_looked_is_noticed(node: FakeNode, kind: str) -> None:
    with connected(kind, node.address) as client:
        table = client.table("default")
        table.put("alice", b"1")
        node.break_connections()
        time.sleep(0.05)
        table.put("alice", b"2")
        assert node.values[b"alice"] == b"2"


@each_client
def test_a_put_whose_connection_breaks_is_sent_again_under_its_id(
    node: FakeNode, kind: str
) -> None:
    def break_once(asked: Asked) -> bytes:
        if len(node.asked) == 1:
            raise ConnectionAbortedError
        return node.honest(asked)

    node.answer = break_once
    with connected(kind, node.address) as client:
        client.table("default").put("alice", b"book")
    first, second = node.asked
    assert (first.client, first.counter) == (second.client, second.counter)


@each_client
def test_a_put_is_unknown_when_its_node_comes_back_as_another(node: FakeNode, kind: str) -> None:
    def break_for_good(asked: Asked) -> bytes:
        node.nonce = b"other"
        raise ConnectionAbortedError

    node.answer = break_for_good
    with connected(kind, node.address) as client:
        with pytest.raises(kvorum.OutcomeUnknown, match="started anew") as raised:
            client.table("default").put("alice", b"book")
        assert raised.value.put_id is not None


@each_client
def test_a_put_that_nobody_answers_is_unknown_in_time(node: FakeNode, kind: str) -> None:
    node.answer = lambda asked: None
    with connected(kind, node.address, timeout_seconds=0.2) as client:
        began = time.monotonic()
        with pytest.raises(kvorum.OutcomeUnknown, match="no answer from"):
            client.table("default").put("alice", b"book")
        assert time.monotonic() - began < 5
        with pytest.raises(kvorum.NoNodeReachable):
            client.table("default").get("alice")


@each_client
def test_garbage_for_an_answer_does_not_stop_the_client(node: FakeNode, kind: str) -> None:
    def garbage_once(asked: Asked) -> bytes:
        return b"\xff" * 100 if len(node.asked) == 1 else node.honest(asked)

    node.answer = garbage_once
    with connected(kind, node.address) as client:
        assert client.table("default").get("alice").values == ()


@each_client
def test_an_update_in_doubt_is_confirmed_and_not_merged_again(node: FakeNode, kind: str) -> None:
    calls: list[tuple[bytes, ...]] = []

    def merge(values: tuple[bytes, ...]) -> bytes:
        calls.append(values)
        return b"merged"

    node.values[b"alice"] = b"old"

    def doubtful(asked: Asked) -> bytes | None:
        puts = [one for one in node.asked if one.kind == PUT]
        if asked.kind == PUT and len(puts) == 1:
            node.keep(asked)
            return None  # Written, but the answer is lost.
        return node.honest(asked)

    node.answer = doubtful
    with connected(kind, node.address, timeout_seconds=0.3) as client:
        client.table("default").update("alice", merge)
    assert calls == [(b"old",)]
    first, second = (one for one in node.asked if one.kind == PUT)
    assert (first.counter, first.value) == (second.counter, second.value)


@each_client
def test_an_update_in_doubt_that_was_not_written_is_merged_again(node: FakeNode, kind: str) -> None:
    def lost(asked: Asked) -> bytes | None:
        puts = [one for one in node.asked if one.kind == PUT]
        return None if asked.kind == PUT and len(puts) == 1 else node.honest(asked)

    node.answer = lost
    with connected(kind, node.address, timeout_seconds=0.3) as client:
        table = client.table("default")
        table.update("alice", lambda values: b"%d" % len(values))
        assert table.get("alice").value == b"0"
        first, second = (one for one in node.asked if one.kind == PUT)
        assert second.counter == first.counter + 1
        table.put("bob", b"x")
        assert node.asked[-1].lowest_open == node.asked[-1].counter, "all puts are let go"


def test_threads_share_a_client_and_each_gets_its_own_answers(node: FakeNode) -> None:
    with kvorum.connect(node.address) as client:
        table = client.table("default")

        def work(worker: int) -> bool:
            for number in range(60):
                key = f"{worker}-{number}"
                table.put(key, key.encode())
                if table.get(key).value != key.encode():
                    return False
            return True

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(work, range(12)))


def test_threads_live_through_connections_that_break_under_them(node: FakeNode) -> None:
    def break_often(asked: Asked) -> bytes:
        if len(node.asked) % 40 == 0:
            node.break_connections()
        return node.honest(asked)

    node.answer = break_often
    with kvorum.connect(node.address) as client:
        table = client.table("default")

        def work(worker: int) -> None:
            for number in range(20):
                items = [(f"{worker}-{number}-{index}", b"x") for index in range(5)]
                table.put_many(items, retry=True, return_exceptions=True)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        node.answer = node.honest
        table.put("alice", b"book")
        assert table.get("alice").value == b"book"


def test_a_silent_request_of_one_thread_does_not_hold_up_others(node: FakeNode) -> None:
    answered = threading.Event()

    def silent_for_alice(asked: Asked) -> bytes | None:
        return None if asked.key == b"alice" else node.honest(asked)

    node.answer = silent_for_alice
    with kvorum.connect(node.address, timeout_seconds=2.0) as client:
        table = client.table("default")

        def wait_for_alice() -> None:
            with pytest.raises(kvorum.OutcomeUnknown):
                table.put("alice", b"book")
            answered.set()

        thread = threading.Thread(target=wait_for_alice)
        thread.start()
        for number in range(50):
            table.put(f"key-{number}", b"x")
        assert not answered.is_set()
        thread.join()
        assert answered.is_set()


def test_closing_a_client_ends_the_requests_of_other_threads(node: FakeNode) -> None:
    node.answer = lambda asked: None
    client = kvorum.connect(node.address)
    errors: list[kvorum.KvorumError] = []

    def wait() -> None:
        try:
            client.table("default").put("alice", b"book")
        except kvorum.KvorumError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(node.asked) < 3:
        time.sleep(0.001)
    client.close()
    for thread in threads:
        thread.join()
    assert [type(error) for error in errors] == [kvorum.OutcomeUnknown] * 3
    with pytest.raises(kvorum.Refused, match="the client is closed"):
        client.table("default").get("alice")


def test_tasks_share_a_client_and_a_cancelled_one_leaves_nothing(node: FakeNode) -> None:
    def silent_for_alice(asked: Asked) -> bytes | None:
        return None if asked.key == b"alice" else node.honest(asked)

    node.answer = silent_for_alice

    async def story() -> None:
        async with kvorum.aconnect(node.address) as client:
            table = client.table("default")
            waiting = asyncio.create_task(table.put("alice", b"book"))
            await asyncio.gather(*(table.put(f"key-{number}", b"x") for number in range(300)))
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await table.put("bob", b"x")
        assert node.asked[-1].lowest_open == node.asked[-1].counter
        with pytest.raises(kvorum.Refused, match="the client is closed"):
            await table.get("bob")

    asyncio.run(story())


def test_an_asyncio_client_must_be_entered(node: FakeNode) -> None:
    async def story() -> None:
        with pytest.raises(kvorum.Refused, match="async with"):
            await kvorum.aconnect(node.address).table("default").get("alice")

    asyncio.run(story())
