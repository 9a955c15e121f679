"""Control messages of exchange: how two owners find the records in which they differ.

Node to node only. Either side may ask, and keeps all that there is to keep; the other answers
what it was asked and forgets it. ``number`` is the asking side's, so that an answer to a talk
that was given up is known as such. Hashes and leaves travel as eight bytes each, little-endian,
in the order of the list beside them. ``protocol/exchange.py`` tells the story; the records
themselves travel as puts, in batches.
"""

from kvorum.wire.message import Message


class ExchangeMessage(Message):
    """Base of all that belong to an exchange."""


class ExchangeDigest(ExchangeMessage, tag=50):
    """All that the sender holds of the partitions that it shares with the receiver, as one hash.

    One of these a round is all there is between equal nodes. Unequal: the receiver narrows.
    """

    epoch: int  # of the sender's topology; another one means other partitions
    digest: int
    known: bool = True  # False: some leaves are being counted, so there is no digest yet
    asks: bool = False  # the sender has to know how its own looks there: answer with yours


class BlocksQuery(ExchangeMessage, tag=51):
    """Which of these blocks of leaves differ from yours? Answered by ``BlocksAnswer``."""

    number: int
    blocks: list[int]
    hashes: bytes


class BlocksAnswer(ExchangeMessage, tag=52):
    """Answers ``BlocksQuery``."""

    number: int
    differing: list[int]
    unknown: list[int]  # not to be compared here and now


class LeavesQuery(ExchangeMessage, tag=53):
    """Which of these leaves differ from yours? Answered by ``LeavesAnswer``."""

    number: int
    leaves: list[int]
    values: bytes


class LeavesAnswer(ExchangeMessage, tag=54):
    """Answers ``LeavesQuery``."""

    number: int
    differing: list[int]
    values: bytes  # the answering node's own, of the differing leaves
    unknown: list[int]


class EntriesQuery(ExchangeMessage, tag=55):
    """What the sender holds in these leaves from ``start`` on, up to ``end``.

    The receiver sends, as puts, whatever of its own is not listed or has another hash, and
    answers with ``EntriesAnswer`` when these puts have been answered.
    """

    number: int
    leaves: list[int]
    start: bytes
    end: bytes
    keys: list[bytes]
    hashes: bytes


class EntriesAnswer(ExchangeMessage, tag=56):
    """Answers ``EntriesQuery``: compared up to ``end``, which may come earlier than was asked."""

    number: int
    end: bytes
    wanted: list[bytes]  # keys that the answering node lacks, or holds with another record
    sent: int  # records that it has sent, and that were taken
    failed: int  # records that it could not deliver


Exchanging = (
    ExchangeDigest | BlocksQuery | BlocksAnswer | LeavesQuery | LeavesAnswer | EntriesQuery
    | EntriesAnswer
)  # fmt: skip
