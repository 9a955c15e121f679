"""Messages about copies that a node has set aside, because they had missed a reap.

Client to node, and about that node alone. A copy is named by the engine key that it had, as a
record or as a hint, and by the digest of its record: what is set aside later is another copy.
"""

from typing import Final

import msgspec

from kvorum.wire.message import Message

ASIDE_PAGE_MAX: Final = 256  # copies of one page, or of one AsideDiscard


class CopyAside(msgspec.Struct, array_like=True, gc=False):
    """One copy that was set aside: never served, and never sent to a member."""

    key: bytes  # the engine key that it had; its first byte says whether it was a hint
    partition_key: bytes
    record: bytes
    hint_for: list[int] = []  # owners for whom it was kept; empty: the node's own copy


class AsideQuery(Message, tag=90):
    """Client to node: the copies set aside from ``start`` on. Answered by ``AsideAnswer``."""

    request: int
    start: bytes  # an engine key; empty: from the beginning
    limit: int  # at most ``ASIDE_PAGE_MAX``; a page may have fewer for their size


class AsideAnswer(Message, tag=91):
    """A page; the end only where it has no copies."""

    request: int
    copies: list[CopyAside]


class AsideDiscard(Message, tag=92):
    """Client to node: forget these copies for good. Answered by ``AsideDiscarded``."""

    request: int
    copies: list[tuple[bytes, bytes]]  # key, digest of the record; what differs stays


class AsideDiscarded(Message, tag=93):
    """So many of them were there and are gone."""

    request: int
    count: int


AsideQuestion = AsideQuery | AsideDiscard
SetAside = AsideQuestion | AsideAnswer | AsideDiscarded
