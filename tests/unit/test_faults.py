"""Every fault point is declared, is used in one place, and does there what it says."""

import re
from pathlib import Path

import pytest

from kvorum.faults import NO_FAULTS, POINTS
from kvorum.storage.log import PUT, Log, entry_header
from kvorum.storage.replay import replay
from kvorum.wire.link import LATER, OK
from tests.support.fault_points import Died, HitsAt
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.recording import OneNode

SOURCE = Path(__file__).parents[2] / "src" / "kvorum"
USE = re.compile(r"faults\.(?:hit|crash)\(([^)]*)\)")
SHAPE = re.compile(r"[a-z_]+\.[a-z_]+")
NONE = 0
DATA_ID = b"datadata"


def uses() -> list[str]:
    """What stands between the parentheses at each use, in the whole of the code."""
    texts = [path.read_text() for path in sorted(SOURCE.rglob("*.py")) if path.name != "faults.py"]
    return USE.findall("\n".join(texts))


def test_each_point_is_used_in_one_place_and_by_its_name() -> None:
    """A variable there would hide the name from whoever searches for it, and from this test."""
    assert sorted(uses()) == [f'"{name}"' for name in sorted(POINTS)]


def test_names_are_a_component_and_what_befalls_it_and_have_a_meaning() -> None:
    for name, meaning in POINTS.items():
        assert SHAPE.fullmatch(name), name
        assert meaning[0].islower(), meaning
        assert not meaning.endswith("."), meaning
    assert list(POINTS) == sorted(POINTS)


@pytest.mark.parametrize("name", POINTS)
def test_the_real_world_never_hits(name: str) -> None:
    assert not NO_FAULTS.hit(name)
    NO_FAULTS.crash(name)


def open_log(faults: HitsAt) -> Log:
    """A log on an empty disk, with one entry pending."""
    files = MemoryFileSystem()
    found = replay(files, DATA_ID, lambda *_: None)
    log = Log(files, DATA_ID, lambda size: bytes(range(1, size + 1)), found, faults)
    log.pending += (entry_header.pack(PUT, 1, 1), b"k", b"v")
    return log


def node_with(*names: str) -> OneNode:
    one = OneNode().connect()
    one.env.faults = HitsAt(*names)
    return one


def test_a_get_hedges_at_once() -> None:
    for names, asked in ((), 1), (("get.hedge_at_once",), 2):
        one = node_with(*names)
        one.get(r=2)
        assert sum(len(one.asked(member)) for member in one.others) == asked


def test_a_repair_is_dropped_and_the_get_answered_all_the_same() -> None:
    for names, repaired in ((), 1), (("repair.drop",), 0):
        one = node_with(*names)
        one.put(w=1, durability=NONE)
        for member in one.others:
            one.accepts(member)
        one.client.take()
        one.get(r=2)
        (asked,) = [member for member in one.others if one.asked(member)]
        one.answers(asked, OK)
        assert len(one.client.take()) == 1
        assert len(one.asked(asked)) == repaired


def test_a_replica_answers_a_batch_with_later_and_keeps_nothing_of_it() -> None:
    one = node_with("replica.answer_later")
    giver = OneNode(me=2).connect()
    giver.put()
    (entry,) = giver.asked(1)
    one.node.replica.begin()
    assert one.node.replica.on_put(entry.key, entry.body, 1, 0) == LATER
    assert one.store.get(entry.key) is None
    assert one.env.counters.replica_refusals == 0, "asked again, so not refused"
    one.env.faults = NO_FAULTS
    one.node.replica.begin()
    assert one.node.replica.on_put(entry.key, entry.body, 1, 0) == OK


def test_a_node_dies_between_its_own_write_and_the_others() -> None:
    one = node_with("put.before_replicate")
    with pytest.raises(Died):
        one.put()
    assert one.store.get(one.key()) is not None
    assert not any(one.asked(member) for member in one.others)


def test_a_sync_that_is_said_to_have_failed_ends_the_log() -> None:
    log = open_log(HitsAt("log.sync_fails"))
    assert log.write_pending(1)
    ticket = log.begin_sync()
    assert ticket is not None
    ticket.run()
    log.finish_sync(ticket, "")
    assert "could not be synced" in log.failed
    assert log.durable_position == 0


def test_a_log_write_is_refused_and_comes_with_the_next() -> None:
    faults = HitsAt("log.write_refused")
    log = open_log(faults)
    assert not log.write_pending(1)
    assert log.refused
    assert not log.failed
    faults.names = ()
    assert log.write_pending(1)
    assert log.written_position == 1
    assert not log.refused


def test_a_get_that_hedges_counts_whoever_answers() -> None:
    one = node_with("get.hedge_at_once")
    one.get(r=2)
    for member in one.others:
        one.answers(member, OK)
    assert len(one.client.take()) == 1, "answered once"
