"""The client's connections: opened, greeted, watched for silence, given up and opened again.

The half of a session that knows nodes and nothing of requests; ``session.py`` builds on it.
A connection is named by a number, its channel, which is never used twice; so whatever the shell
still tells of one that is over is told to nobody.
"""

from typing import Any, Final

from kvorum.client.addresses import Address
from kvorum.client.answers import AnswerInvalid
from kvorum.client.contact import Contact
from kvorum.client.requests import Request
from kvorum.client.routing import Routes
from kvorum.model.topology import TopologyInvalid
from kvorum.wire.codec import MessageInvalid, decode_reply, encode
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.kinds import PROTOCOL_VERSION, PROTOCOL_VERSION_MIN
from kvorum.wire.messages import ROLE_CLIENT, Hello, Reject, Welcome

CONNECT_TIMEOUT: Final = 2_000_000  # from opening a connection to its Welcome
# A connection that owes answers for so long is given up. Nodes answer within 5 s whatever comes,
# and that answer must not find the connection gone.
SILENCE_LIMIT: Final = 7_000_000
NEVER: Final = 1 << 62


class Shell:
    """All that a session asks of the world. Every call returns at once and calls nobody back."""

    now: int = 0  # microseconds of a clock that never goes back; set before each call

    def open(self, channel: int, address: Address) -> None:
        """Begin to connect; ``on_opened`` or ``on_closed`` follows, with this number."""
        raise NotImplementedError

    def send(self, channel: int, frame: bytes) -> None:
        """Queue bytes on an open connection."""
        raise NotImplementedError

    def close(self, channel: int) -> None:
        """End a connection, or the attempt to make it; nothing of it is told any more."""
        raise NotImplementedError


class Connections:
    """One contact for each node that is known, and what falls due when.

    ``_wake_at`` is never later than the first thing that falls due: whoever sets a deadline
    lowers it, and ``advance`` finds the next one. So a request costs no timer.
    """

    def __init__(self, shell: Shell, addresses: list[Address], software: str) -> None:
        self.shell = shell
        self.closed = False
        self.routes = Routes(addresses)
        self._software = software
        self._cluster_id = b""
        self._channels: dict[int, Contact] = {}
        self._last_channel = 0
        self._wake_at = NEVER

    # What the half that knows requests adds.

    def _on_ready(self, contact: Contact, welcome: Welcome) -> None:
        raise NotImplementedError

    def _on_answer(self, contact: Contact, payload: bytes) -> None:
        raise NotImplementedError

    def _on_lost(self, contact: Contact, orphaned: list[Request[Any]], refused: bool) -> None:
        """``orphaned`` waited for an answer; ``refused``: nobody listens there any more."""
        raise NotImplementedError

    # From the shell.

    def start(self) -> None:
        for contact in self.routes.contacts:
            self._open_channel(contact)

    def on_opened(self, channel: int) -> None:
        contact = self._channels.get(channel)
        if contact is not None:
            hello = Hello(
                PROTOCOL_VERSION_MIN, PROTOCOL_VERSION, ROLE_CLIENT, target=contact.target,
                software=self._software, topology_epoch=self.routes.epoch,
            )  # fmt: skip
            self.shell.send(channel, encode(hello))

    def on_received(self, channel: int, data: bytes) -> None:
        contact = self._channels.get(channel)
        if contact is None:
            return
        contact.heard_at = self.shell.now
        contact.silent = False
        try:
            for payload in contact.reader.feed(data):
                if contact.ready:
                    self._on_answer(contact, payload)
                else:
                    self._greet(contact, payload)
                if contact.channel != channel:
                    return
        except (FrameInvalid, MessageInvalid, AnswerInvalid, TopologyInvalid) as error:
            self._drop(contact, f"it sent what is no answer: {error}")

    def on_closed(self, channel: int, cause: str, refused: bool = False) -> None:
        """A connection ended or could not be made; ``refused``: nobody listens there."""
        contact = self._channels.pop(channel, None)
        if contact is not None:
            self._lose(contact, cause, refused)

    def next_deadline(self) -> int:
        """When ``advance`` must be called at the latest; -1 if nothing will ever fall due."""
        return self._wake_at if self._wake_at != NEVER else -1

    # One connection's life.

    def _open_channel(self, contact: Contact) -> None:
        if contact.channel or self.closed:
            return
        self._last_channel += 1
        contact.opening(self._last_channel, self.shell.now)
        self._channels[contact.channel] = contact
        self._wake_by(self.shell.now + CONNECT_TIMEOUT)
        self.shell.open(contact.channel, contact.address)

    def _greet(self, contact: Contact, payload: bytes) -> None:
        reply = decode_reply(payload)
        if isinstance(reply, Reject):
            self._drop(contact, f"rejected: {reply.text}")
        elif not PROTOCOL_VERSION_MIN <= reply.version <= PROTOCOL_VERSION:
            self._drop(contact, f"it speaks protocol version {reply.version}")
        elif contact.target not in (0, reply.member):
            self._drop(contact, f"member {reply.member} answers, not {contact.target}")
        elif not 0 <= reply.steady < NEVER:
            self._drop(contact, f"its clock stands at {reply.steady}")
        elif self._cluster_id not in (b"", reply.cluster_id):
            self._drop(contact, f"it belongs to another cluster, {reply.cluster_id.hex()}")
        else:
            self._cluster_id = reply.cluster_id
            contact.welcomed(reply, self.shell.now)
            if self.routes.is_double(contact):
                contact.wanted = False
                self._drop(contact, "connected to it under another address")
            else:
                self.routes.add_member(contact)
                self._on_ready(contact, reply)

    def _drop(self, contact: Contact, cause: str) -> None:
        self.shell.close(contact.channel)
        self._channels.pop(contact.channel, None)
        self._lose(contact, cause, False)

    def _lose(self, contact: Contact, cause: str, refused: bool) -> None:
        orphaned = contact.lost(cause, self.shell.now)
        if contact.wanted:
            self._wake_by(contact.retry_at)
        self._on_lost(contact, orphaned, refused)

    def _close_all(self, cause: str) -> None:
        for contact in self.routes.contacts:
            if contact.channel:
                self.shell.close(contact.channel)
                contact.lost(cause, self.shell.now)
        self._channels.clear()

    def _attend_contact(self, contact: Contact, now: int) -> None:
        """See to a connection that has waited too long: for its turn, a Welcome, an answer."""
        if not contact.channel:
            if not contact.wanted:
                return
            if contact.retry_at <= now:
                self._open_channel(contact)
            else:
                self._wake_by(contact.retry_at)
        elif not contact.ready:
            if contact.opened_at + CONNECT_TIMEOUT <= now:
                self._drop(contact, "no answer to our greeting")
            else:
                self._wake_by(contact.opened_at + CONNECT_TIMEOUT)
        elif contact.silent:
            if contact.silent_since + SILENCE_LIMIT <= now:
                self._drop(contact, "no answers for a long time")
            else:
                self._wake_by(contact.silent_since + SILENCE_LIMIT)

    def _wake_by(self, deadline: int) -> None:
        if deadline < self._wake_at:
            self._wake_at = deadline
