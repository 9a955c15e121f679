"""Addresses of nodes as people write them."""

import re
from typing import Final, NamedTuple

from kvorum.errors import BadRequest

DEFAULT_PORT: Final = 7401


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_addresses(given: str | list[str] | tuple[str, ...]) -> list[Address]:
    """Read ``host:port``, one or several, in a list or separated by commas; IPv6 in brackets."""
    texts = given.split(",") if isinstance(given, str) else given
    addresses = dict.fromkeys(parse_address(text.strip()) for text in texts)
    if not addresses:
        raise BadRequest("no address of a node was given")
    return list(addresses)


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadRequest(f"address {text!r}: must be [IPv6 ADDRESS]:PORT")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise BadRequest(f"address {text!r}: put an IPv6 address in brackets")
    if not host:
        raise BadRequest(f"address {text!r}: must be HOST:PORT")
    if not port:
        return Address(host, default_port)
    if re.fullmatch("[0-9]{1,5}", port) is None or not 0 < int(port) < 65536:
        raise BadRequest(f"address {text!r}: the port must be a number from 1 to 65535")
    return Address(host, int(port))
