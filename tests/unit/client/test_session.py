"""The session against nodes that the test plays: where requests go, and what becomes of them."""

import pytest

from kvorum.client.connections import SILENCE_LIMIT
from kvorum.client.requests import (
    PUT_ATTEMPT_TIMEOUT,
    ask_create,
    ask_status,
    make_get,
    make_put,
)
from kvorum.errors import (
    NoNodeReachable,
    OutcomeUnknown,
    Refused,
    TooLarge,
    UnknownTable,
)
from kvorum.model.quorum import Durability
from kvorum.model.tables import TableSettings
from kvorum.wire.messages import ControlRefused, StatusQuery, TableAnswer, TableCreate, TableQuery
from kvorum.wire.requests import (
    BAD_CONTEXT,
    UNKNOWN_TABLE,
)
from tests.support.scripted import CLIENT_ID, SECOND, Asked, ScriptedShell, error_of

CARTS = TableSettings("carts", b"carts-id", 2, 2, durability=Durability.ONE)
NEW_CARTS = TableSettings("carts", b"newcarts", 2, 2, durability=Durability.ONE)


@pytest.fixture
def world() -> ScriptedShell:
    shell = ScriptedShell()
    shell.connect_all()
    return shell


def everywhere(world: ScriptedShell) -> list[tuple[int, Asked]]:
    return [(member, asked) for member in (1, 2, 3) for asked in world.asked(member)]


def only(world: ScriptedShell) -> tuple[int, Asked]:
    found = everywhere(world)
    assert len(found) == 1, f"{len(found)} requests are with nodes"
    return found[0]


# Where requests go.


def test_a_request_goes_to_the_first_owner_of_its_key(world: ScriptedShell) -> None:
    for key in (b"alice", b"bob", b"carol", b"dave", b"erin"):
        world.get(key.decode())
        member, asked = only(world)
        assert member == world.owners_of(key)[0]
        assert asked.key == key


def test_requests_are_answered_by_their_numbers_in_any_order(world: ScriptedShell) -> None:
    first, second = world.get("alice"), world.get("alice")
    member = world.owners_of(b"alice")[0]
    one, two = world.asked(member)
    world.show(member, two, [b"2"])
    assert not first.done
    world.show(member, one, [b"1"])
    assert first.outcome().value == b"1"
    assert second.outcome().value == b"2"


def test_before_the_topology_is_known_any_node_will_do() -> None:
    world = ScriptedShell()
    world.session.start()
    get = world.get()
    assert not get.done
    world.welcome(2)
    world.show(2, world.one_asked(2), [b"x"])
    assert get.outcome().value == b"x"


def test_an_owner_that_is_not_connected_is_passed_over(world: ScriptedShell) -> None:
    first, second = world.owners_of(b"alice")[:2]
    world.lose(first)
    world.get()
    member, _ = only(world)
    assert member == second


