"""One member of the cluster: requests, messages and time in; answers and messages out.

Here the components meet and nowhere else: the node takes each thing that arrives to the
component that understands it, and hands out what they share. A driver, the server's loop or the
simulator's world, calls it in turns: first it sets the environment's clocks, then it hands in
all that has arrived, calls ``advance`` if something is due, and ends the turn by writing the log
and flushing each connection once. ``on_durable`` tells it whenever more of the log is on disk.
"""

from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.clock import HybridClock
from kvorum.model.merkle import Trees
from kvorum.model.quorum import Resolution
from kvorum.model.ring import Ring
from kvorum.model.tables import TableSettings
from kvorum.model.topology import encode_topology
from kvorum.protocol.background import Background
from kvorum.protocol.catch_up import CatchUp, Parting, decode_parting, encode_parting
from kvorum.protocol.documents import SharedDocuments
from kvorum.protocol.environment import ClientPort, Environment
from kvorum.protocol.exchange import Exchange
from kvorum.protocol.forward import Forwarder
from kvorum.protocol.generations import Generations
from kvorum.protocol.handoff import Handoff
from kvorum.protocol.hints import Hints
from kvorum.protocol.holdings import Holdings
from kvorum.protocol.inspection import Inspection, operation_statuses
from kvorum.protocol.listing import Listing
from kvorum.protocol.membership import Membership
from kvorum.protocol.minting import Minter
from kvorum.protocol.narrowing import Reading
from kvorum.protocol.peering import Peering
from kvorum.protocol.ports import Copies
from kvorum.protocol.reaping import Reaping
from kvorum.protocol.replica import HintedCopies, OwnCopies, Replica
from kvorum.protocol.requests import Requests
from kvorum.protocol.shedding import Shedding
from kvorum.protocol.tables import Tables
from kvorum.protocol.timers import Timed, Timers
from kvorum.protocol.tracing import Tracer
from kvorum.protocol.tree_scan import TreeScan
from kvorum.storage.store import Store
from kvorum.wire.aside_messages import AsideDiscard, AsideQuery
from kvorum.wire.codec import decode_control, encode
from kvorum.wire.exchange_messages import ExchangeMessage
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.gossip_messages import GossipMessage
from kvorum.wire.handoff_messages import CoverAnswer, CoverQuery, HandoffCredit, HandoffOffer
from kvorum.wire.kinds import CONTROL, GET, PROTOCOL_VERSION, PUT
from kvorum.wire.listing_messages import KeysQuery, LocalKeys, LocalKeysAnswer
from kvorum.wire.message import Message
from kvorum.wire.messages import (
    NOT_COMPARED,
    Control,
    ExplainQuery,
    LocalQuery,
    LocalRead,
    LocalRecord,
    PeerStatus,
    Ping,
    StatusAnswer,
    StatusQuery,
    TableCreate,
    TableDrop,
    TableList,
    TableQuery,
    TableSet,
    TablesUpdate,
    TablesUpdated,
    TopologyAnswer,
    TopologyQuery,
)
from kvorum.wire.reaping_messages import (
    GenerationQuery,
    GenerationState,
    GenerationStates,
    ReapCommit,
    ReapCommitted,
    ReapDrop,
    ReapRaise,
    ReapStatement,
)
from kvorum.wire.trace_messages import TraceQuery

KEY_LEASE: Final = b"\x00lease"  # meta key: up to which hybrid clock may be issued
SWEEP_INTERVAL: Final = 5_000  # between two looks for what is slow or overdue
DROP_INTERVAL: Final = 20_000  # between two slices of a dropped table
LINKS_PROBED: Final = 4  # in each interval, in turn: idle links shall be known to work, too


class _Every(Timed):
    """Wakes one of the node's periodic duties."""

    __slots__ = ("_duty", "_node")

    def __init__(self, node: "Node", duty: int) -> None:
        self._node = node
        self._duty = duty

    def on_timer(self) -> None:
        self._node.on_duty(self._duty)


_WATCH: Final = 0
_SWEEP: Final = 1
_DROP: Final = 2


