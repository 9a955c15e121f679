"""One node's metrics for Prometheus: read when they are asked for, so that nothing is kept twice.

Every counter of ``counters.py`` is a metric of the same name; so is every figure of the status
that is a number, under the name and unit that ``GAUGES`` gives it. The page of the reference is
made from what stands here, and a test compares it with what a node really answers.
"""

import os
import platform
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kvorum.counters import DURATION_BOUNDS, MEANINGS
from kvorum.protocol.background import WHOLE
from kvorum.server.running import RunningNode
from kvorum.wire.messages import PeerStatus, StatusAnswer

PREFIX: Final = "kvorum_"
MICROSECONDS: Final = 1_000_000


class Gauge(NamedTuple):
    """A figure of the status as a metric: its name there and here, and what it is divided by."""

    field: str
    metric: str
    meaning: str
    divisor: int = 1


GAUGES: Final = (
    Gauge("uptime", "uptime_seconds", "how long the node has been running", MICROSECONDS),
    Gauge("writable", "writable", "1 if the node takes writes, 0 if its disk does not"),
    Gauge("clean_start", "clean_start", "1 if the node had been stopped cleanly before it started"),
    Gauge("start_count", "store_starts", "how often this store has been opened"),
    Gauge("topology_epoch", "topology_epoch", "the epoch of the topology that the node knows"),
    Gauge("partitions", "partitions", "partitions of the ring"),
    Gauge("partitions_owned", "partitions_owned", "partitions that the node owns a copy of"),
    Gauge("n", "copies", "copies that the cluster keeps of everything: n"),
    Gauge("tables", "tables", "tables that there are"),
    Gauge("in_flight", "requests_in_flight", "requests coordinated here and not yet answered"),
    Gauge("overlay_bytes", "overlay_bytes", "writes in memory that are not in the engine yet"),
    Gauge("hints", "hints", "hints kept here for other nodes; one may be owed to several"),
    Gauge("hint_bytes", "hint_bytes", "their size"),
    Gauge("deletes_noted", "deletes_noted", "records that wait for a reap round, as far as noted"),
    Gauge("partitions_not_ready", "partitions_not_ready", "partitions held and not served yet"),
    Gauge(
        "partitions_behind", "partitions_behind",
        "partitions owned that do not count for r until the node has caught up",
    ),
    Gauge("leaves_stale", "leaves_stale", "of 65,536 leaves of the hash trees: yet to be counted"),
    Gauge("records_aside", "records_aside", "records set aside: their copy had missed a reap"),
    Gauge(
        "clock_offset", "clock_offset_seconds",
        "how far this clock is ahead of the median of its peers", MICROSECONDS,
    ),
    Gauge("incarnation", "incarnation", "the number by which the node refutes that it is dead"),
    Gauge("health", "local_health", "0 is well; the higher, the less it trusts its own judgement"),
)  # fmt: skip

PEER_GAUGES: Final = (
    Gauge("connected", "peer_connected", "1 while the data connection to the peer stands"),
    Gauge("silent", "peer_silent", "1 while answers of the peer are overdue"),
    Gauge(
        "latency_mean", "peer_latency_seconds", "mean time that the peer takes to answer",
        MICROSECONDS,
    ),
    Gauge(
        "clock_offset", "peer_clock_offset_seconds", "how far the peer's clock is ahead of ours",
        MICROSECONDS,
    ),
    Gauge("queued_bytes", "peer_queued_bytes", "what waits for the peer, or for its answer"),
    Gauge("incarnation", "peer_incarnation", "under which the peer is believed alive, or not"),
    Gauge(
        "believed_for", "peer_believed_seconds", "for how long the same is believed of the peer",
        MICROSECONDS,
    ),
    Gauge("hints", "peer_hints", "hints kept here for the peer"),
    Gauge("hint_bytes", "peer_hint_bytes", "their size"),
    Gauge(
        "hints_waiting", "peer_hints_waiting_seconds", "how long the oldest of them has waited",
        MICROSECONDS,
    ),
)  # fmt: skip

# Fields of the status that are no figures: names, ids and texts, labels of others, or lists.
NO_FIGURES: Final = (
    "request", "member", "name", "software", "protocol_version", "cluster_id", "store_id",
    "engine", "volatile", "unwritable_reason", "peers", "counters", "operations",
    "reaping_blocked", "background_share",
)  # fmt: skip
NO_PEER_FIGURES: Final = ("member", "name", "belief", "equal_for")