def test_a_lost_connection_is_opened_again_ever_more_slowly(world: ScriptedShell) -> None:
    world.lose(1)
    world.pass_time(0)
    assert world.is_open(1)
    tries = 0
    for _ in range(1000):
        if world.is_open(1):
            tries += 1
            world.refuse(1)
        world.pass_time(SECOND // 100)
    assert 8 <= tries <= 15
    world.pass_time(2 * SECOND)
    world.welcome(1)
    member = world.owners_of(b"alice")[0]
    world.get()
    assert only(world)[0] == member


def test_contexts_are_passed_on_and_never_added(world: ScriptedShell) -> None:
    get = world.get()
    member, asked = only(world)
    world.show(member, asked, [b"x"])
    assert get.outcome().context == b"context"
    world.put()
    assert only(world)[1].context == b""


def test_a_status_is_asked_of_its_member_alone(world: ScriptedShell) -> None:
    ask = world.submitted(ask_status(3))
    (question,) = world.questions(3)
    assert isinstance(question, StatusQuery)
    world.lose(3)
    world.refuse(3)
    assert "127.0.0.1:7403: Connection refused" in str(error_of(ask))
    assert isinstance(ask.error, NoNodeReachable)


# Put ids.


def test_put_ids_count_up_and_the_lowest_open_one_is_told(world: ScriptedShell) -> None:
    puts = [world.put(f"key-{number}") for number in range(4)]
    asked = sorted(everywhere(world), key=lambda pair: pair[1].counter)
    assert [one.counter for _, one in asked] == [1, 2, 3, 4]
    assert {one.client for _, one in asked} == {CLIENT_ID}
    assert {one.lowest_open for _, one in asked} == {1}
    for index in (1, 0):
        world.confirm(*asked[index])
    assert puts[0].outcome().put_id == CLIENT_ID + (1).to_bytes(8, "little")
    world.put("key-4")
    member, next_one = only(world)
    assert (next_one.counter, next_one.lowest_open) == (5, 3)
    world.confirm(*asked[2])
    world.confirm(*asked[3])
    world.confirm(member, next_one)
    world.put("key-5")
    assert only(world)[1].lowest_open == 6


def test_the_first_sending_is_told_on_the_coordinators_clock() -> None:
    world = ScriptedShell()
    world.connect_all()
    for member in (1, 2, 3):
        world.lose(member)
        world.pass_time(0)
        world.welcome(member, steady=member * 1000 * SECOND)
    world.pass_time(SECOND // 2)
    world.put()
    member, asked = only(world)
    assert asked.first_sent == member * 1000 * SECOND + SECOND // 2


# Failing over.


def test_a_get_goes_on_elsewhere_when_its_connection_is_lost(world: ScriptedShell) -> None:
    get = world.get()
    first, second = world.owners_of(b"alice")[:2]
    world.one_asked(first)
    world.lose(first)
    world.show(second, world.one_asked(second), [b"x"])
    assert get.outcome().value == b"x"


def test_a_get_goes_on_elsewhere_when_it_waits_too_long(world: ScriptedShell) -> None:
    get = world.get()
    first, second = world.owners_of(b"alice")[:2]
    late = world.one_asked(first)
    world.pass_time(SECOND)
    world.show(second, world.one_asked(second), [b"x"])
    assert get.outcome().value == b"x"
    world.show(first, late, [b"late"])
    assert get.outcome().value == b"x"


def test_a_node_that_owes_answers_is_avoided_until_it_is_heard(world: ScriptedShell) -> None:
    world.get()
    first, second = world.owners_of(b"alice")[:2]
    late = world.one_asked(first)
    world.pass_time(SECOND)
    world.asked(second)
    world.get()
    assert only(world)[0] == second
    world.show(first, late, [])
    world.get()
    assert only(world)[0] == first


def test_a_node_that_is_silent_for_long_is_connected_to_anew(world: ScriptedShell) -> None:
    get = world.get()
    first, second = world.owners_of(b"alice")[:2]
    channel = world.channel(first)
    world.pass_time(SECOND)
    world.show(second, world.one_asked(second), [])
    assert get.done
    world.pass_time(SILENCE_LIMIT)
    assert world.channel(first) != channel


def test_a_get_that_nobody_answers_ends_at_its_deadline(world: ScriptedShell) -> None:
    get = world.get()
    world.pass_time(10 * SECOND)
    assert isinstance(error_of(get), NoNodeReachable)
    assert world.session.next_deadline() != world.now


def test_a_short_deadline_holds_whatever_else_falls_due_before(world: ScriptedShell) -> None:
    world.get("bob")  # Falls due first, after a second.
    put = make_put("default", "alice", b"x", None, b"", None, None, None, None, "", False)
    put.timeout = SECOND + SECOND // 2
    world.session.submit(put)
    world.pass_time(SECOND + SECOND // 2 - 1)
    assert not put.done
    world.pass_time(1)
    assert isinstance(error_of(put), OutcomeUnknown)


def test_all_nodes_unreachable_names_addresses_and_causes() -> None:
    world = ScriptedShell()
    world.session.start()
    get = world.get()
    put = world.put()
    world.refuse(1)
    world.refuse(2)
    assert not get.done
    world.lose(3, "No route to host")
    for request in (get, put):
        text = str(error_of(request))
        assert isinstance(request.error, NoNodeReachable)
        assert "127.0.0.1:7401: Connection refused" in text
        assert "127.0.0.1:7403: No route to host" in text


def test_a_node_that_accepts_and_never_greets_is_given_up() -> None:
    world = ScriptedShell()
    world.session.start()
    get = world.get()
    for member in (1, 2, 3):
        world.session.on_opened(world.channel(member))
    world.pass_time(2 * SECOND)
    assert "no answer to our greeting" in str(error_of(get))


# Puts in doubt.


def test_a_put_in_doubt_is_sent_again_to_the_same_start_of_the_node(world: ScriptedShell) -> None:
    put = world.put()
    member, asked = only(world)
    world.lose(member)
    assert everywhere(world) == []
    world.welcome(member)
    again = world.one_asked(member)
    assert (again.client, again.counter) == (asked.client, asked.counter)
    assert again.first_sent == asked.first_sent
    world.confirm(member, again)
    assert put.outcome().coordinator == member


def test_a_put_in_doubt_is_not_sent_to_another_start(world: ScriptedShell) -> None:
    put = world.put()
    member, asked = only(world)
    world.lose(member)
    world.welcome(member, nonce=b"other")
    assert everywhere(world) == []
    error = error_of(put)
    assert isinstance(error, OutcomeUnknown)
    assert error.put_id == CLIENT_ID + asked.counter.to_bytes(8, "little")


def test_a_put_in_doubt_ends_when_the_node_is_gone(world: ScriptedShell) -> None:
    put = world.put()
    member, _ = only(world)
    world.lose(member)
    world.refuse(member)
    assert isinstance(error_of(put), OutcomeUnknown)


def test_a_put_in_doubt_waits_for_the_node_until_its_deadline(world: ScriptedShell) -> None:
    put = world.put()
    member, _ = only(world)
    world.lose(member)
    world.lose(member, "timed out")
    world.pass_time(9 * SECOND)
    assert not put.done
    world.pass_time(SECOND)
    assert isinstance(error_of(put), OutcomeUnknown)


def test_a_put_without_an_answer_is_unknown_at_its_deadline(world: ScriptedShell) -> None:
    put = world.put()
    member, _ = only(world)
    world.pass_time(SECOND * 3)
    world.get()
    assert only(world)[0] != member, "the silent node is avoided before the deadline"
    world.pass_time(SECOND * 7)
    assert isinstance(error_of(put), OutcomeUnknown)


def test_an_unknown_outcome_is_asked_for_again_at_the_same_node(world: ScriptedShell) -> None:
    put = world.put()
    member, asked = only(world)
    world.doubt(member, asked.number)
    assert not put.done
    world.pass_time(SECOND)
    again = world.one_asked(member)
    assert again.counter == asked.counter
    world.confirm(member, again)
    assert put.outcome().w == 2


def test_a_put_that_others_forward_is_not_sent_again() -> None:
    """A node that is no owner might forward it to another owner the second time."""
    world = ScriptedShell()
    world.session.start()
    world.welcome(1)
    world.questions(1)
    put = world.put()
    world.doubt(1, world.one_asked(1).number)
    assert isinstance(error_of(put), OutcomeUnknown)


def test_with_retry_a_put_in_doubt_goes_to_another_node_under_its_id(world: ScriptedShell) -> None:
    put = world.put(retry=True)
    first, second, third = world.owners_of(b"alice")
    asked = world.one_asked(first)
    world.lose(first)
    world.one_asked(second)
    world.pass_time(PUT_ATTEMPT_TIMEOUT)
    again = world.one_asked(third)
    assert (again.client, again.counter) == (asked.client, asked.counter)
    world.confirm(third, again)
    assert put.outcome().coordinator == third


def test_a_put_once_in_doubt_is_never_called_refused(world: ScriptedShell) -> None:
    put = world.put(retry=True)
    first, second = world.owners_of(b"alice")[:2]
    world.one_asked(first)
    world.lose(first)
    asked = world.one_asked(second)
    world.refuse_request(second, asked.number, BAD_CONTEXT)
    assert isinstance(error_of(put), OutcomeUnknown)


def test_a_put_that_was_never_sent_is_refused_at_close() -> None:
    world = ScriptedShell()
    world.session.start()
    put = world.put()
    world.session.close()
    assert type(error_of(put)) is Refused
    assert world.ports == {}


def test_closing_leaves_puts_in_doubt_unknown_and_gets_refused(world: ScriptedShell) -> None:
    put, get = world.put(), world.get()
    world.session.close()
    assert isinstance(error_of(put), OutcomeUnknown)
    assert type(error_of(get)) is Refused
    late = world.get()
    assert "closed" in str(error_of(late))


def test_what_its_caller_abandons_is_answered_to_nobody(world: ScriptedShell) -> None:
    put = world.put()
    member, asked = only(world)
    world.session.abandon(put)
    world.confirm(member, asked)
    world.put()
    assert only(world)[1].lowest_open == 2


# Tables.


def test_a_table_is_looked_up_once_for_all_that_wait(world: ScriptedShell) -> None:
    gets = [world.get("alice", "carts"), world.get("bob", "carts")]
    (member,) = (one for one in (1, 2, 3) if world.unread[world.channel(one)])
    (question,) = world.questions(member)
    assert isinstance(question, TableQuery)
    world.reply(member, TableAnswer(question.request, [CARTS]))
    for member, asked in everywhere(world):
        assert asked.table == b"carts-id"
        assert member == world.owners_of(asked.key, b"carts-id")[0]
        world.show(member, asked, [])
    assert [get.outcome().values for get in gets] == [(), ()]


def test_an_unknown_table_is_asked_for_at_a_second_node(world: ScriptedShell) -> None:
    get = world.get("alice", "carts")
    asked_of = []
    while not get.done:
        (member,) = (one for one in (1, 2, 3) if world.unread[world.channel(one)])
        (question,) = world.questions(member)
        assert isinstance(question, TableQuery)
        world.reply(member, ControlRefused(question.request, UNKNOWN_TABLE, "no table"))
        asked_of.append(member)
    assert isinstance(error_of(get), UnknownTable)
    assert len(asked_of) == len(set(asked_of)) == 2


def test_a_table_dropped_and_created_again_is_found(world: ScriptedShell) -> None:
    first = world.get("alice", "carts")
    (member,) = (one for one in (1, 2, 3) if world.unread[world.channel(one)])
    world.reply(member, TableAnswer(world.questions(member)[0].request, [CARTS]))
    member, asked = only(world)
    world.refuse_request(member, asked.number, UNKNOWN_TABLE)
    (member,) = (one for one in (1, 2, 3) if world.unread[world.channel(one)])
    world.reply(member, TableAnswer(world.questions(member)[0].request, [NEW_CARTS]))
    member, asked = only(world)
    assert asked.table == b"newcarts"
    world.refuse_request(member, asked.number, UNKNOWN_TABLE)
    assert isinstance(error_of(first), UnknownTable)


def test_creating_a_table_is_never_repeated(world: ScriptedShell) -> None:
    """Two nodes that do not hear each other would make two tables of one name."""
    ask = world.submitted(ask_create("carts", 2, 2, None, None, None, None, None, None))
    (member,) = (one for one in (1, 2, 3) if world.unread[world.channel(one)])
    (question,) = world.questions(member)
    assert isinstance(question, TableCreate)
    world.lose(member)
    assert isinstance(error_of(ask), OutcomeUnknown)
    assert [one for one in (1, 2, 3) if world.is_open(one) and world.questions(one)] == []


# What nodes should not send.


@pytest.mark.parametrize(
    "payload",
    [
        b"\x42\x01\x00\x00",
        b"\x41\x01\x00\x00\x63\x00\x00\x00",
        b"\x20\xc0",
        b"\x03\x90",
        b"\x99" * 12,
    ],
    ids=["short", "unasked", "no message", "reject", "unknown kind"],
)
def test_what_is_no_answer_ends_the_connection(world: ScriptedShell, payload: bytes) -> None:
    get = world.get()
    first, second = world.owners_of(b"alice")[:2]
    world.one_asked(first)
    channel = world.channel(first)
    world.deliver(first, len(payload).to_bytes(4, "little") + payload)
    assert channel not in world.ports
    world.show(second, world.one_asked(second), [b"x"])
    assert get.outcome().value == b"x"


def test_an_answer_that_is_cut_short_anywhere_ends_the_connection(world: ScriptedShell) -> None:
    get = world.get()
    member, asked = only(world)
    whole: list[bytes] = []
    deliver, world.deliver = world.deliver, lambda _, frame: whole.append(frame)  # type: ignore[method-assign]
    world.show(member, asked, [b"x", b"y"])
    world.deliver = deliver  # type: ignore[method-assign]
    payload = whole[0][4:]
    for end in range(8, len(payload)):
        fresh = ScriptedShell()
        fresh.connect_all()
        get = fresh.get()
        member, _ = only(fresh)
        channel = fresh.channel(member)
        fresh.deliver(member, end.to_bytes(4, "little") + payload[:end])
        assert channel not in fresh.ports
        assert not get.done


def test_a_node_of_another_cluster_is_not_used() -> None:
    world = ScriptedShell()
    world.session.start()
    world.welcome(1)
    world.welcome(2, cluster_id=b"cluster2")
    assert not world.is_open(2)
    world.lose(1)
    world.refuse(1)
    world.refuse(3)
    world.pass_time(1)
    get = world.get()
    for member in (1, 3):
        world.refuse(member)
    world.welcome(2, cluster_id=b"cluster2")
    assert "another cluster" in str(error_of(get))


def test_one_node_under_two_addresses_is_connected_once(world: ScriptedShell) -> None:
    world.lose(2)
    world.pass_time(0)
    world.welcome(2, member=1)
    assert not world.is_open(2)
    world.pass_time(5 * SECOND)
    assert not world.is_open(2)


def test_a_frame_larger_than_the_node_takes_is_refused(world: ScriptedShell) -> None:
    put = world.put(value=bytes(2 << 20))
    assert isinstance(error_of(put), TooLarge)
    assert everywhere(world) == []
    world.get()
    assert len(everywhere(world)) == 1


def test_numbers_begin_again_after_the_last_one(world: ScriptedShell) -> None:
    world.get()
    member, first = only(world)
    contact = world.session.routes.contacts[member - 1]
    contact.number = 0xFFFF_FFFF
    get = world.submitted(make_get("default", "alice", b"", None, None))
    asked = world.one_asked(member)
    assert asked.number not in (0, first.number, 0xFFFF_FFFF)
    world.show(member, asked, [b"x"])
    assert get.outcome().value == b"x"
