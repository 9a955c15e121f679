"""A run as people read it: who stored what, who sent what to whom, in the protocol's words.

Traces and the golden scripts are made of these lines. Dots are written as (actor, counter), and
an actor by its node's letter: ``a`` for the first actor of node a, ``a2`` for its second, and so
on. Nothing here takes part in the run, and none of it is hashed.
"""

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from kvorum.client.answers import decode_found, decode_stored
from kvorum.model.hashing import engine_key
from kvorum.model.holding import record_of
from kvorum.model.record import Value, split_values
from kvorum.simulator.exchange_story import exchange_lines
from kvorum.simulator.gossip_story import belief_line, gossip_line
from kvorum.simulator.reaping_story import reaping_lines
from kvorum.wire.codec import decode_control
from kvorum.wire.framing import LENGTH_BYTES
from kvorum.wire.gossip_messages import GossipMessage
from kvorum.wire.kinds import (
    ANSWERS,
    BATCH,
    CONTROL,
    GET,
    GET_OK,
    HELLO,
    MARK,
    PUT,
    PUT_OK,
    REFUSED,
    UNKNOWN,
    WELCOME,
)
from kvorum.wire.link import HEAD_BYTES, HINT_BYTES, OP_HINT, OP_PUT, RECORD_BEHIND, unpack_hint
from kvorum.wire.link import OK as ANSWERED_OK
from kvorum.wire.link import RECORD as ANSWERED_RECORD
from kvorum.wire.requests import (
    FAILURE_HEAD_BYTES,
    FORWARDED,
    GET_HEAD_BYTES,
    PUT_HEAD_BYTES,
    TOMBSTONE,
    unpack_get,
    unpack_put,
)

if TYPE_CHECKING:
    from kvorum.simulator.network import End
    from kvorum.simulator.world import World

_entry = Struct("<BBHIIQ")
_head = Struct("<BBHI")
_extra = Struct("<IQ")
STATUS_NAMES: Final = (
    "ok", "record", "later", "failed here", "overloaded", "unwritable", "stale generation",
    "other epoch", "not taken", "elsewhere", "malformed", "not ready", "record, behind",
    "behind, and holds nothing",
)  # fmt: skip
VALUE_CHARACTERS: Final = 24


