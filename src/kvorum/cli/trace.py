"""``kvorum trace get|put``: one request, step by step, as its coordinator saw it."""

from typing import Annotated, Any

import typer
from rich.text import Text

from kvorum.admin.documents import (
    context_from_text,
    found_document,
    member_name,
    stored_document,
)
from kvorum.cli.options import (
    HexKey,
    Json,
    KeyArgument,
    Nodes,
    R,
    SortKey,
    TableName,
    Timeout,
    Via,
    W,
)
from kvorum.cli.output import Output
from kvorum.cli.settings import DEFAULT_NODES, DEFAULT_TIMEOUT_SECONDS, connect_to
from kvorum.cli.talk import Blind, Context, keys_of
from kvorum.client.answers import decode_failure, decode_found, decode_stored, error_of
from kvorum.errors import OutcomeUnknown, SettingsInvalid
from kvorum.model.tables import DEFAULT_TABLE
from kvorum.model.topology import Topology
from kvorum.wire.kinds import GET_OK, PUT_OK, UNKNOWN
from kvorum.wire.trace_messages import TraceAnswer, TraceEvent

BAR_CELLS = 24
TROUBLE = ("refused", "later", "slow", "silent", "lost", "late", "hedged", "asked again")

trace = typer.Typer(no_args_is_help=True, help="Follow one request: get, put.")


@trace.command("get")
def trace_get(
    key: KeyArgument,
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    r: R = None,
    via: Via = False,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Read a key and show how that went: who was asked when, who answered, who was late."""
    partition_key, below = keys_of(key, sort_key, hex_key)
    with connect_to(nodes, only_given=via, timeout_seconds=timeout) as client:
        answer = client.trace(table, partition_key, sort_key=below, needed=r)
        _show(Output(as_json), key, answer, client.topology)


@trace.command("put")
def trace_put(
    key: KeyArgument,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value.")],
    table: TableName = DEFAULT_TABLE,
    sort_key: SortKey = "",
    hex_key: HexKey = False,
    context: Context = None,
    blind: Blind = False,
    w: W = None,
    via: Via = False,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    nodes: Nodes = DEFAULT_NODES,
    as_json: Json = False,
) -> None:
    """Write a value, as kvorum put does, and show how that went, until all owners have it.

    The get before it, if there is one, is not traced.
    """
    if context is not None and blind:
        raise SettingsInvalid("--context and --blind exclude each other")
    partition_key, below = keys_of(key, sort_key, hex_key)
    data = value.encode("utf-8", "surrogateescape")
    with connect_to(nodes, only_given=via, timeout_seconds=timeout) as client:
        seen = context_from_text(context) if context is not None else None
        if context is None and not blind:
            seen = client.table(table).get(partition_key, sort_key=below).context
        answer = client.trace(table, partition_key, data, context=seen, sort_key=below, needed=w)
        _show(Output(as_json), key, answer, client.topology)


def _show(out: Output, key: str, answer: TraceAnswer, topology: Topology) -> None:
    payload = answer.answer
    if out.as_json:
        out.json({
            "coordinator": member_name(topology, answer.coordinator),
            "outcome": _outcome_document(key, payload, topology),
            "events": [
                {
                    "at_us": event.at,
                    "node": member_name(topology, event.member),
                    "what": event.what,
                    "detail": event.detail,
                }
                for event in answer.events
            ],
        })  # fmt: skip
    else:
        last = max((event.at for event in answer.events), default=0)
        out.table(
            [">ms", "", "node", "what", ""],
            [
                [
                    f"{event.at / 1000:.1f}",
                    _bar(event.at, last),
                    member_name(topology, event.member),
                    Text(event.what, style="yellow" if event.what in TROUBLE else ""),
                    event.detail,
                ]
                for event in answer.events
            ],
        )
        out.line(summary(answer.events, topology))
    if payload[0] == UNKNOWN:
        raise OutcomeUnknown(decode_failure(payload)[1])
    if payload[0] not in (PUT_OK, GET_OK):
        raise error_of(*decode_failure(payload))


def _bar(at: int, last: int) -> str:
    """Where in the whole a step lies."""
    cell = BAR_CELLS * at // (last + 1)
    return "." * cell + "*" + "." * (BAR_CELLS - 1 - cell)


def summary(events: list[TraceEvent], topology: Topology) -> str:
    """The whole in a sentence: when it was answered, and who came after that."""
    answered = next((event.at for event in events if event.what == "answered"), None)
    if answered is None:
        return "no answer came"
    after = dict.fromkeys(
        member_name(topology, event.member)
        for event in events
        if event.at > answered and event.what in ("ok", "record", "late", "refused", "lost")
    )
    hedged = sum(event.what == "hedged" for event in events)
    parts = [f"answered after {answered / 1000:.1f} ms"]
    if hedged:
        parts.append(f"{hedged} more asked because another was slow")
    if after:
        parts.append(f"{', '.join(after)} came later than the answer")
    return "; ".join(parts)


def _outcome_document(key: str, payload: bytes, topology: Topology) -> dict[str, Any]:
    if payload[0] == PUT_OK:
        return stored_document(key, decode_stored(payload, b""), topology)
    if payload[0] == GET_OK:
        return {"outcome": "ok", **found_document(key, decode_found(payload), topology)}
    outcome = "unknown" if payload[0] == UNKNOWN else "refused"
    return {"outcome": outcome, "message": decode_failure(payload)[1]}
