"""The topology: one small versioned document that says who belongs to the cluster and owns what.

Members never disagree about owners by belief, only by holding an older document; so what is
here decides who counts for ``r`` and ``w``, and failure detection never does. The ring is cut
into a power of two of equal partitions once and for all (Dynamo paper, section 6.2, strategy
3), and each has an entry of its own with its owners and the topology epoch of its last change.

The document is a JSON file that a person can read and compare line by line. Everything in it
is checked when it is read, so that nothing else in the program has to.

Not here: the fast lookups (ring.py) and who should own what (placement.py).
"""

import json
import re
from typing import Final

import msgspec

from kvorum.errors import SettingsInvalid
from kvorum.model.hashing import HASH_KEY_BYTES, MAX_PARTITIONS
from kvorum.model.placement import plan_placement
from kvorum.model.quorum import Durability

TOPOLOGY_FORMAT: Final = 1
CLUSTER_ID_BYTES: Final = 8
ENTROPY_BYTES: Final = CLUSTER_ID_BYTES + HASH_KEY_BYTES
MAX_MEMBER_ID: Final = 65_535
MAX_WEIGHT: Final = 1000
DEFAULT_N: Final = 3
DEFAULT_PARTITIONS: Final = 1024

MEMBER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,128}")
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,255}")


class TopologyInvalid(SettingsInvalid):
    """A topology, or a member given for one, that cannot be used; the text names the cause."""


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One member of the cluster. Its id is never used again; the name is for people."""

    id: int
    name: str
    host: str
    port: int
    zone: str = ""
    weight: int = 1  # share of the data, relative to the other members

    @property
    def address(self) -> str:
        """Return ``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PartitionEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who owns one partition: the counting owners and, while it moves, the next owners."""

    owners: tuple[int, ...]
    next_owners: tuple[int, ...] = ()
    epoch: int = 1  # the topology epoch that last changed this entry


class Topology(msgspec.Struct, frozen=True):
    """The whole document. A valid one only comes from ``decode_topology`` or ``make_topology``."""

    cluster_id: bytes
    hash_key: bytes  # keys the hash of every partition key, see hashing.py
    epoch: int
    planner: int  # the member that made this epoch
    n: int
    members: tuple[Member, ...]
    partitions: tuple[PartitionEntry, ...]
    default_r: int
    default_w: int
    default_durability: Durability
    format: int = TOPOLOGY_FORMAT


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The topology as it stands in the file."""

    format: int
    cluster_id: str
    hash_key: str
    epoch: int
    planner: int
    n: int
    default_r: int
    default_w: int
    default_durability: str
    members: tuple[Member, ...]
    partitions: tuple[PartitionEntry, ...]


class _FormatOnly(msgspec.Struct):
    format: int


def make_topology(
    members: tuple[Member, ...],
    n: int,
    partitions: int,
    entropy: bytes,
    default_r: int = 2,
    default_w: int = 2,
    default_durability: Durability = Durability.ONE,
) -> Topology:
    """Make the first epoch of a new cluster. ``entropy`` is 24 random bytes.

    ``default_r`` and ``default_w`` are counted down to ``n``.
    """
    assert len(entropy) == ENTROPY_BYTES
    if n < 1:
        raise TopologyInvalid(f"n={n}: at least one copy of everything must be kept")
    _check_members(members, n)
    _check_partition_count(partitions)
    topology = Topology(
        cluster_id=entropy[:CLUSTER_ID_BYTES],
        hash_key=entropy[CLUSTER_ID_BYTES:],
        epoch=1,
        planner=min(member.id for member in members),
        n=n,
        members=members,
        partitions=tuple(
            PartitionEntry(owners) for owners in plan_placement(members, n, partitions)
        ),
        default_r=min(default_r, n),
        default_w=min(default_w, n),
        default_durability=default_durability,
    )
    check_topology(topology)
    return topology


