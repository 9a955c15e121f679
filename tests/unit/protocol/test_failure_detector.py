"""Rounds, helpers, suspicions and refutations: who is found dead, and who is not."""

import pytest

from kvorum.config import NodeConfig
from kvorum.model.members import State
from kvorum.protocol.failure_detector import CONFIRMATIONS, HEALTH_MAX
from kvorum.wire.gossip_messages import (
    Probe,
    ProbeAck,
    ProbeNack,
    ProbeRelayed,
    ProbeRequest,
)
from tests.support.gossiping import OneMember, news_of, word_of

SECOND = 1_000_000


def ack(one: OneMember, member: int, probe: Probe) -> None:
    one.hear(member, ProbeAck(probe.number, probe.sent_at, one.env.wall, news_of(member)))


def silent_round(one: OneMember) -> int:
    """A round whose target nobody reaches; the helpers say so. The target."""
    target, probe = one.next_probe()
    one.advance(one.timeout)
    for helper, request in one.sent(ProbeRequest):
        one.hear(helper, ProbeNack(request.number))
    one.advance(one.round - one.timeout)
    assert probe.number
    return target


def test_each_round_probes_one_member_and_all_have_their_turn() -> None:
    one = OneMember(members=6)
    probed = []
    for _ in range(10):
        target, probe = one.next_probe()
        ack(one, target, probe)
        probed.append(target)
    assert sorted(probed[:5]) == sorted(probed[5:]) == [2, 3, 4, 5, 6]
    assert one.env.counters.probes == 10
    assert one.env.counters.probes_failed == 0


def test_a_probe_is_answered_with_the_clock_and_what_there_is_to_tell() -> None:
    one = OneMember()
    answer = one.hear(3, Probe(9, 123, news_of(3)))
    assert isinstance(answer, ProbeAck)
    assert (answer.number, answer.echo, answer.wall) == (9, 123, one.env.wall)
    assert answer.news.own == one.gossip.own
    assert one.documents.heard == [(3, b"nonce 03")]


def test_an_ack_tells_the_peers_clock() -> None:
    one = OneMember()
    target, probe = one.next_probe()
    ack(one, target, probe)
    assert one.documents.clocks == [(target, probe.sent_at, one.env.wall)]


def test_whoever_does_not_answer_is_asked_again_and_by_others() -> None:
    one = OneMember(members=6)
    target, probe = one.next_probe()
    one.advance(one.timeout - 1)
    assert one.env.sent == []
    one.advance(1)
    again = [each for to, each in one.env.sent if to == target]
    requests = one.sent(ProbeRequest)
    assert [type(each) for each in again] == [Probe]
    assert len({to for to, _ in requests}) == 3
    assert target not in {to for to, _ in requests}
    assert {(each.number, each.target) for _, each in requests} == {(probe.number, target)}
    assert one.env.counters.indirect_probes == 3


def test_a_member_that_others_reach_is_not_suspected() -> None:
    one = OneMember()
    target, probe = one.next_probe()
    one.advance(one.timeout)
    helper = one.sent(ProbeRequest)[0][0]
    one.hear(helper, ProbeRelayed(probe.number, news_of(helper)))
    one.advance(one.round)
    assert one.state(target) == State.ALIVE
    assert one.env.counters.suspicions == 0


def test_a_member_that_nobody_reaches_is_suspected() -> None:
    one = OneMember()
    target = silent_round(one)
    belief = one.members.of(target)
    assert belief is not None
    assert (belief.state, belief.incarnation, belief.by) == (State.SUSPECT, 0, 1)
    assert one.env.counters.suspicions == 1
    assert one.env.events == ["member_suspect"]
    assert one.detector.health == 0, "all helpers answered: it is not our fault"


def test_a_sign_of_life_on_the_data_link_is_as_good_as_an_ack() -> None:
    one = OneMember()
    target, _ = one.next_probe()
    one.env.links[target].heard_at = one.env.now + 1
    one.advance(one.round)
    assert one.state(target) == State.ALIVE


def test_whatever_its_target_says_in_a_round_is_a_sign_of_life() -> None:
    """A node that had just come back was suspected for a round that had begun before."""
    one = OneMember()
    target, _ = one.next_probe()
    one.hear(target, Probe(4, 0, news_of(target)))
    one.advance(one.round)
    assert one.state(target) == State.ALIVE
    assert one.env.counters.probes_failed == 0


def test_who_has_refuted_since_a_round_began_is_not_suspected_by_it() -> None:
    one = OneMember()
    target, _ = one.next_probe()
    other = 2 if target != 2 else 3
    one.learn(word_of(target, incarnation=2), teller=other)
    one.advance(one.round)
    assert one.env.counters.probes_failed == 1
    assert one.state(target) == State.ALIVE


