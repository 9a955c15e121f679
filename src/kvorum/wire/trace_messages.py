"""Control messages of tracing: one request, and what became of it step by step."""

import msgspec

from kvorum.wire.message import Message


class TraceQuery(Message, tag=80):
    """Client to node: get or put this key, and tell how it went. Answered by ``TraceAnswer``."""

    request: int
    table_id: bytes
    partition_key: bytes
    sort_key: bytes = b""
    put: bool = False  # else a get
    value: bytes = b""
    context: bytes = b""
    quorum: int = 0  # r or w; 0: the table's
    client: bytes = b""  # of a put: eight random bytes, its id


class TraceEvent(msgspec.Struct, array_like=True, gc=False):
    """One step. Times are those of the coordinator's turns."""

    at: int  # microseconds since the request was read
    what: str
    member: int
    detail: str = ""


class TraceAnswer(Message, tag=81):
    request: int
    coordinator: int
    answer: bytes  # what a client that does not trace would have been answered
    events: list[TraceEvent]


Tracing = TraceQuery | TraceAnswer
