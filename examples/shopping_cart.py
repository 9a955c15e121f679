"""One cart, two shoppers at the same time: nothing that was added is lost.

Both read the cart, both add something, both write with the context they read. The store keeps
both writes as siblings, and ``update`` merges them. Run it against any cluster:

    kvorum up
    python examples/shopping_cart.py
"""

import json
import os

import kvorum


def merge(carts: tuple[bytes, ...]) -> bytes:
    """Everything that is in any of the carts, in one order whoever merges."""
    return json.dumps(sorted({item for cart in carts for item in json.loads(cart)})).encode()


def main() -> None:
    nodes = os.environ.get("KVORUM_NODES", "127.0.0.1:7401").split(",")
    with kvorum.connect(nodes) as one, kvorum.connect(nodes) as other:
        here, there = one.table("default"), other.table("default")
        key = f"cart/{os.getpid()}"

        here.put(key, b'["book"]')
        seen = here.get(key)
        here.put(key, b'["book", "pen"]', context=seen.context)
        there.put(key, b'["book", "lamp"]', context=seen.context)
        print("siblings:", sorted(value.decode() for value in there.get(key).values))

        there.update(key, merge)
        print("merged:  ", here.get(key).value.decode())
        here.delete(key)


if __name__ == "__main__":
    main()
