"""Control messages of handoff: how a node that was away is given what others kept for it.

Node to node only. The records themselves travel in batches, as any put does; here is said how
much may be on its way, by the one who has to take it. ``protocol/handoff.py`` tells the story.
"""

from kvorum.wire.message import Message


class HandoffOffer(Message, tag=60):
    """I keep hints for you. Answered by ``HandoffCredit``; told again about once a second."""

    entries: int  # how many
    bytes: int


class HandoffCredit(Message, tag=61):
    """How much of it may be on its way to the sender at a time. Answers ``HandoffOffer``."""

    entries: int  # 0: none for now
    bytes: int


Handoff = HandoffOffer | HandoffCredit
