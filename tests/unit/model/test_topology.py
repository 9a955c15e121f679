"""The topology document: what a person may write into it, and what is said when it is wrong."""

import json
from collections.abc import Callable

import pytest

from kvorum.errors import SettingsInvalid
from kvorum.model.quorum import Durability
from kvorum.model.topology import (
    Member,
    PartitionEntry,
    TopologyInvalid,
    check_topology,
    decode_topology,
    encode_topology,
    make_topology,
    member_from_text,
)
from tests.support.members import ENTROPY, some_members, some_topology

Edit = Callable[[dict], object]


def edited(edit: Edit) -> bytes:
    """A sound document with one thing changed by hand."""
    document = json.loads(encode_topology(some_topology()))
    edit(document)
    return json.dumps(document).encode()


def test_a_topology_survives_the_file() -> None:
    topology = some_topology(5, zones=("east", "west"))
    assert decode_topology(encode_topology(topology)) == topology


def test_moves_and_epochs_survive_the_file() -> None:
    document = edited(
        lambda d: d.update(
            epoch=4,
            partitions=[{"owners": [1, 2], "next_owners": [3, 2], "epoch": 4}],
        )
    )
    topology = decode_topology(document)
    assert topology.partitions == (PartitionEntry((1, 2), (3, 2), 4),)
    assert decode_topology(encode_topology(topology)) == topology


def test_a_file_has_one_line_for_each_member_and_partition() -> None:
    lines = encode_topology(some_topology()).decode().splitlines()
    assert '    {"id":1,"name":"a","host":"127.0.0.1","port":7401},' in lines
    assert sum('"owners"' in line for line in lines) == 8


def test_what_a_file_looks_like_never_changes() -> None:
    assert encode_topology(some_topology(2, n=1, partitions=2)).decode() == GOLDEN


GOLDEN = """{
  "format": 1,
  "cluster_id": "0001020304050607",
  "hash_key": "08090a0b0c0d0e0f1011121314151617",
  "epoch": 1,
  "planner": 1,
  "n": 1,
  "default_r": 1,
  "default_w": 1,
  "default_durability": "one",
  "members": [
    {"id":1,"name":"a","host":"127.0.0.1","port":7401},
    {"id":2,"name":"b","host":"127.0.0.1","port":7402}
  ],
  "partitions": [
    {"owners":[2]},
    {"owners":[1]}
  ]
}
"""


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        (lambda d: d.update(format=2), "format 2 is newer than format 1"),
        (lambda d: d.update(format=0), "format 0 does not exist"),
        (lambda d: d.pop("format"), "missing required field `format`"),
        (lambda d: d.pop("epoch"), "missing required field `epoch`"),
        (lambda d: d.update(color="red"), "unknown field `color`"),
        (lambda d: d.update(epoch=0), "epoch 0"),
        (lambda d: d.update(cluster_id="xyz"), "cluster_id: must be 16"),
        (lambda d: d.update(hash_key="00"), "hash_key: must be 32"),
        (lambda d: d.update(planner=-1), "planner -1"),
        (lambda d: d.update(n=0), "n=0"),
        (lambda d: d.update(n=4), "n=4 copies need at least 4 members, but there are 3"),
        (lambda d: d.update(default_r=0), "default_r=0"),
        (lambda d: d.update(default_w=4), "default_w=4"),
        (lambda d: d.update(default_durability="max"), "'max': must be none, one"),
        (lambda d: d["members"][1].update(id=1), "members a and b share id 1"),
        (lambda d: d["members"][1].update(name="a"), "two members are named a"),
        (lambda d: d["members"][1].update(port=7401), "share the address 127.0.0.1:7401"),
        (lambda d: d["members"][1].update(id=70_000), "member id 70000"),
        (lambda d: d["members"][1].update(name="B!"), "member name 'B!'"),
        (lambda d: d["members"][1].update(host=""), "'' is no host name"),
        (lambda d: d["members"][1].update(port=0), "port 0"),
        (lambda d: d["members"][1].update(zone="a b"), "zone 'a b'"),
        (lambda d: d["members"][1].update(weight=1001), "weight 1001"),
        (lambda d: d["partitions"].pop(), "7 partitions: must be a power of two"),
        (lambda d: d["partitions"].clear(), "0 partitions"),
        (lambda d: d["partitions"][3].update(owners=[]), "partition 3: has no owner"),
        (lambda d: d["partitions"][3].update(owners=[1, 9]), "partition 3: unknown owner 9"),
        (lambda d: d["partitions"][3].update(owners=[1, 1]), "names an owner twice: [1, 1]"),
        (lambda d: d.update(n=2, default_r=1), "partition 0: 3 owners, but n=2"),
        (lambda d: d["partitions"][3].update(next_owners=[4]), "unknown owner 4"),
        (lambda d: d["partitions"][3].update(epoch=2), "epoch 2 does not lie between"),
        (lambda d: d["partitions"][3].update(epoch="x"), "Expected `int`"),
    ],
)
def test_a_wrong_document_is_refused_with_its_cause(edit: Edit, cause: str) -> None:
    with pytest.raises(TopologyInvalid) as refusal:
        decode_topology(edited(edit))
    assert cause in str(refusal.value)


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"format": 1, "cluster_id": "\xff"}', "not JSON"),
        (b'{"x": ' + b"[" * 100_000, "not JSON"),
        (b"[]", "not a topology"),
    ],
)
def test_what_is_no_topology_at_all_is_refused(document: bytes, cause: str) -> None:
    with pytest.raises(SettingsInvalid, match=cause):
        decode_topology(document)


