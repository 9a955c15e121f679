"""What ``kvorum status`` says of how equal two nodes are."""

import pytest

from kvorum.cli.status import _equality_text
from kvorum.wire.messages import NOT_COMPARED, UNEQUAL


@pytest.mark.parametrize(
    ("equal_for", "text"),
    [(UNEQUAL, "not"), (NOT_COMPARED, "unknown"), (0, "0 s"), (90_000_000, "1 min 30 s")],
)
def test_unequal_is_told_from_not_compared(equal_for: int, text: str) -> None:
    assert _equality_text(equal_for) == text
