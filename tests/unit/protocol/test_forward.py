"""Requests for keys that this node does not own: relayed, answered, asked elsewhere, given up."""

import pytest

from kvorum.client.store import Found, Stored
from kvorum.protocol.forward import FIRST_SENT_OFFSET
from kvorum.wire.framing import LENGTH_BYTES, FrameInvalid
from kvorum.wire.requests import (
    FORWARDED,
    NOT_OWNER,
    QUORUM_NOT_MET,
    get_ok_frame,
    put_ok_frame,
    refused_frame,
    unpack_put,
    unpack_request_number,
)
from tests.support.recording import OneNode, Outcome, RecordingPort, Refusal, Unknown
from tests.support.wired import Cluster

NONE = 0
DEADLINE = 5_000_000


def foreign_key(one: OneNode) -> bytes:
    """A partition key that this node owns no copy of."""
    for number in range(1000):
        key = b"%d" % number
        if one.me not in one.ring.owners_of_engine_key(one.key(key)):
            return key
    raise AssertionError("this node owns everything")


class Outsider:
    """A node of four that owns no copy of one key, and the three that do."""

    def __init__(self) -> None:
        self.one = OneNode(count=4).connect()
        self.key = foreign_key(self.one)
        self.ports: dict[int, RecordingPort] = {}
        self.forwarder = self.one.node.forwarder

    @property
    def wanted(self) -> int:
        """The owner whose connection was asked for last."""
        return self.one.env.forward_wanted[-1]

    def open(self, member: int, clock_offset: int = 0) -> RecordingPort:
        port = self.ports[member] = RecordingPort()
        self.one.env.forward_ports[member] = port
        self.forwarder.on_open(member, clock_offset)
        return port

    def close(self, member: int) -> None:
        self.one.env.forward_ports.pop(member, None)
        self.forwarder.on_closed(member)

    def answer(self, frame: bytes) -> bool:
        return self.forwarder.on_answer(frame[LENGTH_BYTES:])

    def outcome(self) -> Outcome:
        assert self.one.client.in_flight == 0
        return self.one.client.outcome()


def number_in(payload: bytes) -> int:
    return int(unpack_request_number(payload, 4)[0])


def test_four_nodes_serve_every_key_whichever_is_asked() -> None:
    cluster = Cluster(count=4)
    one = cluster[1]
    key = foreign_key(one)
    one.put(key=key, durability=NONE)
    cluster.settle()
    stored = one.client.outcome()
    assert isinstance(stored, Stored)
    assert stored.coordinator != 1
    one.get(key=key)
    cluster.settle()
    found = one.client.outcome()
    assert isinstance(found, Found)
    assert found.values == (b"book",)
    assert one.env.counters.forwarded == 2
    assert one.client.in_flight == 0


def test_the_very_frame_goes_on_under_another_number_and_is_never_relayed_again() -> None:
    outsider = Outsider()
    one = outsider.one
    port = outsider.open(2)
    for member in (3, 4):
        outsider.open(member)
    request = one.put(key=outsider.key, value=b"book")
    (payload,) = outsider.ports[outsider.wanted].take()
    assert payload[1] & FORWARDED
    assert payload.endswith(outsider.key + b"book")
    number = number_in(payload)
    assert outsider.answer(put_ok_frame(number, 3, 2, b"", b"context"))
    (answer,) = one.client.take()
    assert number_in(answer) == request
    assert not outsider.answer(put_ok_frame(number, 3, 2, b"", b"context")), "answered already"
    assert port is outsider.ports[2]


def test_a_forwarded_request_for_a_key_not_owned_is_refused() -> None:
    outsider = Outsider()
    for send in (outsider.one.put, outsider.one.get):
        send(key=outsider.key, flags=FORWARDED, sloppy=0)
        refusal = outsider.outcome()
        assert isinstance(refusal, Refusal)
        assert refusal.code == NOT_OWNER


def test_requests_wait_for_the_connection_that_they_made_the_driver_open() -> None:
    outsider = Outsider()
    outsider.one.get(key=outsider.key)
    assert outsider.one.client.take() == []
    target = outsider.wanted
    outsider.forwarder.on_open(target, 0)
    port = outsider.open(target)
    (payload,) = port.take()
    outsider.answer(get_ok_frame(number_in(payload), 0, target, b"", b"", 0, b""))
    assert isinstance(outsider.outcome(), Found)


def test_where_no_connection_can_be_made_the_next_owner_is_tried_and_at_last_nobody() -> None:
    outsider = Outsider()
    outsider.one.put(key=outsider.key)
    tried = []
    for _ in range(3):
        tried.append(outsider.wanted)
        outsider.close(outsider.wanted)
    assert sorted(tried) == [2, 3, 4]
    refusal = outsider.outcome()
    assert isinstance(refusal, Refusal)
    assert refusal.code == QUORUM_NOT_MET