# Half octaves are enough for a graph; the status has the fine buckets.
EXPORTED_BOUNDS: Final = tuple(
    bound for index, bound in enumerate(DURATION_BOUNDS) if index % 2 and bound >= 128
)


class Described(NamedTuple):
    """A metric as the reference has it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


OWN: Final = (
    Described("node_info", "gauge", ("member", "name", "cluster", "store", "engine", "version",
              "python"), "always 1; which node this is, and what it runs"),
    Described("request_duration_seconds", "histogram", ("operation", "table"),
              "how long requests that were coordinated here and answered ok took, from the turn of "
              "the loop that read them to the turn that answered; a delete without a context "
              "without its read. The sum is worked out from narrower buckets, within some percent"),
    Described("requests_total", "counter", ("operation", "table", "outcome"),
              "requests coordinated here by what became of them: ok, refused or unknown"),
    Described("loop_lag_seconds", "histogram", (),
              "how late timers of the node were: what a request may wait until it is looked at"),
    Described("client_connections", "gauge", (),
              "connections of clients, and of nodes that forward"),
    Described("connections", "gauge", (), "all connections that others have opened to this node"),
    Described("background_share_ratio", "gauge", (),
              "share of the node's time that background work may take now"),
    Described("background_latency_seconds", "gauge", (),
              "99th percentile that the share follows; not there while too few requests come"),
    Described("background_work_total", "counter", (), "units of background work done"),
    Described("log_entries_total", "counter", (), "entries written to the log"),
    Described("log_durable_entries_total", "counter", (), "of these, those known to be on disk"),
    Described("engine_records", "gauge", (), "records in the engine, about"),
    Described("engine_used_bytes", "gauge", (), "what they take in the engine"),
    Described("reaping_blocked_partitions", "gauge", ("peer",),
              "partitions whose deletes cannot be forgotten until this member answers"),
    Described("peer_equal_seconds", "gauge", ("peer",),
              "how long all records shared with the peer have been equal; not there while they are "
              "not, or nobody knows"),
    Described("disk_free_bytes", "gauge", (), "free space where the data directory is"),
)  # fmt: skip


def describe() -> list[Described]:
    """Every metric of kvorum, in the order of the reference."""
    gauges = [Described(one.metric, "gauge", (), one.meaning) for one in GAUGES]
    peers = [Described(one.metric, "gauge", ("peer",), one.meaning) for one in PEER_GAUGES]
    counters = [
        Described(f"{name}_total", "counter", (), meaning) for name, meaning in MEANINGS.items()
    ]
    return [Described(PREFIX + one.name, *one[1:]) for one in (*OWN, *gauges, *peers, *counters)]


def make_registry(node: RunningNode) -> CollectorRegistry:
    """The node's metrics, and those of its process and of Python's garbage collector."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class NodeCollector(Collector):
    """Turns the state of a node into metrics, whenever somebody asks."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self._meanings = {one.name: one.meaning for one in describe()}

    def collect(self) -> Iterable[Metric]:
        status = self._node.status()
        yield self._info(status)
        yield from self._requests(status)
        yield self._loop_lag()
        yield from self._server()
        yield from self._background()
        yield from self._storage()
        for gauge in GAUGES:
            value = getattr(status, gauge.field) / gauge.divisor
            yield self._gauge(gauge.metric, value)
        yield from self._peers(status.peers)
        yield self._equality(status.peers)
        yield self._blocked(status)
        for name, value in status.counters.items():
            yield self._counter(f"{name}_total", value)

    def _meaning(self, metric: str) -> str:
        return self._meanings[PREFIX + metric]

    def _gauge(self, metric: str, value: float) -> Metric:
        return GaugeMetricFamily(PREFIX + metric, self._meaning(metric), value)

    def _counter(self, metric: str, value: float) -> Metric:
        return CounterMetricFamily(PREFIX + metric, self._meaning(metric), value)

    def _info(self, status: StatusAnswer) -> Metric:
        family = InfoMetricFamily(PREFIX + "node", self._meaning("node_info"))
        family.add_metric(
            (),
            {
                "member": str(status.member),
                "name": status.name,
                "cluster": status.cluster_id.hex(),
                "store": status.store_id.hex(),
                "engine": status.engine,
                "version": status.software.removeprefix("kvorum "),
                "python": platform.python_version(),
            },
        )
        return family

    def _requests(self, status: StatusAnswer) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            PREFIX + "request_duration_seconds",
            self._meaning("request_duration_seconds"),
            labels=("operation", "table"),
        )
        requests = CounterMetricFamily(
            PREFIX + "requests_total",
            self._meaning("requests_total"),
            labels=("operation", "table", "outcome"),
        )
        for one in status.operations:
            labels = (one.operation, one.table)
            buckets, total = exported(one.durations)
            durations.add_metric(labels, buckets, total)
            requests.add_metric((*labels, "ok"), sum(one.durations))
            requests.add_metric((*labels, "refused"), one.refused)
            requests.add_metric((*labels, "unknown"), one.unknown)
        yield durations
        yield requests

    def _loop_lag(self) -> Metric:
        family = HistogramMetricFamily(
            PREFIX + "loop_lag_seconds", self._meaning("loop_lag_seconds"), labels=()
        )
        family.add_metric((), *exported(self._node.turns.lags))
        return family

    def _server(self) -> Iterator[Metric]:
        listener = self._node.listener
        yield self._gauge("client_connections", listener.client_count)
        yield self._gauge("connections", len(listener.open))

    def _background(self) -> Iterator[Metric]:
        background = self._node.turns.node.background
        yield self._gauge("background_share_ratio", background.share / WHOLE)
        if background.p99 >= 0:
            yield self._gauge("background_latency_seconds", background.p99 / MICROSECONDS)
        yield self._counter("background_work_total", background.spent)

    def _storage(self) -> Iterator[Metric]:
        store = self._node.opened.store
        yield self._counter("log_entries_total", store.written_position)
        yield self._counter("log_durable_entries_total", store.durable_position)
        stats = self._node.opened.engine.stats()
        yield self._gauge("engine_records", stats.records)
        yield self._gauge("engine_used_bytes", stats.used_bytes)
        path = self._node.opened.path
        if path:
            found = os.statvfs(path)
            yield self._gauge("disk_free_bytes", found.f_bavail * found.f_frsize)

    def _blocked(self, status: StatusAnswer) -> Metric:
        metric = "reaping_blocked_partitions"
        family = GaugeMetricFamily(PREFIX + metric, self._meaning(metric), labels=("peer",))
        for peer in status.peers:
            family.add_metric((peer.name,), status.reaping_blocked.get(peer.name, 0))
        return family

    def _equality(self, peers: list[PeerStatus]) -> Metric:
        metric = "peer_equal_seconds"
        family = GaugeMetricFamily(PREFIX + metric, self._meaning(metric), labels=("peer",))
        for peer in peers:
            if peer.equal_for >= 0:
                family.add_metric((peer.name,), peer.equal_for / MICROSECONDS)
        return family

    def _peers(self, peers: list[PeerStatus]) -> Iterator[Metric]:
        for gauge in PEER_GAUGES:
            family = GaugeMetricFamily(
                PREFIX + gauge.metric, self._meaning(gauge.metric), labels=("peer",)
            )
            for peer in peers:
                family.add_metric((peer.name,), getattr(peer, gauge.field) / gauge.divisor)
            yield family


def exported(durations: list[int]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets as Prometheus wants them, and the sum of all durations in seconds.

    Each duration counts with the middle of its narrow bucket.
    """
    cumulated: list[tuple[str, float]] = []
    count = 0
    total = 0
    low = 0
    for index, inside in enumerate(durations):
        count += inside
        bound = DURATION_BOUNDS[index] if index < len(DURATION_BOUNDS) else low
        total += inside * (low + bound) // 2
        low = bound
        if bound in EXPORTED_BOUNDS and index < len(DURATION_BOUNDS):
            cumulated.append((str(bound / MICROSECONDS), count))
    for bound in EXPORTED_BOUNDS[len(cumulated) :]:
        cumulated.append((str(bound / MICROSECONDS), count))
    cumulated.append(("+Inf", count))
    return cumulated, total / MICROSECONDS
