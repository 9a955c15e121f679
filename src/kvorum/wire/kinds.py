"""The first byte of every payload: what it is, and on which connections it may stand.

Numbers are never reused. ``docs/reference/formats/wire.md`` has every layout byte by byte.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1  # what this program speaks
PROTOCOL_VERSION_MIN: Final = 1  # the oldest that it still speaks

# Every connection begins with these three, as msgpack after the kind byte.
HELLO: Final = 0x01
WELCOME: Final = 0x02
REJECT: Final = 0x03

# Data and large connections between nodes.
BATCH: Final = 0x10
ANSWERS: Final = 0x11
MARK: Final = 0x12

# Control messages, msgpack after the kind byte; on control and client connections.
CONTROL: Final = 0x20

# From a client (or a node that forwards) ...
PUT: Final = 0x30
GET: Final = 0x31

# ... and back.
PUT_OK: Final = 0x40
GET_OK: Final = 0x41
REFUSED: Final = 0x42
UNKNOWN: Final = 0x43
