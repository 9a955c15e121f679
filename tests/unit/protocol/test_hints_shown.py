"""What people see of hints: status per peer with age, explain and local reads per key."""

from kvorum.model.holding import record_of
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.wire.messages import (
    ExplainAnswer,
    ExplainQuery,
    LocalAnswer,
    LocalQuery,
    StatusAnswer,
    StatusQuery,
)
from tests.support.wired import Cluster

NONE = 0


def without(key: bytes = b"alice") -> tuple[Cluster, int, int, int]:
    """Five nodes, one owner of the key away; the coordinator, that owner, and the fallback."""
    cluster = Cluster(count=5)
    here, away = cluster[1].owners_of(key)[:2]
    (fallback, _) = cluster[1].fallbacks_of(key)
    cluster.stop(away)
    cluster[here].put(key=key, w=3, durability=NONE)
    cluster.settle()
    cluster[here].client.take()
    return cluster, here, away, fallback


def test_status_says_how_many_hints_are_kept_for_whom_and_since_when() -> None:
    cluster, _, away, fallback = without()
    cluster.advance(3_000_000)
    one = cluster[fallback]
    one.question(StatusQuery(1))
    answer = one.client.message()
    assert isinstance(answer, StatusAnswer)
    assert answer.hints == 1
    assert answer.hint_bytes > 100
    peers = {
        peer.member: (peer.hints, peer.hint_bytes, peer.hints_waiting) for peer in answer.peers
    }
    assert peers.pop(away) == (1, answer.hint_bytes, 3_000_000)
    assert set(peers.values()) == {(0, 0, 0)}
    assert answer.counters["hints_taken"] == 1


def test_explain_shows_hints_with_their_keeper_owner_and_age() -> None:
    cluster, here, away, fallback = without()
    cluster.advance(2_000_000)
    cluster[here].question(ExplainQuery(7, DEFAULT_TABLE_ID, b"alice", b""))
    cluster.settle()
    answer = cluster[here].client.message()
    assert isinstance(answer, ExplainAnswer)
    texts = {replica.member: replica.text for replica in answer.replicas}
    assert texts[away] == "not connected"
    held = record_of(cluster[here].store.get(cluster[here].key()) or b"")
    (kept,) = [one for one in answer.fallbacks if one.hint is not None]
    assert kept.member == fallback
    assert kept.hint == held
    assert kept.hint_for == [away]
    assert kept.hint_age == 2_000_000
    assert kept.record is None
    assert len(answer.fallbacks) == 2


def test_a_local_read_tells_a_hint_from_an_own_copy() -> None:
    cluster, here, away, fallback = without()
    for member, has_copy, has_hint in ((here, True, False), (fallback, False, True)):
        one = cluster[member]
        one.question(LocalQuery(3, DEFAULT_TABLE_ID, [(b"alice", b"")]))
        answer = one.client.message()
        assert isinstance(answer, LocalAnswer)
        (copy,) = answer.copies
        assert (copy.record is not None, copy.hint is not None) == (has_copy, has_hint)
        assert copy.hint_for == ([away] if has_hint else [])
