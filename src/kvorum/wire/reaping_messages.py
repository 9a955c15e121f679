"""Control messages of reap generations and rounds: how deletes go, by proof and never by a timer.

Node to node only. A generation is a number above its raising member, packed (``number << 16 |
member``), so two raisers never mean the same one. ``protocol/generations.py`` and
``protocol/reaping.py`` tell the story.
"""

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
    """Where the sender stands with one partition. Answers ``GenerationQuery``."""

    partition: int
    generation: int
    dropped: int  # the last generation whose round dropped something; 0: none that is known
    adopted: bool = True  # False: the sender has no generation yet


Reaping = GenerationStates | GenerationQuery | GenerationState
