"""Every exception that a caller of kvorum can meet.

A request has exactly three outcomes. **ok** returns; **refused** (`Refused` and below) means
that for certain nothing was written; **unknown** (`OutcomeUnknown`) means that it may or may not
have been, and names the put id under which to ask again.
"""


class KvorumError(Exception):
    """Anything that kvorum raises at its callers."""


class Refused(KvorumError):
    """Failed for certain: nothing was written."""


class BadRequest(Refused):
    """The request itself is wrong: an impossible r or w, a key that is no key."""


class UnknownTable(Refused):
    """No table of that name, or it has been dropped."""


class BadContext(Refused):
    """The context is damaged or belongs to another key."""


class TooLarge(Refused):
    """A key, value or record beyond its limit."""


class TooManySiblings(Refused):
    """The key has as many concurrent values as its table allows: read, merge, put with context."""


class Overloaded(Refused):
    """A bound was reached; the same request may succeed a little later."""


class QuorumNotMet(Refused):
    """Too few replicas answer, or can promise the durability asked for."""


class NoNodeReachable(Refused):
    """None of the addresses answered."""


class OutcomeUnknown(KvorumError):
    """The request was sent and no answer says what became of it.

    ``put_id`` names the put: sent again under it to the same node, it is one write.
    """

    def __init__(self, message: str, put_id: bytes | None = None) -> None:
        super().__init__(message)
        self.put_id = put_id


class SiblingsError(KvorumError):
    """One value was asked for and there are several: merge ``values``, put with ``context``."""

    def __init__(self, values: tuple[bytes, ...], context: bytes) -> None:
        super().__init__(
            f"the key has {len(values)} concurrent values; read .values, merge them and put the "
            "result with .context, or use update()"
        )
        self.values = values
        self.context = context


class SettingsInvalid(KvorumError):
    """A setting, topology or data directory that a node cannot start with; says which and why."""
