"""One member as a whole: what arrives goes to whom it concerns, duties recur, and the lease."""

import pytest

from kvorum.client.store import Stored
from kvorum.config import NodeConfig
from kvorum.model.topology import decode_topology
from kvorum.protocol.node import KEY_LEASE, LINKS_PROBED, SWEEP_INTERVAL
from kvorum.simulator.disk import Disk
from kvorum.wire.exchange_messages import ExchangeDigest
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.gossip_messages import Probe, PushPull, PushPulled
from kvorum.wire.link import MUTE_AFTER, OK
from kvorum.wire.messages import (
    NOT_COMPARED,
    UNEQUAL,
    Ping,
    Pong,
    StatusAnswer,
    StatusQuery,
    TableCreate,
    TablesUpdate,
    TopologyAnswer,
    TopologyQuery,
)
from kvorum.wire.requests import OVERLOADED
from tests.support.recording import OneNode, Refusal
from tests.support.wired import Cluster

PROBE_INTERVAL = NodeConfig().probe_interval_ms * 1000
PEER_DEAD = NodeConfig().peer_dead_timeout_ms * 1000


def test_a_frame_of_unknown_kind_ends_the_connection() -> None:
    one = OneNode()
    with pytest.raises(FrameInvalid, match="unknown kind 153"):
        one.node.on_client(one.client, b"\x99")


def test_members_and_clients_have_messages_of_their_own() -> None:
    one = OneNode()
    with pytest.raises(FrameInvalid, match="a client may not send Ping"):
        one.question(Ping(1, 2))
    with pytest.raises(FrameInvalid, match="a member may not send StatusQuery"):
        one.node.on_control(2, StatusQuery(1))


def test_pings_of_older_nodes_are_answered() -> None:
    one = OneNode()
    assert one.node.on_control(2, Ping(1, 5)) == Pong(1, 5, one.env.wall, False)


def test_a_clock_is_forgotten_with_its_connection() -> None:
    one = OneNode().connect()
    one.node.peering.learn_clock(2, one.env.now, one.env.wall + 50)
    assert one.node.peering.offsets == {2: 50}
    one.disconnect(2)
    assert one.node.peering.offsets == {}
    assert one.env.counters.peer_losses == 1


def test_the_topology_is_told_as_in_its_file() -> None:
    one = OneNode()
    one.question(TopologyQuery(4))
    answer = one.client.message()
    assert isinstance(answer, TopologyAnswer)
    assert decode_topology(answer.document) == one.topology


def test_a_new_control_connection_begins_with_a_probe_and_a_comparison() -> None:
    one = OneNode()
    one.node.on_control_open(2)
    assert {target for target, _ in one.env.sent} == {2}
    messages = [message for _, message in one.env.sent]
    assert any(isinstance(each, Probe) for each in messages)
    assert any(isinstance(each, PushPull) for each in messages)


def test_tables_that_a_member_lacks_are_told_once_versions_are_compared() -> None:
    one, two = OneNode(), OneNode(2)
    one.question(TableCreate(1, "carts", durability="none"))
    one.env.sent.clear()
    one.node.on_control_open(2)
    (asked,) = [each for _, each in one.env.sent if isinstance(each, PushPull)]
    one.env.sent.clear()
    told = two.node.on_control(1, asked)
    assert isinstance(told, PushPulled)
    one.node.on_control(2, told)
    ((_, update),) = one.env.sent
    assert isinstance(update, TablesUpdate)
    two.node.on_control(1, update)
    assert two.node.tables.registry.by_name("carts") is not None
    assert two.node.documents.tables_version == one.node.documents.tables_version


