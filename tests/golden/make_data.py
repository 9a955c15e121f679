"""Keep the data directories of today's format: ``python -m tests.golden.make_data VERSION``.

Two of them, of a real node: ``clean`` after a clean stop, ``killed`` after another start and
SIGKILL, each with what a client read last. A version that is kept is never made again:
somebody's disk has bytes like these, and ``test_data.py`` opens them with the code of its day.
"""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from kvorum.client.blocking import Client
from kvorum.model.topology import encode_topology
from tests.support.cluster import running_cluster

DATA = Path(__file__).parent / "data"
CONFIG = {"flush_bytes": 20_000}  # So that records lie in the engine as well as in the log.
LONG = "long " * 100


def write_some(client: Client, round_number: int) -> None:
    """Every kind of record there is, and enough of them to reach the engine."""
    client.create_table("newest", resolution="lww")
    plain, newest = client.table("default"), client.table("newest")
    for number in range(30):
        key = f"{round_number} plain {number}"
        context = plain.put(key, f"first {number}".encode() * 20).context
        if number % 2:
            plain.put(key, b"second", context=context, content_type="text/plain")
        if number % 3 == 0:
            plain.put(key, b"beside")
        if number % 5 == 0:
            plain.delete(key)
    for number in range(10):
        plain.put(f"{round_number} sorted", b"value %d" % number, sort_key=f"{LONG}{number}")
        newest.put(f"{round_number} newest {number}", b"older")
        newest.put(f"{round_number} newest {number}", b"newer", ttl_seconds=3_000_000_000)
    plain.put(f"{round_number} bytes", bytes(range(256)), sort_key=b"\x00\xff")


def what_is_there(client: Client) -> list[dict[str, Any]]:
    asked: list[tuple[str, bytes, bytes]] = []
    for round_number in (1, 2):
        asked += [
            *(("default", f"{round_number} plain {number}".encode(), b"") for number in range(30)),
            *(
                ("default", f"{round_number} sorted".encode(), f"{LONG}{number}".encode())
                for number in range(10)
            ),
            *(("newest", f"{round_number} newest {number}".encode(), b"") for number in range(10)),
            ("default", f"{round_number} bytes".encode(), b"\x00\xff"),
        ]
    ids = {table.name: table.table_id for table in client.tables()}
    told = []
    for table, key, sort_key in asked:
        found = client.table(table).get(key, sort_key=sort_key)
        if found.known:
            told.append(
                {
                    "table": ids[table].hex(),
                    "key": key.hex(),
                    "sort_key": sort_key.hex(),
                    "values": sorted(value.hex() for value in found.values),
                    "dots": sorted(one.dot.hex() for one in found.siblings),
                }
            )
    return told


def pack(folder: Path) -> bytes:
    """A data directory as an archive; zeros, of which LMDB keeps many, cost nothing in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name in ("store", "engine"):
            archive.add(folder / name, name)
    return buffer.getvalue()


def main(version: str) -> int:
    target = DATA / version
    if target.exists():
        sys.stdout.write(f"{target} is kept already, and is not made again\n")
        return 1
    target.mkdir(parents=True)
    with running_cluster(nodes=1, engine="lmdb", partitions=8, config=CONFIG) as cluster:
        node = cluster.processes["a"]
        (target / "topology.json").write_bytes(encode_topology(cluster.topology))
        expected = {}
        for round_number, state in enumerate(("clean", "killed"), 1):
            with cluster.connect() as client:
                write_some(client, round_number)
                expected[state] = what_is_there(client)
            if state == "clean":
                assert node.stop() == 0
            else:
                node.kill()
            (target / f"{state}.tar.xz").write_bytes(pack(node.data))
            if state == "clean":
                cluster.start_again("a")
        (target / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")
    for file in sorted(target.iterdir()):
        sys.stdout.write(f"{file.name}: {file.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
