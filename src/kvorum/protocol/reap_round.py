"""One reap round, as the owner that raises it sees it: who has said what, and what it proves.

A round is one generation of one partition, for a handful of keys. It asks every holder, owners
and listed fallbacks, where it stands; then all enter the new generation and state what they held
of these keys at that very moment. A key's version is proven unneeded if all owners stated just
that version, durable, and no holder has a stray copy of the key. Before anything goes, all
holders write down that this round drops, so that whoever missed it can tell. A round may die at
any point without harm: nothing is dropped, or some owners keep what others have let go, and the
next round finds it.
"""

from typing import Final

from kvorum.model.reaping import dead_actors
from kvorum.model.record import record_digest
from kvorum.wire.reaping_messages import KeyStatement, Reaped

ASKING: Final = 0  # where does everybody stand
RESERVING: Final = 1  # our new number is on its way to the disk, so that it is never given twice
STATING: Final = 2
COMMITTING: Final = 3


class Round:
    """The raiser's side of one round."""

    __slots__ = (
        "awaited", "epoch", "generation", "highest", "keys", "others", "owners", "partition",
        "phase", "reaped", "started_at", "statements",
    )  # fmt: skip

    def __init__(
        self, partition: int, epoch: int, keys: list[bytes], owners: tuple[int, ...],
        others: list[int], started_at: int,
    ) -> None:  # fmt: skip
        self.partition = partition
        self.epoch = epoch
        self.keys = keys
        self.owners = owners
        self.others = others  # all other holders
        self.started_at = started_at
        self.phase = ASKING
        self.generation = 0  # not raised yet
        self.highest = 0  # that any holder has told
        self.awaited = dict.fromkeys(others)  # who has not answered in this phase
        self.statements: dict[int, list[KeyStatement]] = {}
        self.reaped: list[Reaped] = []

    def heard(self, member: int) -> bool:
        """True if with this member everybody has answered in this phase."""
        self.awaited.pop(member, None)
        return not self.awaited

    def next_phase(self, phase: int, awaited: list[int]) -> None:
        self.phase = phase
        self.awaited = dict.fromkeys(awaited)

    def judge(self, records: list[bytes | None]) -> None:
        """All statements are in: what do they prove? ``records`` are our own, as they are now.

        They may have gone on since they were stated.
        """
        for place, key in enumerate(self.keys):
            version = self._agreed_version(place)
            record = records[place]
            if not version or not record:
                continue
            stated = [self.statements[owner][place] for owner in self.owners]
            if all(each.goes for each in stated):
                self.reaped.append(Reaped(key, version))
                continue
            if record_digest(record) != version:
                continue  # What ours rests on now says nothing of the version that was stated.
            minting = {each.own_actor: None for each in stated if each.own_actor}
            retired = dead_actors(record, minting)
            if retired:
                self.reaped.append(Reaped(key, version, retired))

    def _agreed_version(self, place: int) -> bytes:
        """The version that all owners stated, if no copy of the key strays anywhere; or nothing."""
        if any(each[place].stray for each in self.statements.values()):
            return b""
        stated = [self.statements[owner][place].version for owner in self.owners]
        return stated[0] if all(version == stated[0] for version in stated) else b""
