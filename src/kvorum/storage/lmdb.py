"""LMDB behind the engine contract: the default engine of a node on disk.

Chosen for wheels everywhere, the cheapest reads, an open that takes milliseconds after any
crash, and flushes that release the interpreter. Its traps, and what is done about them:

- It maps its file. The map is sparse and is enlarged by the committing thread; no read may be
  open at that moment, so reads (a microsecond each) take a lock that is otherwise uncontended.
- A file shorter than its meta page says kills the process (SIGBUS) at the first read behind the
  end. So the size is checked before the file is mapped.
- It has no checksums: the buffer's CRC in every record is what finds a flipped bit.
- Keys end at 511 bytes. A key of up to 510 bytes is stored as itself; longer ones live in a
  *bucket* under their first 510 bytes and a zero byte. No other key has 511 bytes, and any
  short key sorts before or behind the whole bucket, so the order is exact. A bucket lists the
  rest of each key with the number of its value in a second database.
- The file never shrinks; `copy` writes a compact one.
- An environment variable could choose another LMDB; the version is pinned.
"""

import os
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import lmdb

from kvorum.storage.engine import (
    SCAN_BYTES,
    Capabilities,
    Engine,
    EngineFailed,
    EngineFull,
    EngineStats,
    Verified,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_KEY_BYTES: Final = 510
BUCKET_KEY_BYTES: Final = SHORT_KEY_BYTES + 1
FIRST_MAP_BYTES: Final = 1 << 30
LAST_MAP_BYTES: Final = 1 << 42
DATA_FILE: Final = "data.mdb"

_META_MAGIC: Final = 0xBEEFC0DE
_meta = Struct("<16xII16xI92xQQ")  # page header, magic, version, page size, last page, transaction
_entry = Struct("<HQ")  # in a bucket: length of the rest of the key, number of the value
_number = Struct(">Q")


class LmdbEngine(Engine):
    """One LMDB environment in a folder of its own."""

    capabilities = Capabilities("lmdb", durable=True, trusted=False, instant=False, copies=True)

    def __init__(
        self, folder: str, map_bytes: int = FIRST_MAP_BYTES, last_map_bytes: int = LAST_MAP_BYTES
    ) -> None:
        """Open or create. Raises `EngineFailed` if the files are damaged or cannot be used."""
        self._map_bytes = map_bytes
        self._last_map_bytes = last_map_bytes
        self._reading = Lock()  # held for each read, and while the map is moved
        self._copying = Lock()  # held for a copy, and while the map is moved
        try:
            os.makedirs(folder, exist_ok=True)
            check_data_file(os.path.join(folder, DATA_FILE))
            # Any: the stubs say memoryview wherever there could be one, and here is none.
            self._env: Any = lmdb.open(
                folder, map_size=map_bytes, max_dbs=2, readahead=False, mode=0o600, lib_version=0
            )
            self._map_bytes = self._env.info()["map_size"]
            self._page_bytes = self._env.stat()["psize"]
            self._records = self._env.open_db(b"records")
            self._long_values = self._env.open_db(b"long values")
        except (lmdb.Error, OSError) as error:
            raise EngineFailed(f"LMDB cannot be opened in {folder}: {error}") from error

    # Reading.

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._reading, self._env.begin(self._records) as txn:
                if len(key) <= SHORT_KEY_BYTES:
                    value: bytes | None = txn.get(key)
                    return value
                return self._get_long(txn, key)
        except lmdb.Error as error:
            raise EngineFailed(f"LMDB cannot read: {error}") from error

    def _get_long(self, txn: Any, key: bytes) -> bytes | None:
        bucket = txn.get(bucket_key(key))
        if bucket is None:
            return None
        number = unpack_bucket(bucket).get(key[SHORT_KEY_BYTES:])
        if number is None:
            return None
        value: bytes | None = txn.get(_number.pack(number), db=self._long_values)
        return value

    def scan(self, lo: bytes, hi: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        if lo >= hi or limit <= 0:
            return rows
        size = 0
        try:
            with self._reading, self._env.begin(self._records) as txn:
                cursor = txn.cursor()
                more = cursor.set_range(lo[:SHORT_KEY_BYTES]) if lo else cursor.first()
                while more and size <= SCAN_BYTES and len(rows) < limit:
                    key, value = cursor.item()
                    if key >= hi:
                        break
                    if len(key) == BUCKET_KEY_BYTES:
                        for row in self._bucket_rows(txn, key, value, lo, hi):
                            rows.append(row)
                            size += len(row[1])
                            if size > SCAN_BYTES or len(rows) == limit:
                                break
                    elif key >= lo:
                        rows.append((key, value))
                        size += len(value)
                    more = cursor.next()
        except lmdb.Error as error:
            raise EngineFailed(f"LMDB cannot read: {error}") from error
        return rows

    def _bucket_rows(
        self, txn: Any, key: bytes, bucket: bytes, lo: bytes, hi: bytes
    ) -> "Iterator[tuple[bytes, bytes]]":
        base = key[:SHORT_KEY_BYTES]
        for rest, number in unpack_bucket(bucket).items():
            if lo <= base + rest < hi:
                value = txn.get(_number.pack(number), db=self._long_values)
                if value is not None:
                    yield base + rest, value

    # Writing.

    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        while True:
            self._keep_room()
            try:
                with self._env.begin(self._records, write=True) as txn:
                    self._apply(txn, drops, deletes, puts)
                return
            except lmdb.MapFullError:
                if not self._grow():
                    raise EngineFull(
                        f"LMDB has reached its limit of {self._last_map_bytes} bytes"
                    ) from None
            except lmdb.Error as error:
                if "No space left" in str(error) or "quota" in str(error):
                    raise EngineFull(f"LMDB finds no space: {error}") from error
                raise EngineFailed(f"LMDB cannot commit: {error}") from error

    def _apply(
        self,
        txn: Any,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        for lo, hi in drops:
            self._drop(txn, lo, hi)
        long_changes: dict[bytes, dict[bytes, bytes | None]] = {}  # bucket -> rest -> value
        for key in deletes:
            if len(key) <= SHORT_KEY_BYTES:
                txn.delete(key)
            else:
                long_changes.setdefault(bucket_key(key), {})[key[SHORT_KEY_BYTES:]] = None
        short_puts = puts
        if any(len(key) > SHORT_KEY_BYTES for key, _ in puts):
            short_puts = [put for put in puts if len(put[0]) <= SHORT_KEY_BYTES]
            for key, value in puts:
                if len(key) > SHORT_KEY_BYTES:
                    long_changes.setdefault(bucket_key(key), {})[key[SHORT_KEY_BYTES:]] = value
        if short_puts:
            txn.cursor().putmulti(short_puts)
        for key, changes in long_changes.items():
            self._change_bucket(txn, key, changes)

    def _change_bucket(self, txn: Any, key: bytes, changes: dict[bytes, bytes | None]) -> None:
        stored = txn.get(key)
        entries = unpack_bucket(stored) if stored is not None else {}
        for rest, value in changes.items():
            number = entries.get(rest)
            if value is None:
                if number is not None:
                    del entries[rest]
                    txn.delete(_number.pack(number), db=self._long_values)
                continue
            if number is None:
                number = self._next_number(txn)
                entries[rest] = number
            txn.put(_number.pack(number), value, db=self._long_values)
        if entries:
            txn.put(key, pack_bucket(entries))
        elif stored is not None:
            txn.delete(key)

    def _next_number(self, txn: Any) -> int:
        cursor = txn.cursor(self._long_values)
        return int(_number.unpack(cursor.key())[0]) + 1 if cursor.last() else 1

    def _drop(self, txn: Any, lo: bytes, hi: bytes) -> None:
        if lo >= hi:
            return
        buckets: list[tuple[bytes, bytes]] = []
        cursor = txn.cursor()
        more = cursor.set_range(lo[:SHORT_KEY_BYTES]) if lo else cursor.first()
        while more:
            key = cursor.key()
            if key >= hi:
                break
            if len(key) == BUCKET_KEY_BYTES:
                buckets.append((key, cursor.value()))
            elif key >= lo:
                more = cursor.delete()  # The cursor stands on the next key then, if there is one.
                if more and cursor.key():
                    continue
                break
            more = cursor.next()
        for key, bucket in buckets:
            base = key[:SHORT_KEY_BYTES]
            gone: dict[bytes, bytes | None] = {
                rest: None for rest in unpack_bucket(bucket) if lo <= base + rest < hi
            }
            if gone:
                self._change_bucket(txn, key, gone)

    # The map.

    def _keep_room(self) -> None:
        """Enlarge the map early: a commit that runs into its end is done twice."""
        if (self._env.info()["last_pgno"] + 1) * self._page_bytes * 4 > self._map_bytes * 3:
            self._grow()

    def _grow(self) -> bool:
        wanted = min(self._map_bytes * 2, self._last_map_bytes)
        if wanted <= self._map_bytes:
            return False
        with self._copying, self._reading:
            self._env.set_mapsize(wanted)
        self._map_bytes = wanted
        return True

    # Care.

    def copy(self, target: str) -> None:
        try:
            os.makedirs(target)
            with self._copying:
                self._env.copy(target, compact=True)
        except (lmdb.Error, OSError) as error:
            raise EngineFailed(f"LMDB cannot be copied to {target}: {error}") from error

    def verify(self, after: bytes, limit: int) -> Verified:
        complaints: list[str] = []
        rows = self.scan(after + b"\0" if after else b"", b"\xff" * 8, limit)
        previous = after
        for key, _ in rows:
            if key <= previous:
                complaints.append(f"{key.hex()} stands behind {previous.hex()}")
            previous = key
        return Verified(len(rows), rows[-1][0] if rows else b"", complaints)

    def stats(self) -> EngineStats:
        with self._reading, self._env.begin() as txn:
            records = txn.stat(self._records)["entries"]
        used = (self._env.info()["last_pgno"] + 1) * self._page_bytes
        return EngineStats(records, used, self._map_bytes)

    def close(self) -> None:
        with self._copying, self._reading:
            self._env.close()


def bucket_key(key: bytes) -> bytes:
    """Return the one key of 511 bytes under which every key with this beginning is listed."""
    return key[:SHORT_KEY_BYTES] + b"\0"


def unpack_bucket(bucket: bytes) -> dict[bytes, int]:
    """Return rest of key -> number of value, in key order."""
    entries: dict[bytes, int] = {}
    offset = 0
    while offset < len(bucket):
        length, number = _entry.unpack_from(bucket, offset)
        offset += _entry.size
        entries[bucket[offset : offset + length]] = number
        offset += length
    return entries


def pack_bucket(entries: dict[bytes, int]) -> bytes:
    return b"".join(_entry.pack(len(rest), entries[rest]) + rest for rest in sorted(entries))


def check_data_file(path: str) -> None:
    """Refuse a file that is shorter than its meta page says: reading it would kill the process."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        first = file.read(_meta.size)
        page_bytes = _meta.unpack(first)[2] if len(first) == _meta.size else 0
        file.seek(page_bytes)
        second = file.read(_meta.size)
    metas = [_meta.unpack(page) for page in (first, second) if len(page) == _meta.size]
    metas = [meta for meta in metas if meta[0] == _META_MAGIC]
    if len(metas) < 2 or page_bytes < 512:
        raise EngineFailed(
            f"{path} is no LMDB file of this kind of machine, or its first pages are damaged. "
            "Restore the data directory from a copy, or move it away and let the node start empty."
        )
    last_page = max(metas, key=lambda meta: meta[4])[3]
    needed = (last_page + 1) * page_bytes
    if size < needed:
        raise EngineFailed(
            f"{path} is cut short: it has {size} bytes and should have at least {needed}. Restore "
            "the data directory from a copy, or move it away and let the node start empty and be "
            "refilled by the other owners."
        )
