"""One put after the other, on one coordinator with its peers played by hand, and on three nodes."""

import pytest

from kvorum.client.store import Stored
from kvorum.config import NodeConfig
from kvorum.model.holding import record_of
from kvorum.protocol.node import SWEEP_INTERVAL
from kvorum.wire.link import LATER, NOT_TAKEN, OK, OP_PUT, UNWRITABLE
from kvorum.wire.requests import QUORUM_NOT_MET
from tests.support.recording import OneNode, RecordingPort, Refusal, Unknown, a_record
from tests.support.wired import Cluster

NONE, ONE, QUORUM, ALL = range(4)
DEADLINE = 5_000_000
LARGE = b"x" * 100_000


def connected() -> OneNode:
    return OneNode().connect()


def stored(one: OneNode) -> Stored:
    outcome = one.client.outcome()
    assert isinstance(outcome, Stored)
    return outcome


def levels(answer: Stored) -> dict[int, str]:
    """Who holds a put, and how durably."""
    return {ack.member: ack.level for ack in answer.acks}


def unknown(one: OneNode) -> str:
    outcome = one.client.outcome()
    assert isinstance(outcome, Unknown)
    return outcome.text


def test_the_second_ack_answers_a_put_that_needs_no_disk() -> None:
    one = connected()
    one.put(durability=NONE)
    (entry,) = one.asked(2)
    assert entry.op == OP_PUT
    assert entry.key == one.key()
    assert record_of(entry.body) == record_of(one.store.get(one.key()) or b"")
    assert len(one.asked(3)) == 1
    assert one.client.take() == []

    one.answers(2, OK)
    answer = stored(one)
    assert levels(answer) == {1: "memory", 2: "memory"}
    assert (answer.w, answer.coordinator) == (2, 1)
    assert one.client.in_flight == 0

    one.answers(3, OK)
    assert one.client.take() == [], "an answer once given is not given again"
    assert one.env.counters.puts_ok == 1


def test_one_copy_is_enough_for_w_1_and_the_others_get_it_all_the_same() -> None:
    one = connected()
    one.put(w=1, durability=NONE)
    assert levels(stored(one)) == {1: "memory"}
    assert len(one.asked(2)) == len(one.asked(3)) == 1


def test_acks_are_os_where_a_disk_is_asked_for_and_the_own_disk_counts() -> None:
    one = connected()
    one.put(durability=ONE)
    one.answers(2, OK)
    assert one.client.take() == []
    one.sync()
    assert levels(stored(one)) == {1: "disk", 2: "os"}


def test_a_peers_disk_will_do_as_well() -> None:
    one = connected()
    one.put(durability=ONE)
    one.answers(2, OK)
    one.marks(2)
    assert levels(stored(one)) == {1: "os", 2: "disk"}
    one.sync()
    one.answers(3, OK)
    one.marks(3)
    assert one.client.take() == []


@pytest.mark.parametrize(("durability", "marks_needed"), [(QUORUM, 2), (ALL, 3)])
def test_w_3_on_disks_waits_for_the_marks(durability: int, marks_needed: int) -> None:
    one = connected()
    one.put(w=3, durability=durability)
    one.answers(2, OK)
    one.answers(3, OK)
    steps = [one.sync, lambda: one.marks(2), lambda: one.marks(3)]
    for step in steps[: marks_needed - 1]:
        step()
        assert one.client.take() == []
    steps[marks_needed - 1]()
    assert len(stored(one).acks) == 3


def test_refusals_of_others_make_a_begun_put_unknown_as_soon_as_w_is_out_of_reach() -> None:
    one = connected()
    one.put(durability=NONE)
    one.answers(2, (UNWRITABLE, b"the disk is full"))
    assert one.client.take() == [], "member 3 may still take it"
    one.answers(3, (NOT_TAKEN, b"the table has been dropped"))
    assert "1 of w=2 nodes hold it" in unknown(one)
    assert one.env.counters.puts_unknown == 1
    assert one.client.in_flight == 0


def test_a_refusal_after_the_answer_changes_nothing() -> None:
    one = connected()
    one.put(durability=NONE)
    one.answers(2, OK)
    stored(one)
    one.answers(3, (UNWRITABLE, b"the disk is full"))
    assert one.client.take() == []


def test_a_record_in_answer_to_a_put_is_a_refusal() -> None:
    one = connected()
    one.put(w=3, durability=NONE)
    one.answers(2, a_record(b"whatever"))
    unknown(one)


def test_later_means_ask_again_a_moment_later() -> None:
    one = connected()
    one.put(w=3, durability=NONE)
    one.answers(3, OK)
    one.answers(2, LATER)
    assert one.asked(2) == []
    one.advance(SWEEP_INTERVAL)
    assert len(one.asked(2)) == 1
    one.answers(2, OK)
    assert len(stored(one).acks) == 3