def test_the_status_says_how_the_node_and_its_peers_are() -> None:
    one = OneNode().connect(2)
    one.env.links[2].latency.mean = 777
    one.node.peering.learn_clock(2, one.env.now, one.env.wall + 5)
    one.put(w=2)
    one.env.now += 1_000
    one.env.wall += 1_000
    one.question(StatusQuery(9))
    status = one.client.message()
    assert isinstance(status, StatusAnswer)
    assert (status.request, status.member, status.name) == (9, 1, "a")
    assert (status.uptime, status.in_flight, status.tables) == (1_000, 1, 1)
    assert (status.engine, status.volatile, status.writable) == ("memory", False, True)
    assert (status.partitions_owned, status.partitions, status.n) == (8, 8, 3)
    assert status.counters["puts"] == 1
    assert status.overlay_bytes > 0
    connected, away = status.peers
    assert (connected.member, connected.name, connected.connected) == (2, "b", True)
    assert (connected.latency_mean, connected.clock_offset) == (777, 5)
    assert connected.queued_bytes > 0
    assert (away.member, away.connected, away.clock_offset) == (3, False, 0)
    assert (away.belief, away.incarnation, away.believed_for) == ("alive", 0, 1_000)
    assert (status.incarnation, status.health) == (1, 0)


def test_idle_links_are_probed() -> None:
    one = OneNode().connect(2)
    one.advance(2 * PROBE_INTERVAL)
    assert len(one.unanswered[(2, False)]) == 1, "one probe is under way, not two"
    assert (3, False) not in one.unanswered


def test_however_many_links_there_are_the_same_number_is_probed_in_an_interval() -> None:
    one = OneNode(count=20).connect()
    one.advance(PROBE_INTERVAL)
    assert len(one.unanswered) == LINKS_PROBED
    one.advance(4 * PROBE_INTERVAL)
    assert len(one.unanswered) == 19, "each in its turn"


def test_a_peer_that_is_mute_for_too_long_is_dropped() -> None:
    one = OneNode().connect()
    one.put(durability=0)
    one.answers(3, OK)
    one.advance(MUTE_AFTER + SWEEP_INTERVAL)
    assert not one.env.links[2].alive
    assert one.env.dropped == []
    one.advance(PEER_DEAD - MUTE_AFTER + PROBE_INTERVAL)
    assert 2 in one.env.dropped
    assert "peer_mute" in one.env.events


def test_the_sweep_rests_when_nothing_is_under_way() -> None:
    one = OneNode()
    one.node.exchange.talks.clear()  # Exchange has timers of its own.
    one.connect()
    one.put(durability=0)
    assert one.node.next_deadline() == one.env.now + SWEEP_INTERVAL
    one.accepts(2)
    one.accepts(3)
    one.advance(SWEEP_INTERVAL)
    assert one.node.next_deadline() > one.env.now + SWEEP_INTERVAL, "only rounds and duties are due"
    one.put(durability=0)
    one.put(key=b"bob", durability=0)
    assert one.node.next_deadline() == one.env.now + SWEEP_INTERVAL


def test_a_clock_that_is_off_is_noticed_within_an_interval() -> None:
    one = OneNode()
    for member in (2, 3):
        one.node.peering.learn_clock(member, one.env.now, one.env.wall + 60_000_000)
    one.advance(PROBE_INTERVAL)
    assert one.node.requests.clock_is_off


def test_a_node_alone_may_mint_after_a_clean_start() -> None:
    one = OneNode(count=1, n=1)
    store_id = one.store.store_id
    one.restart()
    one.put(durability=0)
    assert isinstance(one.client.outcome(), Stored)
    assert one.store.store_id == store_id


def test_before_anybody_has_answered_a_store_mints_under_a_new_id() -> None:
    """Rule 4: an older id may be a copy's; nobody could tell yet."""
    one = OneNode()
    store_id = one.store.store_id
    one.restart().connect()
    one.put(w=1, durability=0)
    assert one.store.store_id != store_id
    assert "incarnation_ended" in one.env.events


def lease_of(one: OneNode) -> int:
    held = one.store.get(KEY_LEASE)
    return int.from_bytes(held, "big") if held else 0


def with_lease() -> OneNode:
    one = OneNode().connect()
    one.question(TableCreate(1, "clocked", resolution="lww", durability="none", w=1))
    one.sync()
    return one


def put_clocked(one: OneNode) -> object:
    table = one.node.tables.registry.by_name("clocked")
    assert table is not None
    one.client.take()
    one.put(table=table.id)
    return one.client.outcome()


