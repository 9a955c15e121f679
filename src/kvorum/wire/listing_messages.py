"""Messages that list the keys of a table, page by page, in the order of the ring.

A position is an engine key: the first one that is still to be looked at. Whoever goes on from the
position of an answer misses nothing and gets nothing twice, at whatever node and however much
later.
"""

from kvorum.wire.message import Message

KeyPair = tuple[bytes, bytes]  # partition key, sort key


class KeysQuery(Message, tag=84):
    """Client to node: the next keys of a table that hold a value. Answered by ``KeysAnswer``."""

    request: int
    table_id: bytes
    prefix: bytes  # of the partition key
    start: bytes  # empty: from the beginning of the ring
    limit: int


class KeysAnswer(Message, tag=85):
    """A page: at most ``limit`` keys, perhaps none; the end only where ``start`` is empty."""

    request: int
    keys: list[KeyPair]
    start: bytes  # to go on from
    text: str = ""  # why nothing beyond it can be listed now


class LocalKeys(Message, tag=86):
    """Node to node: the keys that you yourself hold in a range of engine keys.

    Answered by ``LocalKeysAnswer``, at the pace of the background work.
    """

    request: int
    table_id: bytes
    prefix: bytes
    start: bytes
    end: bytes  # excluded
    limit: int


class LocalKeysAnswer(Message, tag=87):
    """Some keys of the range. ``start`` is where to go on; at its end it is the range's end."""

    request: int
    keys: list[KeyPair]
    start: bytes
    text: str = ""  # why nothing could be read
