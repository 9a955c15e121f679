"""``kvorum table create|list|show|set|drop``: tables and what is set for them."""

from typing import Annotated

import typer

from kvorum.admin.documents import member_name, table_document
from kvorum.cli.options import Durability, Json, Nodes, ResolutionChoice
from kvorum.cli.outcome import CommandFailed
from kvorum.cli.output import Output, size_text
from kvorum.cli.settings import DEFAULT_NODES, connect_to
from kvorum.client.blocking import Client
from kvorum.client.store import TableDescription
from kvorum.errors import SettingsInvalid, UnknownTable

Name = Annotated[str, typer.Argument(metavar="NAME", help="The table.")]
RSetting = Annotated[int | None, typer.Option("--r", min=1, help="Answers that a get needs.")]
WSetting = Annotated[int | None, typer.Option("--w", min=1, help="Acks that a put needs.")]
SloppySetting = Annotated[
    bool | None, typer.Option("--sloppy/--strict", help="Whether fallbacks may count.")
]
TtlSetting = Annotated[
    int | None,
    typer.Option("--ttl", min=0, metavar="SECONDS", help="When values expire; 0: never."),
]
SiblingsSetting = Annotated[
    int | None, typer.Option(min=1, help="Concurrent values that one key may have.")
]
RecordSetting = Annotated[
    int | None, typer.Option(min=1, help="Bytes that one key's values may have together.")
]

tables = typer.Typer(no_args_is_help=True, help="Tables: create, list, show, set, drop.")


@tables.command()
def create(
    name: Name,
    r: RSetting = None,
    w: WSetting = None,
    resolution: Annotated[
        ResolutionChoice | None,
        typer.Option(help="Whether concurrent writes are kept as siblings, or the last one wins."),
    ] = None,
    durability: Durability = None,
    sloppy: SloppySetting = None,
    ttl: TtlSetting = None,
    max_siblings: SiblingsSetting = None,
    max_record_bytes: RecordSetting = None,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Create a table; what is not given is as in the table default.

    Repeating it with equal settings is fine.
    """
    with connect_to(nodes) as client:
        made = client.create_table(
            name,
            r=r,
            w=w,
            resolution=resolution.value if resolution else None,
            durability=durability.value if durability else None,
            sloppy=sloppy,
            ttl_seconds=ttl or None,
            max_siblings=max_siblings,
            max_record_bytes=max_record_bytes,
        )
        _show(Output(as_json), client, made)


@tables.command("list")
def list_tables(nodes: Nodes = DEFAULT_NODES, as_json: Json = False) -> None:
    """List all tables."""
    out = Output(as_json)
    with connect_to(nodes) as client:
        found = client.tables()
        topology = client.topology
    if as_json:
        out.json([table_document(table, topology) for table in found])
        return
    out.table(
        ["table", ">r", ">w", "resolution", "durability", "sloppy", ">ttl s", ""],
        [
            [
                table.name,
                str(table.r),
                str(table.w),
                table.resolution,
                table.durability,
                "yes" if table.sloppy else "no",
                str(table.ttl_seconds or ""),
                f"conflict: id {table.table_id.hex()}" if table.conflict else "",
            ]
            for table in found
        ],
    )


@tables.command()
def show(name: Name, nodes: Nodes = DEFAULT_NODES, as_json: Json = False) -> None:
    """Show one table with all its settings."""
    out = Output(as_json)
    with connect_to(nodes) as client:
        found = [table for table in client.tables() if table.name == name]
        if not found:
            raise UnknownTable(f"there is no table {name!r}")
        if as_json:
            documents = [table_document(one, client.topology) for one in found]
            out.json(documents[0] if len(documents) == 1 else documents)
            return
        for table in found:
            _show(out, client, table)


@tables.command("set")
def set_table(
    name: Name,
    r: RSetting = None,
    w: WSetting = None,
    durability: Durability = None,
    sloppy: SloppySetting = None,
    ttl: TtlSetting = None,
    max_siblings: SiblingsSetting = None,
    max_record_bytes: RecordSetting = None,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Change settings of a table; what is not given stays as it is.

    The resolution of a table is fixed when it is created.
    """
    with connect_to(nodes) as client:
        changed = client.set_table(
            name,
            r=r,
            w=w,
            durability=durability.value if durability else None,
            sloppy=sloppy,
            ttl_seconds=ttl,
            max_siblings=max_siblings,
            max_record_bytes=max_record_bytes,
        )
        _show(Output(as_json), client, changed)


@tables.command()
def drop(
    name: Name,
    table_id: Annotated[
        str,
        typer.Option("--id", metavar="HEX", help="Which one, where two tables carry the name."),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Drop a table with all its records, for good."""
    out = Output(as_json)
    try:
        wanted = bytes.fromhex(table_id)
    except ValueError:
        raise SettingsInvalid(f"--id {table_id}: not hexadecimal") from None
    if out.on_terminal and not yes:
        sure = typer.confirm(f"Drop the table {name} and all its records, for good?")
        if not sure:
            raise CommandFailed("nothing was dropped")
    with connect_to(nodes) as client:
        client.drop_table(name, table_id=wanted or None)
    if as_json:
        out.json({"outcome": "ok", "dropped": name})
    else:
        out.line(f"dropped {name}")


def _show(out: Output, client: Client, table: TableDescription) -> None:
    topology = client.topology
    unreached = ", ".join(member_name(topology, member) for member in table.unreached)
    if out.as_json:
        out.json(table_document(table, topology))
        return
    out.table(
        ["setting", "of " + table.name],
        [
            ["r, w", f"{table.r}, {table.w} of n={topology.n}"],
            ["resolution", table.resolution],
            ["durability", table.durability],
            ["sloppy", "yes" if table.sloppy else "no"],
            ["ttl", f"{table.ttl_seconds} s" if table.ttl_seconds else "none"],
            ["siblings", f"at most {table.max_siblings}"],
            ["record", f"at most {size_text(table.max_record_bytes)}"],
            ["id", table.table_id.hex()],
        ],
    )
    if table.conflict:
        out.note("another table carries this name: drop one of them with --id")
    if unreached:
        out.note(f"not heard of it yet: {unreached}")
