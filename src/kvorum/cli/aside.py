"""``kvorum aside list|export|restore|discard``: copies that a node has set aside.

A node whose disk had been put back to before deletes were forgotten keeps what it held out of
use. Most of it the others hold anyway. What they do not was deleted meanwhile, or was lost with
the disks: that only a person can tell apart, so what is put back is put as a new write.
"""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from kvorum.admin.documents import bytes_document, instant_text, member_name
from kvorum.cli.options import HexKey, Json, KeyArgument, Nodes, SortKey, TableName
from kvorum.cli.outcome import CommandFailed, NotFound
from kvorum.cli.output import Output, shown
from kvorum.cli.settings import DEFAULT_NODES, connect_to
from kvorum.cli.talk import keys_of
from kvorum.client.blocking import Client
from kvorum.client.store import AsideCopy, Sibling, TableDescription
from kvorum.errors import KvorumError, SettingsInvalid, UnknownTable
from kvorum.model.hashing import SPACE_HINTS, engine_key
from kvorum.model.tables import DEFAULT_TABLE
from kvorum.wire.aside_messages import ASIDE_PAGE_MAX

LISTED_MAX = 100  # by default; a table of more helps nobody

Node = Annotated[
    str, typer.Option("--node", metavar="NAME", help="Only what this node has set aside.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

aside = typer.Typer(
    no_args_is_help=True, help="Copies that were set aside: list, export, restore, discard."
)


class Kept(NamedTuple):
    """One copy, and which node has set it aside."""

    node: str
    table: str  # its id where no table has it any more
    owners: list[str]  # for whom it was kept; none: it was the node's own
    copy: AsideCopy


@aside.command("list")
def list_aside(
    node: Node = "",
    limit: Annotated[int, typer.Option(min=1, help="So many copies at the most.")] = LISTED_MAX,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """List the copies that nodes have set aside: table, key, values, when they were written.

    They are what a node held of a partition when it turned out that its disk had missed that
    deletes were forgotten. They are never served. The others have filled its partition again.
    """
    out = Output(as_json)
    with connect_to(nodes) as client:
        kept = _KeptBy(client, node, out)
        found = [one for _, one in zip(range(limit + 1), kept, strict=False)]
    if as_json:
        copies = [aside_document(one) for one in found[:limit]]
        out.json({"copies": copies, "more": len(found) > limit, "unanswered": kept.unanswered})
    elif found:
        out.table(
            ["node", "table", "key", "sort key", ">values", "written at", "kept for"],
            [_row(one) for one in found[:limit]],
        )
    else:
        out.line("nothing is set aside")
    if len(found) > limit:
        out.note(f"there are more than {limit}: --limit shows more, export takes all of them")


@aside.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Must not be there yet.")],
    node: Node = "",
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Write all copies that were set aside to a file: one JSON document a line."""
    out = Output(as_json)
    count = 0
    try:
        with connect_to(nodes) as client, file.open("x", encoding="utf-8") as lines:
            kept = _KeptBy(client, node, out)
            for one in kept:
                lines.write(json.dumps(aside_document(one), ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}") from None
    if as_json:
        out.json({"file": str(file), "copies": count, "unanswered": kept.unanswered})
    else:
        out.line(f"{count} copies written to {file}; they are still set aside")


@aside.command()
def restore(
    key: KeyArgument,
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    node: Node = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Let the copy stay set aside as well.")
    ] = False,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Put the values of a key's copies that were set aside, as siblings of what it has now.

    Each is a new, ordinary put; a value that the key has already is not put again. In a table in
    which the last write wins this is refused if the key has a value. Then the copies are discarded.
    Exit code 3 if no node has set aside a copy of the key.
    """
    out = Output(as_json)
    partition_key, below = keys_of(key, sort_key, hex_key)
    with connect_to(nodes) as client:
        description = _described(client, table)
        kept = _copies_of(client, node, out, description, partition_key, below)
        put = _put_back(client, description, kept)
        gone = 0 if keep else _discard(client, kept)
    if as_json:
        out.json({"outcome": "ok", "key": key, "put": put, "discarded": gone})
    else:
        out.line(f"ok: {put} values put, {gone} copies discarded")


@aside.command()
def discard(
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="The key, as UTF-8.")] = "",
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    everything: Annotated[bool, typer.Option("--all", help="Whatever the key is.")] = False,
    node: Node = "",
    yes: Yes = False,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Forget the copies of a key that were set aside, or with --all every copy, for good."""
    out = Output(as_json)
    if bool(key) == everything:
        raise SettingsInvalid("give a key or --all: one of them")
    if out.on_terminal and not yes:
        what = "all copies that were set aside" if everything else f"what was set aside of {key!r}"
        if not typer.confirm(f"Forget {what}, for good?"):
            raise CommandFailed("nothing was discarded")
    with connect_to(nodes) as client:
        if everything:
            gone = _discard(client, _KeptBy(client, node, out))
        else:
            wanted = keys_of(key, sort_key, hex_key)
            gone = _discard(
                client, _copies_of(client, node, out, _described(client, table), *wanted)
            )
    if as_json:
        out.json({"outcome": "ok", "discarded": gone})
    else:
        out.line(f"ok: {gone} copies discarded")


def aside_document(one: Kept) -> dict[str, object]:
    """A copy as JSON has it."""
    return {
        "node": one.node,
        "table": one.table,
        "table_id": one.copy.table_id.hex(),
        "key": bytes_document(one.copy.key),
        "sort_key": bytes_document(one.copy.sort_key),
        "siblings": [
            {
                "deleted": sibling.value is None,
                "value": bytes_document(sibling.value or b""),
                "written_at": instant_text(sibling.clock),
                "expires_at": instant_text(sibling.expiry),
                "content_type": sibling.content_type,
            }
            for sibling in one.copy.siblings
        ],
        "hint_for": one.owners,
    }


def _row(one: Kept) -> list[str]:
    copy = one.copy
    written = max((sibling.clock for sibling in copy.siblings), default=0)
    values = str(len(copy.values)) if copy.values else "deleted"
    return [
        one.node, one.table, shown(copy.key), shown(copy.sort_key), values, instant_text(written),
        ", ".join(one.owners),
    ]  # fmt: skip


class _KeptBy:
    """What one node has set aside, or all that answer, page by page."""

    def __init__(self, client: Client, node: str, out: Output) -> None:
        self.client = client
        self.names = [node] if node else [member.name for member in client.topology.members]
        self.demanded = bool(node)
        self.unanswered: dict[str, str] = {}  # by node, why it told nothing
        self.out = out
        self.tables = {table.table_id: table.name for table in client.tables()}

    def __iter__(self) -> Iterator[Kept]:
        for name in self.names:
            start = b""
            while page := self.page(name, start):
                for copy in page:
                    yield self.kept(name, copy)
                start = page[-1].position + b"\0"

    def page(self, name: str, start: bytes, limit: int = ASIDE_PAGE_MAX) -> list[AsideCopy]:
        try:
            return self.client.list_aside(name, start=start, limit=limit)
        except KvorumError as error:
            if self.demanded:
                raise
            self.unanswered[name] = str(error)
            self.out.note(f"{name}: {error}")
            return []

    def kept(self, name: str, copy: AsideCopy) -> Kept:
        topology = self.client.topology
        owners = [member_name(topology, owner) for owner in copy.hint_for]
        return Kept(name, self.tables.get(copy.table_id, copy.table_id.hex()), owners, copy)


def _described(client: Client, name: str) -> TableDescription:
    for table in client.tables():
        if table.name == name:
            return table
    raise UnknownTable(f"there is no table {name!r}")


def _copies_of(
    client: Client, node: str, out: Output, table: TableDescription, key: bytes, sort_key: bytes
) -> list[Kept]:
    """What was set aside of one key: a node's own copy of it, or what it kept for owners."""
    own = engine_key(client.topology.hash_key, table.table_id, key, sort_key)
    by_node = _KeptBy(client, node, out)
    found = [
        by_node.kept(name, copy)
        for name in by_node.names
        for position in (own, SPACE_HINTS + own[1:])
        for copy in by_node.page(name, position, 1)
        if copy.position == position
    ]
    if not found:
        raise NotFound(f"no node has set aside a copy of {shown(key)!r}")
    return found


def _put_back(client: Client, table: TableDescription, kept: list[Kept]) -> int:
    """Put what the key lacks of these copies; how many values that were."""
    rows = client.table(table.name)
    copy = kept[0].copy
    found = rows.get(copy.key, sort_key=copy.sort_key)
    if table.resolution == "lww" and found.values:
        raise CommandFailed(
            f"{shown(copy.key)!r} has a value, and in {table.name} the last write wins: what is "
            "put back would take its place. Put what you want by hand; export shows what there is"
        )
    there = {(one.value, one.content_type): None for one in found.siblings}
    now = time.time_ns() // 1_000
    missing: dict[tuple[bytes | None, str], Sibling] = {}
    siblings = [sibling for each in kept for sibling in each.copy.siblings]
    for sibling in sorted(siblings, key=lambda one: one.clock):
        named = (sibling.value, sibling.content_type)
        if sibling.value is not None and named not in there and _lasts(sibling, now):
            missing[named] = sibling
    for sibling in missing.values():
        rows.put(
            copy.key, sibling.value or b"", sort_key=copy.sort_key,
            content_type=sibling.content_type,
            ttl_seconds=(sibling.expiry - now) / 1_000_000 if sibling.expiry else None,
        )  # fmt: skip
    return len(missing)


def _lasts(sibling: Sibling, now: int) -> bool:
    return not sibling.expiry or sibling.expiry > now


def _discard(client: Client, kept: Iterable[Kept]) -> int:
    """Have each node forget its copies, some at a time; how many there were."""
    gone = 0
    batch: list[AsideCopy] = []
    node = ""
    for one in kept:
        if one.node != node or len(batch) == ASIDE_PAGE_MAX:
            gone += client.discard_aside(node, batch) if batch else 0
            node, batch = one.node, []
        batch.append(one.copy)
    return gone + (client.discard_aside(node, batch) if batch else 0)
