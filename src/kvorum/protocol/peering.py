"""Who our peers are: handshakes, what we remember of their stores, and their clocks.

A handshake settles the protocol version and that both sides mean the same cluster and members.
It also guards dots: members remember the (store id, start count, nonce) of each other, and tell
a store that comes back what they remember of it. A store that is told of an equal or higher
start under another nonce is a copy or was rolled back, and draws a new id; one that meets its
own id alive elsewhere, or finds its member's place taken, must stop. (Architecture, dots are
never reused, rule 4.)

Acks to probes tell the peers' clocks; a node whose clock is off the median of its peers by more
than the allowed skew coordinates no last-write-wins put and judges no expiry. A peer's clock is
kept as what it is ahead of our *steady* clock: that stays true when our wall clock is moved, and
however long ago it was heard, so in a large cluster a few of them at a time will do.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from kvorum.config import NodeConfig
from kvorum.model.clock import is_off, median_offset
from kvorum.model.ring import Ring
from kvorum.protocol.environment import Environment
from kvorum.protocol.minting import Minter
from kvorum.protocol.ports import Presence
from kvorum.storage.store import Store
from kvorum.wire.kinds import PROTOCOL_VERSION, PROTOCOL_VERSION_MIN
from kvorum.wire.messages import (
    NODE_ROLES,
    ROLE_CLIENT,
    Hello,
    Ping,
    Pong,
    Reject,
    StoreStart,
    Welcome,
)

SPACE_STARTS: Final = b"\x00start"  # meta keys: starts remembered, by member
STARTS_REMEMBERED: Final = 8  # of each member, the latest
ID_BYTES: Final = 8  # of a store id, and of a nonce
CLOCK_LIFETIME: Final = 60_000_000  # for which a peer's clock counts after it was heard
ROUND_TRIP_MAX: Final = 2_000_000  # of an ack that still says something about clocks
PRESENT_INTERVALS: Final = 3  # probe intervals in which a member that is there is heard of
# How long another process may hold our place before we stop: at least so long, and as long as a
# member believes in a process that is gone, and then waits for its answer.
TWICE_PATIENCE: Final = 3_000_000
TWICE_INTERVALS: Final = 2 * PRESENT_INTERVALS + 1

_encode = msgspec.msgpack.Encoder().encode
_decode_starts: Final = msgspec.msgpack.Decoder(list[StoreStart]).decode


class _Place:
    """A member's own control connection to us, and when that process was last heard of."""

    __slots__ = ("asked_at", "heard_at", "nonce")

    def __init__(self, nonce: bytes, now: int) -> None:
        self.nonce = nonce
        self.heard_at = now
        self.asked_at = -1  # when another process claimed the place and we asked the first one


