"""What members say to find out who is there, and to pass on what they have heard.

All of it travels on control connections. A probe is answered on the connection it came on;
whoever probes for another answers on its own connection. Every message but the nack carries
``News``, so that rumours need no messages of their own.
"""

import msgspec

from kvorum.model.members import Belief
from kvorum.model.tables import TableSettings
from kvorum.wire.message import Message


class GossipMessage(Message):
    """Any of the messages below."""


class News(msgspec.Struct, array_like=True, gc=False):
    """What goes with every message: the sender's own record, its versions, and some rumours."""

    own: Belief
    topology_epoch: int  # of the newest topology document that the sender knows
    tables_version: int  # stands for all settings of all tables that it knows
    beliefs: list[Belief] = []
    tables: list[TableSettings] = []


class Probe(GossipMessage, tag=40):
    """Are you there? To one member in each round. Answered by ``ProbeAck``."""

    number: int
    sent_at: int  # the sender's steady clock, for the round trip
    news: News


class ProbeAck(GossipMessage, tag=41):
    """I am. Answers ``Probe``."""

    number: int
    echo: int  # the probe's ``sent_at``
    wall: int  # the answerer's wall clock, microseconds
    news: News


class ProbeRequest(GossipMessage, tag=42):
    """``target`` has not answered me: ask it in my place.

    Answered by ``ProbeRelayed`` once it answers, and by ``ProbeNack`` if it does not in time.
    """

    number: int
    target: int
    news: News


class ProbeRelayed(GossipMessage, tag=43):
    """The target has answered me. Answers ``ProbeRequest``."""

    number: int
    news: News


class ProbeNack(GossipMessage, tag=44):
    """The target has not answered me either, but I am there. Answers ``ProbeRequest``."""

    number: int


class PushPull(GossipMessage, tag=45):
    """All that I believe; tell me all that you do. At the start, and now and then."""

    number: int
    news: News  # its beliefs are all of the sender's


class PushPulled(GossipMessage, tag=46):
    """Answers ``PushPull``, with whatever the asker's versions show to be missing there."""

    number: int
    news: News  # its beliefs are all of the sender's, its tables too if the versions differ
    document: bytes = b""  # the newest topology, if the asker's is older


class TopologyTold(GossipMessage, tag=47):
    """A topology document that is newer than yours."""

    document: bytes


Gossiping = (
    Probe | ProbeAck | ProbeRequest | ProbeRelayed | ProbeNack | PushPull | PushPulled
    | TopologyTold
)  # fmt: skip
