"""Every control message has somebody who takes it, or is refused; and a sample for the codec."""

import typing

import pytest

from kvorum.wire.framing import FrameInvalid
from kvorum.wire.messages import Control
from tests.golden.samples import CONTROL_MESSAGES
from tests.support.recording import OneNode

FROM_CLIENTS = {
    "TopologyQuery", "TableQuery", "TableList", "TableCreate", "TableSet", "TableDrop",
    "StatusQuery", "ExplainQuery", "KeysQuery", "TraceQuery", "LocalQuery",
    "AsideQuery", "AsideDiscard",
}  # fmt: skip
FROM_MEMBERS = {
    "Ping", "TablesUpdate", "TablesUpdated", "LocalRead", "LocalRecord",
    "LocalKeys", "LocalKeysAnswer",
    "GenerationStates", "GenerationQuery", "GenerationState", "ReapRaise", "ReapStatement",
    "ReapCommit", "ReapCommitted", "ReapDrop",
    "Probe", "ProbeAck", "ProbeRequest", "ProbeRelayed", "ProbeNack", "PushPull", "PushPulled",
    "TopologyTold", "HandoffOffer", "HandoffCredit", "CoverQuery",
    "CoverAnswer",
    "ExchangeDigest", "BlocksQuery", "BlocksAnswer", "LeavesQuery", "LeavesAnswer",
    "EntriesQuery", "EntriesAnswer",
}  # fmt: skip
NO_LONGER_SENT = {"Pong"}
TO_CLIENTS = {
    "ControlRefused", "TopologyAnswer", "TableAnswer", "StatusAnswer", "ExplainAnswer",
    "KeysAnswer", "TraceAnswer", "LocalAnswer", "AsideAnswer", "AsideDiscarded",
}  # fmt: skip
NAMES = sorted(message.__name__ for message in typing.get_args(Control))


def samples(name: str) -> list[typing.Any]:
    return [sample for sample in CONTROL_MESSAGES if type(sample).__name__ == name]


def test_every_message_is_somebodys() -> None:
    assert sorted(FROM_CLIENTS | FROM_MEMBERS | TO_CLIENTS | NO_LONGER_SENT) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_message_has_a_sample_and_is_taken_from_whom_it_may_come(name: str) -> None:
    assert samples(name), f"tests/golden/samples.py has no {name}"
    for message in samples(name):
        one = OneNode()
        if name in FROM_CLIENTS:
            one.question(message)
        else:
            with pytest.raises(FrameInvalid, match=f"a client may not send {name}"):
                one.question(message)
        if name in FROM_MEMBERS:
            one.node.on_control(2, message)
        else:
            with pytest.raises(FrameInvalid, match=f"a member may not send {name}"):
                one.node.on_control(2, message)
