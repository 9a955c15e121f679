"""The pages made from the code are fresh and complete."""

import msgspec
import pytest

from kvorum.config import MEANINGS, NodeConfig
from scripts.reference import FOLDER, cli_page, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_page_is_fresh(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text == pages()[name], "run python -m scripts.reference, and look at the difference"


def test_every_setting_has_a_meaning() -> None:
    assert list(MEANINGS) == [field.name for field in msgspec.structs.fields(NodeConfig)]


def test_every_command_and_option_says_what_it_is_for() -> None:
    for line in cli_page().splitlines():
        if line.startswith(("| `-", "| `KEY", "| `VALUE", "| `FILE", "| `NAME")):
            assert line.split("|")[2].strip(), f"without a help text: {line}"
