"""What a node believes of each member, and the rule by which beliefs from anywhere merge.

A belief is a member's state (alive, suspect, dead, left) under its *incarnation*, a counter that
only the member itself raises. Whoever doubts a member repeats the incarnation it doubts; the
member refutes by a higher one, which beats all that was said of the lower. So beliefs need no
clock and no order of arrival: of two the higher wins, everywhere. (SWIM, Das et al. 2002, 4.2.)

``NEEDED_LEAD`` is the transition table: by how much the incarnation of a belief that is heard must
lead that of the one held to take its place. It is drawn in
``docs/explanation/failure-detection.md``.

Beliefs steer routing and hints only. Who owns what, and who counts for ``r`` and ``w``, is said by
the topology; whether a peer answers *us*, by our links to it.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

FIRST_INCARNATION: Final = 1  # of every start
INCARNATION_MAX: Final = 1 << 48  # beyond it, no honest member could have counted


class State(IntEnum):
    """What may be believed of a member; of one incarnation, the higher state wins."""

    ALIVE = 0
    SUSPECT = 1  # did not answer, neither directly nor through others; it may refute
    DEAD = 2  # did not refute in time
    LEFT = 3  # said itself that it stops


# (held, heard) -> the lead in incarnations that the heard one needs to take the held one's place.
NEEDED_LEAD: Final[dict[tuple[State, State], int]] = {
    (State.ALIVE, State.ALIVE): 1,
    (State.ALIVE, State.SUSPECT): 0,
    (State.ALIVE, State.DEAD): 0,
    (State.ALIVE, State.LEFT): 0,
    (State.SUSPECT, State.ALIVE): 1,
    (State.SUSPECT, State.SUSPECT): 1,
    (State.SUSPECT, State.DEAD): 0,
    (State.SUSPECT, State.LEFT): 0,
    (State.DEAD, State.ALIVE): 1,
    (State.DEAD, State.SUSPECT): 1,
    (State.DEAD, State.DEAD): 1,
    (State.DEAD, State.LEFT): 0,
    (State.LEFT, State.ALIVE): 1,
    (State.LEFT, State.SUSPECT): 1,
    (State.LEFT, State.DEAD): 1,
    (State.LEFT, State.LEFT): 1,
}


class Belief(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One belief about one member, as it is held and as it travels. Fields are only ever added."""

    member: int
    state: State = State.ALIVE
    incarnation: int = 0  # 0: nobody has heard of the member yet
    store_id: bytes = b""  # of the start that the belief is about
    start_count: int = 0
    nonce: bytes = b""
    by: int = 0  # who suspects it, or found it dead; 0: its own word


def rank(belief: Belief) -> tuple[int, int, int, bytes, bytes, int]:
    """A total order on the beliefs about one member; ``merge`` takes the highest.

    Behind incarnation and state stands what settles ties, in whatever order they come: two starts
    of a member may state one incarnation until it has met its own past, and two members may
    suspect it at once.
    """
    return (
        belief.incarnation, belief.state, belief.start_count, belief.store_id, belief.nonce,
        -belief.by,
    )  # fmt: skip


def merge(held: Belief, heard: Belief) -> Belief:
    """Whichever of two beliefs about one member holds; commutative, associative, idempotent."""
    assert held.member == heard.member
    return heard if rank(heard) > rank(held) else held


def is_news(held: Belief, heard: Belief) -> bool:
    """Whether ``heard`` says more than ``held``, whoever says it."""
    if heard.incarnation != held.incarnation:
        return heard.incarnation > held.incarnation
    if heard.state is held.state:
        return _start(heard) > _start(held)
    return NEEDED_LEAD[held.state, heard.state] == 0


def _start(belief: Belief) -> tuple[int, bytes, bytes]:
    return (belief.start_count, belief.store_id, belief.nonce)


def doubted(held: Belief, state: State, by: int) -> Belief:
    """What ``by`` says of a member that it holds for suspect or dead."""
    return msgspec.structs.replace(held, state=state, by=by)


def refuted(own: Belief, heard: Belief) -> Belief | None:
    """What a member says when it hears ``heard`` of itself; None: that is old or its own word."""
    if heard.incarnation < own.incarnation or (
        heard.incarnation == own.incarnation
        and heard.state <= own.state
        and _start(heard) == _start(own)
    ):
        return None
    return msgspec.structs.replace(own, incarnation=heard.incarnation + 1)


def drawn() -> str:
    """The transition table as a Mermaid diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> ALIVE: named in the topology"]
    for (held, heard), needed in NEEDED_LEAD.items():
        if held != heard:
            condition = "same incarnation or higher" if needed == 0 else "higher incarnation"
            lines.append(f"    {held.name} --> {heard.name}: {condition}")
    return "\n".join(lines) + "\n"


class Members:
    """The beliefs of one node about all other members of the topology.

    A member is believed alive, under incarnation 0, until something else is heard of it. Beside
    the beliefs stand the members that requests and hints *shun*: those believed dead or gone with
    which this node has had no contact of its own since.
    """

    __slots__ = ("_began", "_beliefs", "_shunned", "_since", "gone")

    def __init__(self, members: Iterable[int], now: int) -> None:
        self._beliefs = {member: Belief(member) for member in members}
        self._began = now
        self._since: dict[int, int] = {}  # when a belief last changed; absent: never
        self._shunned: dict[int, None] = {}
        self.gone: dict[int, None] = {}  # believed dead or left, longest ago first

    def __len__(self) -> int:
        return len(self._beliefs)

    def of(self, member: int) -> Belief | None:
        """What is believed of a member; None of one that the topology does not name."""
        return self._beliefs.get(member)

    def beliefs(self) -> list[Belief]:
        return list(self._beliefs.values())

    def since(self, member: int) -> int:
        """When the belief about the member became what it is."""
        return self._since.get(member, self._began)

    def take(self, heard: Belief, now: int) -> bool:
        """Merge a belief about a known member; whether it says more than what was held."""
        held = self._beliefs[heard.member]
        if not is_news(held, heard):
            return False
        self._beliefs[heard.member] = heard
        if heard.state != held.state:
            self._since[heard.member] = now
            if heard.state >= State.DEAD:
                self.gone.setdefault(heard.member)
            else:
                self.gone.pop(heard.member, None)
        return True

    def is_dead(self, member: int) -> bool:
        """Whether requests and hints count on the member no longer; steers nothing else."""
        return member in self._shunned

    def shun(self, member: int) -> None:
        """Count on the member no longer."""
        self._shunned[member] = None

    def welcome(self, member: int) -> None:
        """Count on the member again: it refuted, or has just answered us."""
        self._shunned.pop(member, None)