class Node:
    """One member. It lives from the opening of its store to its stop, and holds all state."""

    __slots__ = (
        "_config", "_drop_armed", "_every", "_lease_pending", "_linked", "_started_at",
        "_sweep_armed", "_watch_interval", "background", "catch_up", "clock", "documents", "env",
        "exchange", "forwarder", "generations", "handoff", "hints", "holdings", "inspection",
        "listing", "me", "membership", "minter", "name", "peering", "reaping", "replica",
        "requests", "ring", "shedding", "software", "store", "tables", "timers", "tracer",
        "tree_scan",
    )  # fmt: skip

    def __init__(
        self, env: Environment, store: Store, ring: Ring, config: NodeConfig, me: int,
        software: str = "kvorum",
    ) -> None:  # fmt: skip
        member = ring.member(me)
        assert member is not None
        self.env = env
        self.store = store
        self.ring = ring
        self.me = me
        self.name = member.name
        self.software = software
        self._config = config
        self._started_at = env.now
        self._watch_interval = config.probe_interval_ms * 1000
        self._linked = 0  # the link probed last, by its place
        self.timers = Timers()
        self.background = Background(env, self.timers, config)
        self.clock = HybridClock(self._clock_floor(), config.max_clock_skew_ms * 1000)
        self._lease_pending: tuple[int, int] | None = None  # log position, lease
        self.holdings = Holdings(store, ring, Trees())
        self._take_over(decode_parting(store.parting))
        self.generations = Generations(env, store, self.holdings, ring, self.timers, me)
        self.minter = Minter(env, store, self.holdings, self.clock)
        self.peering = Peering(env, store, self.minter, ring, config, me, member.name, software)
        tables = self.tables = Tables(env, store, self.holdings, ring, self.timers, me, self._tick)
        self.hints = Hints(env, store, ring, self.minter, config, me)
        self.generations.hints = self.tables.hints = self.hints
        self.replica = Replica(
            env, store, self.holdings, self.generations, self.minter, self.hints, ring,
            self.tables.registry, config.large_bytes, self.catch_up.behind,
        )  # fmt: skip
        copies = OwnCopies(self.replica, store, self.holdings, self.generations)
        hinted = HintedCopies(self.replica, self.hints, self.generations)
        self._make_handoff(hinted)
        self.forwarder = Forwarder(env)
        self.requests = Requests(
            env, store, ring, config, me, self.minter, self.replica, copies, self.hints, hinted,
            self.generations, self.tables.registry, self.peering, self.forwarder,
        )  # fmt: skip
        self.reaping = Reaping(
            env, store, self.holdings, self.generations, self.hints, ring, self.timers, config,
            self._expired_by,
        )  # fmt: skip
        self.exchange = self._make_exchange(copies)
        aside = self.generations.aside
        self.inspection = Inspection(env, store, self.hints, aside, ring, self.timers, me)
        self.tracer = Tracer(env, store, self.requests, self.timers, me)
        self.listing = Listing(env, store, ring, self.timers, me, tables.registry, self.background)
        self.documents = SharedDocuments(env, ring.topology, self.tables)
        self.membership = Membership(
            env, [member for member in ring.member_ids if member != me], me,
            self.peering.own_start(), self.documents, self.peering, self.timers, config,
        )  # fmt: skip
        self.peering.ask = self.membership.ask
        self.tables.on_change = self._on_table
        self._begin()

    def _make_handoff(self, hinted: HintedCopies) -> None:
        self.handoff = Handoff(
            self.env, self.store, self.background, self.hints, hinted, self.generations,
            self.tables.registry, self.ring, self.peering.volatile,
        )  # fmt: skip
        self.shedding = Shedding(
            self.env,
            self.store,
            self.holdings,
            self.hints,
            self.generations,
            self.ring,
            self._config,
        )
        self.hints.on_crowded = self.shedding.look

    def _begin(self) -> None:
        self._every = [_Every(self, duty) for duty in (_WATCH, _SWEEP, _DROP)]
        self._sweep_armed = False
        self._drop_armed = False
        if len(self.ring.member_ids) == 1:
            self.minter.confirmed = True  # Nobody else could ever answer.
        self.timers.wake(self.env.now + self._watch_interval, self._every[_WATCH])
        self._renew_lease()
        self._arm_drop()

    def _take_over(self, parting: Parting) -> None:
        """Go on where a clean stop has left; without one, count and catch up with everything."""
        self.tree_scan = TreeScan(
            self.env, self.store, self.holdings, self.background, self.timers, self._config,
            parting.leaves,
        )  # fmt: skip
        self.catch_up = CatchUp(self.env, self.store, self.ring, self.me, parting.owed)
        self.holdings.take_notes(parting.noted)

    def _make_exchange(self, copies: Copies) -> Exchange:
        # Whoever has lost something, or set it aside, does not count for reads.
        self.minter.on_loss = self.catch_up.forget_marks
        self.generations.on_set_aside = self.catch_up.forget
        dropped = self.tables.registry.dropped_ids
        reading = Reading(
            self.env, self.store, self.ring, self.holdings, self.generations, copies, dropped
        )
        return Exchange(
            self.env, self.ring, self.timers, self.background, self._config, self.generations,
            self.catch_up, reading, self.me,
        )  # fmt: skip

    def _clock_floor(self) -> int:
        """Above what the hybrid clock begins: the last clock of a clean stop, or the lease."""
        if self.store.clean_start and self.store.last_clock:
            return self.store.last_clock
        lease = self.store.get(KEY_LEASE)
        return int.from_bytes(lease, "big") if lease else 0

    def _tick(self) -> int:
        return self.minter.plain_clock.tick(self.env.wall)

    def _expired_by(self) -> int:
        """What expired before this wall clock is gone for all; nothing if our clock is off."""
        if self.peering.clock_is_off or self.peering.clock_has_stepped:
            return 0
        return self.env.wall - self._config.max_clock_skew_ms * 1000

    def _on_table(self, settings: TableSettings) -> None:
        """Something new is known of a table, from whomever."""
        self.membership.gossip.spread_table(settings)
        self._renew_lease()
        self._arm_drop()

    # What arrives.

    def on_client(self, client: ClientPort, payload: bytes) -> None:
        """One frame of a client, or of a node that forwards. Raises ``FrameInvalid``."""
        kind = payload[0]
        if kind == GET:
            self.requests.on_get(client, payload)
        elif kind == PUT:
            self.requests.on_put(client, payload)
        elif kind == CONTROL:
            self._on_question(client, decode_control(payload))
            return
        else:
            raise FrameInvalid(f"a client sent a frame of unknown kind {kind}")
        if not self._sweep_armed:
            self._arm_sweep()

    def on_traced(self, client: ClientPort, request: int, payload: bytes) -> None:
        """``on_client`` of a get or put, answered by a ``TraceAnswer`` to ``request``."""
        self.tracer.follow(client, request, payload)
        if not self._sweep_armed:
            self._arm_sweep()

    def _on_question(self, client: ClientPort, message: Control) -> None:
        match message:
            case TopologyQuery():
                document = encode_topology(self.ring.topology)
                client.send(encode(TopologyAnswer(message.request, document)))
            case TableQuery():
                self.tables.on_query(client, message)
            case TableList():
                self.tables.on_list(client, message)
            case TableCreate():
                self.tables.on_create(client, message)
            case TableSet():
                self.tables.on_set(client, message)
            case TableDrop():
                self.tables.on_drop(client, message)
            case StatusQuery():
                client.send(encode(self.status(message.request)))
            case LocalQuery() | ExplainQuery() | AsideQuery() | AsideDiscard():
                self.inspection.on_question(client, message)
            case TraceQuery():
                self.tracer.on_query(client, message, self.peering.steady)
                if not self._sweep_armed:
                    self._arm_sweep()
            case KeysQuery():
                self.listing.on_query(client, message)
            case _:
                raise FrameInvalid(f"a client may not send {type(message).__name__}")

    def on_control(self, member: int, message: Control) -> Message | None:
        """A control message of another member; what to answer on the same connection."""
        if isinstance(message, GossipMessage):
            return self.membership.on_control(member, message)
        match message:
            case Ping():
                return self.peering.on_ping(message)
            case TablesUpdate():
                # Learned in any case, but confirmed only if it can be in the log.
                answer = self.tables.on_update(message)
                return answer if self.store.writable else None
            case TablesUpdated():
                self.tables.on_updated(member, message)
            case GenerationStates():
                self.generations.on_states(member, message)
                self.reaping.on_met(member)
            case GenerationQuery():
                return self.generations.on_query(message)
            case GenerationState():
                self.generations.on_state(message)
                self.reaping.on_state(member, message)
            case ReapRaise():
                return self.reaping.on_raise(member, message)
            case ReapStatement():
                self.reaping.on_statement(member, message)
            case ReapCommit():
                self.reaping.on_commit(member, message)
            case ReapCommitted():
                self.reaping.on_committed(member, message)
            case ReapDrop():
                self.reaping.on_drop(member, message)
            case ExchangeMessage():
                self.exchange.on_message(member, message)
            case LocalRead():
                return self.inspection.local_read(message.request, message.engine_key)
            case LocalRecord():
                self.inspection.on_local_record(message)
            case HandoffOffer():
                return self.handoff.on_offer(member, message)
            case HandoffCredit():
                self.handoff.on_credit(member, message)
            case CoverQuery():
                return self.shedding.on_query(member, message)
            case CoverAnswer():
                self.shedding.on_answer(member, message)
            case LocalKeys():
                self.listing.on_local_keys(member, message)
            case LocalKeysAnswer():
                self.listing.on_local_answer(message)
            case _:
                raise FrameInvalid(f"a member may not send {type(message).__name__}")
        return None

    # Peers come and go.

    def on_control_open(self, member: int) -> None:
        """Our control connection to ``member`` stands."""
        self.tables.on_open(member)
        self.membership.on_control_open(member)
        self.env.send(member, self.generations.states())
        self.exchange.on_open(member)

    def on_data_open(self, member: int) -> None:
        """Our data connection to ``member`` stands, and its link is open."""
        self._learn_volatile(member)
        self.membership.on_data_open(member)
        self.env.counters.peer_connects += 1
        self.env.report("peer_connected", member=member)
        self.requests.on_peer_open(member)
        self.handoff.wake()
        self.exchange.on_open(member)

    def on_large_open(self, member: int) -> None:
        """Our connection to ``member`` for large values stands, and its link is open."""
        self._learn_volatile(member)
        self.requests.on_peer_open(member)

    def _learn_volatile(self, member: int) -> None:
        """Take in what the member's Welcome said, before any ack of its can come."""
        volatile = self.peering.volatile.get(member, False)
        self.requests.replica_sets.learn_volatile(member, volatile)

    def on_data_closed(self, member: int) -> None:
        """Our data connection to ``member`` has ended, and its link is closed."""
        self.env.counters.peer_losses += 1
        self.env.report("peer_lost", member=member)
        self.peering.forget_clock(member)
        self.exchange.on_lost(member)
        self.membership.on_data_closed(member)

    def leave(self) -> None:
        """The process is about to stop cleanly: others need not find out."""
        self.membership.leave()

    # Time.

    def next_deadline(self) -> int:
        """When ``advance`` has something to do; -1: never."""
        return self.timers.next_deadline()

    def advance(self) -> None:
        """Do what is due."""
        self.timers.fire(self.env.now)

    def on_duty(self, duty: int) -> None:
        if duty == _SWEEP:
            self._sweep()
        elif duty == _WATCH:
            self._watch()
        else:
            self._drop_armed = False
            if self.store.writable:
                self.tables.sweep_dropped()
            self._arm_drop()

    def _arm_sweep(self) -> None:
        self._sweep_armed = True
        self.timers.wake(self.env.now + SWEEP_INTERVAL, self._every[_SWEEP])

    def _arm_drop(self) -> None:
        if self.tables.dropped and not self._drop_armed:
            self._drop_armed = True
            self.timers.wake(self.env.now + DROP_INTERVAL, self._every[_DROP])

    def _sweep(self) -> None:
        """Look for slow and overdue batches and requests, as long as any are under way."""
        env = self.env
        busy = False
        for links in (env.links, env.large_links):
            for link in links.values():
                if link.in_flight or link.again:
                    was_silent = link.silent
                    link.sweep(env.now)
                    busy = True
                    if link.silent and not was_silent:
                        env.counters.silences += 1
                        env.report("peer_silent", member=link.peer)
        self.requests.sweep()
        if busy or self.requests.open or self.forwarder.busy:
            self._arm_sweep()
        else:
            self._sweep_armed = False

    def _watch(self) -> None:
        """Give up connections that have been mute for too long; probe some of the idle ones.

        A peer that dies silently is found by the failure detector, whose verdict ends the idle
        connections to it; so few of them are probed, however many there are.
        """
        env = self.env
        dead = self._config.peer_dead_timeout_ms * 1000
        links = list(env.links.values())
        for link in links:
            if link.connected and link.in_flight:
                heard_at = max(link.heard_at, link.in_flight[0].sent_at)
                if env.now - heard_at > dead:
                    env.report("peer_mute", member=link.peer)
                    env.drop_peer(link.peer)
        for _ in range(min(LINKS_PROBED, len(links))):
            self._linked = (self._linked + 1) % len(links)
            links[self._linked].probe()
        self.membership.renew(self.peering.own_start())
        self.requests.clock_is_off = self.peering.clock_is_off
        self.tree_scan.look_for_damage()
        self.requests.ledger.sweep(env.now)
        self.handoff.wake()
        self.shedding.look()
        self._renew_lease()
        if not self._sweep_armed:
            self._arm_sweep()
        self.timers.wake(env.now + self._watch_interval, self._every[_WATCH])

    # The disk.

    def on_log_refused(self) -> None:
        """This turn's writes are not in the log; what is answered from now on does not say so."""
        self.requests.on_log_refused()

    def on_durable(self) -> None:
        """More of the log is on disk than before."""
        position = self.store.durable_position
        self.requests.on_durable(position)
        if self.tracer.open:
            self.tracer.on_durable(position)
        self.tables.on_durable()
        self.reaping.on_durable()
        self.shedding.on_durable()
        pending = self._lease_pending
        if pending is not None and pending[0] <= position:
            self.clock.extend_lease(pending[1])
            self._lease_pending = None

    def _renew_lease(self) -> None:
        """Keep a lease on disk for the hybrid clock, as long as any table lives by it."""
        if self._lease_pending is not None or not self.store.writable:
            return
        if self.requests.clock_is_off or self.peering.clock_has_stepped:
            return
        if not any(table.resolution == Resolution.LWW for table in self.tables.registry.tables()):
            return
        lease = self.clock.needs_lease(self.env.wall)
        if not lease:
            return
        if self.store.volatile:
            self.clock.extend_lease(lease)
            return
        self.store.put(KEY_LEASE, lease.to_bytes(8, "big"))
        self._lease_pending = (self.store.position, lease)

    def parting(self) -> bytes:
        """What the next start may take over, if this node stops cleanly now."""
        return encode_parting(
            self.tree_scan.encoded(), self.catch_up.encoded(), self.holdings.encoded_notes()
        )

    # For people.

    def _peers(self) -> list[PeerStatus]:
        """What this node sees, and believes, of each other one."""
        env = self.env
        peers: list[PeerStatus] = []
        for member in self.ring.member_ids:
            if member == self.me:
                continue
            link = env.links[member]
            known = self.ring.member(member)
            offset = self.peering.offsets.get(member, 0)
            name = known.name if known else ""
            belief = self.membership.members.of(member)
            talk = self.exchange.talks.get(member)
            oldest = self.hints.oldest(member)
            assert belief is not None
            peers.append(
                PeerStatus(
                    member=member,
                    name=name,
                    connected=link.connected,
                    silent=link.silent,
                    latency_mean=link.latency.mean,
                    clock_offset=offset,
                    queued_bytes=link.owed_bytes,
                    belief=belief.state.name.lower(),
                    incarnation=belief.incarnation,
                    believed_for=env.now - self.membership.members.since(member),
                    hints=len(self.hints.owed.get(member, ())),
                    hint_bytes=self.hints.owed_bytes.get(member, 0),
                    hints_waiting=max(env.wall - oldest, 0) if oldest else 0,
                    equal_for=talk.equal_for if talk is not None else NOT_COMPARED,
                )
            )
        return peers

    def status(self, request: int) -> StatusAnswer:
        """All that this node knows of itself."""
        env = self.env
        store = self.store
        env.counters.quarantined = store.buffer.quarantine_count
        return StatusAnswer(
            request=request,
            member=self.me,
            name=self.name,
            software=self.software,
            protocol_version=PROTOCOL_VERSION,
            cluster_id=self.ring.cluster_id,
            topology_epoch=self.ring.epoch,
            store_id=store.store_id,
            start_count=store.start_count,
            clean_start=store.clean_start,
            uptime=env.now - self._started_at,
            engine=store.buffer.engine.capabilities.name,
            volatile=store.volatile,
            writable=store.writable,
            unwritable_reason=store.refusal,
            partitions_owned=len(self.ring.partitions_of(self.me)),
            partitions=self.ring.partitions,
            n=self.ring.n,
            tables=len(self.tables.registry.tables()),
            in_flight=self.requests.in_flight,
            overlay_bytes=store.buffer.bytes,
            clock_offset=self.peering.clock_offset,
            peers=self._peers(),
            counters=env.counters.snapshot(),
            operations=operation_statuses(env.counters, self.tables.registry),
            deletes_noted=self.holdings.noted,
            reaping_blocked=self._reaping_blocked(),
            partitions_not_ready=self.generations.not_ready,
            records_aside=self.generations.aside.count,
            incarnation=self.membership.gossip.own.incarnation,
            health=self.membership.detector.health,
            hints=self.hints.count,
            hint_bytes=self.hints.bytes,
            partitions_behind=self.catch_up.count,
            leaves_stale=self.holdings.trees.stale_count,
            background_share=self.background.share,
        )

    def _reaping_blocked(self) -> dict[str, int]:
        names = {member.id: member.name for member in self.ring.topology.members}
        return {names[member]: count for member, count in self.reaping.blockers.items()}
