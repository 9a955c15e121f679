"""What the owners of a key hold of it, judged against what all their copies say together."""

from dataclasses import dataclass

from kvorum.admin.documents import bytes_document, instant_text, member_name
from kvorum.model.record import LWW, Value, check_record, split_values
from kvorum.model.siblings import merge
from kvorum.model.topology import Topology
from kvorum.wire.messages import ExplainAnswer, LocalRecord


@dataclass(frozen=True, slots=True)
class Replica:
    """One owner's copy, judged against what all copies say together."""

    name: str
    state: str  # "current", "behind", "nothing", "damaged", "no answer"
    durability: str  # "yes", "not yet", "never" (it keeps all in memory), "unknown"
    values: tuple[Value, ...]
    own_dot: bytes  # the last dot minted there for the key; empty: never
    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One fallback's hint for the key."""

    name: str
    owners: tuple[str, ...]  # to whom it is owed
    age: int  # microseconds
    values: tuple[Value, ...]


def merged_of(replicas: list[LocalRecord]) -> bytes | None:
    """What all copies say together; None if nobody has one."""
    merged: bytes | None = None
    for replica in replicas:
        for record in (replica.record, replica.hint):
            if record is not None:
                check_record(record)
                merged = record if merged is None else merge(merged, record)
    return merged


def hints_of(topology: Topology, answer: ExplainAnswer) -> list[Kept]:
    """What is kept for owners that did not answer, and by whom."""
    return [
        Kept(
            member_name(topology, fallback.member),
            tuple(member_name(topology, owner) for owner in fallback.hint_for),
            fallback.hint_age,
            tuple(Value(value) for value in split_values(fallback.hint)),
        )
        for fallback in answer.fallbacks
        if fallback.hint is not None
    ]


def judge(topology: Topology, replica: LocalRecord, merged: bytes | None) -> Replica:
    """What one owner's answer means."""
    name = member_name(topology, replica.member)
    record = replica.record
    durability = "unknown"
    values: tuple[Value, ...] = ()
    if replica.text:
        state = "no answer"
    elif replica.quarantined:
        state = "damaged"
    elif record is None:
        state = "behind, holds nothing" if merged is not None else "nothing"
    else:
        state = "current" if record == merged else "behind"
        durability = "never" if replica.volatile else "yes" if replica.on_disk else "not yet"
        values = tuple(Value(value) for value in split_values(record))
    return Replica(name, state, durability, values, replica.own_dot, replica.text)


def verdict(replicas: list[Replica], merged: bytes | None) -> str:
    """The whole in a sentence."""
    absent = [replica.name for replica in replicas if replica.state == "no answer"]
    behind = [replica.name for replica in replicas if replica.state.startswith("behind")]
    damaged = [replica.name for replica in replicas if replica.state == "damaged"]
    parts = []
    if merged is None:
        parts.append("nobody who answered holds anything under this key")
    else:
        values = [Value(value) for value in split_values(merged)]
        count = sum(not value.tombstone for value in values)
        kind = "last write wins" if merged[1] & LWW else "siblings"
        what = "deleted" if not count else f"{count} value{'s' if count > 1 else ''}"
        parts.append(f"all copies together: {what} ({kind})")
    for names, text in ((behind, "behind"), (damaged, "damaged"), (absent, "without an answer")):
        if names:
            parts.append(f"{text}: {', '.join(names)}")
    if merged is not None and len(parts) == 1:
        parts.append("every owner is current")
    return "; ".join(parts)


def explain_document(
    key: str, topology: Topology, answer: ExplainAnswer, replicas: list[Replica],
    merged: bytes | None,
) -> dict[str, object]:  # fmt: skip
    """Who owns a key, and what each of them holds."""
    return {
        "key": key,
        "position": answer.position.hex(),
        "partition": answer.partition,
        "epoch": answer.epoch,
        "owners": [member_name(topology, owner) for owner in answer.owners],
        "replicas": [
            {
                "node": replica.name,
                "state": replica.state,
                "on_disk": replica.durability == "yes",
                "durability": replica.durability,
                "own_dot": replica.own_dot.hex(),
                "values": [_value_document(value) for value in replica.values],
                "text": replica.text,
            }
            for replica in replicas
        ],
        "hints": [
            {
                "node": kept.name,
                "for": list(kept.owners),
                "age_seconds": kept.age / 1_000_000,
                "values": [_value_document(value) for value in kept.values],
            }
            for kept in hints_of(topology, answer)
        ],
        "verdict": verdict(replicas, merged),
    }


def _value_document(value: Value) -> dict[str, object]:
    return {
        "deleted": value.tombstone,
        **({} if value.tombstone else bytes_document(value.data)),
        "dot": value.dot.hex(),
        "written_at": instant_text(value.clock),
        "expires_at": instant_text(value.expiry),
        "content_type": value.content_type.decode("utf-8", "replace"),
        "put_id": value.put_id.hex(),
    }
