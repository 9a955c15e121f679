"""The project keeps its own rules, and each rule is seen to bite."""

import ast
import subprocess
from pathlib import Path

import pytest

from scripts.stages import STAGES
from tests.support.tidy import TEXT_SUFFIXES, module_name, unused_modules, violations

ROOT = Path(__file__).resolve().parent.parent.parent
SPECIAL = ("LICENSE",)


def project_files() -> list[Path]:
    """Every text file that git knows or would add; all files where there is no git."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        names = listing.stdout.splitlines()
    else:
        tops = ("src", "tests", "scripts", "docs", "benchmarks", "examples", "changelog.d")
        names = [str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*")]
    paths = [Path(name) for name in names if name not in SPECIAL and (ROOT / name).is_file()]
    return [path for path in paths if path.suffix in TEXT_SUFFIXES]


def text_of(path: Path) -> str:
    """The text of a file; nothing where it is no text, as golden bytes are not."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_the_project_is_tidy() -> None:
    found = [
        str(violation)
        for path in project_files()
        for violation in violations(path.as_posix(), text_of(path))
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_module_is_used() -> None:
    sources = {
        module_name(path.relative_to(ROOT / "src")): ast.parse(path.read_text())
        for path in sorted((ROOT / "src" / "kvorum").rglob("*.py"))
    }
    unused = unused_modules(sources)
    assert not unused, f"no module imports these; use them or remove them: {', '.join(unused)}"


def test_every_folder_of_tests_belongs_to_a_stage() -> None:
    staged = [folder for stage in STAGES for folder in stage.folders]
    folders = sorted({path.parts[1] for path in project_files() if path.match("tests/*/*.py")})
    forgotten = [name for name in folders if name not in (*staged, "support")]
    assert not forgotten, f"name these in scripts/stages.py: {', '.join(forgotten)}"


def test_constraints_pin_every_requirement_without_addresses() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(line.count("==") == 1 for line in lines)
    assert not [line for line in lines if "/" in line or "@" in line or "--" in line]


SEEDED = [
    ("src/kvorum/model/seeded.py", '"""Seeded."""\n' + "x = 1\n" * 600, "601 lines"),
    ("src/kvorum/model/seeded.py", '"""Seeded."""\ndef f():\n' + "    x = 1\n" * 60, "f has 61"),
    ("src/kvorum/model/seeded.py", "x = 1\n", "no module docstring"),
    ("src/kvorum/server/seeded.py", '"""Seeded."""\nprint(1)\n', "print"),
    ("tests/unit/test_seeded.py", "print(1)\n", "print"),
    ("src/kvorum/protocol/seeded.py", '"""Seeded."""\nx = hash(b"")\n', "hash() differs"),
    ("src/kvorum/storage/seeded.py", '"""Seeded."""\nx = id(1)\n', "id() differs"),
    ("src/kvorum/wire/seeded.py", '"""Seeded."""\nx = 1  # TO' + "DO\n", "later"),
    ("docs/seeded.md", "Look into /ho" + "me/someone/x.\n", "path of one machine"),
    ("docs/seeded.md", "Look into ../sha" + "red/x.\n", "outside the project"),
    ("constraints.txt", "--index-" + "url x\n", "registry"),
    ("docs/seeded.md", "From py" + "pi.org.\n", "registry"),
    ("tests/unit/test_seeded.py", "import time\ntime.sleep(1)\n", "sleep"),
    ("tests/cluster/test_seeded.py", "import pytest\npytest.skip('no')\n", "requires"),
    ("tests/cluster/test_seeded.py", "import pytest\nx = pytest.mark.skipif(1)\n", "requires"),
]


@pytest.mark.parametrize(("path", "text", "expected"), SEEDED)
def test_a_seeded_violation_is_found(path: str, text: str, expected: str) -> None:
    found = violations(path, text)
    assert len(found) == 1
    assert expected in str(found[0])


@pytest.mark.parametrize(
    "statement",
    [
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "z = [x for x in {1} | y]",
        "z = list({x for x in y})",
        "z = ','.join(x for x in {'a'})",
        "for x in a.keys() & b.keys(): pass",
        "s: set[int] = y\nfor x in s: pass",
        "s = frozenset(y)\nz = {x: 1 for x in s}",
        "s = {1}\nx = s.pop()",
        "s = {1}\nz = [*s]",
        "def f(s: set[int] | None): return tuple(s)",
        "class A:\n    def f(self): self.s = set()\n    def g(self): return [x for x in self.s]",
        "class A:\n    s: frozenset[int]\n    def g(self):\n        for x in self.s: pass",
    ],
)
def test_walking_over_a_set_is_found_in_the_core(statement: str) -> None:
    text = f'"""Seeded."""\n{statement}\n'
    assert ["the order of a set" in str(found) for found in violations(CORE, text)] == [True]
    assert violations("src/kvorum/cli/seeded.py", text) == []


@pytest.mark.parametrize(
    "statement",
    [
        "for x in sorted({1, 2}): pass",
        "z = len({1}) + (1 in {1})",
        "z = any(x for x in {1})",
        "s = {1}\nz = {x for x in s}",
        "for x in {1: 2}: pass",
        "for x in a.keys(): pass",
        "def f():\n    s = {1}\ndef g(s): return list(s)",
        "z = [1].pop()",
    ],
)
def test_using_a_set_without_its_order_is_fine(statement: str) -> None:
    assert violations(CORE, f'"""Seeded."""\n{statement}\n') == []


CORE = "src/kvorum/model/seeded.py"


def test_an_unused_module_is_found() -> None:
    sources = {
        "kvorum": ast.parse("from kvorum.model import used"),
        "kvorum.model": ast.parse(""),
        "kvorum.model.used": ast.parse("import kvorum.model.used"),
        "kvorum.model.unused": ast.parse("import kvorum.model.unused"),
    }
    assert unused_modules(sources) == ["kvorum.model.unused"]
