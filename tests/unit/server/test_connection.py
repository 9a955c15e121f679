"""What one connection's input may do to the rest of the node."""

from typing import Any, cast

import pytest

from kvorum.counters import Counters
from kvorum.server.connection import Connection
from kvorum.server.loop import Turns
from kvorum.wire.framing import frame


class Environment:
    """Counts, and remembers what was reported."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.reported: list[str] = []

    def report(self, event: str, **detail: Any) -> None:
        self.reported.append(event)


class StillTurns:
    """A turn that has begun and is ended by the test."""

    def __init__(self) -> None:
        self.env = Environment()
        self.under_way = False
        self.begun = 0
        self.arrived: list[tuple[Connection, bytes]] = []
        self.dirty: list[Connection] = []

    def begin(self) -> None:
        self.under_way = True
        self.begun += 1


class Stumbling(Connection):
    """A connection whose input raises what the test says."""

    def __init__(self, turns: StillTurns, error: Exception | None) -> None:
        super().__init__(cast(Turns, turns), 1 << 20)
        self.error = error
        self.taken: list[bytes] = []
        self.ended = 0

    def take(self, payloads: list[bytes]) -> None:
        if self.error is not None:
            raise self.error
        self.taken += payloads

    def on_closed(self) -> None:
        self.ended += 1


def test_what_arrives_is_put_down_until_all_is_read() -> None:
    turns = StillTurns()
    connection = Stumbling(turns, None)

    connection.data_received(frame(b"one"))
    connection.data_received(frame(b"two"))

    assert turns.begun == 1
    assert connection.taken == []
    for each, data in turns.arrived:
        each_connection = cast(Stumbling, each)
        each_connection.step(data)
    assert connection.taken == [b"one", b"two"]


def test_unexpected_input_ends_its_connection_and_no_other() -> None:
    turns = StillTurns()
    connection = Stumbling(turns, ValueError("nobody thought of this"))

    connection.step(frame(b"odd"))

    assert connection.closed
    assert connection.ended == 1
    assert turns.env.reported == ["unexpected_input"]


def test_malformed_input_ends_its_connection_and_is_counted() -> None:
    turns = StillTurns()
    connection = Stumbling(turns, None)

    connection.step(b"\0\0\0\0")

    assert connection.closed
    assert turns.env.counters.bad_frames == 1


def test_a_broken_invariant_is_the_whole_nodes_affair() -> None:
    connection = Stumbling(StillTurns(), AssertionError("a dot came twice"))

    with pytest.raises(AssertionError, match="a dot came twice"):
        connection.step(frame(b"odd"))
