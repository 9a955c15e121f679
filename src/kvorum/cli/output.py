"""How commands speak: tables and colours to a terminal, plain lines to a pipe, JSON on request.

Results go to standard output. What only explains them goes to standard error as a note, so that
a pipe carries results alone. In a pipe a table is one line a row, cells separated by tabs, the
names of the columns first.
"""

import json
import sys
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvorum.admin.documents import member_name
from kvorum.client.store import Ack
from kvorum.model.topology import Topology

Cell = str | Text


class Output:
    """What one command says, and in which form."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def on_terminal(self) -> bool:
        return self.console.is_terminal and not self.as_json

    def json(self, document: object) -> None:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def line(self, text: Cell = "") -> None:
        self.console.print(text, markup=False)

    def note(self, text: Cell) -> None:
        """Say something beside the result."""
        if not self.as_json:
            self._notes.print(Text(text, style="dim") if isinstance(text, str) else text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table; columns whose name begins with ``>`` hold numbers, and ``>`` is no name."""
        names = [column.lstrip(">") for column in columns]
        named = any(names)
        if not self.on_terminal:
            for row in [names, *rows] if named else rows:
                sys.stdout.write("\t".join(_plain(cell) for cell in row) + "\n")
            return
        table = Table(box=None, pad_edge=False, header_style="bold", show_header=named)
        for column, name in zip(columns, names, strict=True):
            side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
            table.add_column(name, justify=side)
        for row in rows:
            table.add_row(*[Text(cell) if isinstance(cell, str) else cell for cell in row])
        self.console.print(table, soft_wrap=False)

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def value(self, data: bytes) -> None:
        """A value on a line of its own; a terminal is spared what it cannot show."""
        if self.on_terminal and not _is_showable(data):
            self.line(Text(repr(data)[2:-1], style="yellow"))
        else:
            self.raw(data + b"\n")


def _plain(cell: Cell) -> str:
    text = cell.plain if isinstance(cell, Text) else cell
    return text.replace("\t", " ").replace("\n", " ")


def _is_showable(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\n\t" for char in text)


def shown(data: bytes, length: int = 40) -> str:
    """Bytes as one short piece of text."""
    cut = data[:length]
    text = cut.decode() if _is_showable(cut) and b"\n" not in cut else repr(cut)[2:-1]
    return text + ("..." if len(data) > length else "")


def duration_text(microseconds: int) -> str:
    """A duration for people, in the largest units that say enough."""
    seconds = microseconds // 1_000_000
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size_text(size: int) -> str:
    scaled = float(size)
    for unit in ("B", "KiB", "MiB"):
        if scaled < 1024:
            return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} GiB"


def acks_text(topology: Topology, acks: Sequence[Ack]) -> str:
    """``a (disk), b (os)``: who holds a write, and how durably."""
    return ", ".join(
        f"{member_name(topology, ack.member)} ({ack.level}{', fallback' if ack.fallback else ''})"
        for ack in acks
    )
