"""What reviewers would otherwise nag about, as rules that name the replacement.

A rule looks at one file: its path below the project's root and its text. ``tests/tidy`` runs all
of them over the project, and shows each one a violation to see that it bites.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.tidy_sets import iterated_sets

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60

# Code whose behaviour must be the same in every process, whatever PYTHONHASHSEED says.
DETERMINISTIC = (
    "src/kvorum/model/",
    "src/kvorum/wire/",
    "src/kvorum/protocol/",
    "src/kvorum/storage/",
    "src/kvorum/simulator/",
    "src/kvorum/client/session.py",
)
# Tests that run on virtual time or on none.
WITHOUT_SLEEP = ("tests/unit/", "tests/property/", "tests/scripts/", "tests/simulation/")
DOCUMENTED = ("src/", "scripts/", "benchmarks/", "tests/support/")
TEXT_SUFFIXES = (".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".c", ".h", ".html", "")

# The words are put together here so that this file does not hold what it forbids.
LEFT_OVER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}-])/(" + "|".join(["ro" + "ot", "ho" + "me", "Us" + "ers", "wo" + "rk"]) + r")/\w"
)
SHARED_FOLDER = re.compile(r"\.\./" + "shared")
REGISTRY = re.compile(
    r"\b(py" + r"pi\.org|python" + r"hosted\.org|crates" + r"\.io|npm" + r"js\.org|npm" + r"js\.com"
    r"|proxy\.golang" + r"\.org|repo1?\.maven|deb\.debian" + r"\.org)|(extra-)?index-" + r"url"
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing to mend, with what to write instead."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


Rule = Callable[[str, str, ast.Module], Iterator[tuple[int, str]]]


def violations(path: str, text: str) -> list[Violation]:
    """Everything wrong with one file; ``path`` is relative to the project's root."""
    found = [Violation(path, line, message) for line, message in _check_text(path, text)]
    if path.endswith(".py"):
        tree = ast.parse(text, path)
        for rule in RULES:
            found += [Violation(path, line, message) for line, message in rule(path, text, tree)]
    return found


def _check_text(path: str, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if LEFT_OVER.search(line):
            yield number, "a note to do it later: do it, or file an issue and name it"
        if MACHINE_PATH.search(line):
            yield number, "a path of one machine: make it relative, or use tmp_path in tests"
        if SHARED_FOLDER.search(line):
            yield number, "a file outside the project: say here what it says"
        if REGISTRY.search(line):
            yield number, "the address of a package registry: leave that to each client's settings"


def _module_length(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    lines = text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield 1, f"{lines} lines, more than {MODULE_LINES_MAX}: split the module by what it knows"


def _function_length(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield (
                    node.lineno,
                    f"{node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}: "
                    "give its steps names of their own",
                )


def _module_docstring(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if path.startswith(DOCUMENTED) and tree.body and ast.get_docstring(tree) is None:
        yield 1, "no module docstring: say what the module is for"


def _printing(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not path.startswith(("src/", "tests/")) or path.startswith("src/kvorum/cli/"):
        return
    for call in _calls(tree):
        if isinstance(call.func, ast.Name) and call.func.id == "print":
            yield call.lineno, "print: report an event or log it; only kvorum.cli talks to people"


def _hash_and_id(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not path.startswith(DETERMINISTIC):
        return
    for call in _calls(tree):
        if isinstance(call.func, ast.Name) and call.func.id in ("hash", "id"):
            yield (
                call.lineno,
                f"{call.func.id}() differs between processes: use blake2b, crc32 or a counter",
            )


def _set_iteration(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if path.startswith(DETERMINISTIC):
        for line in iterated_sets(tree):
            yield line, "the order of a set differs between processes: use sorted() or a dict"


def _sleeping(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not path.startswith(WITHOUT_SLEEP):
        return
    for call in _calls(tree):
        if _name_of(call.func) == "sleep":
            yield call.lineno, "sleep: set env.now, or let the simulator's clock run"


def _skipping(path: str, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not path.startswith("tests/") or path == "tests/support/requirements.py":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in (
            "skip",
            "skipif",
            "skipIf",
            "skipTest",
            "importorskip",
            "flaky",
        ):
            yield (
                node.lineno,
                f"{node.attr}: say what is missing with tests.support.requirements.requires",
            )


RULES: tuple[Rule, ...] = (
    _module_length,
    _function_length,
    _module_docstring,
    _printing,
    _hash_and_id,
    _set_iteration,
    _sleeping,
    _skipping,
)


def unused_modules(sources: dict[str, ast.Module]) -> list[str]:
    """Modules of kvorum, by dotted name, that no other one imports and no program starts with."""
    imported = {"kvorum", "kvorum.__main__", "kvorum.cli.main"}
    for name, tree in sources.items():
        imported |= {target for target in _imports(tree) if target != name}
    packages = {name.rpartition(".")[0] for name in sources}
    return sorted(name for name in sources if name not in imported and name not in packages)


def module_name(path: Path) -> str:
    """``src/kvorum/model/ring.py`` is ``kvorum.model.ring``; a package is named by its folder."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
