"""What the messages of an exchange say, in the words of a story."""

from kvorum.wire.codec import decode_control
from kvorum.wire.exchange_messages import (
    BlocksAnswer,
    BlocksQuery,
    EntriesAnswer,
    EntriesQuery,
    ExchangeDigest,
    LeavesAnswer,
    LeavesQuery,
)


def exchange_lines(payload: bytes) -> list[str]:
    """What a control message says, if it belongs to an exchange."""
    match decode_control(payload):
        case ExchangeDigest(known=known, asks=asks):
            text = "my digest" if known else "no digest yet"
            text += ", tell me yours" if asks else ""
        case BlocksQuery(blocks=blocks):
            text = f"which of {len(blocks)} blocks differ?"
        case BlocksAnswer(differing=differing, unknown=unknown):
            text = f"{len(differing)} differ" + (f", {len(unknown)} unknown" if unknown else "")
        case LeavesQuery(leaves=leaves):
            text = f"which of {len(leaves)} leaves differ?"
        case LeavesAnswer(differing=differing, unknown=unknown):
            text = f"{len(differing)} differ" + (f", {len(unknown)} unknown" if unknown else "")
        case EntriesQuery(leaves=leaves, keys=keys):
            text = f"of {len(leaves)} leaves I hold {len(keys)} keys"
        case EntriesAnswer(wanted=wanted, sent=sent, failed=failed):
            text = f"sent {sent}, wanted {len(wanted)}" + (f", failed {failed}" if failed else "")
        case _:
            return []
    return [f"Exchange: {text}"]
