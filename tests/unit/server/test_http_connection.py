"""What one HTTP connection takes, in which order it answers, and how it ends."""

import json

import pytest

from kvorum.config import NodeConfig
from kvorum.server.http import IDLE_AFTER
from kvorum.server.http_connection import (
    ANSWER_BYTES,
    LINGER_BYTES,
    LINGER_MICROSECONDS,
    PIPELINE_BYTES,
    PIPELINE_MAX,
)
from kvorum.server.http_reader import HEADERS_MAX
from kvorum.wire.link import OK
from tests.support.http_door import Client, Doors, Reply, request
from tests.support.recording import OneNode

PUT = "/tables/default/keys/k?durability=none"
GET = "/tables/default/keys/k"


def code_of(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    document = json.loads(reply.body)
    assert document["status"] == reply.status
    return str(document["code"])


def refused(client: Client, data: bytes, code: str, ends: bool = True) -> None:
    client.send(data)
    (reply,) = client.take()
    assert code_of(reply) == code
    assert client.ended == ends
    assert (reply.headers.get("connection") == "close") == ends


def test_a_connection_carries_one_request_after_the_other() -> None:
    client = Doors().client()
    assert client.ask("PUT", PUT, b"one").status == 204
    reply = client.ask("GET", GET)
    assert (reply.status, reply.body) == (200, b"one")
    assert "connection" not in reply.headers
    assert not client.ended


def test_a_request_may_arrive_byte_by_byte() -> None:
    client = Doors().client()
    data = request("PUT", PUT, b"value", Content_Type="text/plain") + request("GET", GET)
    client.send(*[data[at : at + 1] for at in range(len(data))])
    stored, found = client.take()
    assert stored.status == 204
    assert (found.status, found.body) == (200, b"value")
    assert found.headers["content-type"] == "text/plain"


def test_pipelined_requests_are_answered_in_order_and_writes_alone() -> None:
    client = Doors().client()
    data = b"".join(
        request("PUT", f"{PUT}&w=1", b"%d" % number) + request("GET", GET) for number in range(20)
    )
    client.send(data)
    replies = client.take()
    assert [reply.status for reply in replies[::2]] == [204] * 20
    # A read after a write sees it, though all came at once.
    assert [reply.status for reply in replies[1::2]] == [200] + [300] * 19


def test_reads_go_on_together_and_a_write_waits_for_them() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    client.send(request("GET", GET) * 3 + request("PUT", PUT, b"v") + request("GET", GET))
    assert len(one.asked(2)) == 3
    assert client.take() == []
    one.answers(2, OK, OK, OK)
    assert [reply.status for reply in client.take_now()] == [404, 404, 404]
    assert len(one.asked(2)) == 1
    one.answers(2, OK)
    (stored,) = client.take_now()
    assert stored.status == 204
    one.answers(2, OK)
    (found,) = client.take_now()
    assert found.body == b"v"


def test_an_answer_that_is_there_early_waits_for_those_before_it() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    client.send(request("GET", GET) + request("GET", "/tables/none/keys/k"))
    assert client.take() == []
    one.accepts(2)
    assert [reply.status for reply in client.take_now()] == [404, 404]


def test_reading_stops_while_too_much_waits() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    for _ in range(20):  # Until it is known that answers are small.
        client.ask("GET", "/tables/none/keys/k")
    client.send(request("GET", GET) * (PIPELINE_MAX * 2 + 10))
    assert not client.transport.reading
    assert len(one.asked(2)) == PIPELINE_MAX
    one.accepts(2)
    client.doors.turns.end()
    assert client.transport.reading
    for _ in range(2):
        one.accepts(2)
        client.doors.turns.end()
    assert len(client.take_now()) == PIPELINE_MAX * 2 + 10


def test_as_many_reads_are_under_way_as_their_answers_are_small() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    client.send(request("PUT", PUT, b"v" * ANSWER_BYTES))
    one.accepts(2, large=True)
    assert client.take_now()[0].status == 204
    client.send(request("GET", GET))
    one.answers(2, OK)
    assert len(client.take_now()) == 1  # From now on it is known how large they are.
    client.send(request("GET", GET) * 50)
    most = PIPELINE_BYTES // ANSWER_BYTES
    answered = 0
    while answered < 50:
        under_way = len(one.asked(2))
        assert 1 <= under_way <= most
        one.answers(2, *[OK] * under_way)
        answered += len(client.take_now())


def test_who_does_not_read_is_answered_one_by_one() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    client.connection.pause_writing()
    client.send(request("GET", GET) * 3)
    assert len(one.asked(2)) == 1
    client.connection.resume_writing()
    client.doors.turns.end()
    assert len(one.asked(2)) == 3
    one.accepts(2)
    assert len(client.take_now()) == 3


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\nHost: localhost\n\n", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", "malformed"),
        (b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", "malformed"),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", "malformed"),
        (b"FROB / HTTP/1.1\r\nHost: localhost\r\n\r\n", "malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
         b"Content-Length: 1\r\n\r\nx", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 1\r\n\r\nx", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\nx", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x1\r\n\r\nx", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
         "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
         b"Content-Length: 5\r\n\r\n0\r\n\r\n", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"
         b"0\r\n\r\n", "malformed"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
         b"0\r\n\r\n", "unsupported"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n"
         b"0\r\n\r\n", "unsupported"),
        (b"PUT /%b HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "unsupported"),
        (b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
         b"Content-Length: 1\r\n\r\nx", "unsupported"),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "unsupported"),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", "http_version"),
        (b"GET /\r\n\r\n", "http_version"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "bad_header"),
        (b"GET /%b HTTP/1.1\r\nHost: localhost\r\nX-Kvorum-Context: a\r\n"
         b"x-kvorum-context: b\r\n\r\n", "bad_header"),
    ],
)  # fmt: skip
def test_what_could_mean_two_things_ends_the_connection(data: bytes, code: str) -> None:
    client = Doors().client()
    data = data.replace(b"/%b", PUT.encode())
    refused(client, data + request("PUT", "/tables/default/keys/smuggled", b"x"), code)
    assert Client(client.doors).ask("GET", "/tables/default/keys/smuggled").status == 404
    assert Client(client.doors).ask("GET", GET).status == 404


