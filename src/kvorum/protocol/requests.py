"""Clients' requests: checked, bounded, then begun here or forwarded to an owner.

Every limit is enforced here, before anything is written and before memory is spent; a refusal
says what was wrong and what to do. What passes becomes one coordinator object (``put.py``,
``get.py``, ``delete.py``) that lives until its client has been answered.
"""

from collections import deque
from typing import Final

from kvorum.config import NodeConfig
from kvorum.counters import OperationCounts
from kvorum.model.context import context_of_record
from kvorum.model.hashing import TableLocator
from kvorum.model.holding import pack_holding
from kvorum.model.quorum import Resolution, disk_acks_needed, put_shortage, shortage_text
from kvorum.model.record import highest_clock
from kvorum.model.ring import Ring
from kvorum.model.tables import TableRegistry, TableSettings
from kvorum.protocol.delete import DeleteCoordinator, Finisher
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.forward import Forwarder
from kvorum.protocol.generations import Generations
from kvorum.protocol.get import GetCoordinator
from kvorum.protocol.hints import Hints
from kvorum.protocol.ledger import SETTLED, Ledger
from kvorum.protocol.minting import MINTED, Minter
from kvorum.protocol.peering import Peering
from kvorum.protocol.ports import Copies, Reader
from kvorum.protocol.put import PutCoordinator
from kvorum.protocol.refusals import (
    DURABILITY_MAX,
    TTL_MAX,
    get_problem,
    no_table,
    put_problem,
    size_problem,
)
from kvorum.protocol.replica import Replica
from kvorum.protocol.replica_set import ReplicaSet, ReplicaSets
from kvorum.storage.store import Store
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.link import Asker
from kvorum.wire.requests import (
    BAD_REQUEST,
    DEFAULT,
    FORWARDED,
    GET_HEAD_BYTES,
    LEVEL_MEMORY,
    LEVEL_OS,
    NOT_OWNER,
    OVERLOADED,
    PUT_HEAD_BYTES,
    QUORUM_NOT_MET,
    READ_FIRST,
    TOMBSTONE,
    TOO_LARGE,
    UNKNOWN_TABLE,
    refused_frame,
    unknown_frame,
    unpack_get,
    unpack_put,
)

LWW_TABLE: Final = Resolution.LWW
FULL: Final = "too many requests are in flight here"
MINTED_EXTRA: Final = 1024  # by what a hint can outgrow what is held and the put that grows it

# A put's head as ``unpack_put`` gives it; the names stand where it is taken apart.
PutHead = tuple[
    int, int, int, int, int, int, int, int, int, int, int, bytes, bytes, int, int, int, int
]


