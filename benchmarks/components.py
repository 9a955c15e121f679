"""What the micro benchmarks measure: each case sets its component up and calls it so often.

Keys, values and vectors are those of the macro benchmark: 16-byte keys, 100-byte values, three
nodes that have each written the key.
"""

import os
import tempfile
from collections.abc import Iterator
from typing import Final

from benchmarks.cases import Repeat, case, repeated
from kvorum.model.context import check_context, context_of_record, same_seen
from kvorum.model.hashing import engine_key
from kvorum.model.holding import NO_OWN, pack_holding, record_of
from kvorum.model.merkle import LEAVES, Trees
from kvorum.model.record import first_record, next_record, pack_value, supersedes
from kvorum.model.siblings import merge, seen_of, update
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.model.version import make_actor, make_dot
from kvorum.server.filesystem import DiskFolder
from kvorum.storage.filesystem import LogFile
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.replay import segment_number
from kvorum.storage.store import open_store
from kvorum.wire.framing import FrameReader
from kvorum.wire.link import OK, RECORD, Answers, Asker, BatchServer, Link
from kvorum.wire.requests import DEFAULT, get_frame

HASH_KEY: Final = bytes(16)
PARTITION_KEY: Final = b"k000000000000042"
KEY: Final = engine_key(HASH_KEY, DEFAULT_TABLE_ID, PARTITION_KEY, b"")
VALUE: Final = PARTITION_KEY + b"v" * 84
CLOCK: Final = 1_700_000_000_000_000
BATCH: Final = 64  # entries; about what 256 connections bring a peer in one turn


def encoded_value(node: int, counter: int) -> bytes:
    dot = make_dot(make_actor(bytes((node,)) * 8, 42), counter)
    return pack_value(dot, CLOCK + counter, 0, bytes(16), False, b"", VALUE)


def written_by_three() -> bytes:
    """A record that three nodes have written one after the other."""
    record = first_record(encoded_value(1, 1))
    for node in (2, 3):
        record = update(record, seen_of(record), encoded_value(node, 1))
    return record


WRITTEN: Final = written_by_three()
NEWER: Final = update(WRITTEN, seen_of(WRITTEN), encoded_value(1, 2))
CONTEXT: Final = context_of_record(KEY, WRITTEN, CLOCK)
HOLDING: Final = pack_holding(NO_OWN, PARTITION_KEY, WRITTEN)


@case("model", "engine key")
def engine_keys() -> Iterator[Repeat]:
    yield repeated(engine_key, HASH_KEY, DEFAULT_TABLE_ID, PARTITION_KEY, b"")


@case("model", "value packed")
def values() -> Iterator[Repeat]:
    dot = make_dot(make_actor(bytes(8), 1), 1)
    yield repeated(pack_value, dot, CLOCK, 0, bytes(16), False, b"", VALUE)


@case("model", "next record, three actors")
def next_records() -> Iterator[Repeat]:
    yield repeated(next_record, WRITTEN, encoded_value(1, 2))


@case("model", "update, the slow way")
def updates() -> Iterator[Repeat]:
    yield repeated(update, WRITTEN, seen_of(WRITTEN), encoded_value(1, 2))


@case("model", "supersedes, one actor")
def supersedes_one() -> Iterator[Repeat]:
    older = first_record(encoded_value(1, 1))
    yield repeated(supersedes, next_record(older, encoded_value(1, 2)), older)


@case("model", "supersedes, three actors")
def supersedes_three() -> Iterator[Repeat]:
    yield repeated(supersedes, NEWER, WRITTEN)


@case("model", "merge into two siblings")
def merges() -> Iterator[Repeat]:
    other = update(WRITTEN, seen_of(WRITTEN), encoded_value(2, 2))
    yield repeated(merge, NEWER, other)


@case("model", "context made")
def contexts() -> Iterator[Repeat]:
    yield repeated(context_of_record, KEY, WRITTEN, CLOCK)