def encode_topology(topology: Topology) -> bytes:
    """Return the document as JSON with one line for each member and each partition."""
    head: dict[str, object] = {
        "format": topology.format,
        "cluster_id": topology.cluster_id.hex(),
        "hash_key": topology.hash_key.hex(),
        "epoch": topology.epoch,
        "planner": topology.planner,
        "n": topology.n,
        "default_r": topology.default_r,
        "default_w": topology.default_w,
        "default_durability": topology.default_durability.name.lower(),
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    lines.append(_listed("members", topology.members))
    lines.append(_listed("partitions", topology.partitions))
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _listed(name: str, rows: tuple[msgspec.Struct, ...]) -> str:
    encoded = [f"    {msgspec.json.encode(row).decode()}" for row in rows]
    return f'  "{name}": [\n' + ",\n".join(encoded) + "\n  ]"


def decode_topology(document: bytes) -> Topology:
    """Return the topology a file holds, or raise ``TopologyInvalid``, which names the cause."""
    try:
        found = msgspec.json.decode(document, type=_FormatOnly).format
        if found > TOPOLOGY_FORMAT:
            raise TopologyInvalid(
                f"format {found} is newer than format {TOPOLOGY_FORMAT}, the newest this version "
                "of kvorum reads"
            )
        if found < 1:
            raise TopologyInvalid(f"format {found} does not exist")
        read = msgspec.json.decode(document, type=_Document)
    except msgspec.ValidationError as error:
        raise TopologyInvalid(f"not a topology: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TopologyInvalid(f"not JSON: {error}") from None
    topology = Topology(
        cluster_id=_from_hex("cluster_id", read.cluster_id, CLUSTER_ID_BYTES),
        hash_key=_from_hex("hash_key", read.hash_key, HASH_KEY_BYTES),
        epoch=read.epoch,
        planner=read.planner,
        n=read.n,
        members=read.members,
        partitions=read.partitions,
        default_r=read.default_r,
        default_w=read.default_w,
        default_durability=durability_from_text(read.default_durability),
    )
    check_topology(topology)
    return topology


def _from_hex(field: str, text: str, size: int) -> bytes:
    if re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text) is None:
        raise TopologyInvalid(f"{field}: must be {2 * size} lowercase hexadecimal digits")
    return bytes.fromhex(text)


def durability_from_text(text: str) -> Durability:
    for durability in Durability:
        if durability.name.lower() == text:
            return durability
    raise TopologyInvalid(f"durability {text!r}: must be none, one, quorum or all")


def check_topology(topology: Topology) -> None:
    """Raise ``TopologyInvalid`` unless every rule of the document holds."""
    if topology.epoch < 1:
        raise TopologyInvalid(f"epoch {topology.epoch}: must be at least 1")
    if topology.n < 1:
        raise TopologyInvalid(f"n={topology.n}: at least one copy of everything must be kept")
    _check_members(topology.members, topology.n)
    known = {member.id: None for member in topology.members}
    if not 0 <= topology.planner <= MAX_MEMBER_ID:
        raise TopologyInvalid(f"planner {topology.planner}: not a member id")
    for letter, wanted in (("r", topology.default_r), ("w", topology.default_w)):
        if not 1 <= wanted <= topology.n:
            raise TopologyInvalid(
                f"default_{letter}={wanted}: must lie between 1 and n={topology.n}"
            )
    _check_partition_count(len(topology.partitions))
    for partition, entry in enumerate(topology.partitions):
        _check_entry(partition, entry, topology, known)


def _check_partition_count(partitions: int) -> None:
    if not 1 <= partitions <= MAX_PARTITIONS or partitions & (partitions - 1):
        raise TopologyInvalid(
            f"{partitions} partitions: must be a power of two from 1 to {MAX_PARTITIONS}"
        )


def _check_entry(
    partition: int, entry: PartitionEntry, topology: Topology, known: dict[int, None]
) -> None:
    where = f"partition {partition}"
    if not entry.owners:
        raise TopologyInvalid(f"{where}: has no owner")
    for owners in (entry.owners, entry.next_owners):
        if len(owners) > topology.n:
            raise TopologyInvalid(f"{where}: {len(owners)} owners, but n={topology.n}")
        if len(dict.fromkeys(owners)) != len(owners):
            raise TopologyInvalid(f"{where}: names an owner twice: {list(owners)}")
        for owner in owners:
            if owner not in known:
                raise TopologyInvalid(f"{where}: unknown owner {owner}")
    if not 1 <= entry.epoch <= topology.epoch:
        raise TopologyInvalid(
            f"{where}: epoch {entry.epoch} does not lie between 1 and the topology's "
            f"{topology.epoch}"
        )


def _check_members(members: tuple[Member, ...], n: int) -> None:
    ids: dict[int, str] = {}
    names: dict[str, None] = {}
    addresses: dict[str, str] = {}
    for member in members:
        _check_member(member)
        if member.id in ids:
            raise TopologyInvalid(
                f"members {ids[member.id]} and {member.name} share id {member.id}"
            )
        if member.name in names:
            raise TopologyInvalid(f"two members are named {member.name}")
        if member.address in addresses:
            raise TopologyInvalid(
                f"members {addresses[member.address]} and {member.name} share the address "
                f"{member.address}"
            )
        ids[member.id] = member.name
        names[member.name] = None
        addresses[member.address] = member.name
    if n > len(members):
        raise TopologyInvalid(
            f"n={n} copies need at least {n} members, but there are {len(members)}"
        )


def _check_member(member: Member) -> None:
    if not 1 <= member.id <= MAX_MEMBER_ID:
        raise TopologyInvalid(f"member id {member.id}: must lie between 1 and {MAX_MEMBER_ID}")
    if MEMBER_NAME.fullmatch(member.name) is None:
        raise TopologyInvalid(
            f"member name {member.name!r}: must be 1 to 63 of a-z 0-9 _ . - and begin with a "
            "letter or digit"
        )
    where = f"member {member.name}"
    if HOST_NAME.fullmatch(member.host) is None:
        raise TopologyInvalid(f"{where}: {member.host!r} is no host name or address")
    if not 1 <= member.port <= 65_535:
        raise TopologyInvalid(f"{where}: port {member.port} must lie between 1 and 65535")
    if ZONE_NAME.fullmatch(member.zone) is None:
        raise TopologyInvalid(
            f"{where}: zone {member.zone!r} must be at most 128 of A-Z a-z 0-9 _ . : / -"
        )
    if not 1 <= member.weight <= MAX_WEIGHT:
        raise TopologyInvalid(
            f"{where}: weight {member.weight} must lie between 1 and {MAX_WEIGHT}"
        )


def member_from_text(text: str, member_id: int) -> Member:
    """Read ``name=HOST:PORT[,zone=Z][,weight=N]``, an IPv6 host in brackets."""
    first, *options = text.split(",")
    name, equals, address = first.partition("=")
    if not equals:
        raise TopologyInvalid(f"node {text!r}: must be NAME=HOST:PORT[,zone=Z][,weight=N]")
    host, port = _host_and_port(name, address)
    zone = ""
    weight = 1
    given: dict[str, None] = {}
    for option in options:
        key, _, setting = option.partition("=")
        if key in given:
            raise TopologyInvalid(f"node {name}: {key} is given twice")
        given[key] = None
        if key == "zone" and setting:
            zone = setting
        elif key == "weight":
            weight = _whole_number(f"node {name}: weight", setting)
        else:
            raise TopologyInvalid(f"node {name}: {option!r} must be zone=Z or weight=N")
    member = Member(member_id, name, host, port, zone, weight)
    _check_member(member)
    return member


def _host_and_port(name: str, address: str) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]:")
        if not bracket:
            raise TopologyInvalid(f"node {name}: {address!r} must be [IPv6 ADDRESS]:PORT")
    else:
        host, colon, port = address.rpartition(":")
        if not colon:
            raise TopologyInvalid(f"node {name}: {address!r} must be HOST:PORT")
        if ":" in host:
            raise TopologyInvalid(f"node {name}: put the IPv6 address of {address!r} in brackets")
    return host, _whole_number(f"node {name}: port", port)


def _whole_number(what: str, text: str) -> int:
    if re.fullmatch("[0-9]{1,6}", text) is None:
        raise TopologyInvalid(f"{what} {text!r} must be a whole number")
    return int(text)
