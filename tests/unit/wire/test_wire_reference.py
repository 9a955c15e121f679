"""The reference page of the wire protocol has every message, field, kind, code and status."""

import re
import typing
from pathlib import Path

import msgspec
import pytest

from kvorum.model.members import Belief
from kvorum.model.tables import TableSettings
from kvorum.wire import kinds, link, requests
from kvorum.wire.gossip_messages import News
from kvorum.wire.messages import (
    Control,
    Hello,
    OperationStatus,
    PeerStatus,
    Reject,
    StoreStart,
    Welcome,
)
from kvorum.wire.trace_messages import TraceEvent

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "formats" / "wire.md"
TEXT = PAGE.read_text()
MESSAGES = [Hello, Welcome, Reject, *typing.get_args(Control)]


def fields_of(struct: type[msgspec.Struct]) -> str:
    return ", ".join(struct.__struct_fields__)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_a_message_has_its_row(message: type[msgspec.Struct]) -> None:
    row = f"| {message.__struct_config__.tag} | `{message.__name__}` | {fields_of(message)} |"
    assert row in TEXT.splitlines(), f"write this row into {PAGE.name}: {row}"


@pytest.mark.parametrize(
    "struct", [StoreStart, OperationStatus, PeerStatus, TraceEvent, TableSettings, Belief, News]
)
def test_a_nested_struct_has_its_row(struct: type[msgspec.Struct]) -> None:
    row = f"| `{struct.__name__}` | {fields_of(struct)} |"
    assert row in TEXT.splitlines(), f"write this row into {PAGE.name}: {row}"


def test_each_kind_has_its_row() -> None:
    numbers = {name: each for name, each in vars(kinds).items() if isinstance(each, int)}
    for name, number in numbers.items():
        if not name.startswith("PROTOCOL"):
            assert re.search(rf"^\| 0x{number:02x} \| {name} \|", TEXT, re.M | re.I), name


def test_heads_have_the_length_that_is_said() -> None:
    for name, size in (
        ("PUT", requests.PUT_HEAD_BYTES),
        ("GET", requests.GET_HEAD_BYTES),
        ("PUT_OK", requests.PUT_OK_HEAD_BYTES),
        ("GET_OK", requests.GET_OK_HEAD_BYTES),
        ("REFUSED and UNKNOWN", requests.FAILURE_HEAD_BYTES),
    ):
        assert f"\n{name}, head of {size} bytes." in TEXT
    assert f"All three begin with these {link.HEAD_BYTES} bytes" in TEXT
    assert f"| {link.ENTRY_BYTES} | | engine key |" in TEXT


def test_each_code_and_status_has_its_row() -> None:
    codes = TEXT[TEXT.index("| Code |") : TEXT.index("## Batches")]
    assert re.findall(r"^\| (\d+) \|", codes, re.M) == [
        str(code) for code in range(requests.BAD_REQUEST, requests.NOT_OWNER + 1)
    ]
    statuses = TEXT[TEXT.index("| Status |") :]
    assert re.findall(r"^\| (\d+) \|", statuses, re.M) == [
        str(status) for status in range(link.OK, link.NOTHING_BEHIND + 1)
    ]
