"""The container file, read as far as kvorum uses it: instructions, and the files that go in."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"


class Instruction(NamedTuple):
    """One line of the file, continued lines joined."""

    name: str
    text: str


def instructions() -> list[Instruction]:
    """All of them in order, comments left out."""
    text = re.sub(r"\\\n\s*", "", CONTAINERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [Instruction(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def texts_of(name: str) -> list[str]:
    return [one.text for one in instructions() if one.name == name]


def documented_run() -> list[str]:
    """The words of the ``podman run`` that the comment at the top shows."""
    comment = "".join(re.findall(r"^#   (.*)$", CONTAINERFILE.read_text(), re.MULTILINE))
    return comment[comment.index("podman run") :].replace("\\", " ").split()


def copy_context(target: Path) -> None:
    """What ``.dockerignore`` lets into an image: it names those first, and what to leave out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = [rule[1:] for rule in rules if rule.startswith("!")]
    unwanted = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    target.mkdir()
    for name in wanted:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(*unwanted))
        else:
            shutil.copy(ROOT / name, target / name)
