"""Control messages of handoff: how a node that was away is given what others kept for it.

Node to node only. The records themselves travel in batches, as any put does; here is said how
much may be on its way, by the one who has to take it. ``protocol/handoff.py`` tells the story.
"""

from kvorum.wire.message import Message


class HandoffOffer(Message, tag=60):
    """I keep hints for you. Answered by ``HandoffCredit``; told again about once a second."""

    entries: int  # how many; 0: you have them all
    bytes: int


class HandoffCredit(Message, tag=61):
    """How much of it may be on its way to the sender at a time. Answers ``HandoffOffer``."""

    entries: int  # 0: none for now
    bytes: int


class CoverQuery(Message, tag=62):
    """My room for hints is short: do you durably hold what covers these? ``CoverAnswer`` answers.

    A claim is a record without its values: what it has seen, or the order of its one value.
    """

    number: int
    keys: list[bytes]
    claims: list[bytes]  # one for each key


class CoverAnswer(Message, tag=63):
    """What the sender holds of each key that it was asked about. Answers ``CoverQuery``."""

    number: int
    states: bytes  # one byte each. 0: nothing that covers it, 1: it does, 2: it does, on its disk


Handoff = HandoffOffer | HandoffCredit | CoverQuery | CoverAnswer
