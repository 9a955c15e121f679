"""One node's store as the protocol sees it: who mints here, and an ordered map of holdings.

A `Store` joins the identity of the data directory with the write buffer. Opening it decides
whether the store may go on under its old id, replays the log, and moves what was replayed into
the engine, so that a position reported as durable never rests on bytes that a failed sync of an
earlier run may have left in the page cache only.

The hot methods (`get`, `put`, `delete`, `scan`, `drop_range`, `end_turn`) are the buffer's own,
bound once. Positions: what was written is at level *memory* at once, *os* when
``written_position`` has reached its position, *disk* when ``durable_position`` has.
"""

from collections.abc import Callable
from errno import EACCES, ENOSPC, EPERM, EROFS
from struct import Struct
from typing import Final
from zlib import crc32

import msgspec

from kvorum.faults import NO_FAULTS, Faults
from kvorum.storage.buffer import DEFAULT_FREEZE_BYTES, DEFAULT_LIMIT_BYTES, Buffer, pack_crc
from kvorum.storage.commit import drain, sync_now
from kvorum.storage.engine import Engine, EngineFull
from kvorum.storage.filesystem import FileSystem
from kvorum.storage.identity import (
    FORMAT,
    CleanStop,
    DirectoryRefused,
    Draw,
    Identity,
    check_owner,
    consume_clean_stop,
    read_clean_stop,
    read_identity,
    write_clean_stop,
    write_identity,
)
from kvorum.storage.log import Log
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.parting import take_parting, write_parting
from kvorum.storage.replay import replay
from kvorum.storage.volatile import VolatileBuffer

MAX_STAMP: Final = (1 << 32) - 1
# The engine's half of the identity; keys with two leading zero bytes are the storage's own.
ENGINE_IDENTITY_KEY: Final = b"\0\0engine"
_engine_identity = Struct("<4x8sQ")  # room for the checksum, data id, start count


