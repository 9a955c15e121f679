"""What a node, a key or a table is told as in JSON: to ``--json`` and to the administration port.

Both show the same documents, made here and nowhere else. Times are text in UTC; bytes are
``text`` where they are UTF-8, else ``base64``.
"""

import base64
import binascii
from datetime import UTC, datetime

from kvorum.client.store import Found, Sibling, Stored, TableDescription
from kvorum.errors import SettingsInvalid
from kvorum.model.topology import Topology


def bytes_document(data: bytes) -> dict[str, str]:
    """Bytes in JSON: ``text`` where they are UTF-8, else ``base64``."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def context_text(context: bytes) -> str:
    """A context as it is shown, and taken back by ``--context``."""
    return base64.urlsafe_b64encode(context).decode().rstrip("=")


def context_from_text(text: str) -> bytes:
    try:
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded.encode(), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise SettingsInvalid(
            "--context: not a context as get and put print it with --json"
        ) from None


def instant_text(microseconds: int) -> str:
    """A time since the Unix epoch for people; empty for none."""
    if not microseconds:
        return ""
    try:
        moment = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(microseconds)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def member_name(topology: Topology, member_id: int) -> str:
    for member in topology.members:
        if member.id == member_id:
            return member.name
    return str(member_id)


def oldest_first(found: Found) -> list[Sibling]:
    """The siblings in the order of their clocks, which is the one that people expect."""
    return sorted(found.siblings, key=lambda sibling: (sibling.clock, sibling.dot))


def found_document(key: str, found: Found, topology: Topology) -> dict[str, object]:
    """What a get brought."""
    siblings = oldest_first(found)
    return {
        "key": key,
        "deleted": found.deleted,
        "values": [bytes_document(one.value) for one in siblings if one.value is not None],
        "siblings": [
            {
                "deleted": one.value is None,
                "dot": one.dot.hex(),
                "written_at": instant_text(one.clock),
                "expires_at": instant_text(one.expiry),
                "content_type": one.content_type,
                "put_id": one.put_id.hex(),
            }
            for one in siblings
        ],
        "coordinator": member_name(topology, found.coordinator),
        "replicas": [member_name(topology, member) for member in found.replicas],
        "may_miss_acknowledged": found.may_miss_acknowledged,
        "fallback_read": found.fallback_read,
        "context": context_text(found.context),
    }


def stored_document(key: str, stored: Stored, topology: Topology) -> dict[str, object]:
    """A write that is done."""
    return {
        "outcome": "ok",
        "key": key,
        "coordinator": member_name(topology, stored.coordinator),
        "w": stored.w,
        "primaries_acked": stored.primaries_acked,
        "fallbacks_acked": stored.fallbacks_acked,
        "acks": [
            {
                "node": member_name(topology, ack.member),
                "level": ack.level,
                "fallback": ack.fallback,
            }
            for ack in stored.acks
        ],
        "put_id": stored.put_id.hex(),
        "context": context_text(stored.context),
    }


def table_document(table: TableDescription, topology: Topology) -> dict[str, object]:
    """A table as JSON has it."""
    return {
        "name": table.name,
        "id": table.table_id.hex(),
        "r": table.r,
        "w": table.w,
        "resolution": table.resolution,
        "durability": table.durability,
        "sloppy": table.sloppy,
        "ttl_seconds": table.ttl_seconds,
        "max_siblings": table.max_siblings,
        "max_record_bytes": table.max_record_bytes,
        "conflict": table.conflict,
        "unreached": [member_name(topology, member) for member in table.unreached],
    }
