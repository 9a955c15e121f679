"""What beliefs do to connections and routing, and what we see ourselves does to beliefs."""

import msgspec

from kvorum.model.members import State
from kvorum.model.topology import decode_topology, encode_topology
from kvorum.protocol.membership import FAREWELLS
from kvorum.wire.gossip_messages import Probe, TopologyTold
from kvorum.wire.link import MUTE_AFTER
from kvorum.wire.messages import StoreStart
from tests.support.gossiping import OneMember, word_of
from tests.support.recording import OneNode


def test_a_member_that_is_dead_is_shunned_and_its_connections_are_made_anew() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.DEAD, by=2))
    assert one.members.is_dead(3)
    assert one.env.dropped == [3]
    one.learn(word_of(3, state=State.LEFT))
    assert one.env.dropped == [3], "once"


def test_a_suspect_is_not_shunned() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.SUSPECT, by=2))
    assert not one.members.is_dead(3)
    assert one.env.dropped == []


def test_whoever_answers_us_is_not_shunned_for_a_rumour_but_told_of_it() -> None:
    one = OneMember()
    link = one.env.links[3]
    link.open(one.env.now)
    one.env.now += MUTE_AFTER - 1
    one.learn(word_of(3, state=State.DEAD, by=2))
    assert not one.members.is_dead(3)
    assert one.env.dropped == []
    (told,) = [probe for to, probe in one.sent(Probe) if to == 3]
    assert word_of(3, state=State.DEAD, by=2) in told.news.beliefs


def test_whoever_has_not_answered_lately_is() -> None:
    one = OneMember()
    one.env.links[3].open(one.env.now)
    one.env.now += MUTE_AFTER
    one.learn(word_of(3, state=State.DEAD, by=2))
    assert one.members.is_dead(3)


def test_whoever_says_that_it_leaves_is_believed_at_once() -> None:
    one = OneMember()
    one.env.links[3].open(one.env.now)
    one.learn(word_of(3, state=State.LEFT))
    assert one.members.is_dead(3)


def test_a_new_connection_ends_the_shunning_before_the_refutation_has_come() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.DEAD, by=2))
    one.membership.on_data_open(3)
    assert not one.members.is_dead(3)
    assert one.state(3) == State.DEAD


def test_a_refutation_ends_the_shunning_before_there_is_a_connection() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.DEAD, by=2))
    one.learn(word_of(3, incarnation=2))
    assert not one.members.is_dead(3)


def test_a_member_that_comes_back_hears_at_once_what_is_believed_of_it() -> None:
    one = OneMember()
    dead = word_of(3, state=State.DEAD, by=2)
    one.learn(dead)
    one.env.sent.clear()
    one.membership.on_control_open(3)
    (probe,) = [probe for to, probe in one.sent(Probe) if to == 3]
    assert dead in probe.news.beliefs


def test_a_node_that_stops_says_so_to_some_others_once() -> None:
    one = OneMember(members=30)
    one.membership.leave()
    told = one.sent(Probe)
    assert len(told) == FAREWELLS
    assert {probe.news.own.state for _, probe in told} == {State.LEFT}
    one.membership.leave()
    assert one.sent(Probe) == []


def test_a_new_store_id_is_told() -> None:
    one = OneMember()
    one.membership.renew(StoreStart(b"store 01", 1, b"nonce 01"))
    assert one.gossip.own.incarnation == 1
    one.membership.renew(StoreStart(b"store 99", 1, b"nonce 01"))
    assert (one.gossip.own.incarnation, one.gossip.own.store_id) == (2, b"store 99")


def test_a_newer_topology_is_kept_passed_on_and_reported() -> None:
    one = OneNode()
    newer = msgspec.structs.replace(one.topology, epoch=one.topology.epoch + 1)
    one.node.on_control(2, TopologyTold(encode_topology(newer)))
    assert "topology_learned" in one.env.events
    assert one.node.documents.topology_epoch == newer.epoch
    assert decode_topology(one.node.documents.topology_document()) == newer
    assert one.ring.epoch == one.topology.epoch, "this node goes on as it was started"


def test_a_topology_that_is_older_foreign_or_none_is_not_taken() -> None:
    one = OneNode()
    same = encode_topology(one.topology)
    foreign = msgspec.structs.replace(one.topology, epoch=9, cluster_id=b"another!")
    for document in (same, encode_topology(foreign), b"nonsense"):
        one.node.on_control(2, TopologyTold(document))
    assert one.node.documents.newest == one.topology
    assert one.env.events == ["topology_refused"]
    assert one.node.documents.topology_document() == same
