"""Handshakes: who is let in, what is remembered of stores, and whose clock is off."""

import copy

import msgspec
import pytest

from kvorum.client.store import Stored
from kvorum.config import NodeConfig
from kvorum.protocol.peering import (
    CLOCK_LIFETIME,
    ROUND_TRIP_MAX,
    STARTS_REMEMBERED,
    TWICE_PATIENCE,
)
from kvorum.wire.gossip_messages import Probe
from kvorum.wire.kinds import PROTOCOL_VERSION
from kvorum.wire.messages import Hello, Reject, StoreStart, Welcome
from tests.support.recording import OneNode, Refusal

SKEW = NodeConfig().max_clock_skew_ms * 1000


def hello_of_two(**changes: object) -> Hello:
    hello = OneNode(2).node.peering.hello(1, "control")
    return msgspec.structs.replace(hello, **changes)


def welcomed(one: OneNode, hello: Hello) -> Welcome:
    answer = one.node.peering.on_hello(hello)
    assert isinstance(answer, Welcome), answer
    return answer


def refused(one: OneNode, hello: Hello, code: str) -> None:
    answer = one.node.peering.on_hello(hello)
    assert isinstance(answer, Reject)
    assert answer.code == code


def start(count: int, nonce: bytes = b"a nonce!", store_id: bytes = b"a store!") -> StoreStart:
    return StoreStart(store_id, count, nonce)


REJECTED = [
    ("version", {"version_min": 9, "version_max": 9}, "upgrade the older side"),
    ("version", {"version_min": 0, "version_max": 0}, "upgrade the older side"),
    ("cluster", {"cluster_id": b"another!"}, "check the topology files"),
    ("role", {"role": "oracle"}, "unknown here"),
    ("malformed", {"start": None}, "names its cluster"),
    ("malformed", {"cluster_id": b""}, "names its cluster"),
    ("malformed", {"start": start(0)}, "names its cluster"),
    ("malformed", {"start": start(1, b"short")}, "names its cluster"),
    ("target", {"member": 9}, "not in this node's topology"),
    ("target", {"target": 3}, "this is member 1 (a), not member 3"),
    ("twice", {"member": 1}, "this very process's place"),
]


@pytest.mark.parametrize(("code", "changes", "text"), REJECTED, ids=range(len(REJECTED)))
def test_a_caller_is_refused_with_what_to_do(
    code: str, changes: dict[str, object], text: str
) -> None:
    one = OneNode()
    answer = one.node.peering.on_hello(hello_of_two(**changes))
    assert isinstance(answer, Reject)
    assert (answer.code, text in answer.text) == (code, True)
    assert one.env.counters.handshakes_refused == 1
    assert one.env.events == ["handshake_refused"]


def test_a_member_is_welcomed_and_learns_what_it_needs() -> None:
    one = OneNode()
    welcome = welcomed(one, hello_of_two())
    assert welcome.version == PROTOCOL_VERSION
    assert (welcome.member, welcome.name) == (1, "a")
    assert welcome.start == one.node.peering.own_start()
    assert welcome.retry_window == NodeConfig().retry_window_ms * 1000
    assert welcome.steady == one.node.peering.steady
    assert not welcome.volatile
    assert welcome.remembered is None
    two = OneNode(2)
    assert two.node.peering.on_welcome(1, welcome) == ""
    assert two.node.peering.volatile == {1: False}


def test_a_client_need_not_know_the_cluster_and_cannot_pass_for_a_member() -> None:
    """Whoever says of itself that it runs under our store id would have stopped this node."""
    one = OneNode()
    hello = Hello(1, 7, "client", member=70_000, start=one.node.peering.own_start())
    assert welcomed(one, hello).version == PROTOCOL_VERSION
    assert one.env.stopped == []


def test_a_start_is_remembered_and_told_also_after_ours() -> None:
    one = OneNode()
    hello = hello_of_two()
    welcomed(one, hello)
    assert welcomed(one, hello).remembered == hello.start
    one.restart()
    assert welcomed(one, hello).remembered == hello.start


