"""Read a log back after a stop of any kind, and refuse to guess.

What may be missing after a crash is what was never reported as durable: the tail of the last
segment, torn or garbled by a write that the power cut short; such a tail is cut. Anything else
is damage: a bad frame with good frames behind it, a segment that is missing, a gap between two
segments. Damage raises `LogDamaged` and is never skipped, because an entry that was skipped is
an acknowledged write that was lost silently.

One case needs care. A new segment is begun while the one before is still unsynced, so a power
loss may tear the older and keep the newer. Every frame therefore says up to where the log was
durable when it was written. If no frame behind the tear knows the missing entries as durable,
nobody was ever told so, and the newer segment (equally unsynced) goes with the torn tail.

The formats are described in docs/reference/formats/storage.md.
"""

from collections.abc import Callable
from itertools import pairwise
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from kvorum.storage.engine import StorageError
from kvorum.storage.filesystem import FileSystem

SEGMENT_MAGIC: Final = b"kvolog"
SEGMENT_FORMAT: Final = 1
FRAME_MAGIC: Final = b"KVFR"

PUT: Final = 1
DELETE: Final = 2
DROP: Final = 3  # key and value are the bounds of the range

segment_header = Struct("<6sHIIQ8sI")  # magic, format, number, salt, first position, data id, crc
frame_header = Struct("<4sIIQQI")  # magic, body length, crc, first position, durable, entries
entry_header = Struct("<BHI")  # operation, key length, value length
frame_fields = Struct("<QQI")  # what of the header stands under the frame's crc

SEGMENT_HEADER_BYTES: Final = segment_header.size
FRAME_HEADER_BYTES: Final = frame_header.size
ENTRY_HEADER_BYTES: Final = entry_header.size

# (operation, key, value) of one replayed entry.
Apply = Callable[[int, bytes, bytes], None]


class LogDamaged(StorageError):
    """The log cannot be read back in full, and what is missing may have been acknowledged."""


class Segment(NamedTuple):
    """What one segment's bytes hold, as far as they can be trusted."""

    name: str
    number: int
    salt: int
    first: int  # position of its first entry
    end: int  # position of the last entry of its good part
    good_bytes: int
    torn: bool  # bytes that are no frame follow
    frames: list[tuple[int, int]]  # (offset of the body, its length) of every good frame
    durable: int  # the highest position that one of its frames knows as durable


def segment_name(number: int) -> str:
    return f"log-{number:08x}.kvl"


def segment_number(name: str) -> int:
    """Return the number in a segment's name, or -1 if the file is no segment."""
    if len(name) != 16 or not name.startswith("log-") or not name.endswith(".kvl"):
        return -1
    try:
        return int(name[4:12], 16)
    except ValueError:
        return -1


def frame_crc(salt: int, first: int, durable: int, count: int, body: bytes) -> int:
    """Checksum a frame; the salt keeps values that look like frames from being taken for some."""
    return crc32(body, crc32(frame_fields.pack(first, durable, count), salt))


def pack_segment_header(number: int, salt: int, first: int, data_id: bytes) -> bytes:
    head = segment_header.pack(SEGMENT_MAGIC, SEGMENT_FORMAT, number, salt, first, data_id, 0)
    return head[:-4] + crc32(head[:-4]).to_bytes(4, "little")


def _frame_at(data: bytes, offset: int, salt: int) -> tuple[int, int, int, int] | None:
    """Return (body length, first position, durable, entries) of a whole frame, or None."""
    if offset + FRAME_HEADER_BYTES > len(data):
        return None
    magic, length, crc, first, durable, count = frame_header.unpack_from(data, offset)
    start = offset + FRAME_HEADER_BYTES
    if magic != FRAME_MAGIC or start + length > len(data):
        return None
    if frame_crc(salt, first, durable, count, data[start : start + length]) != crc:
        return None
    return length, first, durable, count


def _find_frame_behind(data: bytes, offset: int, salt: int) -> int:
    """Return where the next good frame behind ``offset`` begins, or -1."""
    found = data.find(FRAME_MAGIC, offset + 1)
    while found >= 0 and _frame_at(data, found, salt) is None:
        found = data.find(FRAME_MAGIC, found + 1)
    return found


def _damaged(name: str, offset: int, what: str) -> LogDamaged:
    return LogDamaged(
        f"{name} is damaged at byte {offset}: {what}. Writes that were acknowledged may be in the "
        "damaged part, so the node does not start. Check the disk; then restore this data "
        "directory from a copy, or move it away and let the node start empty and be refilled "
        "by the other owners."
    )


