"""What becomes of a request that a node has refused: who is asked next, and for how long."""

import pytest

from kvorum.client.requests import Put
from kvorum.client.session import ELSEWHERE_LIMIT
from kvorum.errors import BadContext, Overloaded, QuorumNotMet
from kvorum.wire.requests import BAD_CONTEXT, OVERLOADED, QUORUM_NOT_MET
from tests.support.scripted import ScriptedShell, error_of


@pytest.fixture
def world() -> ScriptedShell:
    shell = ScriptedShell()
    shell.connect_all()
    return shell


def test_a_put_refused_by_one_owner_may_go_to_another(world: ScriptedShell) -> None:
    put = world.put()
    owners = world.owners_of(b"alice")
    asked = world.one_asked(owners[0])
    world.refuse_request(owners[0], asked.number, OVERLOADED)
    again = world.one_asked(owners[1])
    assert again.counter == asked.counter
    world.confirm(owners[1], again)
    assert put.outcome().context == b"context"


def test_a_put_that_every_owner_refuses_is_refused(world: ScriptedShell) -> None:
    put = world.put()
    for member in world.owners_of(b"alice"):
        asked = world.one_asked(member)
        world.refuse_request(member, asked.number, QUORUM_NOT_MET, f"by {member}")
    assert isinstance(error_of(put), QuorumNotMet)
    assert str(put.error) == f"by {world.owners_of(b'alice')[-1]}"


def just_begun_and_refused_by(member: int) -> tuple[ScriptedShell, Put]:
    """A client that has reached one node of three, and was refused by it."""
    world = ScriptedShell()
    world.session.start()
    put = world.put()
    world.welcome(member)
    world.refuse_request(member, world.one_asked(member).number, OVERLOADED, "its clock is off")
    return world, put


def test_a_refused_put_waits_for_nodes_that_are_about_to_be_there() -> None:
    world, put = just_begun_and_refused_by(1)
    assert not put.done
    world.refuse(3)
    assert not put.done
    world.welcome(2)
    world.confirm(2, world.one_asked(2))
    assert put.outcome().context == b"context"
    assert not any(world.asked(member) for member in (1, 2, 3))


def test_a_refused_put_is_refused_once_nobody_else_can_be_reached() -> None:
    world, put = just_begun_and_refused_by(1)
    world.refuse(2)
    assert not put.done
    world.refuse(3)
    assert isinstance(error_of(put), Overloaded)
    assert str(put.error) == "its clock is off"


def test_a_refused_put_does_not_wait_long_for_nodes_that_never_greet() -> None:
    world, put = just_begun_and_refused_by(1)
    world.pass_time(ELSEWHERE_LIMIT - 1)
    assert not put.done
    world.pass_time(1)
    assert isinstance(error_of(put), Overloaded)


def test_who_could_not_be_reached_is_not_waited_for(world: ScriptedShell) -> None:
    first, second, third = world.owners_of(b"alice")
    world.lose(third)
    world.pass_time(0)
    assert world.is_open(third)
    put = world.put()
    for member in (first, second):
        world.refuse_request(member, world.one_asked(member).number, OVERLOADED)
    assert isinstance(error_of(put), Overloaded)


def test_a_refusal_that_others_would_repeat_is_final(world: ScriptedShell) -> None:
    put = world.put()
    member = world.owners_of(b"alice")[0]
    asked = world.one_asked(member)
    world.refuse_request(member, asked.number, BAD_CONTEXT, "the context is damaged")
    assert isinstance(error_of(put), BadContext)
    assert not any(world.asked(member) for member in (1, 2, 3))
