"""The golden scripts: what nodes say to each other, told as short stories and compared as text."""

from pathlib import Path

import pytest

from tests.support.scripts import played

SCRIPTS = sorted(Path(__file__).parent.glob("*.script"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_story_is_told_as_before(path: Path, update_scripts: bool) -> None:
    now = played(path)
    if update_scripts:
        path.write_text(now)
    assert now == path.read_text(), "if the change is meant, rewrite with --update-scripts"


def test_there_are_stories() -> None:
    assert len(SCRIPTS) >= 6
