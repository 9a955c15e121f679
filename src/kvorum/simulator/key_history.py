"""What was written under each key, by whom, and which copies were acknowledged.

A key's dots are numbered in the order of minting, and a set of them is a bit mask over these
numbers. ``past`` of a dot is the mask of what its writer's context claimed. From that follows
what any record must show: of all dots it covers, those that no covered dot has in its past.
"""

from typing import TYPE_CHECKING, Final

from kvorum.model.record import Value, order_of
from kvorum.model.siblings import seen_of
from kvorum.model.version import Seen
from kvorum.simulator.plan import TablePlan

if TYPE_CHECKING:
    from kvorum.simulator.machine import Machine

OPEN: Final = "open"
OK: Final = "ok"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"
FOREVER: Final = 1 << 62


class Copy:
    """One acknowledged copy of a write: is it still there, and can a power loss take it?"""

    __slots__ = ("alive", "durable", "machine", "mint", "position", "taken_at", "unbroken")

    def __init__(
        self, machine: "Machine", mint: "Mint", position: int, durable: bool, taken_at: int
    ) -> None:
        self.machine = machine
        self.mint = mint
        self.position = position  # in the log of the run that was under way; -1: an earlier one's
        self.durable = durable
        self.alive = True
        self.taken_at = taken_at
        self.unbroken = False  # its machine has run from the mint to the answer


class Mint:
    """One dot, when it was handed out."""

    __slots__ = ("dot", "encoded", "index", "member", "minted_at", "order", "past", "write")

    def __init__(
        self, dot: bytes, index: int, encoded: bytes, write: "Write", member: int, now: int
    ) -> None:
        self.dot = dot
        self.index = index
        self.encoded = encoded
        self.write = write
        self.member = member
        self.minted_at = now
        self.past = 0
        self.order = (Value(encoded).clock, dot)

    @property
    def bit(self) -> int:
        return 1 << self.index


class Write:
    """One put or delete of one client, from its sending to the end of the world."""

    __slots__ = (
        "acked_at", "client", "context", "copies", "disk_needed", "key", "mints",
        "name", "outcome", "put_id", "read_first", "sent_at", "sloppy", "table", "text",
        "tombstone", "value", "w",
    )  # fmt: skip

    def __init__(
        self, put_id: bytes, client: str, name: str, table: TablePlan, value: bytes,
        tombstone: bool, context: bytes, read_first: bool, w: int, disk_needed: int,
        sloppy: bool, now: int,
    ) -> None:  # fmt: skip
        self.put_id = put_id
        self.client = client
        self.name = name  # of the key, for people
        self.table = table
        self.value = value
        self.tombstone = tombstone
        self.context = context
        self.read_first = read_first
        self.w = w
        self.disk_needed = disk_needed
        self.sloppy = sloppy  # fallbacks may count for it
        self.sent_at = now
        self.outcome = OPEN
        self.acked_at = -1
        self.key = b""
        self.mints: list[Mint] = []
        self.copies: list[Copy] = []
        self.text = ""

    def minted_by(self, member: int) -> Mint | None:
        """The dot that this member gave it last; two members may have, if it was retried."""
        for mint in reversed(self.mints):
            if mint.member == member:
                return mint
        return None


class KeyHistory:
    """Everything ever minted under one key."""

    __slots__ = (
        "_every_reap", "_forgotten", "_reaps", "acked", "key", "let_go", "loose", "lww", "mints",
        "past_of_client", "reaped", "superseded",
    )  # fmt: skip

    def __init__(self, key: bytes, lww: bool) -> None:
        self.key = key
        self.lww = lww
        self.mints: list[Mint] = []
        self.acked: list[Write] = []
        self.superseded = 0  # every dot that some write's context claimed
        self.loose = 0  # dots whose writer's context lacked an earlier write of the same client
        self.past_of_client: dict[str, int] = {}  # client -> mask of its own dots
        self.let_go: dict[tuple[int, bytes], None] = {}  # (member, record that it let go of)
        self.reaped = 0  # dots that some owner has let go of, so that no copy may come back
        self._every_reap: list[tuple[int, int]] = []  # when, and what was reaped then
        self._reaps: list[tuple[int, int]] = []  # of these, what some owner's disk knows of
        self._forgotten: list[tuple[int, int]] = []  # when, and which reaps were taken back then

    def reap(self, mask: int, now: int) -> None:
        self._every_reap.append((now, mask))
        self._reaps.append((now, mask))
        self.reaped |= mask

    def reaped_before(self, moment: int) -> int:
        """What had been reaped when a request began."""
        reaped = 0
        for time, mask in self._reaps:
            if time <= moment:
                reaped |= mask
        return reaped

    def reaped_since(self, moment: int) -> int:
        """What a request that began then may lack: reaped, be it that it was taken back since."""
        reaped = self.reaped
        for time, mask in self._forgotten:
            if time >= moment:
                reaped |= mask
        return reaped

    @property
    def brought_back(self) -> int:
        """What had been reaped, and may be there again: see ``forget_reaps``.

        Also beside what superseded it. That a deleted value was superseded, nobody says any more
        once its actor is retired.
        """
        mask = 0
        for _, taken_back in self._forgotten:
            mask |= taken_back
        return mask

    def forget_reaps(self, owners: "list[Machine]", now: int) -> None:
        """Take back the reaps of which no owner's disk can know any more.

        Backups of all owners that are older than a reap bring back what it let go of, and there
        is nobody left to object. A later backup, put back after that, lets go of it once more.
        """
        before = self.reaped
        self._reaps = [
            (time, mask)
            for time, mask in self._every_reap
            if any(not owner.has_lost(time) for owner in owners)
        ]
        self.reaped = self.reaped_before(FOREVER)
        if before != self.reaped:
            self._forgotten.append((now, before & ~self.reaped))

    def mask_of_record(self, record: bytes) -> int:
        """The dots that a record has seen; of an lww record, all that lose to its winner."""
        if not self.lww:
            return self.mask_of(seen_of(record))
        order = order_of(record)
        return sum(mint.bit for mint in self.mints if mint.order <= order)

    def mask_of(self, seen: Seen) -> int:
        mask = 0
        for mint in self.mints:
            if seen.covers(mint.dot):
                mask |= 1 << mint.index
        return mask

    def expected(self, covered: int) -> int:
        """Which of the covered dots must be alive."""
        past = 0
        for mint in self.mints:
            if covered >> mint.index & 1:
                past |= mint.past
        return covered & ~past

    def names_of(self, mask: int) -> str:
        return ", ".join(
            f"{mint.write.text} ({mint.dot[6:8].hex()}.{int.from_bytes(mint.dot[8:12], 'big')}"
            f".{int.from_bytes(mint.dot[12:], 'big')})"
            for mint in self.mints
            if mask >> mint.index & 1
        )
