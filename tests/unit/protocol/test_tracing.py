"""A traced request goes as any other, and every step of it is told with its time."""

import pytest

from kvorum.config import NodeConfig
from kvorum.model.holding import record_of
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.protocol.tracing import PATIENCE, TRACES_MAX
from kvorum.wire.codec import decode_control
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.kinds import GET_OK, PUT_OK, REFUSED, UNKNOWN
from kvorum.wire.link import OK
from kvorum.wire.messages import ControlRefused
from kvorum.wire.requests import (
    BAD_REQUEST,
    DEFAULT,
    OVERLOADED,
    READ_FIRST,
    TOMBSTONE,
    put_frame,
)
from kvorum.wire.trace_messages import TraceAnswer, TraceQuery
from tests.support.recording import OneNode, a_record

NAMES = {1: "a", 2: "b", 3: "c"}
DEADLINE = NodeConfig().request_timeout_ms * 1000


def put(one: OneNode, w: int = 2, value: bytes = b"book") -> None:
    one.question(TraceQuery(7, DEFAULT_TABLE_ID, b"alice", b"", True, value, b"", w, b"client 8"))


def get(one: OneNode, r: int = 2) -> None:
    one.question(TraceQuery(8, DEFAULT_TABLE_ID, b"alice", quorum=r))


def told(one: OneNode) -> TraceAnswer:
    answer = one.client.message()
    assert isinstance(answer, TraceAnswer)
    assert one.node.tracer.open == {}
    return answer


def steps(answer: TraceAnswer) -> list[str]:
    """``1.5 b ok``: milliseconds, node, what."""
    return [f"{event.at / 1000:g} {NAMES[event.member]} {event.what}" for event in answer.events]


def test_a_put_is_followed_to_every_owner_and_disk() -> None:
    one = OneNode().connect()
    put(one)
    one.env.now += 2_000
    one.answers(2, OK)
    one.sync()
    one.env.now += 1_000
    one.answers(3, OK)
    one.marks(3)
    assert one.client.take() == [], "one disk is still to come"
    one.env.now += 4_000
    one.marks(2)
    answer = told(one)
    assert answer.answer[0] == PUT_OK
    assert (answer.request, answer.coordinator) == (7, 1)
    assert steps(answer) == [
        "0 a taken", "0 a written", "0 b asked", "0 c asked", "2 b ok", "2 a answered",
        "2 a on disk", "3 c ok", "3 c on disk", "7 b on disk",
    ]  # fmt: skip
    assert one.env.counters.puts_ok == 1


def test_a_delete_that_reads_first_is_followed_through_both_halves() -> None:
    one = OneNode().connect()
    put(one)
    one.answers(2, OK)
    one.answers(3, OK)
    one.sync()
    one.marks(2)
    one.marks(3)
    told(one)
    record = record_of(one.store.get(one.key()) or b"")
    frame = put_frame(
        9, TOMBSTONE | READ_FIRST, DEFAULT_TABLE_ID, b"alice", b"", b"", b"", b"", b"client 9", 1,
        one.node.peering.steady, 1, 2, 0, DEFAULT, 0,
    )  # fmt: skip
    one.node.on_traced(one.client, 9, frame[LENGTH_BYTES:])
    (asked,) = [member for member in (2, 3) if one.env.links[member]._askers]
    one.env.now += 1_000
    one.answers(asked, a_record(record))
    for member in (2, 3):
        one.answers(member, OK)
    one.sync()
    one.marks(2)
    one.marks(3)
    answer = told(one)
    assert (answer.request, answer.answer[0]) == (9, PUT_OK)
    assert steps(answer) == [
        "0 a taken", "0 a read", f"0 {NAMES[asked]} asked", f"1 {NAMES[asked]} record",
        "1 a written", "1 b asked", "1 c asked", "1 b ok", "1 a answered", "1 c ok",
        "1 a on disk",
    ]  # fmt: skip


def test_a_put_that_has_arrived_before_is_taken_up_again() -> None:
    one = OneNode().connect()
    put(one)
    put(one)
    one.accepts(2)
    one.accepts(3)
    one.sync()
    one.marks(2)
    one.marks(3)
    one.advance(PATIENCE)
    again = decode_control(one.client.take()[-1])
    assert isinstance(again, TraceAnswer)
    assert "0 a taken up again" in steps(again)
    assert again.answer[0] == PUT_OK
    assert one.env.counters.retries_known == 1