@pytest.mark.parametrize(
    ("count", "n", "partitions", "cause"),
    [
        (2, 3, 8, "n=3 copies need at least 3 members"),
        (0, 1, 8, "n=1 copies need at least 1 members, but there are 0"),
        (3, 0, 8, "n=0"),
        (3, 3, 10, "10 partitions: must be a power of two from 1 to 65536"),
        (3, 3, 131_072, "131072 partitions"),
    ],
)
def test_an_impossible_cluster_is_not_made(count: int, n: int, partitions: int, cause: str) -> None:
    with pytest.raises(TopologyInvalid, match=cause):
        make_topology(some_members(count), n, partitions, ENTROPY)


def test_defaults_are_counted_down_to_n() -> None:
    topology = make_topology(some_members(1), 1, 4, ENTROPY, default_durability=Durability.QUORUM)
    check_topology(topology)
    assert (topology.default_r, topology.default_w) == (1, 1)
    assert topology.default_durability is Durability.QUORUM


def test_a_member_is_read_from_the_command_line() -> None:
    assert member_from_text("a=127.0.0.1:7401", 1) == Member(1, "a", "127.0.0.1", 7401)
    assert member_from_text("b-2=db.example:80,zone=eu/r1,weight=10", 7) == Member(
        7, "b-2", "db.example", 80, "eu/r1", 10
    )


def test_an_ipv6_address_stands_in_brackets() -> None:
    member = member_from_text("a=[::1]:7401", 1)
    assert (member.host, member.port, member.address) == ("::1", 7401, "[::1]:7401")
    assert member_from_text("a=localhost:1", 1).address == "localhost:1"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "must be NAME=HOST:PORT"),
        ("a", "must be NAME=HOST:PORT"),
        ("a=localhost", "'localhost' must be HOST:PORT"),
        ("a=:7401", "'' is no host name"),
        ("a=::1:7401", "put the IPv6 address"),
        ("a=[::1]7401", "must be [IPv6 ADDRESS]:PORT"),
        ("a=localhost:http", "port 'http' must be a whole number"),
        ("a=localhost:70000", "port 70000"),
        ("=localhost:1", "member name ''"),
        ("a=localhost:1,zone", "'zone' must be zone=Z or weight=N"),
        ("a=localhost:1,zone=", "'zone=' must be zone=Z or weight=N"),
        ("a=localhost:1,weight=heavy", "weight 'heavy' must be a whole number"),
        ("a=localhost:1,weight=0", "weight 0"),
        ("a=localhost:1,color=red", "'color=red' must be zone=Z or weight=N"),
        ("a=localhost:1,zone=x,zone=y", "zone is given twice"),
    ],
)
def test_a_member_that_cannot_be_read_is_refused_with_its_cause(text: str, cause: str) -> None:
    with pytest.raises(TopologyInvalid) as refusal:
        member_from_text(text, 1)
    assert cause in str(refusal.value)
