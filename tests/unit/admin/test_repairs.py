"""What waits to be mended, out of what nodes say of themselves."""

import msgspec

from kvorum.admin.repairs import ROWS_MAX, TO_DO, WORK, hints_owed, repairs_document
from kvorum.admin.status import Statuses
from kvorum.counters import MEANINGS
from kvorum.errors import NoNodeReachable
from kvorum.wire.messages import UNEQUAL, PeerStatus, StatusAnswer
from tests.support.recording import WALL, OneNode

# Counters of requests, of connections and of membership, and of what went wrong with them.
NOT_WORK = {
    "puts", "gets", "puts_ok", "puts_refused", "puts_unknown", "gets_ok", "gets_refused",
    "gets_that_may_miss", "forwarded", "retries_known", "retries_found", "retries_expired",
    "siblings_seen",
    "siblings_made", "lww_dropped", "hedged_gets", "silences", "replica_puts", "replica_merges",
    "replica_gets", "replica_refusals", "incarnations_ended", "clock_refusals", "overloads",
    "bad_frames", "handshakes_refused", "log_refusals", "peer_connects", "peer_losses", "probes",
    "probes_failed", "indirect_probes", "suspicions", "false_suspicions", "refutations",
    "deaths_declared", "push_pulls",
}  # fmt: skip


def peer(name: str, hints: int = 0, waiting: int = 0, equal_for: int = 0) -> PeerStatus:
    return PeerStatus(
        2, name, True, False, 0, 0, 0, "alive", 0, 0, hints, 10 * hints, waiting, equal_for
    )


def status(*peers: PeerStatus, **fields: int) -> StatusAnswer:
    found = OneNode().connect().node.status(0)
    return msgspec.structs.replace(found, peers=list(peers), **fields)


def test_every_counter_is_one_of_some_work_or_of_none() -> None:
    shown = [counter for counters in WORK.values() for counter in counters]
    assert len(set(shown)) == len(shown)
    assert set(shown).isdisjoint(NOT_WORK)
    assert {*shown, *NOT_WORK} == set(MEANINGS)


def test_hints_are_told_by_keeper_and_owner_the_oldest_first() -> None:
    statuses: Statuses = {
        "a": status(peer("b", 3, 5_000), peer("c", 2, 90_000), hints=4, hint_bytes=50),
        "b": status(peer("a"), peer("c", 1, 70_000), hints=1, hint_bytes=10),
        "c": NoNodeReachable("Connection refused"),
    }
    document = repairs_document(statuses, WALL)
    assert [(one["keeper"], one["owner"], one["hints"]) for one in document["owed"]] == [
        ("a", "c", 2), ("b", "c", 1), ("a", "b", 3),
    ]  # fmt: skip
    assert document["owed"][0]["bytes"] == 20
    assert (document["hints"], document["hint_bytes"]) == (5, 60)
    assert document["hints_oldest_us"] == 90_000
    assert document["at_us"] == WALL
    assert [one.keeper for one in hints_owed(statuses)] == ["a", "a", "b"]


def test_what_nodes_have_to_do_and_where_copies_differ() -> None:
    statuses: Statuses = {
        "a": status(peer("b", equal_for=UNEQUAL), partitions_behind=3),
        "b": status(peer("a", equal_for=9)),
        "c": NoNodeReachable("Connection refused"),
    }
    document = repairs_document(statuses, WALL)
    assert document["differ"] == [{"node": "a", "peer": "b"}]
    assert document["to_do"]["a"] == {**dict.fromkeys(TO_DO, 0), "partitions_behind": 3}
    assert list(document["to_do"]) == ["a", "b"]


def test_counters_are_added_up_over_the_nodes_and_an_older_one_may_lack_some() -> None:
    first, second = status(), status()
    first.counters["hints_handed"] = 5
    second.counters = {"hints_handed": 2}
    document = repairs_document({"a": first, "b": second}, WALL)
    assert document["work"]["handoff"] == {
        "hints_offered": 0, "hints_put_off": 0, "hints_handed": 7,
    }  # fmt: skip


def test_a_large_cluster_makes_no_large_document() -> None:
    many = [peer(str(number), 1, number, UNEQUAL) for number in range(ROWS_MAX + 7)]
    document = repairs_document({"a": status(*many)}, WALL)
    for name in ("owed", "differ"):
        assert len(document[name]) == ROWS_MAX
        assert document[f"{name}_left_out"] == 7