def test_a_copy_that_first_welcomes_us_is_told_of_the_original_all_the_same() -> None:
    """Found by the rolled-back machine: our own connection to it came before its first to us."""
    one, two = OneNode(), OneNode(2)
    original, copied = start(2, b"original"), start(2, b"the copy")
    welcomed(one, hello_of_two(start=original))
    welcome = welcomed(two, one.node.peering.hello(2, "data"))
    assert one.node.peering.on_welcome(2, msgspec.structs.replace(welcome, start=copied)) == ""
    assert welcomed(one, hello_of_two(start=copied)).remembered == original


def test_the_latest_start_of_a_store_is_remembered_and_of_a_member_the_latest_stores() -> None:
    one = OneNode()
    for count, told in ((3, None), (5, 3), (4, 5), (5, 5)):
        answer = welcomed(one, hello_of_two(start=start(count)))
        assert (answer.remembered and answer.remembered.start_count) == told
    for number in range(STARTS_REMEMBERED):
        welcomed(one, hello_of_two(start=start(1, store_id=b"store %2d" % number)))
    assert welcomed(one, hello_of_two(start=start(6))).remembered is None


def test_nothing_is_written_about_starts_while_nothing_can_be() -> None:
    one = OneNode()
    one.store.buffer.failed = "the engine has failed"
    position = one.store.position
    welcomed(one, hello_of_two())
    assert one.store.position == position


def test_a_welcome_from_elsewhere_is_no_welcome() -> None:
    one, two = OneNode(), OneNode(2)
    welcome = welcomed(two, one.node.peering.hello(2, "data"))
    for changes, text in (
        ({"cluster_id": b"another!"}, "another cluster"),
        ({"member": 3}, "is member 3, not member 2"),
        ({"start": start(0)}, "does not name its store's start"),
    ):
        bad = msgspec.structs.replace(welcome, **changes)
        assert text in one.node.peering.on_welcome(2, bad)


def test_a_copied_directory_is_found_out_by_what_others_remember() -> None:
    """Rule 4: the copy knows the same start as the original, under another nonce."""
    one, two = OneNode(), OneNode(2)
    assert two.store.close_clean(two.node.clock.last)
    disk, engine = copy.deepcopy(two.disk), copy.deepcopy(two.engine)
    two.start()
    welcomed(one, two.node.peering.hello(1, "control"))

    clone = OneNode(2)
    clone.disk, clone.engine = disk, engine
    clone._draws = iter(range(1000, 2000))
    clone.start()
    assert clone.store.store_id == two.store.store_id
    assert not clone.node.minter.confirmed
    welcome = welcomed(one, clone.node.peering.hello(1, "control"))
    assert clone.node.peering.on_welcome(1, welcome) == ""
    assert clone.store.store_id != two.store.store_id
    assert clone.env.counters.incarnations_ended == 1
    assert clone.env.events == ["incarnation_ended"]


def test_a_clone_that_cannot_draw_a_new_id_puts_nothing_until_it_can() -> None:
    one, two = OneNode(), OneNode(2).restart()
    welcome = welcomed(one, two.node.peering.hello(1, "control"))
    later = msgspec.structs.replace(two.node.peering.own_start(), nonce=b"another!")
    assert two.disk is not None
    two.connect()
    two.disk.free_bytes = 0
    told = msgspec.structs.replace(welcome, remembered=later)
    store_id = two.store.store_id
    assert two.node.peering.on_welcome(1, told) == ""
    assert two.node.peering.on_welcome(3, msgspec.structs.replace(welcome, member=3)) == ""
    assert "incarnation_not_ended" in two.env.events
    two.put(w=1, durability=0)
    assert isinstance(two.client.outcome(), Refusal)
    two.disk.free_bytes = 1 << 30
    two.put(w=1, durability=0)
    assert isinstance(two.client.outcome(), Stored)
    assert two.store.store_id != store_id