class Store:
    """What a node keeps, and under which actor it mints. Lives from one start to its stop.

    A store without files is *volatile*: everything goes with the process, it has a new store id
    at each start, and none of its positions is ever durable.
    """

    __slots__ = (
        "_draw",
        "_files",
        "_next_stamp",
        "buffer",
        "clean_start",
        "closed",
        "cut_bytes",
        "delete",
        "drop_range",
        "end_turn",
        "get",
        "identity",
        "last_clock",
        "parting",
        "put",
        "renewals",
        "scan",
        "store_id",
        "volatile",
    )

    def __init__(
        self,
        buffer: Buffer,
        files: FileSystem | None,
        identity: Identity,
        draw: Draw,
        marker: CleanStop | None,
        cut_bytes: int,
        parting: bytes = b"",
    ) -> None:
        self.buffer = buffer
        self.identity = identity
        self.store_id = identity.store_id
        self.volatile = files is None
        self.clean_start = marker is not None
        self.last_clock = marker.last_clock if marker is not None else 0
        self.cut_bytes = cut_bytes  # of a torn log tail, dropped by this start
        self.parting = parting  # what the run before has left, if it ended cleanly
        self.closed = False
        self.renewals: list[str] = []  # why the store id was changed since the start
        self._files = files
        self._draw = draw
        self._next_stamp = marker.next_stamp if marker is not None else 1
        self.get: Callable[[bytes], bytes | None] = buffer.reader()
        self.put: Callable[[bytes, bytes], None] = buffer.put
        self.delete: Callable[[bytes], None] = buffer.delete
        self.drop_range: Callable[[bytes, bytes], None] = buffer.drop_range
        self.scan: Callable[[bytes, bytes, int], list[tuple[bytes, bytes]]] = buffer.scan
        self.end_turn: Callable[[], bool] = buffer.end_turn

    @property
    def start_count(self) -> int:
        return self.identity.start_count

    @property
    def nonce(self) -> bytes:
        return bytes.fromhex(self.identity.nonce)

    @property
    def position(self) -> int:
        """The position of the latest write; compare an acknowledgement's with the other two."""
        return self.buffer.position

    @property
    def written_position(self) -> int:
        """Everything up to here survives the process."""
        return self.buffer.written_position

    @property
    def durable_position(self) -> int:
        """Everything up to here survives a power loss."""
        return self.buffer.durable_position

    @property
    def writable(self) -> bool:
        """Whether a put may be accepted now; `refusal` says why not."""
        return not self.buffer.refusal

    @property
    def refusal(self) -> str:
        """Why no put may be accepted now, or ``""``."""
        return self.buffer.refusal

    @property
    def failed(self) -> bool:
        """Whether the refusal is final: nothing will be acknowledged before a restart."""
        log = self.buffer.log
        return bool(self.buffer.failed or (log is not None and log.failed))

    @property
    def upcoming_stamp(self) -> int:
        """What ``next_stamp`` will return; 0 if it will have to renew the store id first."""
        return self._next_stamp if self._next_stamp <= MAX_STAMP else 0

    def next_stamp(self) -> int:
        """Return a stamp never given before under ``store_id``, which may change by this call."""
        stamp = self._next_stamp
        if stamp > MAX_STAMP:
            self.renew("the stamps of the old store id are used up")
            stamp = 1
        self._next_stamp = stamp + 1
        return stamp

    def renew(self, reason: str) -> None:
        """End the incarnation: draw a new store id, durable before anybody mints under it.

        Own actors under the old id are void from now on. Raises `OSError` if the new id cannot
        be made durable; the old one is not to be minted under either.
        """
        identity = msgspec.structs.replace(self.identity, store=self._draw(8).hex())
        if self._files is not None:
            write_identity(self._files, identity)
        self.identity = identity
        self.store_id = identity.store_id
        self._next_stamp = 1
        self.renewals.append(reason)

    def close_clean(self, last_clock: int, parting: bytes = b"") -> bool:
        """Stop with everything on disk and say so for the next start; False if that is not so.

        ``parting`` is what the next start finds as its own ``parting``, if this is so.

        The committer must have stopped. Without the marker the next start draws a new store id
        and nothing else is lost. The engine stays open: it belongs to whoever made it.
        """
        self.closed = True
        log = self.buffer.log
        if log is None or self._files is None:
            return False
        buffer = self.buffer
        clean = buffer.end_turn()
        if clean and buffer.durable_position < buffer.position:
            clean = sync_now(buffer)
        clean = clean and not self.failed and buffer.durable_position == buffer.position
        if clean:
            try:
                if parting:
                    write_parting(self._files, self.identity, buffer.position, parting)
                write_clean_stop(
                    self._files, self.identity, buffer.position, self._next_stamp, last_clock
                )
            except OSError:
                clean = False
        log.close()
        return clean

    def close_abruptly(self) -> None:
        """Let go of the files as a crash would; the next start takes it for one."""
        self.closed = True
        if self.buffer.log is not None:
            self.buffer.log.close()


def open_store(
    files: FileSystem | None,
    engine: Engine,
    *,
    cluster_id: bytes,
    member_id: int,
    member_name: str,
    draw: Draw,
    freeze_bytes: int = DEFAULT_FREEZE_BYTES,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    faults: Faults = NO_FAULTS,
) -> Store:
    """Open what a data directory and an engine hold; without files, a volatile store.

    Blocks for the replay. Raises `StorageError` (`DirectoryRefused`, `LogDamaged`,
    `EngineFailed`) or `OSError`, each with a text for the operator and nothing destroyed.
    """
    if files is None:
        if engine.capabilities.durable:
            raise DirectoryRefused(
                f"the {engine.capabilities.name} engine is durable and needs a data directory"
            )
        if isinstance(engine, MemoryEngine):
            volatile: Buffer = VolatileBuffer(engine)
        else:
            volatile = Buffer(engine, None, freeze_bytes, limit_bytes)
        identity = _new_identity(cluster_id, member_id, member_name, draw)
        return Store(volatile, None, identity, draw, None, 0)
    if not engine.capabilities.durable:
        raise DirectoryRefused(
            f"the {engine.capabilities.name} engine keeps nothing, so it takes no data directory"
        )
    buffer = Buffer(engine, None, freeze_bytes, limit_bytes)
    try:
        return _open_durable(buffer, files, cluster_id, member_id, member_name, draw, faults)
    except OSError as error:
        if error.errno not in (EACCES, EPERM, EROFS):
            raise
        raise DirectoryRefused(f"the data directory is not writable: {error}") from error