def test_a_get_tells_who_was_hedged_and_who_was_late() -> None:
    one = OneNode().connect()
    get(one)
    (asked,) = [member for member in (2, 3) if one.env.links[member]._askers]
    other = 5 - asked
    one.end_turn()
    one.advance(200_000)
    one.answers(other, OK)
    assert one.client.take() == [], "the slow one has a moment still"
    one.advance(PATIENCE + 1_000)
    answer = told(one)
    assert answer.answer[0] == GET_OK
    what = [(NAMES[event.member], event.what) for event in answer.events]
    assert what[:3] == [("a", "taken"), ("a", "read"), (NAMES[asked], "asked")]
    assert (NAMES[asked], "slow") in what
    assert (NAMES[other], "hedged") in what
    assert what[-1] == (NAMES[asked], "late")
    assert one.env.counters.hedged_gets == 1


def test_what_a_read_mends_is_told() -> None:
    one = OneNode().connect(2)
    one.put(w=1, durability=0)
    one.answers(2, OK)
    one.client.take()
    get(one)
    one.answers(2, OK)
    assert [step.split(" ", 1)[1] for step in steps(told(one))] == [
        "a taken", "a read", "b asked", "b ok", "a answered", "a mended"
    ]  # fmt: skip


def test_a_lost_connection_is_told_and_the_request_goes_on() -> None:
    one = OneNode().connect()
    put(one)
    one.end_turn()
    one.disconnect(3)
    one.answers(2, OK)
    one.sync()
    one.marks(2)
    assert "0 c lost" in steps(told(one))


def test_what_is_refused_at_once_is_told_with_its_refusal() -> None:
    one = OneNode().connect()
    put(one, w=9)
    answer = told(one)
    assert answer.answer[0] == REFUSED
    assert steps(answer) == ["0 a taken", "0 a answered"]


def test_a_put_that_nobody_answers_is_unknown_and_told_after_its_deadline() -> None:
    one = OneNode().connect()
    put(one)
    one.end_turn()
    one.advance(DEADLINE + 10_000)
    one.advance(PATIENCE + 1_000)
    answer = told(one)
    assert answer.answer[0] == UNKNOWN
    assert [step.split(" ", 1)[1] for step in steps(answer)][-2:] == ["b late", "c late"]


def test_one_copy_is_enough_and_the_rest_is_told_all_the_same() -> None:
    one = OneNode().connect()
    get(one, r=1)
    assert steps(told(one)) == ["0 a taken", "0 a read", "0 a answered"]


def test_only_so_many_are_traced_at_a_time() -> None:
    one = OneNode().connect()
    for _ in range(TRACES_MAX):
        get(one)
    assert one.client.take() == []
    get(one)
    refused = one.client.message()
    assert isinstance(refused, ControlRefused)
    assert refused.code == OVERLOADED
    one.advance(DEADLINE + 10_000)
    one.advance(PATIENCE + 1_000)
    assert one.node.tracer.open == {}
    assert len(one.client.take()) == TRACES_MAX


def test_a_client_that_left_is_told_nothing() -> None:
    one = OneNode().connect()
    get(one)
    one.client.closed = True
    one.advance(DEADLINE + 10_000)
    one.advance(PATIENCE + 1_000)
    assert one.node.tracer.open == {}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (TraceQuery(1, b"short", b"alice"), "a table id has 8 bytes"),
        (TraceQuery(1, DEFAULT_TABLE_ID, b"a", b"", True, b"v", b"", 0, b"x"), "a client id of 8"),
        (TraceQuery(1, DEFAULT_TABLE_ID, b"a", quorum=256), "a quorum lies between"),
        (TraceQuery(1, DEFAULT_TABLE_ID, b"a" * 70_000), "longer than its field"),
    ],
)
def test_a_question_that_cannot_be_is_refused(query: TraceQuery, text: str) -> None:
    one = OneNode().connect()
    one.question(query)
    refused = one.client.message()
    assert isinstance(refused, ControlRefused)
    assert refused.code == BAD_REQUEST
    assert text in refused.text
    assert one.node.tracer.open == {}


def test_a_record_that_comes_is_told_with_its_size() -> None:
    other = OneNode().connect(2)
    other.put(w=1, durability=0)
    record = other.store.get(other.key())
    assert record is not None
    one = OneNode().connect(2)
    get(one)
    one.answers(2, a_record(record_of(record)))
    assert any(event.what == "record" and "bytes" in event.detail for event in told(one).events)
