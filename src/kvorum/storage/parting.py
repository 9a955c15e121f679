"""What one run of a node leaves to the next, beside its records.

Some of what a node keeps in memory follows from its records, but only from reading all of them.
After a clean stop nothing can have changed, so it may be taken over as it was. The file is
written, durably, before the clean-stop marker, and is bound to the same store, start and log
position: without its marker, or with another one, it says nothing.
"""

from struct import Struct
from typing import Final
from zlib import crc32

from kvorum.storage.filesystem import FileSystem
from kvorum.storage.identity import CleanStop, Identity

PARTING_FILE: Final = "parting"
MAGIC: Final = b"kvorum p"

_head = Struct("<8s8sQQ")  # magic, store id, start count, position


def write_parting(files: FileSystem, identity: Identity, position: int, content: bytes) -> None:
    """Leave ``content`` to the start after this one."""
    head = _head.pack(MAGIC, identity.store_id, identity.start_count, position)
    body = head + content
    files.replace(PARTING_FILE, body + crc32(body).to_bytes(4, "little"))


def take_parting(files: FileSystem, marker: CleanStop | None) -> bytes:
    """What the run that ``marker`` ended has left; empty if there is nothing to go by."""
    if PARTING_FILE not in files.names():
        return b""
    data = files.read(PARTING_FILE)
    files.remove(PARTING_FILE)
    if marker is None or len(data) < _head.size + 4:
        return b""
    if crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        return b""
    bound_to = (MAGIC, bytes.fromhex(marker.store), marker.start_count, marker.position)
    return data[_head.size : -4] if _head.unpack_from(data) == bound_to else b""
