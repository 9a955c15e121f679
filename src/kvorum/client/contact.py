"""One node as the client meets it: an address, and at most one connection to it."""

from typing import TYPE_CHECKING, Any, Final

from kvorum.client.addresses import Address
from kvorum.wire.framing import FrameReader
from kvorum.wire.messages import Welcome

if TYPE_CHECKING:
    from kvorum.client.requests import Request

# An answer may hold all siblings of a key, which tables allow up to a gibibyte.
ANSWER_BYTES_MAX: Final = (1 << 30) + (1 << 20)
BACK_OFF_FIRST: Final = 50_000
BACK_OFF_MAX: Final = 2_000_000
LAST_NUMBER: Final = 0xFFFF_FFFF


class Contact:
    """A node's address with the state of the connection to it.

    It is idle (``channel`` 0), being opened (a channel, not ``ready``) or ready; and back to
    idle when the connection ends. ``failures`` counts what went wrong since its last answer and
    sets the pace of new attempts.
    """

    __slots__ = (
        "address", "cause", "channel", "clock_offset", "failed_at", "failures",
        "frame_bytes_max", "heard_at", "in_flight", "incarnation", "member", "name", "number",
        "opened_at", "reader", "ready", "retry_at", "retry_window", "silent", "silent_since",
        "target", "wanted",
    )  # fmt: skip

    def __init__(self, address: Address, target: int = 0) -> None:
        self.address = address
        self.target = target  # the member that must answer here; 0: whoever does
        self.member = target  # who answered here last
        self.name = ""
        self.channel = 0
        self.ready = False
        self.reader = FrameReader()
        self.in_flight: dict[int, Request[Any] | None] = {}  # None: no one waits for it any more
        self.number = 0
        self.incarnation = b""  # store id and nonce of the start that we talk to
        self.clock_offset = 0  # the node's clock for put ids, minus our ``now``
        self.frame_bytes_max = 0
        self.retry_window = 0
        self.opened_at = 0
        self.heard_at = 0
        self.silent = False  # a request timed out here and nothing was heard since it was sent
        self.silent_since = 0
        self.failures = 0
        self.failed_at = -1  # when opening last failed
        self.retry_at = 0
        self.cause = ""  # of the last failure
        self.wanted = True  # to be opened again when it is lost

    def opening(self, channel: int, now: int) -> None:
        self.channel = channel
        self.ready = False
        self.reader = FrameReader()
        self.in_flight = {}
        self.number = 0
        self.opened_at = now
        self.silent = False

    def welcomed(self, welcome: Welcome, now: int) -> None:
        self.ready = True
        self.reader.payload_bytes_max = ANSWER_BYTES_MAX
        self.member = welcome.member
        self.name = welcome.name
        self.incarnation = welcome.start.store_id + welcome.start.nonce
        self.clock_offset = welcome.steady - now
        self.frame_bytes_max = welcome.frame_bytes_max
        self.retry_window = welcome.retry_window
        self.heard_at = now

    def lost(self, cause: str, now: int) -> list["Request[Any]"]:
        """The connection, or the attempt to open one, is over; return who waited for an answer."""
        if not self.ready:
            self.failed_at = now
        # A connection that worked until now is opened again at once.
        worked = self.ready and not self.failures
        back_off = min(BACK_OFF_FIRST << min(self.failures, 10), BACK_OFF_MAX)
        self.retry_at = now if worked else now + back_off
        waiting = [request for request in self.in_flight.values() if request is not None]
        self.in_flight = {}
        self.channel = 0
        self.ready = False
        self.silent = False
        self.cause = cause
        self.failures += 1
        return waiting

    def next_number(self) -> int:
        number = self.number
        while True:
            number = number + 1 if number < LAST_NUMBER else 1
            if number not in self.in_flight:
                self.number = number
                return number
