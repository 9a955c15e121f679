"""Every knob of a node: typed, with its unit in its name, checked once.

Only values are checked here; files and environment variables are the command line's affair.
Settings of tables stand in ``model/tables.py``, those of a cluster in its topology document.
The reference page of settings is made from ``MEANINGS``.
"""

from typing import Final

import msgspec

from kvorum.errors import SettingsInvalid

GOSSIP_BYTES_LEAST: Final = 300  # the longest rumour, the settings of one table, must fit


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What can be set for one node. The defaults are right for most."""

    # Sizes of what clients may send.
    partition_key_bytes_max: int = 2048
    sort_key_bytes_max: int = 1024
    value_bytes_max: int = 16 << 20
    context_bytes_max: int = 1 << 20

    # Bounds. Past one of them the answer is Overloaded, at once.
    requests_in_flight_max: int = 20_000
    requests_in_flight_per_client_max: int = 4096
    clients_max: int = 4096
    client_output_bytes_max: int = 64 << 20  # unread answers before a client is cut off
    unread_timeout_ms: int = 10_000  # for how long a client may leave answers unread
    http_head_bytes_max: int = 64 << 10
    http_body_bytes_max: int = 256 << 20
    http_request_timeout_ms: int = 10_000
    http_idle_timeout_ms: int = 75_000
    peer_queue_bytes_max: int = 256 << 20
    batch_bytes_max: int = 1 << 20
    overlay_bytes_max: int = 256 << 20
    hint_bytes_max: int = 1 << 30
    hint_bytes_per_peer_max: int = 256 << 20
    remembered_puts_max: int = 1_000_000

    # Times.
    request_timeout_ms: int = 5_000
    retry_window_ms: int = 60_000
    max_clock_skew_ms: int = 10_000
    probe_interval_ms: int = 500
    probe_timeout_ms: int = 200
    push_pull_interval_ms: int = 60_000
    peer_dead_timeout_ms: int = 5_000
    reconnect_first_ms: int = 50
    reconnect_last_ms: int = 2_000
    stop_timeout_ms: int = 5_000
    exchange_interval_ms: int = 5_000
    scrub_interval_s: int = 7 * 24 * 3600

    # Background work gives way when clients' 99th percentile passes the limit.
    background_latency_limit_ms: int = 20
    background_share_min_percent: int = 2
    background_share_max_percent: int = 40
    reap_interval_ms: int = 1_000

    # Gossip and failure detection.
    indirect_probes: int = 3
    suspicion_factor: int = 4
    suspicion_max_factor: int = 6
    gossip_bytes_max: int = 1_000

    # Where values begin to travel on a connection of their own.
    large_bytes: int = 64 << 10

    # Memory for the overlay before it is moved into the engine.
    flush_bytes: int = 16 << 20

    @property
    def frame_bytes_max(self) -> int:
        """The longest payload between nodes: a record with room for its siblings."""
        return max(8 * self.value_bytes_max, 8 << 20)

    @property
    def client_frame_bytes_max(self) -> int:
        """The longest payload of a client: a put at all its limits."""
        keys = self.partition_key_bytes_max + self.sort_key_bytes_max
        return max(self.value_bytes_max + self.context_bytes_max + keys + 1024, 1 << 16)


MEANINGS: Final[dict[str, str]] = {
    "partition_key_bytes_max": "longest partition key that is taken",
    "sort_key_bytes_max": "longest sort key that is taken; 0: none is",
    "value_bytes_max": "longest value that is taken",
    "context_bytes_max": "longest context that is taken",
    "requests_in_flight_max": "requests of all clients under way at a time; more are refused",
    "requests_in_flight_per_client_max": "requests of one connection under way at a time",
    "clients_max": "connections of clients at a time; more are refused",
    "client_output_bytes_max": "answers that a client has not read before it is cut off",
    "unread_timeout_ms": "how long a client may leave its answers unread before it is cut off",
    "http_head_bytes_max": "longest head of an HTTP request: its path and headers",
    "http_body_bytes_max": "bodies of all HTTP requests together; past it they are refused",
    "http_request_timeout_ms": "how long an HTTP request may take to arrive; large bodies longer",
    "http_idle_timeout_ms": "how long an HTTP connection is kept open without a request",
    "peer_queue_bytes_max": "what waits for one other node before more is refused",
    "batch_bytes_max": "bytes of one batch to another node",
    "overlay_bytes_max": "memory for writes not yet in the engine; past it, puts are refused",
    "hint_bytes_max": "hints kept for all nodes that do not answer; past it, new ones are refused",
    "hint_bytes_per_peer_max": "hints kept for one of them",
    "remembered_puts_max": "put ids remembered, so that a put sent again is not written again",
    "request_timeout_ms": "how long a request may take before its outcome is told as unknown",
    "retry_window_ms": "how long a put may be sent again under its id",
    "max_clock_skew_ms": "how far clocks may differ before last-write-wins puts are refused here",
    "probe_interval_ms": "how often some other node is asked whether it is there",
    "probe_timeout_ms": "how long it has to answer before others are asked to probe it too",
    "push_pull_interval_ms": "how often all that is known of members is compared with one of them",
    "peer_dead_timeout_ms": "silence after which a connection to another node is given up",
    "reconnect_first_ms": "first pause before a lost connection is tried again",
    "reconnect_last_ms": "longest pause between attempts; the pauses double up to it",
    "stop_timeout_ms": "how long a node that is stopping lets requests finish",
    "exchange_interval_ms": "how often two owners compare what they hold, while it is equal",
    "scrub_interval_s": "how long it takes to read and check all records once more",
    "background_latency_limit_ms": "99th percentile of latency that clients are to keep; "
    "background work takes less from half of it on",
    "background_share_min_percent": "share of its time that background work never goes below",
    "background_share_max_percent": "share of its time that background work never goes above",
    "reap_interval_ms": "how often deletes are looked for that all owners hold and may forget",
    "indirect_probes": "how many others are asked to probe a node that does not answer",
    "suspicion_factor": "probe intervals, times log10 of the number of nodes, in which a suspect "
    "may refute once others have confirmed the suspicion",
    "suspicion_max_factor": "how many times as long it may while nobody has",
    "gossip_bytes_max": "bytes of rumours in one message between nodes",
    "large_bytes": "size from which records travel on a connection of their own",
    "flush_bytes": "writes gathered in memory before they are moved into the engine",
}

_POSITIVE = (
    "partition_key_bytes_max", "value_bytes_max", "context_bytes_max", "requests_in_flight_max",
    "requests_in_flight_per_client_max", "clients_max", "client_output_bytes_max",
    "peer_queue_bytes_max", "batch_bytes_max", "overlay_bytes_max", "remembered_puts_max",
    "request_timeout_ms", "retry_window_ms", "max_clock_skew_ms",
    "probe_interval_ms", "probe_timeout_ms", "push_pull_interval_ms", "peer_dead_timeout_ms",
    "reconnect_first_ms", "reconnect_last_ms", "stop_timeout_ms", "reap_interval_ms",
    "indirect_probes", "suspicion_factor", "suspicion_max_factor", "gossip_bytes_max",
    "unread_timeout_ms", "large_bytes", "flush_bytes", "background_latency_limit_ms",
    "background_share_min_percent", "background_share_max_percent", "exchange_interval_ms",
    "scrub_interval_s",
    "http_head_bytes_max", "http_body_bytes_max", "http_request_timeout_ms",
    "http_idle_timeout_ms",
)  # fmt: skip


def check_config(config: NodeConfig) -> None:
    """Raise ``SettingsInvalid`` naming the first setting that cannot be."""
    for name in _POSITIVE:
        if getattr(config, name) <= 0:
            raise SettingsInvalid(f"{name} must be above 0, not {getattr(config, name)}")
    for name in ("sort_key_bytes_max", "hint_bytes_max", "hint_bytes_per_peer_max"):
        if getattr(config, name) < 0:
            raise SettingsInvalid(f"{name} must not be negative")
    if config.partition_key_bytes_max > 0xFFFF:
        raise SettingsInvalid("partition_key_bytes_max must be at most 65535: its field is 16 bits")
    if config.sort_key_bytes_max > 1024:
        raise SettingsInvalid("sort_key_bytes_max must be at most 1024: engines count on it")
    if config.value_bytes_max > 256 << 20:
        raise SettingsInvalid("value_bytes_max must be at most 268435456 (256 MiB)")
    if config.peer_queue_bytes_max < 2 * config.value_bytes_max:
        raise SettingsInvalid("peer_queue_bytes_max must be at least twice value_bytes_max")
    if config.overlay_bytes_max < 2 * config.flush_bytes:
        raise SettingsInvalid("overlay_bytes_max must be at least twice flush_bytes")
    if config.reconnect_last_ms < config.reconnect_first_ms:
        raise SettingsInvalid("reconnect_last_ms must be at least reconnect_first_ms")
    if config.peer_dead_timeout_ms < 3 * config.probe_interval_ms:
        raise SettingsInvalid("peer_dead_timeout_ms must be at least 3 times probe_interval_ms")
    if config.probe_interval_ms < 2 * config.probe_timeout_ms:
        raise SettingsInvalid("probe_interval_ms must be at least twice probe_timeout_ms")
    if config.gossip_bytes_max < GOSSIP_BYTES_LEAST:
        raise SettingsInvalid(f"gossip_bytes_max must be at least {GOSSIP_BYTES_LEAST}")
    shares = (config.background_share_min_percent, config.background_share_max_percent)
    if not shares[0] <= shares[1] <= 90:
        raise SettingsInvalid(
            "background_share_max_percent must be at most 90, and at least "
            "background_share_min_percent"
        )