def test_silence_until_the_deadline_is_unknown_and_says_what_is_there() -> None:
    one = connected()
    one.put(w=3, durability=QUORUM)
    one.answers(2, OK)
    one.sync()
    one.advance(DEADLINE + 10_000)
    assert unknown(one) == (
        "too few nodes answered in time: 2 of w=3 nodes hold it, 1 of 2 on a disk; it may "
        "survive or not"
    )
    one.answers(3, OK)
    one.marks(3)
    one.marks(2)
    assert one.client.take() == [], "late acks answer nobody"


def test_an_owner_that_was_lost_before_its_ack_is_asked_again_when_it_is_back() -> None:
    one = connected()
    one.put(w=3, durability=NONE)
    one.answers(3, OK)
    one.disconnect(2)
    one.unanswered.clear()
    one.connect(2)
    assert one.env.counters.resent_puts == 1
    one.answers(2, OK)
    assert len(stored(one).acks) == 3


def test_an_owner_that_was_lost_before_its_mark_is_asked_again_where_a_disk_is_wanted() -> None:
    one = connected()
    one.put(w=3, durability=ALL)
    one.answers(2, OK)
    one.answers(3, OK)
    one.marks(3)
    one.sync()
    one.disconnect(2)
    one.disconnect(3)
    one.unanswered.clear()
    one.connect(2, 3)
    assert len(one.asked(2)) == 1
    assert one.asked(3) == [], "what is on its disk stays there"
    one.answers(2, OK)
    one.marks(2)
    assert len(stored(one).acks) == 3


def test_an_owner_without_a_connection_is_asked_when_it_has_one() -> None:
    one = OneNode().connect(2)
    one.put(durability=NONE)
    assert one.asked(3) == []
    one.connect(3)
    assert len(one.asked(3)) == 1
    one.answers(3, OK)
    assert sorted(levels(stored(one))) == [1, 3]


def test_large_values_travel_on_the_large_connection_and_come_back_with_it() -> None:
    one = connected()
    one.put(value=LARGE, w=3, durability=NONE)
    assert one.asked(2) == one.asked(3) == []
    one.answers(2, OK, large=True)
    one.env.large_links[3].close()
    one.unanswered.clear()
    one.node.on_large_open(3)
    assert one.asked(3, large=True) == [], "the connection is not back yet"
    one.env.large_links[3].open(one.env.now)
    one.node.on_large_open(3)
    one.answers(3, OK, large=True)
    assert len(stored(one).acks) == 3


def test_a_put_that_arrives_again_is_not_written_again() -> None:
    one = connected()
    one.put(counter=7, durability=NONE)
    held = one.store.get(one.key())
    one.answers(2, OK)
    first = stored(one)
    one.put(counter=7, durability=NONE)
    assert one.store.get(one.key()) == held
    assert stored(one).context == first.context
    assert one.env.counters.retries_known == 1
    assert len(one.asked(3)) == 2, "who has not answered yet is asked once more"


def test_a_put_that_arrives_again_unanswered_answers_on_the_later_connection() -> None:
    one = connected()
    one.put(counter=7, durability=NONE)
    again = RecordingPort()
    one.put(counter=7, durability=NONE, client=again)
    assert (one.client.in_flight, again.in_flight) == (0, 1)
    one.answers(2, OK, OK)
    assert isinstance(again.outcome(), Stored)
    assert one.client.take() == []
    assert again.in_flight == 0


def test_a_resumed_put_asks_those_again_that_came_back_after_its_deadline() -> None:
    """Their loss stood against them: only the next loss would have had them asked."""
    one = connected()
    one.put(counter=7, w=3, durability=ALL)
    one.sync()
    one.answers(3, OK)
    one.disconnect(2)
    one.disconnect(3)
    one.advance(DEADLINE + 10_000)
    unknown(one)
    one.unanswered.clear()
    one.connect()
    assert one.asked(2) == one.asked(3) == []
    one.put(counter=7, w=3, durability=ALL)
    one.answers(2, OK)
    one.answers(3, OK)
    one.marks(2)
    one.marks(3)
    assert len(stored(one).acks) == 3


def test_an_owner_that_was_asked_twice_and_has_it_on_disk_need_not_be_asked_again() -> None:
    one = connected()
    one.put(counter=7, w=3, durability=ALL)
    one.end_turn()
    one.put(counter=7, w=3, durability=ALL)
    one.answers(2, OK)
    one.marks(2)
    one.disconnect(2)
    one.connect(2)
    assert one.asked(2) == []
    assert one.env.counters.resent_puts == 0


def test_a_refused_owner_is_asked_again_by_a_resumed_put() -> None:
    one = connected()
    one.put(counter=7, durability=NONE)
    one.answers(2, UNWRITABLE)
    one.answers(3, UNWRITABLE)
    unknown(one)
    one.put(counter=7, durability=NONE)
    one.answers(2, OK)
    stored(one)


