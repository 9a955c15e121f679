"""What tests ask of a cluster from another host: ``python -m tests.support.questions ...``.

problem ADDRESS...              what is not ready yet; nothing if all is
fill COUNT ADDRESS...           puts keys key-0, key-1, ...
differing ADDRESS...            of the keys on standard input those that nodes hold differently
"""

import sys

import kvorum
from kvorum.client.blocking import Client
from kvorum.errors import KvorumError

BATCH = 2_000


def problem(addresses: list[str]) -> str:
    try:
        with Client(addresses, timeout_seconds=3.0) as client:
            for name, status in client.statuses().items():
                if isinstance(status, KvorumError):
                    return f"{name}: {status}"
                if status.partitions_not_ready:
                    return f"{name} has {status.partitions_not_ready} partitions that are not ready"
                missing = [peer.name for peer in status.peers if not peer.connected]
                if missing:
                    return f"{name} is not connected to {', '.join(missing)}"
    except KvorumError as error:
        return str(error)
    return ""


def fill(count: int, addresses: list[str]) -> None:
    with kvorum.connect(addresses) as client:
        table = client.table("default")
        for first in range(0, count, BATCH):
            last = min(first + BATCH, count)
            table.put_many([(f"key-{n}", f"value {n}".encode()) for n in range(first, last)])


def differing(addresses: list[str], keys: list[str]) -> list[str]:
    held: list[list[tuple[bytes, ...]]] = []
    for address in addresses:
        with Client(address, only_given=True) as client:
            table = client.table("default")
            found = [
                one
                for first in range(0, len(keys), BATCH)
                for one in table.get_many(keys[first : first + BATCH], r=1)
            ]
        held.append([tuple(sorted(one.values)) for one in found])
    return [key for key, *copies in zip(keys, *held, strict=True) if len(dict.fromkeys(copies)) > 1]


def main() -> None:
    question, *rest = sys.argv[1:]
    if question == "problem":
        sys.stdout.write(problem(rest))
    elif question == "fill":
        fill(int(rest[0]), rest[1:])
    else:
        sys.stdout.write("\n".join(differing(rest, sys.stdin.read().split())))


if __name__ == "__main__":
    main()
