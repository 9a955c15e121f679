"""Hold the packets of netfilter queue 7 for a while: ``python -m tests.support.delay SECONDS``.

The kernels that tests meet often lack the queueing discipline for delays, so this asks netfilter
for each packet and lets it pass later. It speaks netlink itself: a message has a header, a queue
number, and attributes of which three matter here. (linux/netfilter/nfnetlink_queue.h)
"""

import select
import socket
import sys
import time
from collections import deque
from struct import Struct

QUEUE = 7
NETLINK_NETFILTER = 12
PACKET, VERDICT, CONFIG = 0x0300, 0x0301, 0x0302
REQUEST = 1
BIND = 1
COPY_META = 1
ACCEPT = 1
PACKET_HEADER, VERDICT_HEADER = 1, 2  # attributes of a packet, of a verdict
COMMAND, PARAMETERS, LENGTH_MAX = 1, 2, 3  # attributes of a configuration
WAITING_MAX = 100_000

_header = Struct("=IHHII")
_queue = Struct("!BBH")
_attribute = Struct("=HH")
_packet_id = Struct("!I")


def message(kind: int, attribute: int, body: bytes) -> bytes:
    """One netlink message about the queue with one attribute."""
    padded = body + bytes(-len(body) % 4)
    content = (
        _queue.pack(socket.AF_UNSPEC, 0, QUEUE)
        + _attribute.pack(_attribute.size + len(body), attribute)
        + padded
    )
    return _header.pack(_header.size + len(content), kind, REQUEST, 0, 0) + content


def packet_ids(data: bytes) -> list[bytes]:
    """The ids of the packets in what the kernel has sent."""
    found: list[bytes] = []
    position = 0
    while position + _header.size <= len(data):
        length, kind, _, _, _ = _header.unpack_from(data, position)
        if kind == PACKET:
            at = position + _header.size + _queue.size
            while at < position + length:
                size, attribute = _attribute.unpack_from(data, at)
                if attribute & 0x7FFF == PACKET_HEADER:
                    start = at + _attribute.size
                    found.append(data[start : start + _packet_id.size])
                at += (size + 3) & ~3
        position += (length + 3) & ~3
    return found


def main(seconds: float) -> None:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    netlink.bind((0, 0))
    netlink.send(message(CONFIG, COMMAND, bytes((BIND, 0, 0, socket.AF_INET))))
    netlink.send(message(CONFIG, PARAMETERS, b"\0\0\0\0" + bytes((COPY_META,))))
    netlink.send(message(CONFIG, LENGTH_MAX, WAITING_MAX.to_bytes(4, "big")))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        pause = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        readable, _, _ = select.select([netlink], [], [], pause)
        if readable:
            due = time.monotonic() + seconds
            waiting.extend((due, each) for each in packet_ids(netlink.recv(1 << 20)))
        while waiting and waiting[0][0] <= time.monotonic():
            _, packet = waiting.popleft()
            netlink.send(message(VERDICT, VERDICT_HEADER, ACCEPT.to_bytes(4, "big") + packet))


if __name__ == "__main__":
    main(float(sys.argv[1]))