def test_a_node_that_comes_back_itself_keeps_its_store_id() -> None:
    one, two = OneNode(), OneNode(2)
    welcomed(one, two.node.peering.hello(1, "control"))
    store_id = two.store.store_id
    two.restart()
    assert not two.node.minter.confirmed
    assert two.node.peering.on_welcome(1, welcomed(one, two.node.peering.hello(1, "data"))) == ""
    assert two.node.minter.confirmed
    assert two.store.store_id == store_id
    assert two.node.peering.on_welcome(1, welcomed(one, two.node.peering.hello(1, "data"))) == ""
    assert two.store.store_id == store_id


def test_whoever_runs_under_our_store_id_elsewhere_stops_this_node() -> None:
    one = OneNode()
    welcomed(one, hello_of_two(start=start(4, store_id=one.store.store_id)))
    (reason,) = one.env.stopped
    assert "one data directory is a copy of the other" in reason


def test_a_place_is_taken_while_its_process_is_heard_of() -> None:
    one = OneNode()
    peering = one.node.peering
    first, second = start(1, b"nonce  1"), start(1, b"nonce  2", b"store 2!")
    peering.on_control_open(2, first)
    welcomed(one, hello_of_two(start=first))
    one.env.now += 1_000_000
    peering.on_heard(2, first.nonce)
    peering.on_heard(2, second.nonce)
    peering.on_heard(3, first.nonce)
    one.env.now += 1_000_000
    refused(one, hello_of_two(start=second), "twice")


def test_a_place_of_a_silent_process_is_free_once_that_was_asked_in_vain() -> None:
    """In a large cluster a member that is there may not be heard of for minutes."""
    one = OneNode()
    peering = one.node.peering
    first, second = start(1, b"nonce  1"), start(1, b"nonce  2", b"store 2!")
    peering.on_control_open(2, first)
    one.env.now += 60_000_000
    refused(one, hello_of_two(start=second), "twice")
    ((target, probe),) = one.env.sent
    assert target == 2
    assert isinstance(probe, Probe)
    one.env.now += 1_000_000
    peering.on_heard(2, first.nonce)
    one.env.now += 60_000_000
    refused(one, hello_of_two(start=second), "twice")
    assert len(one.env.sent) == 2, "it answered, and is asked again"
    one.env.now += 1_499_999
    refused(one, hello_of_two(start=second), "twice")
    one.env.now += 1
    welcomed(one, hello_of_two(start=second))


def test_the_place_of_a_silent_process_that_cannot_be_asked_is_free() -> None:
    one = OneNode()
    one.node.peering.on_control_open(2, start(1, b"nonce  1"))
    one.env.now += 60_000_000
    one.env.unreachable[2] = None
    welcomed(one, hello_of_two(start=start(1, b"nonce  2", b"store 2!")))


def test_a_place_is_free_when_its_control_connection_ends() -> None:
    one = OneNode(config=NodeConfig(probe_interval_ms=100))
    peering = one.node.peering
    peering.on_control_open(2, start(1, b"nonce  1"))
    peering.on_control_closed(2, b"nonce  0")
    assert isinstance(peering.on_hello(hello_of_two(start=start(1, b"nonce  2"))), Reject)
    peering.on_control_closed(2, b"nonce  1")
    welcomed(one, hello_of_two(start=start(1, b"nonce  2")))
    peering.on_control_closed(2, b"nonce  1")


def test_a_node_does_not_stop_while_others_may_still_believe_in_its_last_run() -> None:
    """Found by seed 10002962: it died unheard, and probes were far apart."""
    config = NodeConfig(probe_interval_ms=2_000)
    one, other = OneNode(config=config), OneNode(2, config=config)
    last, now = start(1, b"nonce  1"), start(2, b"nonce  2")
    other.node.peering.on_control_open(1, last)
    reject = Reject("twice", "another process is running as member 1")
    hello = msgspec.structs.replace(one.node.peering.hello(2, "control"), start=now)
    other.env.now += 3 * 2_000_000 - 1
    waited = 0
    while isinstance(other.node.peering.on_hello(hello), Reject):
        one.node.peering.on_reject(2, reject)
        assert one.env.stopped == []
        for each in (one, other):
            each.env.now += 100_000
        waited += 100_000
    assert waited > TWICE_PATIENCE, "the story is about more than that"


