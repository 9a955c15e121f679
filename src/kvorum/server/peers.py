"""Connections that we open to the other members: data, large values, control, and forwarding.

Each is kept by a small task that connects, shakes hands, waits for the end and tries again with
growing pauses; nothing on the data path waits for it. Connections for forwarded requests are
only opened when the first request wants one.
"""

import asyncio
from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.ring import Ring
from kvorum.model.topology import Member
from kvorum.protocol.environment import ClientPort
from kvorum.server.connection import Connection
from kvorum.server.environment import Peers
from kvorum.server.loop import Turns
from kvorum.wire.codec import decode_control, decode_reply, encode
from kvorum.wire.framing import FrameInvalid
from kvorum.wire.kinds import ANSWERS, MARK
from kvorum.wire.link import Link
from kvorum.wire.message import Message
from kvorum.wire.messages import (
    ROLE_CONTROL,
    ROLE_DATA,
    ROLE_FORWARD,
    ROLE_LARGE,
    Reject,
    Welcome,
)

HANDSHAKE_SECONDS: Final = 3.0


class Outgoing(Connection):
    """One connection to one member, for one role."""

    __slots__ = ("keeper", "welcomed")

    def __init__(self, keeper: "Keeper") -> None:
        super().__init__(keeper.turns, keeper.config.peer_queue_bytes_max)
        self.keeper = keeper
        self.welcomed = False

    def on_open(self) -> None:
        keeper = self.keeper
        self.send(encode(self.turns.node.peering.hello(keeper.member.id, keeper.role)))

    def take(self, payloads: list[bytes]) -> None:
        if not payloads:
            return
        if not self.welcomed:
            self._greet(payloads.pop(0))
            if self.closed:
                return
        self.keeper.take(payloads)

    def _greet(self, payload: bytes) -> None:
        keeper = self.keeper
        peering = self.turns.node.peering
        reply = decode_reply(payload)
        if isinstance(reply, Reject):
            peering.on_reject(keeper.member.id, reply)
            keeper.complain(reply.text)
            self.end()
            return
        problem = peering.on_welcome(keeper.member.id, reply)
        if problem:
            keeper.complain(problem)
            self.end()
            return
        self.reader.payload_bytes_max = keeper.config.frame_bytes_max
        self.welcomed = True
        keeper.on_welcomed(self, reply)

    @property
    def speaks_for_the_log(self) -> bool:
        return self.keeper.role == ROLE_CONTROL

    def on_closed(self) -> None:
        self.keeper.on_ended(self)


class Keeper:
    """Keeps one connection to one member standing."""

    def __init__(self, turns: Turns, config: NodeConfig, member: Member, role: str) -> None:
        self.turns = turns
        self.config = config
        self.member = member
        self.role = role
        self.connection: Outgoing | None = None  # while it stands
        self._complaint = ""
        self._greeted = asyncio.Event()  # the handshake is over, well or not
        self._ended = asyncio.Event()
        self._attempt: Outgoing | None = None
        self._task = turns.loop.create_task(self._keep())

    async def _keep(self) -> None:
        first = self.config.reconnect_first_ms / 1000
        pause = first
        while True:
            if await self._connect_once():
                pause = first
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.config.reconnect_last_ms / 1000)

    async def _connect_once(self) -> bool:
        """Connect, and stay until the end; True if the handshake succeeded."""
        self._greeted.clear()
        self._ended.clear()
        attempt = self._attempt = Outgoing(self)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self.turns.loop.create_connection(
                    lambda: attempt,  # type: ignore[type-var]
                    self.member.host,
                    self.member.port,
                )
        except (OSError, TimeoutError) as error:
            attempt.abort()
            self.complain(str(error) or "no answer to the connection attempt")
            self.turns.begin()
            self._on_never_welcomed()
            return False
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self._greeted.wait()
        except TimeoutError:
            self.complain("it accepts connections but does not answer")
        if not attempt.welcomed:
            self.turns.begin()
            attempt.abort()
            self._on_never_welcomed()
            return False
        await self._ended.wait()
        return True

    def complain(self, text: str) -> None:
        """Tell the operator once why there is no connection."""
        if text != self._complaint:
            self._complaint = text
            self.turns.env.report(
                "connect_refused", member=self.member.id, name=self.member.name,
                address=self.member.address, role=self.role, reason=text,
            )  # fmt: skip

    def take(self, payloads: list[bytes]) -> None:
        raise NotImplementedError

    def on_welcomed(self, connection: Outgoing, welcome: Welcome) -> None:
        self._complaint = ""
        self.connection = connection
        self._greeted.set()

    def on_ended(self, connection: Outgoing) -> None:
        """The connection is closed, whether it ever stood or not."""
        if connection is self.connection:
            self.connection = None
            self.on_lost()
        self._greeted.set()
        self._ended.set()

    def on_lost(self) -> None:
        """A connection that stood has ended."""

    def _on_never_welcomed(self) -> None:
        """An attempt has failed."""

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.abort()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._attempt is not None:
            self._attempt.end()