def test_a_request_that_is_only_wrong_leaves_the_connection_open() -> None:
    client = Doors().client()
    refused(client, request("GET", "/nowhere"), "no_route", ends=False)
    refused(client, b"GET / HTTP/1.1\r\n\r\n", "bad_header", ends=False)
    refused(client, request("PUT", PUT + "&x=1", b"value"), "bad_query", ends=False)
    assert client.ask("GET", "/").status == 200
    refused(client, request("PUT", PUT + "&x=1", b"x" * 65_537), "bad_query")
    assert client.doors.door._body_bytes == 0


def test_a_node_on_loopback_answers_to_its_own_names_only() -> None:
    strange = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    refused(Doors().client(), strange, "misdirected", ends=False)
    (reply,) = Doors(loopback=False).client().send(strange).take()
    assert reply.status == 200


def test_http_1_0_ends_after_its_answer_unless_asked() -> None:
    client = Doors().client().send(b"GET / HTTP/1.0\r\n\r\n")
    (reply,) = client.take()
    assert reply.headers["connection"] == "close"
    assert client.ended
    client = Doors().client().send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    (reply,) = client.take()
    assert reply.headers["connection"] == "keep-alive"
    assert not client.ended


def test_what_follows_the_last_request_is_not_looked_at() -> None:
    client = Doors().client()
    client.send(request("GET", "/", Connection="close") + request("PUT", PUT, b"x"))
    client.send(b"nonsense")
    (reply,) = client.take()
    assert reply.headers["connection"] == "close"
    assert Client(client.doors).ask("GET", GET).status == 404


def test_another_protocol_is_not_taken_up() -> None:
    client = Doors().client()
    client.send(request("GET", "/", Connection="Upgrade", Upgrade="h2c") + b"PRI * HTTP/2.0")
    (reply,) = client.take()
    assert reply.status == 200
    assert client.ended


def test_a_body_that_is_too_large_is_refused_before_it_is_kept() -> None:
    config = NodeConfig(value_bytes_max=1000, peer_queue_bytes_max=2000)
    client = Doors(config=config).client()
    head = f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n".encode()
    refused(client, head, "too_large")
    client = Client(client.doors)
    chunked = f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(chunked.encode(), b"200\r\n" + b"x" * 512 + b"\r\n")
    assert client.take() == []
    refused(client, b"200\r\n" + b"x" * 512 + b"\r\n", "too_large")
    assert client.doors.door._body_bytes == 0


def test_a_request_that_takes_no_body_is_given_none() -> None:
    refused(Doors().client(), request("GET", GET, b"x"), "bad_body", ends=False)
    refused(Doors().client(), request("DELETE", PUT, b"x"), "bad_body", ends=False)
    assert Doors().client().ask("GET", GET, b"").status == 404


def test_all_bodies_together_are_bounded() -> None:
    doors = Doors(config=NodeConfig(http_body_bytes_max=1500))
    slow = doors.client()
    slow.send(request("PUT", PUT, b"x" * 1000)[:-1])
    refused(doors.client(), request("PUT", PUT, b"x" * 1000), "overloaded")
    slow.send(b"x")
    assert [reply.status for reply in slow.take()] == [204]
    assert doors.client().ask("PUT", PUT, b"x" * 1000).status == 204
    assert doors.door._body_bytes == 0