def test_a_put_whose_owner_is_lost_is_unknown_and_a_get_goes_to_the_next() -> None:
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member)
    outsider.one.put(key=outsider.key)
    target = outsider.wanted
    outsider.close(5 if target != 5 else 2)
    assert outsider.one.client.take() == [], "another member's connection"
    outsider.close(target)
    outcome = outsider.outcome()
    assert isinstance(outcome, Unknown)
    assert "ended before its answer" in outcome.text

    outsider.open(target)
    outsider.one.get(key=outsider.key)
    first = outsider.wanted
    assert len(outsider.ports[first].take()) == 1
    outsider.close(first)
    second = outsider.wanted
    assert second != first
    (payload,) = outsider.ports[second].take()
    outsider.answer(get_ok_frame(number_in(payload), 0, second, b"", b"", 0, b""))
    assert isinstance(outsider.outcome(), Found)


def test_an_owner_that_is_none_sends_the_request_to_the_next() -> None:
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member)
    outsider.one.put(key=outsider.key)
    tried = []
    for _ in range(3):
        tried.append(outsider.wanted)
        (payload,) = outsider.ports[outsider.wanted].take()
        assert outsider.answer(refused_frame(number_in(payload), NOT_OWNER, "not mine"))
    assert sorted(tried) == [2, 3, 4]
    assert isinstance(outsider.outcome(), Refusal)


def test_any_other_refusal_is_handed_on() -> None:
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member)
    outsider.one.put(key=outsider.key)
    (payload,) = outsider.ports[outsider.wanted].take()
    outsider.answer(refused_frame(number_in(payload), QUORUM_NOT_MET, "too few"))
    assert outsider.outcome() == Refusal(QUORUM_NOT_MET, "too few")
    assert outsider.forwarder.busy
    outsider.one.advance(10_000)
    assert not outsider.forwarder.busy, "what is done is passed over"


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize("sent", [True, False])
def test_the_deadline_ends_what_is_not_answered(kind: str, sent: bool) -> None:
    outsider = Outsider()
    if sent:
        for member in (2, 3, 4):
            outsider.open(member)
    getattr(outsider.one, kind)(key=outsider.key)
    target = outsider.wanted
    outsider.one.advance(DEADLINE - 100_000)
    getattr(outsider.one, kind)(key=outsider.key, sloppy=0)
    outsider.one.advance(110_000)
    ((_, outcome),) = outsider.one.client.outcomes()
    assert isinstance(outcome, Unknown if kind == "put" and sent else Refusal)
    assert "in time" in outcome.text
    assert outsider.one.client.in_flight == 1
    assert outsider.forwarder.busy
    outsider.one.advance(DEADLINE)
    assert not outsider.forwarder.busy
    port = outsider.open(target)
    assert port.take() == [], "what has been given up is not sent"


def test_a_put_that_nobody_has_taken_is_refused_at_its_deadline() -> None:
    """It was sent once, but that node was no owner, so nothing can have been written."""
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member)
    outsider.one.put(key=outsider.key)
    first = outsider.wanted
    for member in (2, 3, 4):
        if member != first:
            outsider.one.env.forward_ports.pop(member)
    (payload,) = outsider.ports[first].take()
    outsider.answer(refused_frame(number_in(payload), NOT_OWNER, "not mine"))
    outsider.one.advance(DEADLINE + 10_000)
    assert isinstance(outsider.outcome(), Refusal)


def test_a_late_answer_finds_nobody() -> None:
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member)
    outsider.one.get(key=outsider.key)
    (payload,) = outsider.ports[outsider.wanted].take()
    outsider.one.advance(DEADLINE + 10_000)
    outsider.outcome()
    assert not outsider.answer(get_ok_frame(number_in(payload), 0, 2, b"", b"", 0, b""))


def test_what_is_no_answer_ends_the_connection() -> None:
    with pytest.raises(FrameInvalid, match="kind 48"):
        Outsider().forwarder.on_answer(b"\x30" + bytes(20))


def test_a_puts_age_is_told_on_the_clock_of_its_coordinator() -> None:
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member, clock_offset=-300_000)
    one = outsider.one
    one.put(key=outsider.key, age=1_000)
    one.get(key=outsider.key)
    puts = [each for port in outsider.ports.values() for each in port.take() if each[0] == 0x30]
    first_sent = unpack_put(puts[0], 0)[14]
    assert first_sent == one.node.peering.steady - 1_000 - 300_000
    assert int.from_bytes(puts[0][FIRST_SENT_OFFSET : FIRST_SENT_OFFSET + 8], "little") > 0
    for member in (2, 3, 4):
        outsider.open(member, clock_offset=-(1 << 62))
    one.put(key=outsider.key)
    puts = [each for port in outsider.ports.values() for each in port.take()]
    assert unpack_put(puts[0], 0)[14] == 0, "no clock goes below nought"


def test_nobody_is_told_on_a_closed_connection() -> None:
    outsider = Outsider()
    outsider.one.put(key=outsider.key)
    outsider.one.client.closed = True
    outsider.one.advance(DEADLINE + 10_000)
    assert outsider.one.client.in_flight == 0


def test_numbers_begin_again_at_one() -> None:
    outsider = Outsider()
    for member in (2, 3, 4):
        outsider.open(member)
    outsider.forwarder._last_number = 0xFFFFFFFE
    for _ in range(2):
        outsider.one.get(key=outsider.key)
    sent = [each for port in outsider.ports.values() for each in port.take()]
    assert [number_in(each) for each in sent] == [0xFFFFFFFF, 1]