def test_only_tables_that_live_by_the_clock_need_a_lease() -> None:
    one = OneNode().connect()
    one.question(TableCreate(1, "carts"))
    one.sync()
    one.advance(PROBE_INTERVAL)
    assert lease_of(one) == 0
    one = with_lease()
    assert lease_of(one) == one.node.clock.lease > one.env.wall


def test_the_lease_is_renewed_when_half_of_it_is_used() -> None:
    one = with_lease()
    first = lease_of(one)
    one.advance(PROBE_INTERVAL)
    assert lease_of(one) == first
    one.advance(one.node.clock.lease_span // 2 + PROBE_INTERVAL)
    assert lease_of(one) > first
    assert one.node.clock.lease == first, "not before it is on disk"
    one.sync()
    assert one.node.clock.lease == lease_of(one)


def test_clocks_go_on_above_the_lease_after_a_crash_and_above_the_last_after_a_clean_stop() -> None:
    one = with_lease()
    lease = lease_of(one)
    one.env.wall -= 60_000_000
    one.sync()
    one.restart(clean=False)
    assert one.node.clock.last == lease
    assert isinstance(put_clocked(one.connect()), Refusal)
    one.sync()
    assert isinstance(put_clocked(one), Stored)
    last = one.node.clock.last
    one.restart()
    assert one.node.clock.last == last


def test_a_volatile_node_has_its_lease_at_once() -> None:
    one = OneNode(durable=False).connect()
    one.question(TableCreate(1, "clocked", resolution="lww", durability="none", w=1))
    assert isinstance(put_clocked(one), Stored)


def test_no_lease_is_written_while_nothing_can_be() -> None:
    one = with_lease()
    first = lease_of(one)
    one.store.buffer.failed = "the engine has failed"
    one.advance(one.node.clock.lease_span)
    assert lease_of(one) == first
    outcome = put_clocked(one)
    assert isinstance(outcome, Refusal)
    assert outcome.code == OVERLOADED


def test_a_log_that_refuses_a_turn_takes_back_the_own_acks_of_that_turn() -> None:
    one = OneNode().connect()
    one.put(w=2, durability=1)
    one.end_turn()
    one.put(key=b"bob", w=2, durability=1)
    assert isinstance(one.disk, Disk)
    one.disk.free_bytes = 0
    assert not one.store.end_turn()
    one.node.on_log_refused()
    for member in (2, 3):
        one.disconnect(member)
    one.env.dirty.clear()
    one.disk.free_bytes = 1 << 30
    one.connect()
    one.accepts(2)
    one.marks(2)
    assert [request for request, _ in one.client.outcomes()] == [1], "whose turn was written"
    one.sync()
    assert [request for request, _ in one.client.outcomes()] == [2]


def test_a_log_that_refuses_the_first_turn_takes_back_what_there_is() -> None:
    one = OneNode().connect()
    one.put(w=1, durability=1)
    assert isinstance(one.disk, Disk)
    one.disk.free_bytes = 0
    assert not one.store.end_turn()
    one.node.on_log_refused()
    one.env.dirty.clear()
    one.disk.free_bytes = 1 << 30
    one.sync()
    assert isinstance(one.client.outcome(), Stored)


def test_three_nodes_probe_and_tell_each_other_of_their_clocks() -> None:
    cluster = Cluster()
    cluster.advance(PROBE_INTERVAL)
    for member in (1, 2, 3):
        assert len(cluster[member].node.peering.offsets) == 2
        assert not cluster[member].node.requests.clock_is_off


def test_status_tells_unequal_from_not_compared() -> None:
    one = OneNode().connect()
    exchange = one.node.exchange

    def equal_for() -> int:
        return {peer.member: peer.equal_for for peer in one.node.status(1).peers}[2]

    assert equal_for() == NOT_COMPARED
    digest = exchange._digest(exchange.talks[2])
    assert digest is not None
    one.node.on_control(2, ExchangeDigest(1, digest, True))
    one.env.now += 5
    assert equal_for() == 5
    one.node.on_control(2, ExchangeDigest(1, digest ^ 1, True))
    assert equal_for() == UNEQUAL
    exchange.on_lost(2)
    assert equal_for() == NOT_COMPARED