def test_a_member_without_a_connection_is_asked_by_others_at_once() -> None:
    one = OneMember()
    one.env.unreachable = dict.fromkeys([2, 3, 4, 5])
    deadline = one.timers.next_deadline()
    one.advance(deadline - one.env.now)
    one.env.unreachable.clear()
    one.advance(one.round)
    assert one.env.counters.suspicions == 1
    assert one.detector.health == 1, "no helper could be asked"


def test_helpers_that_cannot_be_reached_are_no_helpers() -> None:
    one = OneMember()
    one.learn(*(word_of(member, state=State.DEAD) for member in (3, 4)))
    one.env.sent.clear()
    while True:
        target, _ = one.next_probe()
        one.advance(one.timeout)
        if target == 5:
            break
    assert {to for to, _ in one.sent(ProbeRequest)} == {2}


def test_a_lost_connection_brings_its_member_forward() -> None:
    one = OneMember(members=30)
    one.membership.on_data_closed(17)
    target, probe = one.next_probe()
    assert target == 17
    ack(one, target, probe)
    one.membership.on_data_closed(17)
    one.membership.on_data_closed(18)
    brought_forward = []
    for _ in range(4):
        target, probe = one.next_probe()
        ack(one, target, probe)
        brought_forward.append(target in (17, 18))
    assert brought_forward == [False, True, False, True], "and the others have their turn, too"


def test_a_suspect_that_does_not_refute_is_declared_dead() -> None:
    one = OneMember()
    target = silent_round(one)
    other = 2 if target != 2 else 3
    for _ in range(100):
        if one.state(target) == State.DEAD:
            break
        one.advance(SECOND)
        one.learn(teller=other)
    belief = one.members.of(target)
    assert belief is not None
    assert (belief.state, belief.by) == (State.DEAD, 1)
    assert one.env.counters.deaths_declared == 1
    assert one.env.dropped == [target]
    assert one.members.is_dead(target)


def test_a_suspect_that_refutes_in_time_stays() -> None:
    one = OneMember()
    target = silent_round(one)
    one.learn(word_of(target, incarnation=1))
    one.advance(60 * SECOND)
    assert "member_alive" in one.env.events
    assert one.env.counters.false_suspicions == 1
    assert one.env.counters.deaths_declared == 0


def test_confirmations_by_others_shorten_the_suspicion() -> None:
    one = OneMember(members=8)
    timeouts = [one.detector.suspicion_timeout(count) for count in range(CONFIRMATIONS + 1)]
    assert timeouts == sorted(timeouts, reverse=True)
    assert timeouts[0] == one.config.suspicion_max_factor * timeouts[-1]
    one.learn(word_of(3, state=State.SUSPECT, by=2))
    began = one.env.now
    for by in (4, 5, 5, 2, 6, 7):
        one.learn(word_of(3, state=State.SUSPECT, by=by))
    while one.state(3) == State.SUSPECT and one.env.now < began + timeouts[0]:
        one.advance(10_000)
        one.learn(teller=2)
    assert one.env.now - began == pytest.approx(timeouts[-1], abs=10_000)


def test_the_least_suspicion_timeout_grows_with_the_logarithm_of_the_cluster() -> None:
    least = [
        OneMember(members).detector.suspicion_timeout(CONFIRMATIONS)
        for members in (5, 10, 100, 1000)
    ]
    assert least == [2 * SECOND, 2_400_000, 4_200_000, 6 * SECOND]


def test_in_the_smallest_clusters_nobody_can_confirm_and_nobody_is_waited_for() -> None:
    one = OneMember(members=3)
    assert one.detector.suspicion_timeout(0) == one.detector.suspicion_timeout(CONFIRMATIONS)


def test_a_node_that_hears_from_nobody_declares_nobody_dead() -> None:
    """A node cut off from all others came back with the news that everybody was dead."""
    one = OneMember()
    for _ in range(20):
        one.advance(10 * SECOND)
    assert {one.state(member) for member in (2, 3, 4, 5)} == {State.SUSPECT}
    assert one.detector.health == HEALTH_MAX
    one.learn(teller=2)
    for _ in range(20):
        one.advance(SECOND)
        one.learn(teller=2)
    assert [one.state(member) for member in (3, 4, 5)] == [State.DEAD] * 3


def test_of_two_nodes_the_one_that_is_left_declares_the_other_dead() -> None:
    one = OneMember(members=2)
    one.advance(60 * SECOND)
    assert one.state(2) == State.DEAD


def test_a_round_that_this_node_slept_through_judges_nobody() -> None:
    one = OneMember()
    one.next_probe()
    one.hang(30 * SECOND)
    assert one.env.counters.suspicions == 0
    assert one.detector.health == 1


