"""Every format ever on main is still read, and version 1 is still written as it was."""

import typing

import msgspec
import pytest

from kvorum.wire.messages import Control
from tests.golden import kept, make
from tests.golden.reading import payload_of, read
from tests.golden.samples import CONTROL_MESSAGES, HANDSHAKE, samples

INDEX = kept.load_index()
SAMPLES = samples()


@pytest.mark.parametrize("name", INDEX)
def test_a_kept_sample_says_what_it_always_said(name: str) -> None:
    assert known_then(read(name, kept.load(name)), INDEX[name]) == INDEX[name]


def known_then(said: typing.Any, then: typing.Any) -> typing.Any:
    """``said`` without the fields that came later, of the whole and of what is nested in it."""
    if isinstance(said, dict) and isinstance(then, dict):
        return {each: known_then(said.get(each), then[each]) for each in then}
    if isinstance(said, list) and isinstance(then, list) and len(said) == len(then):
        return [known_then(*both) for both in zip(said, then, strict=True)]
    return said


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_still_written_as_it_was(name: str) -> None:
    assert name in INDEX, "keep it with: python -m tests.golden.make --add"
    today, then = SAMPLES[name], kept.load(name)
    if today != then and name.startswith("message/"):
        # A message may have grown at its end; what was there before stays in its place.
        fields = msgspec.msgpack.decode(payload_of(then)[1:])
        assert msgspec.msgpack.decode(payload_of(today)[1:])[: len(fields)] == fields
        assert payload_of(today)[0] == payload_of(then)[0]
        return
    assert today == then


def test_each_message_has_a_sample() -> None:
    sampled = {type(each) for each in CONTROL_MESSAGES}
    missing = [each.__name__ for each in typing.get_args(Control) if each not in sampled]
    assert not missing, f"add these to tests/golden/samples.py: {', '.join(missing)}"


def test_every_file_is_in_the_index() -> None:
    kept_files = {path.name for path in (kept.FRAMES / kept.VERSION).glob("*.hex")}
    assert kept_files == {kept.path_of(name).name for name in INDEX}


def test_samples_leave_no_field_of_a_message_at_its_default() -> None:
    """Else a field that moved would go unnoticed."""
    for message in [*HANDSHAKE, *CONTROL_MESSAGES]:
        for field in msgspec.structs.fields(message):
            if field.default is not msgspec.NODEFAULT:
                assert getattr(message, field.name) != field.default, (message, field.name)


def test_what_is_kept_is_never_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make.main([]) == 0
    assert f"{len(SAMPLES)} samples, 0 not kept yet" in capsys.readouterr().out
    name = "record/first"
    before = kept.load(name)
    monkeypatch.setattr(make, "samples", lambda: {**SAMPLES, name: before + b"!"})
    assert make.main(["--add"]) == 1
    assert f"differ from what is encoded today: {name}" in capsys.readouterr().out
    assert kept.load(name) == before