class Peering(Presence):
    """This node's side of every handshake, and its memory of the other members' stores."""

    __slots__ = (
        "_clocks", "_config", "_env", "_me", "_minter", "_name", "_present", "_ring", "_software",
        "_starts", "_store", "_twice_since", "_wall_base", "ask", "steady_base", "volatile",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, minter: Minter, ring: Ring, config: NodeConfig,
        me: int, name: str, software: str,
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._minter = minter
        self._ring = ring
        self._config = config
        self._me = me
        self._name = name
        self._software = software
        self._starts: dict[int, list[StoreStart]] = {}
        self._present: dict[int, _Place] = {}
        self._twice_since = -1
        self._clocks: dict[int, tuple[int, int]] = {}  # member -> ahead of our steady clock, when
        self.ask: Callable[[int], bool] = _nobody  # asks a member for a sign of life
        self.volatile: dict[int, bool] = {}  # member -> it keeps nothing on a disk
        self.steady_base = env.wall - env.now
        self._wall_base = self.steady_base  # wall clock less steady clock, at the last offset
        for key, encoded in store.scan(SPACE_STARTS, SPACE_STARTS + b"\xff" * 3, 65_536):
            member = int.from_bytes(key[len(SPACE_STARTS) :], "big")
            self._starts[member] = _decode_starts(encoded)

    @property
    def steady(self) -> int:
        """This node's clock for put ids: the wall clock at the start, and no step since."""
        return self.steady_base + self._env.now

    def own_start(self) -> StoreStart:
        store = self._store
        return StoreStart(store.store_id, store.start_count, store.nonce)

    def hello(self, target: int, role: str) -> Hello:
        """The first message on a connection that this node opens."""
        return Hello(
            PROTOCOL_VERSION_MIN, PROTOCOL_VERSION, role, self._ring.cluster_id, self._me,
            target, self.own_start(), self._env.wall, self._software, self._ring.epoch,
        )  # fmt: skip

    def on_hello(self, hello: Hello) -> Welcome | Reject:
        """Judge whoever opened a connection to us."""
        answer = self._judge(hello)
        if isinstance(answer, Reject):
            self._env.counters.handshakes_refused += 1
            self._env.report("handshake_refused", code=answer.code, text=answer.text)
        elif hello.role in NODE_ROLES:
            assert hello.start is not None
            self._meet(hello.member, hello.start, hello.wall)
        return answer

    def _judge(self, hello: Hello) -> Welcome | Reject:
        if hello.version_min > PROTOCOL_VERSION or hello.version_max < PROTOCOL_VERSION_MIN:
            return Reject(
                "version",
                f"this node speaks protocol versions {PROTOCOL_VERSION_MIN} to "
                f"{PROTOCOL_VERSION}, the caller {hello.version_min} to {hello.version_max}; "
                "upgrade the older side",
            )
        cluster = self._ring.cluster_id
        if hello.cluster_id not in (b"", cluster):
            return Reject(
                "cluster",
                f"this node belongs to cluster {cluster.hex()}, the caller to "
                f"{hello.cluster_id.hex()}; check the topology files",
            )
        remembered = None
        if hello.role in NODE_ROLES:
            refusal = self._judge_node(hello)
            if refusal is not None:
                return refusal
            assert hello.start is not None
            remembered = self._remembered(hello.member, hello.start.store_id)
        elif hello.role != ROLE_CLIENT:
            return Reject("role", f"role {hello.role!r} is unknown here")
        return Welcome(
            min(PROTOCOL_VERSION, hello.version_max), cluster, self._me, self._name,
            self.own_start(), self._env.wall, remembered, self._store.volatile,
            self._ring.epoch, self._config.client_frame_bytes_max,
            self._config.retry_window_ms * 1000, self._software, self.steady,
        )  # fmt: skip

    def _judge_node(self, hello: Hello) -> Reject | None:
        if hello.start is None or hello.cluster_id == b"" or not _is_start(hello.start):
            return Reject("malformed", "a node's Hello names its cluster and its store's start")
        if self._ring.member(hello.member) is None:
            return Reject(
                "target",
                f"member {hello.member} is not in this node's topology (epoch "
                f"{self._ring.epoch}); check that both use the same topology file",
            )
        if hello.target != self._me:
            return Reject(
                "target",
                f"this is member {self._me} ({self._name}), not member {hello.target}; check "
                "the addresses in the topology file",
            )
        if hello.member == self._me:
            return Reject("twice", f"member {self._me} is this very process's place")
        if self._is_taken(hello.member, hello.start.nonce):
            return Reject(
                "twice",
                f"another process is running as member {hello.member}; two must never do so",
            )
        return None

    def _is_taken(self, member: int, nonce: bytes) -> bool:
        """Whether another process has the member's place, as far as we can tell.

        It may have died without a word. If nothing was heard of it lately it is asked, and the
        place is free when no answer has come in time.
        """
        place = self._present.get(member)
        if place is None or place.nonce == nonce:
            return False
        now = self._env.now
        patience = PRESENT_INTERVALS * self._config.probe_interval_ms * 1000
        if now - place.heard_at < patience:
            return True
        if place.asked_at < 0:
            if not self.ask(member):
                return False
            place.asked_at = now
        return now - place.asked_at < patience

    def on_welcome(self, member: int, welcome: Welcome) -> str:
        """Judge whoever answered us; what is wrong, or an empty string."""
        if welcome.cluster_id != self._ring.cluster_id:
            return f"the node there belongs to another cluster, {welcome.cluster_id.hex()}"
        if welcome.member != member:
            return f"the node there is member {welcome.member}, not member {member}"
        if not _is_start(welcome.start):
            return "the node there does not name its store's start"
        remembered = welcome.remembered
        store = self._store
        if (
            remembered is not None
            and remembered.store_id == store.store_id
            and remembered.start_count >= store.start_count
            and remembered.nonce != store.nonce
        ):
            self._minter.end_incarnation_soon(
                f"member {member} remembers start {remembered.start_count} of this store id, "
                f"made by another process; this is start {store.start_count}"
            )
        self._twice_since = -1
        self.volatile[member] = welcome.volatile
        self._meet(member, welcome.start, welcome.wall)
        self._minter.confirm()
        return ""

    def on_reject(self, member: int, reject: Reject) -> None:
        """A peer will not have us; stop if that means that we should not be."""
        if reject.code != "twice":
            return
        if self._twice_since < 0:
            self._twice_since = self._env.now
        elif self._env.now - self._twice_since > max(
            TWICE_PATIENCE, TWICE_INTERVALS * self._config.probe_interval_ms * 1000
        ):
            self._env.stop(
                f"member {member} says: {reject.text}. Is a copy of this node's data directory "
                "in use? Stop one of the two"
            )

    def on_control_open(self, member: int, start: StoreStart) -> None:
        """A member's own control connection to us stands: its place is taken while it does."""
        self._present[member] = _Place(start.nonce, self._env.now)

    def on_control_closed(self, member: int, nonce: bytes) -> None:
        place = self._present.get(member)
        if place is not None and place.nonce == nonce:
            del self._present[member]

    def on_heard(self, member: int, nonce: bytes) -> None:
        place = self._present.get(member)
        if place is not None and place.nonce == nonce:
            place.heard_at = self._env.now
            place.asked_at = -1

    def _meet(self, member: int, start: StoreStart, wall: int) -> None:
        """Remember one start of a member's store."""
        if start.store_id == self._store.store_id:
            self._env.stop(
                f"member {member} runs under this store's own id {start.store_id.hex()}: one "
                "data directory is a copy of the other. Remove the copy and start again"
            )
            return
        if member not in self.offsets:
            if not self._clocks:
                self._wall_base = self._env.wall - self._env.now
            self._clocks[member] = (wall - self._env.now, self._env.now)
        known = self._starts.setdefault(member, [])
        for index, other in enumerate(known):
            if other.store_id == start.store_id:
                if (other.start_count, other.nonce) == (start.start_count, start.nonce):
                    return
                if other.start_count >= start.start_count:
                    # A copy, or rolled back; it is yet to be told what we remember, by a Welcome,
                    # and may have met us first by one of its own.
                    return
                del known[index]
                break
        known.append(start)
        del known[:-STARTS_REMEMBERED]
        if self._store.writable:
            self._store.put(SPACE_STARTS + member.to_bytes(2, "big"), _encode(known))

    def _remembered(self, member: int, store_id: bytes) -> StoreStart | None:
        for start in self._starts.get(member, ()):
            if start.store_id == store_id:
                return start
        return None

    # Clocks.

    def on_ping(self, ping: Ping) -> Pong:
        """Answer what nodes sent before there was gossip."""
        return Pong(ping.number, ping.sent_at, self._env.wall, self._store.volatile)

    def learn_clock(self, member: int, asked_at: int, wall: int) -> None:
        """Learn how far the peer's clock is ahead, to within half the round trip."""
        now = self._env.now
        if 0 <= now - asked_at <= ROUND_TRIP_MAX:
            self._wall_base = self._env.wall - now
            self._clocks[member] = (wall + (now - asked_at) // 2 - now, now)

    def forget_clock(self, member: int) -> None:
        self._clocks.pop(member, None)

    @property
    def offsets(self) -> dict[int, int]:
        """How far the clocks of the members heard lately are ahead of ours, in microseconds."""
        oldest = self._env.now - CLOCK_LIFETIME
        shift = self._env.now - self._env.wall
        return {
            member: ahead + shift
            for member, (ahead, heard_at) in self._clocks.items()
            if heard_at >= oldest
        }

    @property
    def clock_offset(self) -> int:
        """How far our peers' clocks are ahead of ours, by their median, in microseconds."""
        return median_offset(list(self.offsets.values()))

    @property
    def clock_has_stepped(self) -> bool:
        """Whether our wall clock was moved since a peer last told us its own.

        Half a second of writes at a time that is hours away would be half a second too many.
        """
        moved = self._env.wall - self._env.now - self._wall_base
        return bool(self._clocks) and abs(moved) > self._config.max_clock_skew_ms * 1000

    @property
    def clock_is_off(self) -> bool:
        return is_off(list(self.offsets.values()), self._config.max_clock_skew_ms * 1000)


def _nobody(member: int) -> bool:
    """Nobody can be asked yet."""
    return False


def _is_start(start: StoreStart) -> bool:
    """Whether what a peer says of its store can be one; it is kept, so it had better be."""
    return len(start.store_id) == len(start.nonce) == ID_BYTES and 0 < start.start_count < 1 << 63
