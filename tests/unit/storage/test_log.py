"""The log: frames, positions, group commit, and what it does when the disk is bad."""

import pytest

from kvorum.storage.log import DELETE, DROP, PUT, Log, entry_header
from kvorum.storage.replay import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    LogDamaged,
    Replayed,
    replay,
    segment_name,
    segment_number,
)
from tests.support.memory_filesystem import MemoryFileSystem

DATA_ID = b"datadata"
Entry = tuple[int, bytes, bytes]


def draw(size: int) -> bytes:
    return bytes(range(1, size + 1))


def open_log(files: MemoryFileSystem) -> tuple[Log, list[Entry]]:
    entries: list[Entry] = []
    found = replay(files, DATA_ID, lambda *entry: entries.append(entry))
    return Log(files, DATA_ID, draw, found), entries


def write(log: Log, *entries: Entry) -> bool:
    for operation, key, value in entries:
        log.pending += (entry_header.pack(operation, len(key), len(value)), key, value)
    return log.write_pending(log.written_position + len(log.pending) // 3)


def sync(log: Log, error: str = "") -> None:
    ticket = log.begin_sync()
    assert ticket is not None
    if not error:
        ticket.run()
    log.finish_sync(ticket, error)


def test_entries_come_back_in_order_and_positions_go_on() -> None:
    files = MemoryFileSystem()
    log, _ = open_log(files)
    entries = [(PUT, b"k", b"v"), (DELETE, b"k", b""), (DROP, b"a", b"z"), (PUT, b"", b"")]
    assert write(log, *entries[:2])
    assert write(log, *entries[2:])
    assert (log.written_position, log.durable_position) == (4, 0)
    again, found = open_log(files)
    assert found == entries
    assert (again.written_position, again.durable_position) == (4, 4)


def test_one_frame_a_turn_and_none_for_an_empty_one() -> None:
    files = MemoryFileSystem()
    log, _ = open_log(files)
    assert log.write_pending(0)
    assert log.bytes_written == SEGMENT_HEADER_BYTES
    write(log, (PUT, b"a", b"1"), (PUT, b"b", b"2"))
    assert log.bytes_written == SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + 2 * (7 + 2)


def test_what_is_written_during_a_sync_belongs_to_the_next() -> None:
    log, _ = open_log(MemoryFileSystem())
    write(log, (PUT, b"a", b"1"))
    ticket = log.begin_sync()
    assert ticket is not None
    write(log, (PUT, b"b", b"2"))
    assert log.begin_sync() is None, "one at a time"
    ticket.run()
    log.finish_sync(ticket, "")
    assert log.durable_position == 1
    sync(log)
    assert log.durable_position == 2
    assert log.begin_sync() is None, "nothing left to sync"


def test_a_failed_sync_is_final() -> None:
    files = MemoryFileSystem()
    log, _ = open_log(files)
    write(log, (PUT, b"a", b"1"))
    files.fail_sync = True
    ticket = log.begin_sync()
    assert ticket is not None
    with pytest.raises(OSError, match="Input/output"):
        ticket.run()
    log.finish_sync(ticket, "Input/output error")
    files.fail_sync = False
    assert log.failed == "the log could not be synced: Input/output error"
    assert not write(log, (PUT, b"b", b"2"))
    assert log.begin_sync() is None
    assert not log.rotate()
    assert log.durable_position == 0


def test_a_sync_that_ends_after_the_log_has_failed_moves_nothing() -> None:
    files = MemoryFileSystem(200)
    log, _ = open_log(files)
    write(log, (PUT, b"a", b"1"))
    ticket = log.begin_sync()
    assert ticket is not None
    files.fail_truncate = True
    assert not write(log, (PUT, b"b", bytes(1000)))
    assert "nor cut back" in log.failed
    ticket.run()
    log.finish_sync(ticket, "")
    assert log.durable_position == 0


def test_a_full_disk_keeps_the_entries_pending_and_the_log_whole() -> None:
    files = MemoryFileSystem(free_bytes=250)
    log, _ = open_log(files)
    assert write(log, (PUT, b"a", b"1"))
    before = files.read(segment_name(0))
    assert not write(log, (PUT, b"b", bytes(1000)))
    assert "No space left" in log.refused
    assert files.read(segment_name(0)) == before, "the torn frame is cut off again"
    assert not log.write_pending(2), "still full"
    files.free_bytes = 10_000
    assert log.write_pending(2)
    assert log.refused == ""
    assert log.written_position == 2
    assert open_log(files)[1] == [(PUT, b"a", b"1"), (PUT, b"b", bytes(1000))]


def test_a_full_disk_does_not_stop_the_old_segment() -> None:
    files = MemoryFileSystem(free_bytes=SEGMENT_HEADER_BYTES + 5)
    log, _ = open_log(files)
    assert not log.rotate()
    assert "no new log segment" in log.refused
    assert files.names() == [segment_name(0)]
    assert log.write_pending(0)
    assert log.refused == ""


def test_a_segment_goes_only_after_it_was_let_go_and_oldest_first() -> None:
    files = MemoryFileSystem()
    log, _ = open_log(files)
    for name in (b"a", b"b", b"c"):
        write(log, (PUT, name, b""))
        assert log.rotate()
        assert not log.rotate(), "the one before is not synced yet"
        sync(log)
    assert files.names() == [segment_name(number) for number in range(4)]
    log.retire_before(2)
    sync(log)
    assert files.names() == [segment_name(2), segment_name(3)]
    log.close()
    assert open_log(files)[1] == [(PUT, b"c", b"")]


def test_a_segment_that_cannot_be_removed_is_tried_again() -> None:
    files = MemoryFileSystem()
    log, _ = open_log(files)
    write(log, (PUT, b"a", b""))
    log.rotate()
    sync(log)
    log.retire_before(1)
    content = files.read(segment_name(0))
    files.remove(segment_name(0))
    sync(log)
    assert log.durable_position == 1
    files.write(segment_name(0), content)
    sync(log)
    assert files.names() == [segment_name(1)]


def test_a_sync_under_way_when_the_log_turns_does_not_pass_for_one_of_both() -> None:
    log, _ = open_log(MemoryFileSystem())
    write(log, (PUT, b"a", b""))
    ticket = log.begin_sync()
    assert ticket is not None
    assert log.rotate()
    ticket.run()
    log.finish_sync(ticket, "")
    assert log.durable_position == 1
    assert not log.rotate(), "the closed segment's end has not been covered"
    sync(log)
    assert log.rotate()


def test_segment_names() -> None:
    assert segment_name(255) == "log-000000ff.kvl"
    assert segment_number("log-000000ff.kvl") == 255
    for name in ("identity", "log-0000000g.kvl", "log-000000ff.kvl.new", "loo-000000ff.kvl"):
        assert segment_number(name) == -1


def two_segments() -> MemoryFileSystem:
    """Segment 0 holds a and b, segment 1 holds c; all of it synced and known to be."""
    files = MemoryFileSystem()
    log, _ = open_log(files)
    write(log, (PUT, b"a", b"1"))
    write(log, (PUT, b"b", b"2"))
    log.rotate()
    sync(log)
    write(log, (PUT, b"c", b"3"))
    log.close()
    return files


def test_a_missing_segment_is_damage() -> None:
    files = two_segments()
    log, _ = open_log(files)
    log.close()
    files.remove(segment_name(1))
    with pytest.raises(LogDamaged, match=r"log-00000002.*segment before it is missing"):
        open_log(files)


def test_a_synced_segment_that_lost_its_tail_is_damage() -> None:
    files = two_segments()
    content = files.read(segment_name(0))
    for size in range(SEGMENT_HEADER_BYTES, len(content)):
        files.write(segment_name(0), content[:size])
        with pytest.raises(LogDamaged, match=r"entries \d to 2 are missing"):
            open_log(files)
        assert files.read(segment_name(0)) == content[:size], "nothing is changed"


def test_an_unsynced_pair_of_segments_is_cut_at_the_tear() -> None:
    """A power loss may keep the newer segment and tear the older: nobody was told of either."""
    files = MemoryFileSystem()
    log, _ = open_log(files)
    write(log, (PUT, b"a", b"1"))
    size = log.bytes_written
    write(log, (PUT, b"b", b"2"))
    log.rotate()
    write(log, (PUT, b"c", b"3"))
    log.close()
    content = files.read(segment_name(0))
    for cut in range(size, len(content)):
        twin = files.copied()
        twin.write(segment_name(0), content[:cut])
        again, entries = open_log(twin)
        assert entries == [(PUT, b"a", b"1")]
        assert again.written_position == 1
        write(again, (PUT, b"d", b"4"))
        again.close()
        assert open_log(twin)[1] == [(PUT, b"a", b"1"), (PUT, b"d", b"4")]


def test_a_log_that_ends_before_its_clean_stop_is_damaged_not_torn() -> None:
    files = two_segments()
    content = files.read(segment_name(1))
    files.write(segment_name(1), content[:-1])
    with pytest.raises(LogDamaged, match="entries 3 to 3 are missing"):
        replay(files, DATA_ID, lambda *entry: None, known=3)
    assert replay(files, DATA_ID, lambda *entry: None, known=2).position == 2


def test_a_segment_of_another_directory_or_place_is_refused() -> None:
    files = two_segments()
    with pytest.raises(LogDamaged, match="another data directory"):
        replay(files, b"otherone", lambda *entry: None)
    files.write(segment_name(2), files.read(segment_name(1)))
    with pytest.raises(LogDamaged, match="calls itself segment 1"):
        open_log(files)


def test_a_newer_format_is_named() -> None:
    files = two_segments()
    content = bytearray(files.read(segment_name(1)))
    content[6] = 9
    files.write(segment_name(1), bytes(content))
    with pytest.raises(LogDamaged, match=r"log format 9; .* reads up to 1"):
        open_log(files)


def test_a_header_that_never_reached_the_disk_is_no_segment() -> None:
    files = two_segments()
    for content in (b"", b"kvolog", bytes(SEGMENT_HEADER_BYTES), bytes(5000)):
        twin = files.copied()
        twin.write(segment_name(2), content)
        log, entries = open_log(twin)
        assert len(entries) == 3
        assert log.written_position == 3
        log.close()
        assert open_log(twin)[0].written_position == 3


def test_a_segment_without_header_is_damage_if_a_later_one_knows_better() -> None:
    files = two_segments()
    files.write(segment_name(0), b"")
    with pytest.raises(LogDamaged, match="entries 1 to 2 are missing"):
        open_log(files)


def test_segments_that_were_never_synced_may_lack_headers_in_any_order() -> None:
    """Found by seed 102427: a full engine, so two segments were begun before the first sync."""
    files = two_segments()
    log, _ = open_log(files)
    assert log.rotate()
    log.close()
    newest = files.names()[-2:]
    files.write(newest[0], b"")
    log, entries = open_log(files)
    assert len(entries) == 3
    assert log.written_position == 3
    log.close()


def test_an_empty_folder_is_an_empty_log() -> None:
    found = replay(MemoryFileSystem(), DATA_ID, lambda *entry: None)
    assert found == Replayed(0, -1, [], 0)
