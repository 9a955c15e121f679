"""Write and read a thousand records with asyncio: pipelined, and through many tasks.

kvorum up
python examples/many_at_once.py
"""

import asyncio
import os

import kvorum


async def main() -> None:
    nodes = os.environ.get("KVORUM_NODES", "127.0.0.1:7401").split(",")
    async with kvorum.aconnect(nodes) as client:
        table = client.table("default")
        keys = [f"sensor/{os.getpid()}/{number}" for number in range(1000)]
        stored = await table.put_many([(key, b"21.5") for key in keys])
        print("written:", len(stored))

        found = await asyncio.gather(*[table.get(key) for key in keys])
        print("read:   ", sum(one.value == b"21.5" for one in found))

        # The contexts say what we have seen, so these deletes take away just that.
        await asyncio.gather(
            *[table.delete(key, one.context) for key, one in zip(keys, found, strict=True)]
        )
        print("left:   ", sum(bool(one.values) for one in await table.get_many(keys)))


if __name__ == "__main__":
    asyncio.run(main())