def test_what_a_lost_connection_was_sending_is_forgotten() -> None:
    doors = Doors()
    slow = doors.client()
    slow.send(request("PUT", PUT, b"x" * 1000)[:-1])
    assert doors.door._body_bytes == 999
    slow.connection.connection_lost(None)
    assert doors.door._body_bytes == 0


@pytest.mark.parametrize("size", [1, 10_000])
def test_headers_without_end_are_refused(size: int) -> None:
    client = Doors(config=NodeConfig(http_head_bytes_max=65_536)).client()
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    for _ in range(200_000 // size):
        client.send(b"x" * size)
        if client.ended:
            break
    (reply,) = client.take()
    assert code_of(reply) == "head_too_large"


def test_too_many_headers_are_refused() -> None:
    headers = {f"X-{number}": "1" for number in range(HEADERS_MAX)}
    refused(Doors().client(), request("GET", "/", **headers), "head_too_large")
    large = {f"X-{number}": "1" * 9000 for number in range(8)}
    refused(Doors().client(), request("GET", "/", **large), "head_too_large")
    many = "".join("Accept: x\r\n" for _ in range(8000))
    head = f"GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n".encode()
    refused(Doors().client(), head, "head_too_large")


def test_a_path_that_is_too_long_is_refused() -> None:
    path = "/tables/default/keys/" + "x" * 16_400
    refused(Doors().client(), request("GET", path), "uri_too_long", ends=False)


def test_chunks_are_put_together() -> None:
    client = Doors().client()
    client.send(
        f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n".encode(),
        b"3;extension=1\r\nabc\r\n",
        b"1\r\nd\r\n2\r\nef\r\n",
        b"0\r\nX-Kvorum-Context: trailer\r\n\r\n",
    )
    assert [reply.status for reply in client.take()] == [204]
    assert client.ask("GET", GET).body == b"abcdef"


@pytest.mark.parametrize("filler", [b"x" * 60_000, b"0" * 60_000])
def test_chunks_that_are_mostly_framing_are_refused(filler: bytes) -> None:
    client = Doors().client()
    client.send(
        f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
        b"3;extension=",
        *[filler] * 3,
    )
    (reply,) = client.take()
    assert code_of(reply) == "malformed"
    assert client.ended


def test_trailers_without_end_are_refused() -> None:
    client = Doors().client()
    client.send(
        f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
        b"1\r\nx\r\n0\r\nX: ",
        *[b"x" * 60_000] * 3,
    )
    (reply,) = client.take()
    assert code_of(reply) == "malformed"


def test_who_waits_for_a_word_before_the_body_gets_it() -> None:
    client = Doors().client()
    data = request("PUT", PUT, b"value", Expect="100-continue")
    client.send(data[:-5])
    assert [reply.status for reply in client.take()] == [100]
    client.send(data[-5:])
    assert [reply.status for reply in client.take()] == [204]
    client.send(data)
    assert [reply.status for reply in client.take()] == [204]  # The body was there already.


def test_who_waits_for_a_word_and_sends_too_much_gets_another() -> None:
    head = f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
    refused(Doors().client(), f"{head}Expect: 100-continue\r\n\r\n".encode(), "too_large")
    refused(Doors().client(), f"{head}Expect: 200-ok\r\n\r\n".encode(), "expectation_failed")


def test_the_word_comes_after_the_answers_that_are_due_before() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client()
    client.send(request("GET", GET) + request("PUT", PUT, b"v", Expect="100-continue")[:-1])
    assert client.take() == []
    one.accepts(2)
    assert [reply.status for reply in client.take_now()] == [404, 100]


def test_a_request_that_comes_too_slowly_is_given_up() -> None:
    doors = Doors(config=NodeConfig(http_request_timeout_ms=5_000))
    slow = doors.client().send(b"GET / HTTP/1.1\r\nX: ")
    silent = doors.client()
    for _ in range(4):
        doors.pass_time(1_000_000)
        slow.send(b"T")
    assert not slow.ended
    doors.pass_time(2_000_000)
    assert code_of(slow.take()[0]) == "request_timeout"
    assert slow.ended
    assert not silent.ended


def test_a_large_body_may_take_longer() -> None:
    doors = Doors(config=NodeConfig(http_request_timeout_ms=1_000))
    data = request("PUT", PUT, b"x" * 100_000)
    slow = doors.client().send(data[:70_000])
    doors.pass_time(4_000_000)
    assert not slow.ended
    doors.pass_time(2_000_000)
    assert code_of(slow.take()[0]) == "request_timeout"


def test_an_idle_connection_ends_after_a_while() -> None:
    doors = Doors(config=NodeConfig(http_idle_timeout_ms=10_000))
    client = doors.client()
    for _ in range(3):
        assert client.ask("GET", "/").status == 200
        doors.pass_time(9_000_000)
        assert not client.ended
    doors.pass_time(2_000_000)
    assert client.transport.closed
    assert client.transport.written == b""


def test_who_does_not_read_is_cut_off() -> None:
    doors = Doors()
    client = doors.client()
    client.ask("GET", "/")
    client.transport.unread = 1000
    client.connection.pause_writing()
    assert not client.transport.reading
    doors.pass_time(9_000_000)
    client.transport.unread = 900
    doors.pass_time(9_000_000)
    assert not client.transport.closed
    doors.pass_time(11_000_000)
    assert client.transport.closed


def test_who_reads_again_is_served_again() -> None:
    doors = Doors()
    client = doors.client()
    client.connection.pause_writing()
    client.connection.resume_writing()
    assert client.transport.reading
    doors.pass_time(20_000_000)
    assert client.ask("GET", "/").status == 200


def test_the_peer_has_time_to_read_the_last_answer() -> None:
    doors = Doors()
    client = doors.client().send(b"nonsense\r\n\r\n")
    assert client.transport.eof
    assert not client.transport.closed
    client.send(b"x" * 1000)
    assert not client.transport.closed
    client.send(b"x" * LINGER_BYTES)
    assert client.transport.closed
    client = doors.client().send(b"nonsense\r\n\r\n")
    doors.pass_time(LINGER_MICROSECONDS + 1)
    assert client.transport.closed
    client = doors.client().send(b"nonsense\r\n\r\n").end()
    assert client.transport.closed


def test_who_has_sent_all_may_still_read() -> None:
    one = OneNode(durable=False).connect()
    client = Doors(one).client().send(request("GET", GET)).end()
    assert not client.transport.closed
    one.accepts(2)
    (reply,) = client.take_now()
    assert reply.status == 404
    assert reply.headers["connection"] == "close"
    assert client.transport.eof


def test_the_end_of_an_idle_connection_ends_it() -> None:
    client = Doors().client().end()
    assert client.transport.closed
    client = Doors().client().send(b"GET / HT").end()
    assert client.transport.closed


def test_past_the_limit_the_longest_idle_connection_goes() -> None:
    doors = Doors(config=NodeConfig(clients_max=2))
    first, second = doors.client(), doors.client()
    doors.one.env.now += 10
    first.ask("GET", "/")
    third = doors.client()
    assert second.transport.closed
    assert first.ask("GET", "/").status == third.ask("GET", "/").status == 200


def test_past_the_limit_one_that_has_just_come_stays() -> None:
    """However many others dawdle in the middle of their requests, and go on doing so."""
    doors = Doors(config=NodeConfig(clients_max=2))
    first = doors.client().send(b"GET / HT")
    second = doors.client()
    doors.pass_time(IDLE_AFTER)
    second.send(b"GET / HT")
    third = doors.client()
    assert first.transport.closed
    fourth = doors.client()
    assert second.transport.closed
    assert third.ask("GET", "/").status == fourth.ask("GET", "/").status == 200


def test_past_the_limit_one_that_awaits_its_answer_goes_last() -> None:
    one = OneNode(durable=False, config=NodeConfig(clients_max=2)).connect()
    doors = Doors(one)
    busy = doors.client().send(request("GET", GET))
    dawdling = doors.client().send(b"GET / HT")
    doors.pass_time(IDLE_AFTER)
    doors.client()
    assert dawdling.transport.closed
    one.accepts(2)
    (reply,) = busy.take_now()
    assert reply.status == 404


def test_a_stopping_node_says_goodbye() -> None:
    one = OneNode(durable=False).connect()
    doors = Doors(one)
    busy, idle = doors.client(), doors.client()
    busy.send(request("GET", GET))
    doors.door.closing = True
    one.accepts(2)
    (reply,) = busy.take_now()
    assert (reply.status, reply.headers["connection"]) == (404, "close")
    refused(idle, request("GET", "/"), "stopping")
    (reply,) = doors.client().send(request("GET", "/")).take()
    assert reply.headers["retry-after"] == "1"
    doors.door.end_all()


def test_a_fault_of_ours_ends_only_the_connection(capsys: pytest.CaptureFixture[str]) -> None:
    doors = Doors()
    client, other = doors.client(), doors.client()

    def broken(*_: object) -> None:
        raise RuntimeError("found by a test")

    doors.door.exchange = broken  # type: ignore[method-assign,assignment]
    client.send(request("GET", "/"))
    del doors.door.exchange
    assert client.transport.closed
    assert "unexpected_input" in doors.one.env.events
    assert "found by a test" in capsys.readouterr().err
    assert other.ask("GET", "/").status == 200


def test_a_broken_invariant_is_the_nodes_affair() -> None:
    doors = Doors()
    client = doors.client()

    def broken(*_: object) -> None:
        raise AssertionError("found by a test")

    doors.door.exchange = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(AssertionError, match="found by a test"):
        client.send(request("GET", "/"))