def _new_identity(cluster_id: bytes, member_id: int, name: str, draw: Draw) -> Identity:
    return Identity(
        format=FORMAT,
        cluster=cluster_id.hex(),
        member=member_id,
        name=name,
        data=draw(8).hex(),
        store=draw(8).hex(),
        start_count=1,
        nonce=draw(8).hex(),
    )


def _open_durable(
    buffer: Buffer,
    files: FileSystem,
    cluster_id: bytes,
    member_id: int,
    name: str,
    draw: Draw,
    faults: Faults,
) -> Store:
    found = read_identity(files)
    engine_identity = _engine_identity_of(buffer.engine)
    if engine_identity is not None and (found is None or engine_identity[0] != found.data_id):
        raise DirectoryRefused(
            "the engine's files belong to another data directory than the identity file says. "
            "Restore what belongs together, or move the whole directory away."
        )
    marker: CleanStop | None = None
    if found is None:
        identity = _new_identity(cluster_id, member_id, name, draw)
    else:
        check_owner(found, cluster_id, member_id, name)
        marker = read_clean_stop(files, found)
        identity = msgspec.structs.replace(
            found, name=name, start_count=found.start_count + 1, nonce=draw(8).hex()
        )
    # Replay judges the log before anything is changed, so that a damaged one stays as it is.
    known = marker.position if marker is not None else 0
    replayed = replay(files, identity.data_id, buffer.replayed, known)
    if found is not None and (
        marker is None
        or marker.position != replayed.position
        or engine_identity != (found.data_id, found.start_count)
    ):
        marker = None  # Something may be missing: whoever mints from now on is somebody else.
        identity = msgspec.structs.replace(identity, store=draw(8).hex())
    parting = take_parting(files, marker)
    consume_clean_stop(files)
    write_identity(files, identity)
    buffer.attach(Log(files, identity.data_id, draw, replayed, faults))
    _settle_engine(buffer, identity)
    return Store(buffer, files, identity, draw, marker, replayed.cut_bytes, parting)


def _engine_identity_of(engine: Engine) -> tuple[bytes, int] | None:
    """Return the data id and start count that the engine was last opened under."""
    stored = engine.get(ENGINE_IDENTITY_KEY)
    if stored is None or len(stored) != _engine_identity.size:
        return None
    data_id, start_count = _engine_identity.unpack(stored)
    return (data_id, start_count)


def _settle_engine(buffer: Buffer, identity: Identity) -> None:
    """Move what was replayed into the engine and mark it as opened by this start."""
    content = _engine_identity.pack(identity.data_id, identity.start_count)
    stored = pack_crc(crc32(content[4:], crc32(ENGINE_IDENTITY_KEY))) + content[4:]
    try:
        if drain(buffer) and buffer.log is not None:
            buffer.log.retire_before(buffer.log.number)  # Segments of starts that wrote nothing.
            sync_now(buffer)
        buffer.engine.commit([], [], [(ENGINE_IDENTITY_KEY, stored)])
    except EngineFull as full:
        if not buffer.empty:
            # After a failed sync the log may lie in the page cache only, so nothing in it counts
            # as durable before the engine has it; and later frames would say that it does.
            if buffer.log is not None:
                buffer.log.close()
            text = f"the engine has no space for what the log holds ({full}); free some"
            raise OSError(ENOSPC, text) from full
        # An engine without its mark makes the next start draw a new store id: always safe.
        return