class LinkKeeper(Keeper):
    """Keeps the connection of one link: data, or large values."""

    def __init__(
        self, turns: Turns, config: NodeConfig, member: Member, role: str, link: Link
    ) -> None:
        self.link = link
        super().__init__(turns, config, member, role)

    def take(self, payloads: list[bytes]) -> None:
        link = self.link
        now = self.turns.env.now
        for payload in payloads:
            kind = payload[0]
            if kind == ANSWERS:
                link.on_answers(payload, now)
            elif kind == MARK:
                link.on_mark(payload)
            else:
                raise FrameInvalid(f"a data connection carried a frame of kind {kind}")

    def on_welcomed(self, connection: Outgoing, welcome: Welcome) -> None:
        super().on_welcomed(connection, welcome)
        self.link.open(self.turns.env.now)
        if self.role == ROLE_DATA:
            self.turns.node.on_data_open(self.member.id)
        else:
            self.turns.node.on_large_open(self.member.id)

    def on_lost(self) -> None:
        self.link.close()
        if self.role == ROLE_DATA:
            self.turns.node.on_data_closed(self.member.id)


class ControlKeeper(Keeper):
    """Keeps our control connection to one member."""

    def take(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            reply = self.turns.node.on_control(self.member.id, decode_control(payload))
            if reply is not None and self.connection is not None:
                self.connection.send(encode(reply))

    def on_welcomed(self, connection: Outgoing, welcome: Welcome) -> None:
        super().on_welcomed(connection, welcome)
        self.turns.node.on_control_open(self.member.id)


class ForwardKeeper(Keeper):
    """Keeps the connection that carries forwarded requests to one member."""

    def take(self, payloads: list[bytes]) -> None:
        forwarder = self.turns.node.forwarder
        for payload in payloads:
            if len(payload) < 8:
                raise FrameInvalid("an answer is cut short")
            forwarder.on_answer(payload)

    def on_welcomed(self, connection: Outgoing, welcome: Welcome) -> None:
        super().on_welcomed(connection, welcome)
        node = self.turns.node
        node.forwarder.on_open(self.member.id, welcome.steady - node.peering.steady)

    def on_lost(self) -> None:
        self.turns.node.forwarder.on_closed(self.member.id)

    def _on_never_welcomed(self) -> None:
        self.turns.node.forwarder.on_closed(self.member.id)


class OutgoingPeers(Peers):
    """All connections of this node to other members."""

    def __init__(self, turns: Turns, config: NodeConfig, ring: Ring, me: int) -> None:
        self._turns = turns
        self._config = config
        self._ring = ring
        self._keepers: dict[Link, LinkKeeper] = {}
        self._control: dict[int, ControlKeeper] = {}
        self._forward: dict[int, ForwardKeeper] = {}
        for member_id in ring.member_ids:
            if member_id == me:
                continue
            member = ring.member(member_id)
            assert member is not None
            for links, role in (
                (turns.env.links, ROLE_DATA),
                (turns.env.large_links, ROLE_LARGE),
            ):
                link = links[member_id]
                self._keepers[link] = LinkKeeper(turns, config, member, role, link)
            self._control[member_id] = ControlKeeper(turns, config, member, ROLE_CONTROL)

    def write(self, link: Link, frames: list[bytes]) -> None:
        """Send a link's frames of this turn."""
        connection = self._keepers[link].connection
        if connection is not None:
            connection.output += frames
            if not connection.dirty:
                connection.dirty = True
                self._turns.dirty.append(connection)

    def send(self, target: int, message: Message) -> bool:
        connection = self._control[target].connection
        if connection is None:
            return False
        connection.send(encode(message))
        return True

    def forward(self, target: int) -> ClientPort | None:
        keeper = self._forward.get(target)
        if keeper is None:
            member = self._ring.member(target)
            assert member is not None
            keeper = ForwardKeeper(self._turns, self._config, member, ROLE_FORWARD)
            self._forward[target] = keeper
        return keeper.connection

    def drop(self, target: int) -> None:
        for link, keeper in self._keepers.items():
            if link.peer == target:
                keeper.drop()
        self._control[target].drop()
        if target in self._forward:
            self._forward[target].drop()

    async def stop(self) -> None:
        keepers: list[Keeper] = [
            *self._keepers.values(), *self._control.values(), *self._forward.values()
        ]  # fmt: skip
        for keeper in keepers:
            await keeper.stop()
