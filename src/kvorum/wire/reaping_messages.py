"""Control messages of reap generations and rounds: how deletes go, by proof and never by a timer.

Node to node only. A generation is a number above its raising member, packed (``number << 16 |
member``), so two raisers never mean the same one. ``protocol/generations.py`` and
``protocol/reaping.py`` tell the story.
"""

import msgspec

from kvorum.wire.message import Message


class GenerationStates(Message, tag=70):
    """At each control connection's start: where the sender stands with every partition.

    Of what is not listed it has the first generation, and knows of no drop.
    """

    entered: list[tuple[int, int, int]]  # partition, generation, the last one that dropped
    unadopted: bytes = b""  # bit map of partitions for which the sender has no generation yet


class GenerationQuery(Message, tag=71):
    """Somebody has stamped a record with a higher generation: tell me of it.

    Answered by ``GenerationState``.
    """

    partition: int


class GenerationState(Message, tag=72):
    """Where the sender stands with one partition. Answers ``GenerationQuery`` and stale raises."""

    partition: int
    generation: int
    dropped: int  # the last generation whose round dropped something; 0: none that is known
    adopted: bool = True  # False: the sender has no generation yet


class ReapRaise(Message, tag=73):
    """An owner raises the generation: enter it, and state what you hold of these keys.

    Answered, once the entry is durable, by ``ReapStatement``.
    """

    partition: int
    generation: int
    dropped: int
    epoch: int  # the topology epoch of the partition; a round with differing ones is void
    keys: list[bytes]


class KeyStatement(msgspec.Struct, array_like=True, gc=False):
    """What a holder had of one key at the moment it entered the generation."""

    version: bytes  # digest of the record; empty: none held, or not an owner
    goes: bool = False  # nothing in it is alive: tombstones, or long expired
    own_actor: bytes = b""  # under which the holder would go on minting for the key
    stray: bool = False  # a hint or orphan of the key is held


class ReapStatement(Message, tag=74):
    """The statement of one holder, for the keys of ``ReapRaise`` in their order."""

    partition: int
    generation: int
    epoch: int
    keys: list[KeyStatement]


class ReapCommit(Message, tag=75):
    """This round is going to drop: write that down, durably, before anybody drops.

    Answered by ``ReapCommitted``.
    """

    partition: int
    generation: int


class ReapCommitted(Message, tag=76):
    """It is written down, on disk."""

    partition: int
    generation: int


class Reaped(msgspec.Struct, array_like=True, gc=False):
    """One key whose fate the round has proven."""

    key: bytes
    version: bytes
    retired: list[bytes] = []  # empty: the record goes; else only these actors go from it


class ReapDrop(Message, tag=77):
    """All holders have committed: drop exactly these versions."""

    partition: int
    generation: int
    epoch: int
    reaped: list[Reaped]


Reaping = (
    GenerationStates | GenerationQuery | GenerationState | ReapRaise | ReapStatement
    | ReapCommit | ReapCommitted | ReapDrop
)  # fmt: skip
