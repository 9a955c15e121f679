"""Results for pipes: plain, whole, and to be read back."""

import json
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from kvorum.admin.documents import (
    bytes_document,
    context_from_text,
    context_text,
    instant_text,
)
from kvorum.cli.output import (
    Output,
    duration_text,
    shown,
    size_text,
)
from kvorum.errors import SettingsInvalid


def test_a_table_in_a_pipe_is_tabs_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["node", ">size"], [["a", "1"], [Text("b\tc", style="red"), "2\n"]])
    assert capsys.readouterr().out == "node\tsize\na\t1\nb c\t2 \n"


def test_a_table_on_a_terminal_is_aligned() -> None:
    out = Output()
    out.console = Console(file=StringIO(), force_terminal=True, width=40, no_color=True)
    out.table(["", ">size"], [["a", "1"], [Text("b"), "200"]])
    out.value(b"\x00")
    out.value(b"text")
    file = out.console.file
    assert isinstance(file, StringIO)
    lines = [line.rstrip() for line in Text.from_ansi(file.getvalue()).plain.splitlines()]
    assert lines == ["   size", "a     1", "b   200", "\\x00"]


def test_notes_stay_out_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    Output().note("by the way")
    Output(as_json=True).note("never said")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "by the way\n")


def test_a_value_in_a_pipe_is_its_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Output().value(b"\x00\xff")
    assert capfdbinary.readouterr().out == b"\x00\xff\n"


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).json({"name": "Zürich"})
    out = capsys.readouterr().out
    assert out == '{"name": "Zürich"}\n'
    assert json.loads(out) == {"name": "Zürich"}


@pytest.mark.parametrize("context", [b"", b"\x00", b"\xff\xfe\xfd" * 7, bytes(range(256))])
def test_a_context_can_be_typed_again(context: bytes) -> None:
    text = context_text(context)
    assert context_from_text(text) == context
    assert not set(text) & set("+/=")


@pytest.mark.parametrize("text", ["!", "ab cd", "Ä"])
def test_what_is_no_context_is_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="--context"):
        context_from_text(text)


def test_bytes_in_json_are_text_where_they_can_be() -> None:
    assert bytes_document("ü".encode()) == {"text": "ü"}
    assert bytes_document(b"\xff") == {"base64": "/w=="}


def test_bytes_are_shown_short_and_harmless() -> None:
    assert shown(b"book") == "book"
    assert shown(b"\x1b[31m") == "\\x1b[31m"
    assert shown(b"x" * 50) == "x" * 40 + "..."


def test_times_and_sizes_for_people() -> None:
    assert instant_text(0) == ""
    assert instant_text(1_700_000_000_123_456) == "2023-11-14 22:13:20.123Z"
    assert instant_text(1 << 63) == str(1 << 63)
    assert duration_text(59_999_999) == "59 s"
    assert duration_text(3_599_000_000) == "59 min 59 s"
    assert duration_text(50 * 3_600_000_000) == "2 d 2 h"
    assert [size_text(size) for size in (0, 1536, 5 << 30)] == ["0 B", "1.5 KiB", "5.0 GiB"]
