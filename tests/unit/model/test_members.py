"""Beliefs about members: what takes whose place, what is kept of each, and who is shunned."""

from pathlib import Path

from kvorum.model.members import Belief, Members, State, doubted, drawn, is_news, refuted

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "failure-detection.md"
ALIVE = Belief(2, State.ALIVE, 5, b"store 02", 3, b"nonce 02")


def test_of_one_incarnation_the_higher_state_holds() -> None:
    for held, heard in ((State.ALIVE, State.SUSPECT), (State.SUSPECT, State.DEAD)):
        assert is_news(doubted(ALIVE, held, 1), doubted(ALIVE, heard, 1))
        assert not is_news(doubted(ALIVE, heard, 1), doubted(ALIVE, held, 1))


def test_a_suspicion_by_somebody_else_is_no_news() -> None:
    assert not is_news(doubted(ALIVE, State.SUSPECT, 1), doubted(ALIVE, State.SUSPECT, 3))


def test_a_doubt_of_an_older_incarnation_changes_nothing() -> None:
    old = Belief(2, State.DEAD, 4)
    assert not is_news(ALIVE, old)


def test_a_member_that_is_doubted_refutes_by_a_higher_incarnation() -> None:
    answer = refuted(ALIVE, doubted(ALIVE, State.SUSPECT, 1))
    assert answer is not None
    assert (answer.state, answer.incarnation, answer.nonce) == (State.ALIVE, 6, b"nonce 02")
    far = refuted(ALIVE, Belief(2, State.ALIVE, 40))
    assert far is not None
    assert far.incarnation == 41, "whoever says more of it than it does, it goes beyond that"


def test_what_a_former_start_said_under_the_same_incarnation_is_refuted_too() -> None:
    former = Belief(2, State.ALIVE, 5, b"store 02", 2, b"nonce 01")
    assert refuted(ALIVE, former) is not None
    assert refuted(ALIVE, ALIVE) is None


def test_a_member_that_leaves_refutes_nothing_about_its_death() -> None:
    left = doubted(ALIVE, State.LEFT, 0)
    assert refuted(left, doubted(ALIVE, State.DEAD, 1)) is None


def test_members_are_believed_alive_until_something_is_heard() -> None:
    members = Members([2, 3], 70)
    assert len(members) == 2
    assert members.of(2) == Belief(2)
    assert members.of(9) is None
    assert members.since(2) == 70
    assert members.take(ALIVE, 80)
    assert members.since(2) == 70, "it was believed alive before"
    assert members.take(doubted(ALIVE, State.DEAD, 3), 90)
    assert members.since(2) == 90
    assert not members.take(ALIVE, 95)
    assert list(members.gone) == [2]
    assert [belief.state for belief in members.beliefs()] == [State.DEAD, State.ALIVE]
    assert members.take(Belief(2, State.ALIVE, 6), 99)
    assert not members.gone


def test_shunning_is_apart_from_believing() -> None:
    members = Members([2, 3], 0)
    members.take(doubted(ALIVE, State.DEAD, 3), 0)
    assert not members.is_dead(2)
    members.shun(2)
    assert members.is_dead(2)
    assert not members.is_dead(3)
    members.welcome(2)
    members.welcome(3)
    assert not members.is_dead(2)


def test_the_transition_table_is_drawn_in_the_documentation() -> None:
    assert drawn() in PAGE.read_text()