@case("model", "context checked and compared")
def context_checks() -> Iterator[Repeat]:
    def repeat(calls: int) -> None:
        for _ in range(calls):
            check_context(KEY, CONTEXT)
            same_seen(CONTEXT, WRITTEN)

    yield repeat


@case("model", "holding packed")
def holdings() -> Iterator[Repeat]:
    yield repeated(pack_holding, NO_OWN, PARTITION_KEY, WRITTEN)


@case("model", "record out of a holding")
def records_of_holdings() -> Iterator[Repeat]:
    yield repeated(record_of, HOLDING)


@case("model", "hash tree, change of a record")
def tree_changes() -> Iterator[Repeat]:
    newer = pack_holding(NO_OWN, PARTITION_KEY, NEWER)
    yield repeated(Trees().change, KEY, HOLDING, newer)


@case("model", "hash tree, digest of all leaves")
def tree_digests() -> Iterator[Repeat]:
    yield repeated(Trees().digest, [(0, LEAVES)])


@case("wire", "frame read, of 64 that arrive together", BATCH)
def frames() -> Iterator[Repeat]:
    data = get_frame(7, 0, DEFAULT_TABLE_ID, PARTITION_KEY, b"", 0, DEFAULT) * BATCH
    reader = FrameReader()
    yield repeated(reader.feed, data)


class _Holder(Answers):
    """A peer that takes every put and holds every key."""

    def position(self) -> int:
        return 0

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        return OK

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        self.payload = WRITTEN
        return RECORD


class _Listener(Asker):
    """Whoever asked, without any interest in the answer."""

    def on_ok(self, peer: int) -> None:
        pass

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        pass


def _link() -> Link:
    link = Link(2, [], 1 << 20, 64 << 20)
    link.open(0)
    return link


@case("wire", "put in a batch of 64, sent", BATCH)
def batches_sent() -> Iterator[Repeat]:
    asker = _Listener()

    def repeat(calls: int) -> None:
        for _ in range(calls):
            link = _link()
            for _ in range(BATCH):
                link.put(KEY, HOLDING, 1, 0, asker)
            link.take(0)

    yield repeat


@case("wire", "put in a batch of 64, sent, taken and answered", BATCH)
def puts_answered() -> Iterator[Repeat]:
    asker = _Listener()
    server = BatchServer(_Holder(), False)
    link = _link()

    def repeat(calls: int) -> None:
        for _ in range(calls):
            for _ in range(BATCH):
                link.put(KEY, HOLDING, 1, 0, asker)
            link.on_answers(server.on_batch(link.take(0)[0][4:])[4:], 0)

    yield repeat


@case("wire", "get in a batch of 64, sent, taken and answered", BATCH)
def gets_answered() -> Iterator[Repeat]:
    asker = _Listener()
    server = BatchServer(_Holder(), False)
    link = _link()

    def repeat(calls: int) -> None:
        for _ in range(calls):
            for _ in range(BATCH):
                link.get(KEY, 1, 0, asker)
            link.on_answers(server.on_batch(link.take(0)[0][4:])[4:], 0)

    yield repeat


class _NowhereFile(LogFile):
    """A segment of the log that costs no disk: what is left is the log's own work."""

    def append(self, data: bytes) -> None:
        pass

    def size(self) -> int:
        return 0

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class _NowhereLog(DiskFolder):
    """A data directory whose log goes nowhere."""

    def create(self, name: str) -> LogFile:
        return _NowhereFile() if segment_number(name) >= 0 else super().create(name)


@case("storage", "put into overlay and log, 64 a turn", BATCH)
def log_appends() -> Iterator[Repeat]:
    with tempfile.TemporaryDirectory() as folder:
        files = _NowhereLog(folder)
        store = open_store(
            files,
            MemoryEngine(durable=True),
            cluster_id=bytes(8),
            member_id=1,
            member_name="a",
            draw=os.urandom,
        )
        keys = [KEY + bytes((index,)) for index in range(BATCH)]

        def repeat(calls: int) -> None:
            for _ in range(calls):
                for key in keys:
                    store.put(key, HOLDING)
                store.end_turn()

        yield repeat
        files.close()