class Requests(Finisher):
    """Takes clients' requests for one node."""

    __slots__ = (
        "_buffer", "_config", "_current", "_env", "_forwarder", "_hints", "_locators",
        "_looked_at", "_minter", "_n", "_own_disk", "_owned", "_peering", "_refusal_at",
        "_registry", "_replica", "_request_timeout", "_retry_window", "_ring", "_sets", "_shift",
        "_store", "_store_refusal", "clock_is_off", "ledger", "open", "replica_sets",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, ring: Ring, config: NodeConfig, me: int,
        minter: Minter, replica: Replica, copies: Copies, hints: Hints, hinted: Copies,
        generations: Generations, registry: TableRegistry, peering: Peering, forwarder: Forwarder,
    ) -> None:  # fmt: skip
        self._env = env
        self._store = store
        self._buffer = store.buffer
        self._ring = ring
        self._n = ring.n
        self._config = config
        self._minter = minter
        self._replica = replica
        self._hints = hints
        self._current = generations.current  # by partition: what is read here travels under it
        self._owned = generations.owned  # the same; below zero where this node owns nothing
        self._shift = ring.shift
        self._registry = registry
        self._peering = peering
        self._forwarder = forwarder
        self._locators: dict[bytes, TableLocator] = {}
        self._request_timeout = config.request_timeout_ms * 1000
        self._retry_window = config.retry_window_ms * 1000
        self._refusal_at = -1
        self._store_refusal = ""
        self.clock_is_off = False  # refreshed some times a second
        self.ledger = Ledger(self._retry_window, config.remembered_puts_max)
        # Begun and perhaps answered, in order of their start; swept from the head.
        self.open: deque[PutCoordinator | GetCoordinator] = deque()
        self._looked_at = -1  # when all of it was looked at last
        self.replica_sets = ReplicaSets(env, copies, hinted, ring, me, store.volatile)
        self._sets = self.replica_sets.by_partition
        self._own_disk: deque[tuple[int, PutCoordinator]] = deque()

    # Puts.

    def on_put(self, client: ClientPort, payload: bytes) -> None:
        if len(payload) < PUT_HEAD_BYTES:
            raise FrameInvalid("a put is cut short")
        head: PutHead = unpack_put(payload, 0)
        (
            _, flags, key_length, request, w, durability, sloppy, type_length, sort_length, _,
            context_length, table_id, client_id, counter, first_sent, lowest_open, ttl,
        ) = head  # fmt: skip
        self._env.counters.puts += 1
        key_end = PUT_HEAD_BYTES + key_length
        sort_end = key_end + sort_length
        context_end = sort_end + context_length
        value_bytes = len(payload) - context_end - type_length
        if value_bytes < 0:
            raise FrameInvalid("a put is cut short")
        table = self._registry.live(table_id)
        if table is None:
            self._refuse_put(client, head, UNKNOWN_TABLE, no_table(table_id))
            return
        config = self._config
        if (
            key_length > config.partition_key_bytes_max
            or sort_length > config.sort_key_bytes_max
            or value_bytes > config.value_bytes_max
            or context_length > config.context_bytes_max
            or not key_length
            or w > self._n
            or ttl > TTL_MAX
            or (durability > DURABILITY_MAX and durability != DEFAULT)
            or (flags & TOMBSTONE and value_bytes)
        ):
            self._refuse_bad_put(client, head, value_bytes)
            return
        partition_key = payload[PUT_HEAD_BYTES:key_end]
        locator = self._locators.get(table_id) or self._new_locator(table_id)
        key = locator.engine_key(partition_key, payload[key_end:sort_end] if sort_length else b"")
        partition = (key[1] << 8 | key[2]) >> self._shift
        replicas = self._sets[partition]
        if replicas is None or self._owned[partition] < 0:
            replicas = self._look_up(client, request, flags, payload, key, sloppy, table)
            if replicas is None:
                return
        known = self.ledger.recall(client_id, counter, lowest_open)
        age = self._peering.steady_base + self._env.now - first_sent
        if (known or abs(age) > self._retry_window) and not self._is_new(client, head, known, age):
            return
        if (
            client.in_flight >= config.requests_in_flight_per_client_max
            or len(self.open) >= config.requests_in_flight_max
        ) and self._is_full(client):
            self._refuse_put(client, head, OVERLOADED, FULL)
            return
        client.in_flight += 1
        if flags & READ_FIRST and not context_length:
            self._read_first(client, head, payload, table, key, partition, partition_key, replicas)
        else:
            context = payload[sort_end:context_end]
            self._begin_put(
                client, head, payload, table, key, partition, partition_key, replicas, context
            )

    def _read_first(
        self, client: ClientPort, head: PutHead, payload: bytes, table: TableSettings, key: bytes,
        partition: int, partition_key: bytes, replicas: ReplicaSet,
    ) -> None:  # fmt: skip
        """Read for a delete; ``finish_delete`` puts the tombstone over what is found."""
        request, sloppy = head[3], head[6]
        delete = DeleteCoordinator(self, client, request, key, payload)
        self._begin_get(
            client, request, key, partition, partition_key, replicas, 0, sloppy, table, delete
        )

    def _refuse_bad_put(self, client: ClientPort, head: PutHead, value_bytes: int) -> None:
        text = size_problem(self._config, head[2], head[8], head[10], value_bytes)
        if text:
            self._refuse_put(client, head, TOO_LARGE, text)
        else:
            text = put_problem(self._n, head[2], head[4], head[5], head[16])
            self._refuse_put(client, head, BAD_REQUEST, text)

    def _is_new(self, client: ClientPort, head: PutHead, known: Asker | None, age: int) -> bool:
        """Judge the put's id; False if that has answered the request, or taken it up again."""
        if known is not None and known is not SETTLED:
            assert isinstance(known, PutCoordinator)
            self._env.counters.retries_known += 1
            self._resume(client, head[3], known)
            return False
        if age > self._retry_window or known is SETTLED:
            self._answer_too_late(client, head)
            return False
        if age < -self._retry_window:
            text = "the put's id comes from the future; connect again to learn this node's clock"
            self._refuse_put(client, head, BAD_REQUEST, text)
            return False
        return True

    def _resume(self, client: ClientPort, request: int, put: PutCoordinator) -> None:
        if put.answered:
            self.open.append(put)
        else:
            put.client.in_flight -= 1  # It stands in the queue already, and keeps its deadline.
        client.in_flight += 1
        put.resume(client, request)

    def _begin_put(
        self, client: ClientPort, head: PutHead, payload: bytes, table: TableSettings, key: bytes,
        partition: int, partition_key: bytes, replicas: ReplicaSet, context: bytes,
    ) -> None:  # fmt: skip
        """Mint, and send the record on its way. ``client.in_flight`` counts the request already."""
        (
            _, flags, key_length, request, w, durability, sloppy, type_length, sort_length, _,
            context_length, table_id, client_id, counter, _, _, ttl,
        ) = head  # fmt: skip
        w = w or table.w
        w = w if w < replicas.n else replicas.n
        if durability == DEFAULT:
            durability = table.durability
        if sloppy == DEFAULT:
            sloppy = table.sloppy
        disk_needed = disk_acks_needed(durability, w) if durability else 0
        able = replicas.able()
        if (
            able.bit_count() < w
            or (disk_needed and put_shortage(able, replicas.volatile, w, disk_needed))
        ) and self._refuse_short(client, head, replicas, able, w, disk_needed, sloppy):
            return
        if self._env.now != self._refusal_at:
            self._look_at_store()
        ledger = self.ledger
        if (
            self._store_refusal or ledger.count >= ledger.puts_max or table.resolution is LWW_TABLE
        ) and self._refuse_now(client, head, table):
            return
        minter = self._minter
        if replicas.stands_in:
            code = self._mint_hint(
                head, payload, table, key, partition_key, context, w, disk_needed
            )
        else:
            value_at = PUT_HEAD_BYTES + key_length + sort_length + context_length
            type_end = value_at + type_length
            code = minter.mint(
                key, partition_key, table, context, flags & TOMBSTONE != 0,
                ttl or table.ttl_seconds * 1_000_000, payload[28:44],
                payload[value_at:type_end], payload[type_end:],
            )  # fmt: skip
        if code != MINTED:
            self._give_up_put(client, head, code, minter.refusal)
            return
        counts = self._env.counters.tables[table_id]
        put = PutCoordinator(
            self._env, client, request, key, replicas, w, disk_needed, sloppy != 0,
            LEVEL_OS if durability else LEVEL_MEMORY, minter.record, minter.sent,
            self._current[partition], minter.dot, minter.value_clock,
            counts.delete if flags & TOMBSTONE else counts.put,
        )  # fmt: skip
        ledger.add(client_id, counter, put, self._env.now)
        opened = self.open
        while opened and opened[0].answered:
            opened.popleft()  # While it is still in the processor's cache, not at the next sweep.
        opened.append(put)
        if disk_needed and not self._store.volatile:
            self._own_disk.append((self._buffer.position, put))
        put.start()

    def _refuse_short(
        self, client: ClientPort, head: PutHead, replicas: ReplicaSet, able: int, w: int,
        disk_needed: int, sloppy: int,
    ) -> bool:  # fmt: skip
        """Too few owners are able: refuse, before anything is minted, unless fallbacks may help."""
        if sloppy:
            able = replicas.able_with_fallbacks()
        text = shortage_text(able, replicas.volatile, w, disk_needed)
        if not text:
            return False
        code = QUORUM_NOT_MET
        if sloppy and replicas.hints_refused:
            self._env.counters.overloads += 1
            code = OVERLOADED
            text = f"no more hints fit on the fallbacks, and {text}"
        self._give_up_put(client, head, code, text)
        return True

    def _mint_hint(
        self, head: PutHead, payload: bytes, table: TableSettings, key: bytes,
        partition_key: bytes, context: bytes, w: int, disk_needed: int,
    ) -> int:  # fmt: skip
        """Mint in the hint that this node, a fallback, keeps for the owners: one step."""
        minter, hints = self._minter, self._hints
        held = hints.holding(key) or b""
        size = len(held) + len(payload) + MINTED_EXTRA
        if not hints.has_room(key, self._ring.owners_of_engine_key(key), size):
            self._env.counters.hints_refused += 1
            hints.refused_at = self._env.now
            hints.on_crowded()
            minter.refusal = "no owner of the key answers, and no more hints fit here"
            return OVERLOADED
        value_at = PUT_HEAD_BYTES + head[2] + head[8] + head[10]
        type_end = value_at + head[7]
        code = minter.mint_beside(
            held, key, partition_key, table, context, head[1] & TOMBSTONE != 0,
            head[16] or table.ttl_seconds * 1_000_000, payload[28:44],
            payload[value_at:type_end], payload[type_end:],
        )  # fmt: skip
        if code == MINTED:
            self._env.counters.fallback_puts += 1
            holding = pack_holding(minter.dot, partition_key, minter.record)
            hints.keep_minted(key, w, disk_needed, holding)
        return code

    def _look_at_store(self) -> None:
        """Once a turn: what a turn can add to the overlay is bounded."""
        self._refusal_at = self._env.now
        self._store_refusal = self._buffer.refusal

    def _refuse_now(self, client: ClientPort, head: PutHead, table: TableSettings) -> bool:
        """Refuse if this node can coordinate no put of this table now, and say why."""
        refusal = ""
        if self._store_refusal:
            refusal = self._store_refusal
        elif table.resolution is LWW_TABLE and (
            self.clock_is_off or self._peering.clock_has_stepped
        ):
            self._env.counters.clock_refusals += 1
            refusal = "this node's clock is off the median of its peers; set it right"
        elif self.ledger.full:
            refusal = "too many puts are remembered for clients that never settle them"
        if refusal:
            self._env.counters.overloads += 1
            self._give_up_put(client, head, OVERLOADED, f"{refusal}; nothing was written")
        return refusal != ""

    def _give_up_put(self, client: ClientPort, head: PutHead, code: int, text: str) -> None:
        client.in_flight -= 1
        self._refuse_put(client, head, code, text)

    def _answer_too_late(self, client: ClientPort, head: PutHead) -> None:
        """Whether this put was ever written here nobody can tell any more."""
        self._env.counters.retries_expired += 1
        self._env.counters.puts_unknown += 1
        self._counts_of(head).unknown += 1
        text = "this put's id is older than this node remembers; read the key"
        client.send(unknown_frame(head[3], text))

    def finish_delete(self, delete: DeleteCoordinator, record: bytes) -> None:
        """The read of a delete is done: put the tombstone over what it found."""
        client, request, payload = delete.client, delete.request, delete.payload
        head: PutHead = unpack_put(payload, 0)
        known = self.ledger.recall(head[12], head[13], 0)
        if known is not None:
            # The same delete arrived twice while it was reading; the other one has minted.
            client.in_flight -= 1
            if isinstance(known, PutCoordinator):
                self._resume(client, request, known)
            else:
                self._answer_too_late(client, head)
            return
        table = self._registry.live(head[11])
        if table is None:
            self._give_up_put(client, head, UNKNOWN_TABLE, no_table(head[11]))
            return
        key = delete.key
        replicas = self.replica_sets.of(key)
        if replicas.standing_in is not None:
            replicas = replicas.standing_in
        partition = (key[1] << 8 | key[2]) >> self._shift
        if self._current[partition] < 0:
            text = "this node's copy of the partition has been set aside; nothing was written"
            self._give_up_put(client, head, OVERLOADED, text)
            return
        context = context_of_record(key, record, highest_clock(record)) if record else b""
        partition_key = payload[PUT_HEAD_BYTES : PUT_HEAD_BYTES + head[2]]
        self._begin_put(
            client, head, payload, table, key, partition, partition_key, replicas, context
        )

    def _counts_of(self, head: PutHead) -> OperationCounts:
        """Where a put or delete for a table that there is gets counted."""
        counts = self._env.counters.tables[head[11]]
        return counts.delete if head[1] & TOMBSTONE else counts.put

    def refuse_delete(self, delete: DeleteCoordinator, code: int, text: str) -> None:
        head: PutHead = unpack_put(delete.payload, 0)
        self._give_up_put(delete.client, head, code, f"{text}; nothing was written")

    # Gets.

    def on_get(self, client: ClientPort, payload: bytes) -> None:
        if len(payload) < GET_HEAD_BYTES:
            raise FrameInvalid("a get is cut short")
        _, flags, key_length, request, r, sloppy, sort_length, table_id = unpack_get(payload, 0)
        counters = self._env.counters
        counters.gets += 1
        key_end = GET_HEAD_BYTES + key_length
        if key_end + sort_length != len(payload):
            raise FrameInvalid("a get is cut short")
        table = self._registry.live(table_id)
        if table is None:
            self._refuse_get(client, request, UNKNOWN_TABLE, no_table(table_id), table_id)
            return
        config = self._config
        if key_length > config.partition_key_bytes_max or sort_length > config.sort_key_bytes_max:
            text = size_problem(config, key_length, sort_length, 0, 0)
            self._refuse_get(client, request, TOO_LARGE, text, table_id)
            return
        if not key_length or r > self._n:
            text = get_problem(self._n, key_length, r)
            self._refuse_get(client, request, BAD_REQUEST, text, table_id)
            return
        partition_key = payload[GET_HEAD_BYTES:key_end]
        locator = self._locators.get(table_id) or self._new_locator(table_id)
        key = locator.engine_key(partition_key, payload[key_end:] if sort_length else b"")
        partition = (key[1] << 8 | key[2]) >> self._shift
        replicas = self._sets[partition]
        if replicas is None or self._owned[partition] < 0:
            replicas = self._look_up(client, request, flags, payload, key, sloppy, table)
            if replicas is None:
                return
        if (
            client.in_flight >= config.requests_in_flight_per_client_max
            or len(self.open) >= config.requests_in_flight_max
        ) and self._is_full(client):
            self._refuse_get(client, request, OVERLOADED, FULL, table_id)
            return
        client.in_flight += 1
        self._begin_get(
            client, request, key, partition, partition_key, replicas, r, sloppy, table, None
        )

    def _begin_get(
        self, client: ClientPort, request: int, key: bytes, partition: int, partition_key: bytes,
        replicas: ReplicaSet, r: int, sloppy: int, table: TableSettings, reader: Reader | None,
    ) -> None:  # fmt: skip
        r = r or table.r
        get = GetCoordinator(
            self._env, client, request, key, partition_key, replicas,
            r if r < replicas.n else replicas.n,
            table.sloppy if sloppy == DEFAULT else sloppy != 0, table.resolution,
            self._current[partition], reader,
            not self.clock_is_off, self._env.counters.tables[table.id].get,
        )  # fmt: skip
        opened = self.open
        while opened and opened[0].answered:
            opened.popleft()
        opened.append(get)
        if replicas.stands_in:
            get.start(self._hints.read(key, partition_key), False)
        else:
            replica = self._replica
            get.start(replica.read(key, partition_key), replica.behind[partition] != 0)

    # Both.

    def _new_locator(self, table_id: bytes) -> TableLocator:
        locator = self._locators[table_id] = TableLocator(self._ring.hash_key, table_id)
        return locator

    def _look_up(
        self, client: ClientPort, request: int, flags: int, payload: bytes, key: bytes,
        sloppy: int, table: TableSettings,
    ) -> ReplicaSet | None:  # fmt: skip
        """The key's owners as this node sees them, if it coordinates; None if it has forwarded.

        Where the key is none of ours that is in the owners' stead, or not at all.
        Whoever forwards to a fallback reaches no owner, so it coordinates whatever it reaches
        itself; else it does if no owner answers it, and no fallback that is listed before it.
        """
        replicas = self.replica_sets.of(key)
        partition = (key[1] << 8 | key[2]) >> self._shift
        if self._owned[partition] >= 0:
            return replicas
        may = table.sloppy if sloppy == DEFAULT else sloppy != 0
        standing = replicas.standing_in
        if (
            may
            and standing is not None
            and self._current[partition] >= 0
            and (flags & FORWARDED or replicas.leads())
        ):
            return standing
        self._forward(client, request, flags, payload, replicas, may)
        return None

    def _forward(
        self, client: ClientPort, request: int, flags: int, payload: bytes, replicas: ReplicaSet,
        sloppy: bool,
    ) -> None:  # fmt: skip
        if flags & FORWARDED:
            text = f"this node (topology epoch {self._ring.epoch}) does not serve the key"
            client.send(refused_frame(request, NOT_OWNER, text))
            return
        if self._is_full(client):
            client.send(refused_frame(request, OVERLOADED, FULL))
            return
        client.in_flight += 1
        self._forwarder.forward(client, request, payload, replicas.route(sloppy))

    def _is_full(self, client: ClientPort) -> bool:
        """Whether the client, or this node, has too much under way; counted if so."""
        config = self._config
        full = client.in_flight >= config.requests_in_flight_per_client_max
        if not full and len(self.open) >= config.requests_in_flight_max:
            self._forget_answered()
            full = len(self.open) >= config.requests_in_flight_max
        self._env.counters.overloads += full
        return full

    def _forget_answered(self) -> None:
        """Let go of what is answered, also behind a head that is not.

        Once a turn at most: it looks at everything.
        """
        if self._looked_at != self._env.now:
            self._looked_at = self._env.now
            self.open = deque(request for request in self.open if not request.answered)

    def _refuse_put(self, client: ClientPort, head: PutHead, code: int, text: str) -> None:
        self._env.counters.puts_refused += 1
        if code != UNKNOWN_TABLE:
            self._counts_of(head).refused += 1
        client.send(refused_frame(head[3], code, text))

    def _refuse_get(
        self, client: ClientPort, request: int, code: int, text: str, table_id: bytes
    ) -> None:
        self._env.counters.gets_refused += 1
        if code != UNKNOWN_TABLE:
            self._env.counters.tables[table_id].get.refused += 1
        client.send(refused_frame(request, code, text))

    # Time and disks.

    def sweep(self) -> None:
        """Pass over what is answered at the head of the queue; expire what is overdue."""
        opened = self.open
        limit = self._env.now - self._request_timeout
        while opened:
            head = opened[0]
            if not head.answered:
                if head.started_at > limit:
                    break
                head.expire()
            opened.popleft()
        self._forwarder.sweep(limit)

    def on_durable(self, position: int) -> None:
        """Our log is on disk up to ``position``."""
        waiting = self._own_disk
        while waiting and waiting[0][0] <= position:
            waiting.popleft()[1].on_own_disk()

    def on_log_refused(self) -> None:
        """The log has not taken what was written in this turn."""
        written = self._buffer.written_position
        for position, put in reversed(self._own_disk):
            if position <= written:
                break
            put.on_own_log_refused()

    def on_peer_open(self, member: int) -> None:
        """One of the member's connections is back: give it what was lost with the last one."""
        for request in list(self.open):
            if isinstance(request, PutCoordinator) and not request.answered and request.lost:
                request.ask_again(member)

    @property
    def in_flight(self) -> int:
        return sum(1 for request in self.open if not request.answered)