def test_a_node_that_is_unwell_probes_more_slowly_and_patiently() -> None:
    one = OneMember(members=20)
    for _ in range(3):
        one.next_probe()
        one.advance(one.timeout * (1 + one.detector.health))
        assert len(one.sent(ProbeRequest)) == 3
    target, probe = one.next_probe()
    assert one.detector.health == HEALTH_MAX, "neither acks nor nacks came"
    began = one.env.now
    one.advance(one.timeout * (1 + HEALTH_MAX) - 1)
    assert one.env.sent == []
    ack(one, target, probe)
    one.next_probe()
    assert one.env.now - began == one.round * (1 + HEALTH_MAX)
    assert one.detector.health == HEALTH_MAX - 1


def test_a_doubt_about_this_node_is_refuted_by_a_higher_incarnation() -> None:
    one = OneMember()
    answer = one.hear(3, Probe(1, 0, news_of(3, word_of(1, incarnation=4, state=State.SUSPECT))))
    assert isinstance(answer, ProbeAck)
    assert (answer.news.own.state, answer.news.own.incarnation) == (State.ALIVE, 5)
    assert one.env.counters.refutations == 1
    assert one.detector.health == 1
    one.learn(word_of(1, incarnation=4, state=State.DEAD))
    assert one.gossip.own.incarnation == 5, "that is refuted already"


def test_what_a_former_start_has_said_is_overcome_and_is_no_refutation() -> None:
    one = OneMember()
    one.learn(word_of(1, incarnation=9))
    assert one.gossip.own.incarnation == 10
    assert one.env.counters.refutations == 0


def test_a_helper_probes_in_anothers_place_and_passes_the_ack_on() -> None:
    one = OneMember()
    assert one.hear(2, ProbeRequest(77, 3, news_of(2))) is None
    ((target, probe),) = one.sent(Probe)
    assert target == 3
    ack(one, 3, probe)
    ((asker, relayed),) = one.sent(ProbeRelayed)
    assert (asker, relayed.number) == (2, 77)
    one.advance(one.timeout)
    assert one.sent(ProbeNack) == []


def test_a_helper_that_hears_nothing_says_so_and_passes_a_late_ack_on() -> None:
    one = OneMember()
    one.hear(2, ProbeRequest(77, 3, news_of(2)))
    probe = next(each for to, each in one.sent(Probe) if to == 3)
    one.advance(one.timeout * 8 // 10)
    assert one.sent(ProbeNack) == [(2, ProbeNack(77))]
    ack(one, 3, probe)
    assert [(to, each.number) for to, each in one.sent(ProbeRelayed)] == [(2, 77)]
    one.hear(2, ProbeRequest(78, 3, news_of(2)))
    forgotten = next(each for to, each in one.sent(Probe) if to == 3)
    one.advance(10 * SECOND)
    one.env.sent.clear()
    ack(one, 3, forgotten)
    assert one.sent(ProbeRelayed) == []


def test_a_helper_without_a_connection_says_so_at_once() -> None:
    one = OneMember()
    one.env.unreachable[3] = None
    assert one.hear(2, ProbeRequest(77, 3, news_of(2))) == ProbeNack(77)
    assert one.hear(2, ProbeRequest(78, 99, news_of(2))) == ProbeNack(78), "nobody of ours"


def test_answers_to_an_earlier_round_count_for_nothing() -> None:
    one = OneMember()
    target, probe = one.next_probe()
    one.advance(one.timeout)
    one.hear(2, ProbeRelayed(probe.number + 1, news_of(2)))
    one.hear(2, ProbeNack(probe.number + 1))
    other = 2 if target != 2 else 3
    ack(one, other, probe)
    one.advance(one.round)
    assert one.state(target) == State.SUSPECT


def test_whoever_is_dead_is_probed_beside_the_rounds_and_not_by_them() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.DEAD), word_of(4, state=State.LEFT))
    one.env.sent.clear()
    beside: list[int] = []
    for _ in range(4):
        one.advance(one.timers.next_deadline() - one.env.now)
        probes = one.sent(Probe)
        beside += [to for to, _ in probes if to in (3, 4)]
        for to, probe in probes:
            assert to in (2, 3, 4, 5)
            if to in (2, 5):
                ack(one, to, probe)
    assert set(beside) == {3, 4}
    assert one.env.counters.probes_failed == 0


def test_a_node_alone_has_nobody_to_probe() -> None:
    one = OneMember(members=1)
    assert one.timers.next_deadline() == -1


def test_a_cluster_whose_other_members_are_all_gone_has_no_rounds() -> None:
    one = OneMember(members=2)
    one.learn(word_of(2, state=State.LEFT))
    one.env.sent.clear()
    one.advance(one.round)
    assert one.env.counters.probes == 0
    assert [to for to, _ in one.sent(Probe)] == [2]


def test_the_number_of_helpers_is_a_setting() -> None:
    one = OneMember(members=9, config=NodeConfig(indirect_probes=5))
    one.next_probe()
    one.advance(one.timeout)
    assert len(one.sent(ProbeRequest)) == 5
