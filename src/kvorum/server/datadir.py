"""The data directory of a node: locked, versioned, and knowing its node and cluster.

It holds the lock, the identity file, the clean-stop marker and the log in ``store/``, and the
engine's files in ``engine/``. What belongs to another node or a newer version is refused before
anything is changed (``storage/identity.py``).
"""

import os
from pathlib import Path
from typing import Final

from kvorum.config import NodeConfig
from kvorum.errors import SettingsInvalid
from kvorum.model.topology import Member, Topology
from kvorum.server.filesystem import DirectoryInUse, DiskFolder
from kvorum.storage.engine import Engine, StorageError
from kvorum.storage.lmdb import LmdbEngine
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.store import Store, open_store

ENGINES: Final = ("lmdb", "memory")


class InUse(SettingsInvalid):
    """The port or the data directory is another process's."""


class OpenedData:
    """A store with the files and the engine below it."""

    __slots__ = ("_folder", "engine", "store")

    def __init__(self, store: Store, engine: Engine, folder: DiskFolder | None) -> None:
        self.store = store
        self.engine = engine
        self._folder = folder

    @property
    def path(self) -> str:
        """Where on the disk it lies; empty where nothing is kept on one."""
        return self._folder.path if self._folder is not None else ""

    def close(self, last_clock: int, parting: bytes = b"") -> bool:
        """Stop cleanly; True if the next start will find everything in order."""
        clean = self.store.close_clean(last_clock, parting)
        self.engine.close()
        if self._folder is not None:
            self._folder.close()
        return clean


def open_data(
    topology: Topology, member: Member, data: Path | None, engine_name: str, config: NodeConfig
) -> OpenedData:
    """Open a node's data; ``SettingsInvalid`` or ``InUse`` says what stands in the way."""
    if engine_name not in ENGINES:
        raise SettingsInvalid(f"engine {engine_name!r} is unknown: {' or '.join(ENGINES)}")
    if engine_name == "memory":
        memory = MemoryEngine()
        return OpenedData(_open(topology, member, None, memory, config), memory, None)
    if data is None:
        raise SettingsInvalid(f"the {engine_name} engine needs a data directory: give --data DIR")
    try:
        folder = DiskFolder(str(data / "store"))
        folder.lock()
    except DirectoryInUse as error:
        raise InUse(str(error)) from error
    except OSError as error:
        raise SettingsInvalid(_cannot_use(data, error)) from error
    engine: Engine | None = None
    try:
        engine = LmdbEngine(str(data / "engine"))
        return OpenedData(_open(topology, member, folder, engine, config), engine, folder)
    except (StorageError, OSError) as error:
        if engine is not None:
            engine.close()
        folder.close()
        raise SettingsInvalid(_cannot_use(data, error)) from error


def _open(
    topology: Topology, member: Member, folder: DiskFolder | None, engine: Engine,
    config: NodeConfig,
) -> Store:  # fmt: skip
    return open_store(
        folder,
        engine,
        cluster_id=topology.cluster_id,
        member_id=member.id,
        member_name=member.name,
        draw=os.urandom,
        freeze_bytes=config.flush_bytes,
        limit_bytes=config.overlay_bytes_max,
    )


def _cannot_use(data: Path, error: Exception) -> str:
    return f"the data directory {data} cannot be used: {error}"
