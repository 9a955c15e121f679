"""Data directories of every format ever on main are opened by today's code, whole.

They are kept under ``data/`` and made by ``make_data.py``, once for each format.
"""

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvorum.config import NodeConfig
from kvorum.model.hashing import engine_key
from kvorum.model.holding import partition_key_of, record_of
from kvorum.model.record import check_record
from kvorum.model.siblings import shown_values
from kvorum.model.topology import Topology, decode_topology
from kvorum.server.datadir import OpenedData, open_data

DATA = Path(__file__).parent / "data"
KEPT = [
    (version.name, state)
    for version in sorted(DATA.iterdir())
    for state in ("clean", "killed")
]  # fmt: skip


@contextmanager
def opened(version: str, state: str, folder: Path) -> Iterator[tuple[Topology, OpenedData]]:
    topology = decode_topology((DATA / version / "topology.json").read_bytes())
    if not (folder / "store").exists():
        with tarfile.open(DATA / version / f"{state}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    data = open_data(topology, topology.members[0], folder, "lmdb", NodeConfig())
    try:
        yield topology, data
    finally:
        data.close(0)


def expected(version: str, state: str) -> list[dict[str, Any]]:
    told: dict[str, list[dict[str, Any]]] = json.loads(
        (DATA / version / "expected.json").read_text()
    )
    return told[state]


@pytest.mark.parametrize(("version", "state"), KEPT)
def test_every_record_is_read(version: str, state: str, tmp_path: Path) -> None:
    told = expected(version, state)
    assert len(told) >= 50
    with opened(version, state, tmp_path) as (topology, data):
        for one in told:
            partition_key = bytes.fromhex(one["key"])
            key = engine_key(
                topology.hash_key, bytes.fromhex(one["table"]), partition_key,
                bytes.fromhex(one["sort_key"]),
            )  # fmt: skip
            holding = data.store.get(key)
            assert holding, f"{partition_key!r} is not there"
            assert partition_key_of(holding) == partition_key
            record = record_of(holding)
            check_record(record)
            shown = shown_values(record, 0)
            assert sorted(value.dot.hex() for value in shown) == one["dots"]
            values = sorted(value.data.hex() for value in shown if not value.tombstone)
            assert values == one["values"]
        assert data.store.buffer.quarantine_count == 0
        records = data.store.scan(b"\x01", b"\x02", 10_000)
        assert len(records) >= len(told)


@pytest.mark.parametrize(("version", "state"), KEPT)
def test_a_copy_goes_on_under_a_store_id_of_its_own_and_keeps_it(
    version: str, state: str, tmp_path: Path
) -> None:
    with opened(version, state, tmp_path) as (_, first):
        assert not first.store.clean_start
        store_id = first.store.store_id
        first.store.put(b"\x01" + bytes(32), b"holding")
        assert first.store.end_turn()
    with opened(version, state, tmp_path) as (_, again):
        assert again.store.clean_start
        assert again.store.store_id == store_id
        assert again.store.get(b"\x01" + bytes(32)) == b"holding"
