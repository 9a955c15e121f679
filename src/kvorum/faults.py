"""Named fault points: places where the code lets itself be hurt, if its world says so.

Some misfortunes cannot be brought about from outside, or hardly ever: a crash between two
statements, an answer that takes one turn more, a repair that is lost without its connection. So
the code asks at such a place, ``if env.faults.hit("repair.drop"): ...``, and does there what the
misfortune would do. In production nothing is ever hit. The simulator draws for each seed which
points are live, and counts them; a point that no seed has hit shows that its place is dead.

Every point has its name and meaning here and is used in one place; a test sees to both.
"""

from typing import Final

POINTS: Final[dict[str, str]] = {
    "exchange.question_lost": "a question of an exchange does not reach the other owner",
    "exchange.record_lost": "a record that exchange would send is not sent",
    "get.hedge_at_once": "a get asks one owner more than it needs, from the start",
    "handoff.before_send": "the node dies between two hints on their way home",
    "handoff.send_again": "a hint that its owner has is kept, and sent once more",
    "hint.before_ack": "a fallback dies between writing a hint and answering",
    "hint.before_drop": "the node dies before it notes that an owner has taken its hint",
    "hint.before_shed": "the node dies before it lets go of a hint that owners cover",
    "log.sync_fails": "a sync of the log is reported as failed, though it was none",
    "log.write_refused": "the disk takes nothing of what a turn writes to the log",
    "put.before_replicate": "the node dies between minting a dot and sending the record out",
    "reap.before_commit": "the node dies before it asks all holders to note that its round drops",
    "reap.before_state": "a holder dies between entering a generation and stating what it holds",
    "reap.drop_lost": "an owner is not told what a round has proven unneeded",
    "repair.drop": "a read repair is not sent",
    "replica.answer_later": "a replica answers the puts of one batch with: ask again",
}


class Faults:
    """What a component asks at its fault points. This one, the real world's, never hits."""

    __slots__ = ()

    def hit(self, name: str) -> bool:
        """Whether to fail here and now; the caller does it."""
        return False

    def crash(self, name: str) -> None:
        """A point at which the process may die; it does not come back from here if it does."""


NO_FAULTS: Final = Faults()
