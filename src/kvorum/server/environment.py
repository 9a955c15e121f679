"""The real world as the node sees it: clocks read once a turn, connections, the log for people."""

import os
import random
import time
from collections import deque
from typing import Any, Final, NamedTuple

import structlog

from kvorum.config import NodeConfig
from kvorum.counters import Counters
from kvorum.model.ring import Ring
from kvorum.protocol.environment import LATENCIES_KEPT, ClientPort, Environment
from kvorum.wire.link import Link
from kvorum.wire.message import Message

WARNINGS: Final = (
    "incarnation_ended", "incarnation_not_ended", "handshake_refused", "peer_mute", "peer_silent",
    "key_mismatch", "bad_frames", "unexpected_input", "log_refused", "store_failed",
    "engine_full", "client_cut_off", "quarantined", "connect_refused", "node_stopping_itself",
    "member_dead", "topology_learned", "topology_refused",
)  # fmt: skip
REPORTS_PER_SECOND: Final = 10  # of one kind; the rest is counted and told with the next
EVENTS_KEPT: Final = 500


class Event(NamedTuple):
    """Something that was told to the log, kept for a while for whoever asks the node itself."""

    number: int  # counts up from 1
    wall: int  # microseconds
    warning: bool
    name: str
    detail: dict[str, Any]


class Peers:
    """What the environment needs of the outgoing connections (``peers.py``)."""

    __slots__ = ()

    def send(self, target: int, message: Message) -> bool:
        raise NotImplementedError

    def forward(self, target: int) -> ClientPort | None:
        raise NotImplementedError

    def drop(self, target: int) -> None:
        raise NotImplementedError


class ServerEnvironment(Environment):
    """One node's world on a real machine."""

    def __init__(self, ring: Ring, config: NodeConfig, me: int) -> None:
        self.counters = Counters()
        self.random = random.SystemRandom()
        self.large_bytes = config.large_bytes
        self.latencies = deque(maxlen=LATENCIES_KEPT)
        self.dirty: list[Link] = []
        others = [member for member in ring.member_ids if member != me]
        self.links = {
            member: Link(member, self.dirty, config.batch_bytes_max, config.peer_queue_bytes_max)
            for member in others
        }
        self.large_links = {
            member: Link(member, self.dirty, config.batch_bytes_max, config.peer_queue_bytes_max)
            for member in others
        }
        self.peers: Peers | None = None
        self.stop_reason = ""
        self._log = structlog.get_logger("kvorum")
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._event_count = 0
        self._reported: dict[str, tuple[int, int]] = {}  # event -> second, how many in it
        self.read_clocks()

    def read_clocks(self) -> None:
        """Once a turn."""
        self.now = time.monotonic_ns() // 1000
        self.wall = time.time_ns() // 1000

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

    def send(self, target: int, message: Message) -> bool:
        return self.peers is not None and self.peers.send(target, message)

    def forward(self, target: int) -> ClientPort | None:
        return None if self.peers is None else self.peers.forward(target)

    def drop_peer(self, target: int) -> None:
        if self.peers is not None:
            self.peers.drop(target)

    def report(self, event: str, **detail: Any) -> None:
        second = self.now // 1_000_000
        last, count = self._reported.get(event, (second, 0))
        if last != second:
            if count > REPORTS_PER_SECOND:
                detail["not_shown_before"] = count - REPORTS_PER_SECOND
            count = 0
        self._reported[event] = (second, count + 1)
        if count >= REPORTS_PER_SECOND:
            return
        warning = event in WARNINGS
        self._event_count += 1
        self.events.append(Event(self._event_count, self.wall, warning, event, detail))
        if warning:
            self._log.warning(event, **detail)
        else:
            self._log.info(event, **detail)

    def stop(self, reason: str) -> None:
        if not self.stop_reason:
            self.stop_reason = reason
            self._log.error("node_stopping_itself", reason=reason)
