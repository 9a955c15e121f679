"""Every figure that a node has is a metric, named by Prometheus' rules, and in the reference."""

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kvorum.admin.metrics import (
    GAUGES,
    NO_FIGURES,
    NO_PEER_FIGURES,
    PEER_GAUGES,
    describe,
    exported,
    make_registry,
)
from kvorum.counters import DURATION_BOUNDS, MEANINGS, bucket_of
from kvorum.wire.link import OK
from kvorum.wire.messages import PeerStatus, StatusAnswer
from tests.support.admin import standing_node
from tests.support.recording import OneNode

UNITS = ("seconds", "bytes", "total", "info")
NONE = 0


def samples(one: OneNode, path: str = "") -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What a scrape brings: name -> labels -> value."""
    text = generate_latest(make_registry(standing_node(one, path=path))).decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def a_busy_node() -> OneNode:
    one = OneNode().connect()
    one.put(durability=NONE)
    one.env.now += 3_000
    one.answers(2, OK)
    one.put(w=9)
    one.get(r=1)
    one.node.background.p99 = 3_000
    one.node.exchange.talks[2].equal_since = one.env.now
    return one


def test_every_metric_is_in_the_reference_and_all_in_the_reference_are_there(
    tmp_path: Path,
) -> None:
    found = samples(a_busy_node(), str(tmp_path))
    ours = {name: labels for name, labels in found.items() if name.startswith("kvorum_")}
    described = {one.name: one for one in describe()}
    for name, labelled in ours.items():
        plain = re.sub(r"_(bucket|count|sum)$", "", name)
        one = described.get(name) or described.get(plain)
        assert one is not None, f"{name} is not described"
        for labels in labelled:
            known = {label for label, _ in labels} - {"le"}
            assert known == set(one.labels), name
    for name, one in described.items():
        last = name + "_bucket" if one.kind == "histogram" else name
        assert last in ours, f"{name} is described and never answered"


@pytest.mark.parametrize("one", describe(), ids=lambda one: one.name)
def test_names_follow_the_rules(one: object) -> None:
    name, kind, labels, meaning = one  # type: ignore[misc]
    assert re.fullmatch(r"kvorum_[a-z]+(_[a-z]+)*", name)
    assert name.endswith("_total") == (kind == "counter")
    assert not re.search(r"_(ms|us|micros|millis|kb|mib)(_|$)", name), "base units only"
    assert all(re.fullmatch(r"[a-z]+", label) for label in labels)
    assert meaning[0].islower() or meaning[0].isdigit()
    assert not meaning.endswith(".")


def test_every_counter_is_a_metric() -> None:
    described = {one.name: one.meaning for one in describe()}
    for name, meaning in MEANINGS.items():
        assert described[f"kvorum_{name}_total"] == meaning


@pytest.mark.parametrize(
    ("struct", "gauges", "others"),
    [(StatusAnswer, GAUGES, NO_FIGURES), (PeerStatus, PEER_GAUGES, NO_PEER_FIGURES)],
)
def test_every_figure_of_the_status_is_a_metric(
    struct: type[msgspec.Struct], gauges: tuple[tuple[str, ...], ...], others: tuple[str, ...]
) -> None:
    """Whoever adds a figure to the status says here what it is called for Prometheus."""
    fields = [field.name for field in msgspec.structs.fields(struct)]
    assert sorted([*(gauge[0] for gauge in gauges), *others]) == sorted(fields)


def test_what_was_done_is_what_is_answered() -> None:
    found = samples(a_busy_node())
    requests = found["kvorum_requests_total"]
    outcomes = {
        (dict(labels)["operation"], dict(labels)["outcome"]): value
        for labels, value in requests.items()
        if value
    }
    assert outcomes == {("put", "ok"): 1, ("put", "refused"): 1, ("get", "ok"): 1}
    assert found["kvorum_puts_total"] == {(): 2}
    put = (("operation", "put"), ("table", "default"))
    assert found["kvorum_request_duration_seconds_count"][put] == 1
    assert found["kvorum_request_duration_seconds_sum"][put] == pytest.approx(0.003, rel=0.15)
    below = [
        (float(dict(labels)["le"]), value)
        for labels, value in found["kvorum_request_duration_seconds_bucket"].items()
        if ("operation", "put") in labels
    ]
    assert all(value == (bound > 0.003) for bound, value in below)
    assert found["kvorum_peer_connected"] == {(("peer", "b"),): 1, (("peer", "c"),): 1}
    assert found["kvorum_client_connections"] == {(): 2}
    assert found["kvorum_background_latency_seconds"] == {(): 0.003}
    assert 0 < found["kvorum_background_share_ratio"][()] <= 1
    assert found["kvorum_connections"] == {(): 3}


def test_a_volatile_node_has_no_disk_to_speak_of() -> None:
    assert "kvorum_disk_free_bytes" not in samples(OneNode(durable=False))


def test_exported_buckets_are_cumulative_whole_and_end_with_all() -> None:
    durations = [0] * (len(DURATION_BOUNDS) + 1)
    for took in (0, 100, 5_000, 1 << 40):
        durations[bucket_of(took)] += 1
    buckets, total = exported(durations)
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[0] == ("0.000128", 2)
    assert buckets[-1] == ("+Inf", 4)
    assert [bound for bound, _ in buckets] == [bound for bound, _ in exported([])[0]]
    assert total > 33


def test_python_and_the_process_are_measured_too() -> None:
    found = samples(OneNode())
    assert "process_resident_memory_bytes" in found
    assert "python_gc_collections_total" in found
