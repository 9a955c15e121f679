"""What takes several requests: updates whose outcome is in doubt, and windows of many."""

from collections.abc import Iterator

import pytest

from kvorum.client.operations import WINDOW, Pipeline, Update, all_succeeded, gets_of, puts_of
from kvorum.client.requests import Get, Put
from kvorum.client.store import Stored
from kvorum.errors import BadRequest, KvorumError, OutcomeUnknown
from tests.support.scripted import SECOND, ScriptedShell, error_of


@pytest.fixture
def world() -> ScriptedShell:
    shell = ScriptedShell()
    shell.connect_all()
    return shell


class Story:
    """An update that the test leads through its requests."""

    def __init__(self, world: ScriptedShell, attempts: int = 5) -> None:
        self.world = world
        self.merged: list[tuple[bytes, ...]] = []
        self.update = Update(
            "default", "alice", self._merge, b"", None, None, None, None, None, "", attempts
        )
        world.session.submit(self.update.request)

    def _merge(self, values: tuple[bytes, ...]) -> bytes:
        self.merged.append(values)
        return b"merged"

    def show(self, values: list[bytes], put_id: bytes = b"p" * 16) -> None:
        member = self.world.owners_of(b"alice")[0]
        self.world.show(member, self.world.one_asked(member), values, put_id)

    def go_on(self) -> bool:
        assert self.update.request.done
        going_on = self.update.advance()
        if going_on and self.update.again:
            assert isinstance(self.update.request, Put)
            self.world.session.resubmit(self.update.request)
        elif going_on:
            self.world.session.submit(self.update.request)
        return going_on

    def doubt(self) -> bytes:
        """Leave the put under way without an answer until its deadline; return its id."""
        put = self.update.request
        assert isinstance(put, Put)
        self.world.pass_time(10 * SECOND)
        assert isinstance(error_of(put), OutcomeUnknown)
        self.world.session.advance()
        self.reconnect()
        return put.put_id

    def reconnect(self) -> None:
        for member in (1, 2, 3):
            if not self.world.is_open(member):
                self.world.pass_time(2 * SECOND)
            if not self.world.session.routes.contacts[member - 1].ready:
                self.world.welcome(member)


def test_an_update_gets_merges_and_puts_with_the_context(world: ScriptedShell) -> None:
    story = Story(world)
    story.show([b"old"])
    assert story.go_on()
    member = world.owners_of(b"alice")[0]
    asked = world.one_asked(member)
    assert (asked.value, asked.context) == (b"merged", b"context")
    world.confirm(member, asked)
    assert not story.go_on()
    assert story.update.outcome().context == b"context"
    assert story.merged == [(b"old",)]


def test_a_write_in_doubt_that_is_seen_is_asked_for_again(world: ScriptedShell) -> None:
    story = Story(world)
    story.show([b"old"])
    story.go_on()
    put_id = story.doubt()
    story.go_on()
    story.show([b"merged", b"somebody else's"], put_id)
    assert story.go_on()
    assert story.update.again
    member = world.owners_of(b"alice")[0]
    asked = world.one_asked(member)
    assert asked.client + asked.counter.to_bytes(8, "little") == put_id
    assert asked.lowest_open == asked.counter, "a held put stays open"
    world.confirm(member, asked)
    assert not story.go_on()
    assert isinstance(story.update.outcome(), Stored)
    assert story.merged == [(b"old",)]


def test_a_write_in_doubt_that_is_not_seen_is_merged_anew(world: ScriptedShell) -> None:
    story = Story(world)
    story.show([b"old"])
    story.go_on()
    story.doubt()
    story.go_on()
    story.show([b"newer"])
    story.go_on()
    member = world.owners_of(b"alice")[0]
    asked = world.one_asked(member)
    assert (asked.counter, asked.lowest_open) == (2, 1)
    world.confirm(member, asked)
    assert not story.go_on()
    assert story.merged == [(b"old",), (b"newer",)]
    for put in story.update.puts:
        world.session.release(put)
    put = world.put()
    assert put.counter == 3
    assert world.one_asked(member).lowest_open == 3


def test_an_update_stops_after_its_attempts(world: ScriptedShell) -> None:
    story = Story(world, attempts=1)
    story.show([b"old"])
    story.go_on()
    story.doubt()
    assert not story.go_on()
    with pytest.raises(OutcomeUnknown):
        story.update.outcome()


def test_an_update_needs_an_attempt(world: ScriptedShell) -> None:
    with pytest.raises(BadRequest, match="attempts=0"):
        Story(world, attempts=0)


def test_an_update_that_cannot_read_after_a_doubt_is_unknown(world: ScriptedShell) -> None:
    story = Story(world)
    story.show([b"old"])
    story.go_on()
    story.doubt()
    story.go_on()
    world.session.close()
    assert not story.go_on()
    with pytest.raises(OutcomeUnknown, match="could not be read again"):
        story.update.outcome()


def finish(requests: list[Get]) -> None:
    for request in requests:
        request.done = True


def test_a_pipeline_keeps_a_bounded_number_in_flight() -> None:
    pipeline = Pipeline(gets_of("default", (f"key-{n}" for n in range(WINDOW * 2)), None, None))
    first = pipeline.refill()
    assert len(first) == WINDOW
    assert pipeline.refill() == []
    finish(first[:10])  # type: ignore[arg-type]
    assert len(pipeline.refill()) == 10
    assert not pipeline.finished


def test_a_pipeline_bounds_the_bytes_in_flight_too() -> None:
    items = ((f"key-{number}", bytes(1 << 20)) for number in range(100))
    pipeline = Pipeline(puts_of("default", items, None, None, None, None, "", False))
    assert 8 <= len(pipeline.refill()) <= 9


def test_results_stand_in_the_order_of_the_requests() -> None:
    def items() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        yield "", b"2"
        yield "c", b"3"

    pipeline = Pipeline(puts_of("default", items(), None, None, None, None, "", False))
    made = pipeline.refill()
    stored = [Stored(b"%d" % number, (), 1, 1, b"") for number in range(2)]
    made[1].finish(stored[1])
    made[0].finish(stored[0])
    assert pipeline.refill() == []
    assert pipeline.finished
    results: list[Stored | KvorumError] = pipeline.results()
    assert (results[0], results[2]) == (stored[0], stored[1])
    assert isinstance(results[1], BadRequest)
    with pytest.raises(BadRequest):
        all_succeeded(results)
