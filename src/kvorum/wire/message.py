"""What every control message is; the messages themselves stand in ``messages.py`` and its parts."""

import msgspec


class Message(msgspec.Struct, array_like=True, tag_field="t", gc=False):
    """Base of all. Immutable by law: a sent message may be shared by all its receivers."""
