"""The owners of a key as one node sees them."""

import pytest

from kvorum.client.answers import decode_stored
from kvorum.protocol import replica_set as module
from kvorum.protocol.ports import Copies
from kvorum.protocol.replica_set import GONE_RANK, SILENT_RANK, ReplicaSet, ReplicaSets
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.requests import LEVEL_MEMORY, LEVEL_OS, put_ok_frame
from tests.support.members import some_topology
from tests.support.recording import OneNode


def replica_set(one: OneNode, owners: tuple[int, ...]) -> ReplicaSet:
    return ReplicaSet(one.env, Copies(), one.me, owners, 1)


def told(encoded: bytes) -> dict[int, str]:
    answer = decode_stored(put_ok_frame(1, 1, 2, encoded, b"")[LENGTH_BYTES:], b"")
    return {ack.member: ack.level for ack in answer.acks}


def test_the_fastest_owner_comes_last() -> None:
    one = OneNode().connect()
    replicas = replica_set(one, (1, 2, 3))
    one.env.links[2].latency.mean = 500
    assert [owner.member for owner in replicas.ranked()] == [3, 2]
    one.env.links[3].latency.mean = 400
    assert [owner.member for owner in replicas.ranked()] == [2, 3]


def test_who_is_silent_comes_behind_all_that_answer_and_who_is_gone_behind_these() -> None:
    one = OneNode(count=5).connect(2, 3, 4)
    one.env.links[2].silent = True
    one.env.links[4].latency.mean = 30_000
    replicas = replica_set(one, (1, 2, 3, 4, 5))
    assert [owner.member for owner in replicas.ranked()] == [5, 2, 4, 3]
    ranks = {owner.member: owner.rank for owner in replicas.others}
    assert ranks[3] < SILENT_RANK <= ranks[2] < GONE_RANK <= ranks[5]


@pytest.mark.parametrize("trouble", ["silent", "connected"])
@pytest.mark.parametrize("member", [2, 3])
def test_two_others_are_ranked_like_many(trouble: str, member: int) -> None:
    one = OneNode().connect()
    setattr(one.env.links[member], trouble, trouble == "silent")
    order = [owner.member for owner in replica_set(one, (1, 2, 3)).ranked()]
    assert order[0] == member


def test_those_are_believed_able_that_are_connected_and_not_mute() -> None:
    one = OneNode().connect()
    replicas = replica_set(one, (2, 1, 3))
    assert replicas.my_bit == 0b010
    assert replicas.able() == 0b111
    one.env.links[2].silent = True
    assert replicas.able() == 0b111
    one.env.links[2].alive = False
    assert replicas.able() == 0b110
    one.disconnect(3)
    assert replicas.able() == 0b010


def test_a_node_that_is_no_owner_has_no_bit() -> None:
    assert replica_set(OneNode(count=4), (2, 3, 4)).my_bit == 0


def test_acks_say_how_durable_each_copy_is() -> None:
    replicas = replica_set(OneNode(), (1, 2, 3))
    assert told(replicas.acks(0b111, 0b001, LEVEL_OS)) == {1: "disk", 2: "os", 3: "os"}
    assert told(replicas.acks(0b011, 0b000, LEVEL_MEMORY)) == {1: "memory", 2: "memory"}
    replicas.set_volatile({3: True})
    assert told(replicas.acks(0b111, 0b001, LEVEL_OS)) == {1: "disk", 2: "os", 3: "memory"}
    assert replicas.acks(0b111, 0b001, LEVEL_OS) is replicas.acks(0b111, 0b001, LEVEL_OS)


def test_only_so_many_answers_are_kept_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_MAX", 1)
    replicas = replica_set(OneNode(), (1, 2, 3))
    assert replicas.names(0b101) == b"\1\0\3\0"
    assert replicas.names(0b101) is replicas.names(0b101)
    assert replicas.names(0b010) == b"\2\0"
    assert replicas.names(0b010) is not replicas.names(0b010)
    replicas.acks(1, 0, LEVEL_OS)
    assert replicas.acks(3, 0, LEVEL_OS) is not replicas.acks(3, 0, LEVEL_OS)


def test_partitions_with_the_same_owners_share_what_is_known_of_them() -> None:
    one = OneNode(topology=some_topology(4, partitions=64))
    sets = ReplicaSets(one.env, Copies(), Copies(), one.ring, 1, False)
    found = {}
    for number in range(100):
        key = one.key(b"%d" % number)
        replicas = sets.of(key)
        assert replicas.owners == one.ring.owners_of_engine_key(key)
        assert sets.of(key) is replicas
        assert found.setdefault((replicas.owners, replicas.epoch), replicas) is replicas
    assert len(found) < one.ring.partitions


def test_who_has_no_disk_is_learned_once_and_for_all_sets() -> None:
    one = OneNode()
    sets = ReplicaSets(one.env, Copies(), Copies(), one.ring, 1, True)
    replicas = sets.of(one.key())
    assert replicas.volatile == replicas.bits[1]
    sets.learn_volatile(2, False)
    assert replicas.volatile == replicas.bits[1]
    sets.learn_volatile(2, True)
    assert replicas.volatile == replicas.bits[1] | replicas.bits[2]
    sets.learn_volatile(2, False)
    assert replicas.volatile == replicas.bits[1]