def test_a_resumed_put_gives_those_behind_it_their_deadlines() -> None:
    one = connected()
    one.put(counter=7, w=3, durability=NONE)
    one.advance(10_000)
    one.put(key=b"bob", counter=8, w=3, durability=NONE)
    for _ in range(5):
        one.advance(1_000_000)
        one.put(counter=7, w=3, durability=NONE)
    one.advance(20_000)
    requests = [request for request, outcome in one.client.outcomes()]
    assert 2 in requests


def test_nobody_is_told_on_a_closed_connection() -> None:
    one = connected()
    one.put(durability=NONE)
    one.put(key=b"bob", w=3, durability=NONE)
    one.client.closed = True
    one.answers(2, OK, OK)
    one.advance(DEADLINE + 10_000)
    assert (one.env.counters.puts_ok, one.env.counters.puts_unknown) == (1, 1)


def test_too_few_nodes_alive_refuse_a_put_before_anything_is_written() -> None:
    one = OneNode()
    one.put(durability=NONE)
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert outcome.code == QUORUM_NOT_MET
    assert "nothing was written" in outcome.text
    assert one.store.get(one.key()) is None


def test_disks_that_do_not_exist_refuse_a_put_before_anything_is_written() -> None:
    cluster = Cluster(volatile=(2, 3))
    one = cluster[1]
    one.put(w=2, durability=QUORUM)
    outcome = one.client.outcome()
    assert isinstance(outcome, Refusal)
    assert "2 of w=2 copies must reach a disk, but only 1" in outcome.text
    assert one.store.get(one.key()) is None

    one.put(w=3, durability=ONE)
    cluster.settle()
    cluster.sync(1)
    answer = stored(one)
    assert levels(answer) == {1: "disk", 2: "memory", 3: "memory"}


def test_a_volatile_coordinator_needs_a_disk_of_others() -> None:
    cluster = Cluster(volatile=(1,))
    one = cluster[1]
    one.put(w=2, durability=ONE)
    cluster.settle()
    assert one.client.take() == []
    cluster.sync()
    assert levels(stored(one))[1] == "memory"


def test_what_was_seen_is_replaced_everywhere_and_what_was_not_stays_beside_it() -> None:
    cluster = Cluster()
    one, two = cluster[1], cluster[2]
    one.put(value=b"book", durability=NONE)
    cluster.settle()
    context = stored(one).context
    one.put(value=b"lamp", context=context, durability=NONE)
    two.put(value=b"chair", durability=NONE)
    cluster.settle()
    assert isinstance(two.client.outcome(), Stored)
    after = stored(one).context
    for member in (1, 2, 3):
        assert sorted(cluster.values(member)) == [b"chair", b"lamp"]

    # The writer of the lamp has not seen the chair, so its context does not cover it.
    one.put(value=b"desk", context=after, durability=NONE)
    cluster.settle()
    for member in (1, 2, 3):
        assert sorted(cluster.values(member)) == [b"chair", b"desk"]
    assert one.env.counters.siblings_made == 0
    assert two.env.counters.siblings_made == 1


def test_a_put_beside_a_sibling_gives_a_context_of_its_own_value_only() -> None:
    cluster = Cluster()
    one = cluster[1]
    for value in (b"one", b"two"):
        one.put(value=value, durability=NONE)
        cluster.settle()
    (_, _), (_, second) = one.client.outcomes()
    assert isinstance(second, Stored)
    one.put(value=b"three", context=second.context, durability=NONE)
    cluster.settle()
    assert sorted(cluster.values(2)) == [b"one", b"three"]


def test_a_member_that_owns_no_copy_changes_nothing_by_coming_back() -> None:
    one = OneNode(count=4).connect(2, 3)
    key = next(
        key
        for key in (b"%d" % number for number in range(1000))
        if sorted(one.ring.owners_of_engine_key(one.key(key))) == [1, 2, 3]
    )
    one.put(key=key, w=3, durability=0, sloppy=0)
    one.disconnect(2)
    one.connect(4)
    assert one.asked(4) == []
    assert one.env.counters.resent_puts == 0
    one.connect(2)
    assert len(one.asked(2)) == 1


def test_a_full_queue_to_a_peer_counts_as_a_lost_connection() -> None:
    config = NodeConfig(peer_queue_bytes_max=300_000, value_bytes_max=150_000)
    one = OneNode(config=config).connect()
    for number in range(3):
        one.put(key=b"%d" % number, value=LARGE, w=3, durability=NONE)
    assert len(one.asked(2, large=True)) == 2
    one.advance(DEADLINE + 10_000)
    assert len(one.client.outcomes()) == 3
