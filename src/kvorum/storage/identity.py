"""Who a data directory belongs to, and whether its store may go on under its old store id.

Two small files. ``identity`` names cluster, member and store and is replaced whole at every
start, when the start count goes up and a nonce is drawn; both are durable before anything is
written. ``clean-stop`` is written when the node has stopped with everything on disk, and is
removed, durably, by the next start before the first write. It is bound to this folder, to this
identity file (their inode numbers: a copied or restored directory has others) and to this
start.

Dots must never be handed out twice, so the store id is only kept when nothing can have been
forgotten: a clean stop, the same disk, the same log, the same engine. In every other case the
start draws a new one; that costs nothing but a few bytes in version vectors. (Rules 2 and 4 of
"dots are never reused".)
"""

from collections.abc import Callable
from typing import Final
from zlib import crc32

import msgspec

from kvorum.storage.engine import StorageError
from kvorum.storage.filesystem import FileSystem
from kvorum.storage.replay import segment_number

IDENTITY_FILE: Final = "identity"
CLEAN_STOP_FILE: Final = "clean-stop"
FORMAT: Final = 1

Draw = Callable[[int], bytes]  # so many random bytes


class DirectoryRefused(StorageError):
    """This data directory cannot be used by this node as it is; the text says why."""


class Identity(msgspec.Struct, frozen=True):
    """The content of the identity file."""

    format: int
    cluster: str  # hexadecimal, as are all ids here
    member: int
    name: str
    data: str  # drawn once with the directory; log and engine carry it too
    store: str  # the incarnation: who mints
    start_count: int
    nonce: str

    @property
    def data_id(self) -> bytes:
        return bytes.fromhex(self.data)

    @property
    def store_id(self) -> bytes:
        return bytes.fromhex(self.store)


class CleanStop(msgspec.Struct, frozen=True):
    """The content of the clean-stop marker."""

    format: int
    store: str
    start_count: int
    folder_inode: int
    identity_inode: int
    position: int  # where the log ended
    next_stamp: int
    last_clock: int


class _FormatOnly(msgspec.Struct):
    format: int


def _seal(content: Identity | CleanStop) -> bytes:
    """One line of JSON for people, one of checksum against a flipped bit."""
    body = msgspec.json.encode(content)
    return body + b"\n" + b"%08x\n" % crc32(body)


def _unseal(data: bytes, name: str) -> bytes:
    body, _, check = data.partition(b"\n")
    if check != b"%08x\n" % crc32(body):
        raise DirectoryRefused(
            f"the file {name!r} in the data directory is damaged (wrong checksum). Restore the "
            "directory from a copy, or move it away and let the node start empty."
        )
    version = msgspec.json.decode(body, type=_FormatOnly).format
    if version > FORMAT:
        raise DirectoryRefused(
            f"the data directory has format {version}, written by a newer kvorum; this version "
            f"reads up to {FORMAT}. Start the newer version."
        )
    return body


def read_identity(files: FileSystem) -> Identity | None:
    """Return who the directory belongs to, or None if it is new."""
    names = files.names()
    if IDENTITY_FILE in names:
        body = _unseal(files.read(IDENTITY_FILE), IDENTITY_FILE)
        return msgspec.json.decode(body, type=Identity)
    segments = [name for name in names if segment_number(name) >= 0]
    if segments:
        raise DirectoryRefused(
            f"the data directory holds a log ({segments[0]}) but no identity file, so nobody "
            "can say whose data this is. Restore the file, or move the directory away."
        )
    return None


def check_owner(found: Identity, cluster_id: bytes, member_id: int, name: str) -> None:
    """Refuse a directory of another node or another cluster."""
    if found.cluster != cluster_id.hex():
        raise DirectoryRefused(
            f"the data directory belongs to cluster {found.cluster} (node {found.name!r}), but "
            f"the topology is that of cluster {cluster_id.hex()}. Give this node a directory of "
            "its own."
        )
    if found.member != member_id:
        raise DirectoryRefused(
            f"the data directory belongs to node {found.name!r} (id {found.member}), but this is "
            f"node {name!r} (id {member_id}). Give each node a directory of its own."
        )


def read_clean_stop(files: FileSystem, found: Identity) -> CleanStop | None:
    """Return the marker if it is about this disk and the start that ended last."""
    if CLEAN_STOP_FILE not in files.names():
        return None
    try:
        body = _unseal(files.read(CLEAN_STOP_FILE), CLEAN_STOP_FILE)
        marker = msgspec.json.decode(body, type=CleanStop)
    except (DirectoryRefused, msgspec.DecodeError):
        return None  # A marker that cannot be read proves nothing.
    if (
        marker.store != found.store
        or marker.start_count != found.start_count
        or marker.folder_inode != files.inode("")
        or marker.identity_inode != files.inode(IDENTITY_FILE)
    ):
        return None
    return marker


def consume_clean_stop(files: FileSystem) -> None:
    """Remove the marker, durably, before the first write of this start."""
    if CLEAN_STOP_FILE in files.names():
        files.remove(CLEAN_STOP_FILE)
        files.sync_folder()


def write_identity(files: FileSystem, identity: Identity) -> None:
    """Make an identity durable; only then may anything be done under it."""
    files.replace(IDENTITY_FILE, _seal(identity))


def write_clean_stop(
    files: FileSystem, identity: Identity, position: int, next_stamp: int, last_clock: int
) -> None:
    """Say that everything is on disk. Never after a failed sync."""
    marker = CleanStop(
        FORMAT,
        identity.store,
        identity.start_count,
        files.inode(""),
        files.inode(IDENTITY_FILE),
        position,
        next_stamp,
        last_clock,
    )
    files.replace(CLEAN_STOP_FILE, _seal(marker))