def test_a_node_whose_place_stays_taken_stops() -> None:
    one = OneNode(config=NodeConfig(probe_interval_ms=100))
    reject = Reject("twice", "another process is running as member 1")
    one.node.peering.on_reject(2, Reject("version", "too old"))
    one.node.peering.on_reject(2, reject)
    one.env.now += TWICE_PATIENCE
    one.node.peering.on_reject(2, reject)
    assert one.env.stopped == []
    one.env.now += 1
    one.node.peering.on_reject(2, reject)
    (reason,) = one.env.stopped
    assert "Stop one of the two" in reason


def test_a_welcome_ends_the_patience_about_a_taken_place() -> None:
    one, two = OneNode(), OneNode(2)
    reject = Reject("twice", "another process is running as member 1")
    one.node.peering.on_reject(2, reject)
    one.node.peering.on_welcome(2, welcomed(two, one.node.peering.hello(2, "data")))
    one.env.now += TWICE_PATIENCE + 1
    one.node.peering.on_reject(2, reject)
    assert one.env.stopped == []


def test_an_ack_tells_a_clock_to_within_half_its_round_trip() -> None:
    one = OneNode()
    peering = one.node.peering
    asked_at = one.env.now
    one.env.now += 2_000
    one.env.wall += 2_000
    peering.learn_clock(2, asked_at, one.env.wall + 7_000)
    assert peering.offsets == {2: 8_000}, "half the round trip is added"
    peering.learn_clock(3, one.env.now + 10, one.env.wall)
    assert peering.offsets == {2: 8_000}, "an answer from before its question says nothing"
    peering.learn_clock(2, one.env.now - ROUND_TRIP_MAX - 1, one.env.wall)
    assert peering.offsets == {2: 8_000}, "one that took so long says too little"
    assert peering.clock_offset == 8_000
    assert not peering.clock_is_off
    peering.forget_clock(2)
    peering.forget_clock(3)
    assert peering.clock_offset == 0


def test_what_is_known_of_a_clock_stays_true_when_our_own_is_moved() -> None:
    one = OneNode()
    peering = one.node.peering
    peering.learn_clock(2, one.env.now, one.env.wall + 8_000)
    one.env.now += CLOCK_LIFETIME // 2
    one.env.wall += CLOCK_LIFETIME // 2
    assert peering.offsets == {2: 8_000}
    one.env.wall -= 3_600_000_000
    assert peering.offsets == {2: 3_600_008_000}
    assert peering.clock_is_off


def test_a_clock_that_was_not_heard_for_long_does_not_count() -> None:
    one = OneNode()
    peering = one.node.peering
    peering.learn_clock(2, one.env.now, one.env.wall + 8_000)
    one.env.now += CLOCK_LIFETIME + 1
    one.env.wall += CLOCK_LIFETIME + 1
    assert peering.offsets == {}
    welcomed(one, hello_of_two(wall=one.env.wall + 5))
    assert peering.offsets == {2: 5}, "and a handshake is better than nothing"


def test_a_clock_beyond_the_median_of_the_others_is_off() -> None:
    one = OneNode()
    for member in (2, 3):
        one.node.peering.learn_clock(member, one.env.now, one.env.wall + SKEW + 1)
    assert one.node.peering.clock_is_off


def test_the_clock_of_put_ids_makes_no_steps() -> None:
    one = OneNode()
    before = one.node.peering.steady
    one.env.wall -= 3_600_000_000
    one.env.now += 5
    assert one.node.peering.steady == before + 5