class Story:
    """Tells a world's events, line by line."""

    def __init__(self, world: "World", tell: Callable[[str], None]) -> None:
        self._world = world
        self._tell = tell
        self._keys: dict[bytes, str] = {}
        self._actors: dict[bytes, str] = {}
        self._actor_counts: dict[int, int] = {}
        self.with_gossip = False  # tell what members say and believe of each other, too

    # Names.

    def host(self, number: int) -> str:
        machine = self._world.machines.get(number)
        if machine is not None:
            return machine.name
        for client in self._world.clients:
            if client.host == number:
                return client.name
        return f"client {number}"

    def key(self, key: bytes) -> str:
        return self._keys.get(key) or key[1:5].hex()

    def dot(self, dot: bytes) -> str:
        mint = self._world.history.dots.get(dot)
        if mint is None:
            return f"({dot.hex()})"
        name = self._actors.get(dot[:12])
        if name is None:
            count = self._actor_counts[mint.member] = self._actor_counts.get(mint.member, 0) + 1
            name = self.host(mint.member) + (str(count) if count > 1 else "")
            self._actors[dot[:12]] = name
        return f"({name},{int.from_bytes(dot[12:], 'big')})"

    def value(self, value: Value) -> str:
        if value.tombstone:
            return f"deleted {self.dot(value.dot)}"
        text = value.data[:VALUE_CHARACTERS].decode("ascii", "replace")
        return f"{text} {self.dot(value.dot)}"

    def record(self, record: bytes) -> str:
        values = [Value(encoded) for encoded in split_values(record)]
        # By their text, since dots are drawn at random.
        return " | ".join(sorted(self.value(value) for value in values))

    # Events.

    def stored(self, machine: str, key: bytes, record: bytes, note: str) -> None:
        self._tell(f"{machine}  stores {self.key(key)} = {self.record(record)}{note}")

    def forgotten(self, machine: str, key: bytes, record: bytes) -> None:
        self._tell(f"{machine}  forgets {self.key(key)} = {self.record(record)}")

    def let_go(self, machine: str, key: bytes, owner: str) -> None:
        self._tell(f"{machine}  lets go of {self.key(key)} for {owner}")

    def sent(self, end: "End", frame: bytes) -> None:
        """A frame leaves; what was asked in it can be learned from it."""
        payload = frame[LENGTH_BYTES:]
        kind = payload[0]
        lines: list[str] = []
        if kind == BATCH:
            lines = self._batch(payload)
        elif kind == ANSWERS:
            lines = self._answers(payload)
        elif kind == MARK:
            lines = ["Mark: all that you sent is on disk"]
        elif kind in (PUT, GET):
            lines = [self._request(payload)]
        elif kind in (PUT_OK, GET_OK, REFUSED, UNKNOWN):
            lines = [self._answer(payload)]
        elif kind == CONTROL:
            lines = exchange_lines(payload) or reaping_lines(payload, self.key, self.host)
            if not lines and self.with_gossip:
                lines = self._gossip(payload, end)
        way = f"{self.host(end.host)} → {self.host(end.other.host)}"
        cut = "  (cut)" if end.path.cuts else ""
        for line in lines:
            self._tell(f"{way} {line}{cut}")
        if not lines and kind not in (HELLO, WELCOME):
            self._tell(f"{way} {len(payload)} bytes of control{cut}")

    def _gossip(self, payload: bytes, end: "End") -> list[str]:
        message = decode_control(payload)
        if not isinstance(message, GossipMessage):
            return []
        target = self._world.machines.get(end.other.host)
        process = target.process if target is not None else None
        members = None
        if process is not None and not process.machine.paused and not end.path.cuts:
            members = process.node.membership.members
        line = gossip_line(message, members, self.host)
        return [line] if line else []

    def reported(self, machine: str, event: str, detail: dict[str, Any]) -> None:
        """A node has told its operator something."""
        line = belief_line(event, detail, self.host) if self.with_gossip else ""
        if line:
            self._tell(f"{machine}  {line}")

    def _request(self, payload: bytes) -> str:
        if payload[0] == PUT:
            head = unpack_put(payload, 0)
            at = PUT_HEAD_BYTES
            sort_end = at + head[2] + head[8]
            self._learn(head[11], payload[at : at + head[2]], payload[at + head[2] : sort_end])
            verb = "Delete" if head[1] & TOMBSTONE else "Put"
            value = payload[sort_end + head[10] + head[7] :][:VALUE_CHARACTERS]
            text = f" = {value.decode('ascii', 'replace')}" if value else ""
            name = self._name(payload[at : at + head[2]], payload[at + head[2] : sort_end])
        else:
            get = unpack_get(payload, 0)
            at = GET_HEAD_BYTES
            end = at + get[2] + get[6]
            self._learn(get[7], payload[at : at + get[2]], payload[at + get[2] : end])
            verb, text = "Get", ""
            name = self._name(payload[at : at + get[2]], payload[at + get[2] : end])
        relayed = "  (forwarded)" if payload[1] & FORWARDED else ""
        return f"{verb} {name}{text}{relayed}"

    def _name(self, partition_key: bytes, sort_key: bytes) -> str:
        name = partition_key.decode("utf-8", "replace")
        return f"{name}/{sort_key.decode('utf-8', 'replace')}" if sort_key else name

    def _learn(self, table: bytes, partition_key: bytes, sort_key: bytes) -> None:
        key = engine_key(self._world.ring.hash_key, table, partition_key, sort_key)
        self._keys[key] = self._name(partition_key, sort_key)

    def _batch(self, payload: bytes) -> list[str]:
        count = _head.unpack_from(payload, 0)[2]
        lines = []
        position = HEAD_BYTES
        for _ in range(count):
            op, _, key_length, body_length, _, _ = _entry.unpack_from(payload, position)
            position += _entry.size
            key = payload[position : position + key_length]
            body = payload[position + key_length : position + key_length + body_length]
            position += key_length + body_length
            if op == OP_PUT:
                lines.append(f"ReplicaPut {self.key(key)} = {self.record(record_of(body))}")
            elif op == OP_HINT:
                record = self.record(record_of(body[HINT_BYTES:]))
                owner = self.host(unpack_hint(body, 0)[0])
                lines.append(f"ReplicaPut {self.key(key)} = {record}  (hint for {owner})")
            else:
                lines.append(f"ReplicaGet {self.key(key)}")
        return lines

    def _answers(self, payload: bytes) -> list[str]:
        count = _head.unpack_from(payload, 0)[2]
        position = HEAD_BYTES + count
        lines = []
        for status in payload[HEAD_BYTES:position]:
            if status == ANSWERED_OK:
                lines.append("Answer: ok")
                continue
            length = _extra.unpack_from(payload, position)[0]
            position += _extra.size
            body = payload[position : position + length]
            position += length
            if status == ANSWERED_RECORD:
                lines.append(f"Answer: {self.record(body)}")
            elif status == RECORD_BEHIND:
                lines.append(f"Answer: {self.record(body)}, behind")
            else:
                lines.append(f"Answer: {STATUS_NAMES[status]}")
        return lines

    def _answer(self, payload: bytes) -> str:
        kind = payload[0]
        if kind == PUT_OK:
            stored = decode_stored(payload, b"")
            acks = ", ".join(
                f"{self.host(ack.member)}: {ack.level}{', fallback' if ack.fallback else ''}"
                for ack in stored.acks
            )
            return f"PutOk ({acks})"
        if kind == GET_OK:
            found = decode_found(payload)
            shown = sorted(
                f"{(one.value or b'deleted')[:VALUE_CHARACTERS].decode('ascii', 'replace')} "
                f"{self.dot(one.dot)}"
                for one in found.siblings
            )
            read = ", ".join(self.host(member) for member in found.replicas)
            beyond = ", a fallback among them" if found.fallback_read else ""
            beyond += ", may miss acknowledged writes" if found.may_miss_acknowledged else ""
            return f"Found {' | '.join(shown) or 'nothing'}  (read at {read}{beyond})"
        text = payload[FAILURE_HEAD_BYTES:].decode("utf-8", "replace")
        return f"{'Refused' if kind == REFUSED else 'Unknown'}: {text}"
