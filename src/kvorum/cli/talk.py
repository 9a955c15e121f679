"""``kvorum get``, ``put`` and ``delete``: reading and writing single keys by hand.

A put reads first and writes with what it has seen, as any careful program does, so that it makes
no sibling of a value that was there. Over several siblings it puts the one new value: that is how
they are merged by hand.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kvorum.admin.documents import (
    context_from_text,
    found_document,
    oldest_first,
    stored_document,
)
from kvorum.cli.options import (
    Durability,
    HexKey,
    Json,
    KeyArgument,
    Nodes,
    R,
    Sloppy,
    SortKey,
    TableName,
    Timeout,
    Via,
    W,
)
from kvorum.cli.outcome import NotFound
from kvorum.cli.output import Output, acks_text
from kvorum.cli.settings import DEFAULT_NODES, DEFAULT_TIMEOUT_SECONDS, connect_to
from kvorum.client.store import Found, Sibling, Stored
from kvorum.errors import SettingsInvalid, SiblingsError
from kvorum.model.tables import DEFAULT_TABLE
from kvorum.model.topology import Topology

Context = Annotated[
    str | None,
    typer.Option(
        metavar="CONTEXT", help="Write over what this context has seen; as get --json prints it."
    ),
]
Blind = Annotated[
    bool, typer.Option("--blind", help="Read nothing first; what is there stays as a sibling.")
]
Retry = Annotated[
    bool, typer.Option("--retry", help="If the outcome is in doubt, write at other nodes too.")
]


def get(
    key: KeyArgument,
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    r: R = None,
    sloppy: Sloppy = None,
    one: Annotated[
        bool, typer.Option("--one", help="Fail with exit code 5 if there are several siblings.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the bytes of the one value and nothing else.")
    ] = False,
    via: Via = False,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Print the value of a key, or all of its siblings, a line each.

    Exit code 3 if the key has no value.
    """
    out = Output(as_json)
    partition_key, below = keys_of(key, sort_key, hex_key)
    with connect_to(nodes, only_given=via, timeout_seconds=timeout) as client:
        found = client.table(table).get(partition_key, sort_key=below, r=r, sloppy=sloppy)
        topology = client.topology
    if len(found.values) > 1 and (one or raw):
        raise SiblingsError(found.values, found.context)
    if as_json:
        out.json(found_document(key, found, topology))
    if not found.values:
        raise NotFound(
            f"{key!r} was deleted or has expired" if found.deleted else f"{key!r} has no value"
        )
    if raw:
        out.raw(found.values[0])
    elif not as_json:
        for sibling in oldest_first(found):
            if sibling.value is not None:
                out.value(sibling.value)
        _comment(out, found)


def _comment(out: Output, found: Found) -> None:
    if len(found.values) > 1:
        out.note(
            f"{len(found.values)} siblings: written concurrently, and all are kept. "
            "To merge them: kvorum put KEY MERGED_VALUE"
        )
    if found.fallback_read:
        out.note("too few of the key's owners answered; a fallback was read in an owner's stead")
    if found.may_miss_acknowledged:
        out.note("a replica that is still catching up was counted: a write may be missing here")


def put(
    key: KeyArgument,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="The value; - reads standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Take the value from FILE.")
    ] = None,
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    context: Context = None,
    blind: Blind = False,
    ttl_seconds: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", help="When the value expires.")
    ] = None,
    content_type: Annotated[
        str, typer.Option("--content-type", metavar="TYPE", help="What the value is.")
    ] = "",
    w: W = None,
    durability: Durability = None,
    sloppy: Sloppy = None,
    retry: Retry = False,
    via: Via = False,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Write a value: over what a get sees now, or over what --context has seen.

    Says which nodes hold it, and how durably.
    """
    out = Output(as_json)
    data = _value_of(value, file)
    partition_key, below = keys_of(key, sort_key, hex_key)
    _check_one_of(context, blind)
    with connect_to(nodes, only_given=via, timeout_seconds=timeout) as client:
        rows = client.table(table)
        replaced: tuple[Sibling, ...] = ()
        seen = context_from_text(context) if context is not None else None
        if not blind and context is None:
            found = rows.get(partition_key, sort_key=below, sloppy=sloppy)
            seen = found.context
            replaced = tuple(one for one in found.siblings if one.value is not None)
        stored = rows.put(
            partition_key,
            data,
            context=seen,
            sort_key=below,
            ttl_seconds=ttl_seconds,
            w=w,
            durability=durability.value if durability else None,
            sloppy=sloppy,
            content_type=content_type,
            retry=retry,
        )
        _show_stored(out, key, stored, client.topology)
    if len(replaced) > 1:
        out.note(f"in place of {len(replaced)} siblings")


def delete(
    key: KeyArgument,
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    context: Context = None,
    blind: Blind = False,
    w: W = None,
    durability: Durability = None,
    sloppy: Sloppy = None,
    retry: Retry = False,
    via: Via = False,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Delete what a get sees now, or what --context has seen.

    Exit code 3 if there is nothing to delete.
    """
    out = Output(as_json)
    partition_key, below = keys_of(key, sort_key, hex_key)
    _check_one_of(context, blind)
    with connect_to(nodes, only_given=via, timeout_seconds=timeout) as client:
        rows = client.table(table)
        if context is not None:
            seen = context_from_text(context)
        elif blind:
            seen = b""
        else:
            found = rows.get(partition_key, sort_key=below, sloppy=sloppy)
            if not found.values:
                raise NotFound(f"{key!r} has no value to delete")
            seen = found.context
        stored = rows.delete(
            partition_key,
            seen,
            sort_key=below,
            w=w,
            durability=durability.value if durability else None,
            sloppy=sloppy,
            retry=retry,
        )
        _show_stored(out, key, stored, client.topology)


def keys_of(key: str, sort_key: str, hex_key: bool) -> tuple[bytes, bytes]:
    """Partition key and sort key as they were typed."""
    if not hex_key:
        # Bytes of the command line that are no UTF-8 reach us as surrogates.
        return key.encode("utf-8", "surrogateescape"), sort_key.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(key), bytes.fromhex(sort_key)
    except ValueError:
        raise SettingsInvalid("--hex-key: the key is not hexadecimal") from None


def _value_of(value: str | None, file: Path | None) -> bytes:
    if (value is None) == (file is None):
        raise SettingsInvalid("give the value as an argument, as - or with --file: one of them")
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise SettingsInvalid(f"{file}: {error.strerror}") from None
    assert value is not None
    return sys.stdin.buffer.read() if value == "-" else value.encode("utf-8", "surrogateescape")


def _check_one_of(context: str | None, blind: bool) -> None:
    if context is not None and blind:
        raise SettingsInvalid("--context and --blind exclude each other")


def _show_stored(out: Output, key: str, stored: Stored, topology: Topology) -> None:
    if out.as_json:
        out.json(stored_document(key, stored, topology))
    else:
        out.line(f"ok: {acks_text(topology, stored.acks)}")
