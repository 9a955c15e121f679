"""``kvorum explain``: who owns a key, and what each of them holds of it.

Every owner reads its own copy, without repair, so that asking changes nothing. The copies are
merged here, as a get would, to see who is behind.
"""

from rich.text import Text

from kvorum.admin.documents import instant_text, member_name
from kvorum.admin.explanation import (
    Replica,
    explain_document,
    hints_of,
    judge,
    merged_of,
    verdict,
)
from kvorum.cli.options import HexKey, Json, KeyArgument, Nodes, SortKey, TableName
from kvorum.cli.output import Output, duration_text, shown
from kvorum.cli.settings import DEFAULT_NODES, connect_to
from kvorum.cli.talk import keys_of
from kvorum.model.tables import DEFAULT_TABLE
from kvorum.model.version import counter_of


def explain(
    key: KeyArgument,
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Show who owns a key and what each owner holds: values, dots, durability, who is behind.

    And which hints for absent owners are kept elsewhere, and for how long.

    Nothing is repaired by asking. A dot names one write: who coordinated it, and its number.
    """
    out = Output(as_json)
    partition_key, below = keys_of(key, sort_key, hex_key)
    with connect_to(nodes) as client:
        answer = client.explain(table, partition_key, sort_key=below)
        topology = client.topology
    merged = merged_of([*answer.replicas, *answer.fallbacks])
    replicas = [judge(topology, replica, merged) for replica in answer.replicas]
    if as_json:
        out.json(explain_document(key, topology, answer, replicas, merged))
        return
    names = ", ".join(member_name(topology, owner) for owner in answer.owners)
    out.line(
        f"{key!r} of {table}: partition {answer.partition} of {len(topology.partitions)} "
        f"(epoch {answer.epoch}), owners {names}; ring position {answer.position.hex()}"
    )
    rows: list[list[str | Text]] = []
    for replica in replicas:
        rows += _rows(replica)
    out.table(["owner", "copy", "on disk", "value", "dot", "written at", "expires"], rows)
    for kept in hints_of(topology, answer):
        owners = ", ".join(kept.owners)
        age = duration_text(kept.age)
        values = " | ".join(
            "(deleted)" if value.tombstone else shown(value.data) for value in kept.values
        )
        out.line(f"{kept.name} keeps a hint for {owners}, for {age}: {values}")
    out.line(verdict(replicas, merged))


def _rows(replica: Replica) -> list[list[str | Text]]:
    style = "green" if replica.state == "current" else "bold yellow"
    head: list[str | Text] = [replica.name, Text(replica.state, style=style), replica.durability]
    if not replica.values:
        return [[*head, replica.text, "", "", ""]]
    rows: list[list[str | Text]] = []
    for value in replica.values:
        rows.append(
            [
                *head,
                "(deleted)" if value.tombstone else shown(value.data),
                dot_text(value.dot),
                instant_text(value.clock),
                instant_text(value.expiry),
            ]
        )
        head = ["", "", ""]
    return rows


def dot_text(dot: bytes) -> str:
    """``store/stamp:counter``, short enough for a table."""
    if not dot:
        return ""
    return f"{dot[:4].hex()}/{int.from_bytes(dot[8:12], 'big')}:{counter_of(dot)}"