def read_segment(name: str, data: bytes, data_id: bytes) -> Segment | None:
    """Find the good frames of one segment; None if its header never reached the disk."""
    number = segment_number(name)
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, version, told, salt, first, owner, crc = segment_header.unpack_from(data, 0)
    if magic == SEGMENT_MAGIC and version > SEGMENT_FORMAT:
        raise LogDamaged(
            f"{name} has log format {version}; this version of kvorum reads up to "
            f"{SEGMENT_FORMAT}. Start the newer version that wrote it."
        )
    if crc32(data[: SEGMENT_HEADER_BYTES - 4]) != crc or magic != SEGMENT_MAGIC:
        if FRAME_MAGIC not in data:
            return None  # Torn while it was being created: no frame ever reached the disk.
        raise _damaged(name, 0, "the header's checksum is wrong")
    if owner != data_id:
        raise _damaged(name, 0, "it belongs to another data directory")
    if told != number:
        raise _damaged(name, 0, f"it calls itself segment {told}")
    frames: list[tuple[int, int]] = []
    offset, position, known = SEGMENT_HEADER_BYTES, first - 1, 0
    while (frame := _frame_at(data, offset, salt)) is not None:
        length, begins, durable, count = frame
        if begins != position + 1:
            raise _damaged(name, offset, f"entry {begins} follows entry {position}")
        frames.append((offset + FRAME_HEADER_BYTES, length))
        offset += FRAME_HEADER_BYTES + length
        position += count
        known = max(known, durable)
    if offset < len(data):
        behind = _find_frame_behind(data, offset, salt)
        if behind >= 0:
            raise _damaged(name, offset, f"this frame is bad, but a good one follows at {behind}")
    return Segment(name, number, salt, first, position, offset, offset < len(data), frames, known)


def apply_segment(segment: Segment, data: bytes, apply: Apply) -> None:
    """Hand every entry of a segment to ``apply``, in order."""
    for start, length in segment.frames:
        offset, end = start, start + length
        while offset < end:
            operation, key_length, value_length = entry_header.unpack_from(data, offset)
            offset += ENTRY_HEADER_BYTES
            value_start = offset + key_length
            apply(
                operation, data[offset:value_start], data[value_start : value_start + value_length]
            )
            offset = value_start + value_length
        if offset != end:  # The checksum was right, so this is a bug of the writer, not the disk.
            raise _damaged(segment.name, start, "its entries are longer than their frame")


class Replayed(NamedTuple):
    """What a replay found: where the log ends and which segments still hold it."""

    position: int
    last_number: int  # the next segment gets a higher one
    names: list[str]  # oldest first
    cut_bytes: int  # of torn tails


def replay(files: FileSystem, data_id: bytes, apply: Apply, known: int = 0) -> Replayed:
    """Apply the whole log, cut its torn tail, and leave every segment that remains synced.

    ``known`` is a position that has been durable for certain (a clean stop says so); a log that
    ends before it is damaged, even where it looks like a torn tail.
    """
    names = sorted(name for name in files.names() if segment_number(name) >= 0)
    for earlier, later in pairwise(names):
        if segment_number(later) != segment_number(earlier) + 1:
            raise _damaged(later, 0, f"the segment before it is missing; {earlier} is there")
    kept: list[str] = []
    good: list[int] = []  # of each kept segment; nothing is changed before all has been judged
    position = cut = 0
    lost: list[str] = []
    for index, name in enumerate(names):
        data = files.read(name)
        segment = read_segment(name, data, data_id)
        if segment is None or (kept and segment.first != position + 1):
            if segment is not None and segment.first <= position:
                raise _damaged(name, 0, f"it begins at {segment.first}, not {position + 1}")
            _refuse_if_durable(files, names[index:], data_id, position, name)
            lost = names[index:]
            break
        apply_segment(segment, data, apply)
        position = segment.end
        kept.append(name)
        good.append(segment.good_bytes)
        cut += len(data) - segment.good_bytes
    if position < known:
        at = names[-1] if names else segment_name(0)
        raise _damaged(at, sum(good[-1:]), f"entries {position + 1} to {known} are missing")
    for name, good_bytes in zip(kept, good, strict=True):
        _settle(files, name, good_bytes)
    cut += _discard(files, lost)
    files.sync_folder()
    # The next segment takes the place of the first one lost: numbers must have no gap.
    if lost:
        last_number = segment_number(lost[0]) - 1
    else:
        last_number = segment_number(names[-1]) if names else -1
    return Replayed(position, last_number, kept, cut)


def _refuse_if_durable(
    files: FileSystem, names: list[str], data_id: bytes, position: int, at: str
) -> None:
    """Raise if a later frame knows that something behind ``position`` had reached the disk."""
    for name in names:
        segment = read_segment(name, files.read(name), data_id)
        # One without a header was begun and never synced, nor then was any that followed it.
        if segment is not None and segment.durable > position:
            raise _damaged(
                at, 0, f"entries {position + 1} to {segment.durable} are missing before it"
            )


def _discard(files: FileSystem, names: list[str]) -> int:
    """Remove segments of which nothing was ever durable, newest first; return their bytes."""
    size = 0
    for name in reversed(names):  # So that a crash in between leaves no gap in the numbers.
        size += len(files.read(name))
        files.remove(name)
    return size


def _settle(files: FileSystem, name: str, good_bytes: int) -> None:
    file = files.open(name)
    try:
        if file.size() > good_bytes:
            file.truncate(good_bytes)
        file.sync()
    finally:
        file.close()
