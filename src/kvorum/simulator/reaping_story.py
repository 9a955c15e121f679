"""Reap rounds in the protocol's words, for traces and golden scripts."""

from collections.abc import Callable

from kvorum.protocol.generations import number_of, raised_by
from kvorum.wire.codec import decode_control
from kvorum.wire.reaping_messages import (
    GenerationQuery,
    GenerationState,
    KeyStatement,
    ReapCommit,
    ReapCommitted,
    ReapDrop,
    ReapRaise,
    ReapStatement,
)

Name = Callable[[int], str]


def reaping_lines(payload: bytes, key: Callable[[bytes], str], host: Name) -> list[str]:
    """What a control message says, if it belongs to a round; ``key`` and ``host`` give names."""

    def generation(of: int) -> str:
        return f"generation {number_of(of)} of {host(raised_by(of))}" if of else "the first one"

    match decode_control(payload):
        case GenerationQuery():
            text = "where do you stand?"
        case GenerationState(generation=at, adopted=adopted):
            text = f"I stand at {generation(at)}" if adopted else "I serve nothing of it yet"
        case ReapRaise(generation=at, keys=keys):
            text = f"enter {generation(at)} and state what you hold of {', '.join(map(key, keys))}"
        case ReapStatement(keys=stated):
            text = "I stated " + ", ".join(map(_stated, stated))
        case ReapCommit(generation=at):
            text = f"{generation(at)} is going to drop; write that down"
        case ReapCommitted():
            text = "written down, on disk"
        case ReapDrop(reaped=reaped):
            text = "drop " + ", ".join(
                f"{len(each.retired)} actors of {key(each.key)}" if each.retired else key(each.key)
                for each in reaped
            )
        case _:
            return []
    return [f"Reap: {text}"]


def _stated(statement: KeyStatement) -> str:
    if statement.stray:
        return "a stray copy"
    if not statement.version:
        return "nothing"
    return "a version that may go" if statement.goes else "a version that is alive"
