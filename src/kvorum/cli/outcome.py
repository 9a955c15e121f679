"""What a command came to, as an exit code: the one place where errors become numbers.

0 ok, 1 refused, 2 usage or settings, 3 not found, 4 outcome unknown, 5 siblings where one value
was wanted, 6 port or directory in use, 130 interrupted.
"""

import json
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

from kvorum.cli.processes import NodeFailed
from kvorum.errors import KvorumError, OutcomeUnknown, SettingsInvalid, SiblingsError
from kvorum.server.datadir import InUse

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
UNKNOWN: Final = 4
SIBLINGS: Final = 5
IN_USE: Final = 6
INTERRUPTED: Final = 130


class NotFound(KvorumError):
    """The key has no value."""


class PortInUse(KvorumError):
    """Another process has a port that a local cluster needs."""


class CommandFailed(KvorumError):
    """A command that did not do what it was asked for; the text says why."""


def exit_code_of(error: BaseException) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, InUse | PortInUse):
        return IN_USE
    if isinstance(error, SettingsInvalid):
        return USAGE
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, OutcomeUnknown):
        return UNKNOWN
    if isinstance(error, SiblingsError):
        return SIBLINGS
    if isinstance(error, NodeFailed) and error.exit_code in (USAGE, IN_USE):
        return error.exit_code
    return REFUSED


_WORDS: Final = {
    REFUSED: "refused",
    USAGE: "settings",
    NOT_FOUND: "not found",
    UNKNOWN: "outcome unknown",
    SIBLINGS: "siblings",
    IN_USE: "in use",
}


def report(error: KvorumError, as_json: bool) -> int:
    """Say on standard error what went wrong, and return its exit code."""
    code = exit_code_of(error)
    text = str(error)
    if isinstance(error, SiblingsError):
        text = (
            f"the key has {len(error.values)} values, written concurrently; kvorum get shows all "
            "of them, kvorum put KEY MERGED_VALUE takes their place"
        )
    word = "failed" if isinstance(error, CommandFailed | NodeFailed) else _WORDS[code]
    if as_json:
        document: dict[str, object] = {
            "error": word,
            "kind": type(error).__name__,
            "message": text,
            "exit_code": code,
        }
        if isinstance(error, OutcomeUnknown) and error.put_id is not None:
            document["put_id"] = error.put_id.hex()
        sys.stderr.write(json.dumps(document) + "\n")
    else:
        line = Text("kvorum: ", style="bold red").append(f"{word}: {text}", style="not bold")
        Console(stderr=True, highlight=False, soft_wrap=True).print(line)
    return code
