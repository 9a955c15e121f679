"""Real files behave as `kvorum.storage.filesystem` promises."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.server.filesystem import DirectoryInUse, DiskFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DiskFolder]:
    opened = DiskFolder(str(tmp_path / "data"))
    yield opened
    opened.close()


def test_a_file_grows_at_its_end_and_is_cut_there(folder: DiskFolder) -> None:
    file = folder.create("a")
    file.append(b"hello ")
    file.append(b"world")
    assert file.size() == 11
    file.truncate(5)
    file.append(b"!")
    file.sync()
    file.close()
    file.close()
    assert folder.read("a") == b"hello!"
    again = folder.open("a")
    again.append(b"?")
    again.close()
    assert folder.read("a") == b"hello!?"


def test_names_are_taken_once_renamed_and_removed(folder: DiskFolder) -> None:
    folder.create("b").close()
    folder.create("a").close()
    with pytest.raises(FileExistsError):
        folder.create("a")
    os.mkdir(Path(folder.path) / "folder")
    assert folder.names() == ["a", "b"]
    folder.rename("a", "b")
    folder.sync_folder()
    assert folder.names() == ["b"]
    folder.remove("b")
    with pytest.raises(FileNotFoundError):
        folder.open("b")
    with pytest.raises(FileNotFoundError):
        folder.read("b")


def test_replace_leaves_the_new_content_and_no_draft(folder: DiskFolder) -> None:
    folder.create("identity.new").close()  # left by a crash
    folder.replace("identity", b"one")
    folder.replace("identity", b"two")
    assert folder.names() == ["identity"]
    assert folder.read("identity") == b"two"


def test_copies_and_files_put_back_have_other_numbers(folder: DiskFolder, tmp_path: Path) -> None:
    folder.replace("identity", b"one")
    number, whole = folder.inode("identity"), folder.inode("")
    assert (folder.inode("identity"), folder.inode("")) == (number, whole)
    shutil.copytree(folder.path, tmp_path / "copy")
    copy = DiskFolder(str(tmp_path / "copy"))
    assert copy.inode("") != whole
    assert copy.inode("identity") != number
    copy.close()
    Path(folder.path, "identity").write_bytes(b"one")
    assert folder.inode("identity") != number, "the same file, written over in place"


def test_a_locked_folder_lets_nobody_else_in(folder: DiskFolder) -> None:
    folder.lock()
    second = DiskFolder(folder.path)
    with pytest.raises(DirectoryInUse, match=rf"in use by another process \(pid {os.getpid()}\)"):
        second.lock()
    folder.close()
    second.lock()
    second.close()


def test_a_short_write_is_carried_on(folder: DiskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, bytes(data)[:3], at))
    file = folder.create("a")
    file.append(b"hello world")
    assert file.size() == 11
    file.close()
    assert folder.read("a") == b"hello world"
