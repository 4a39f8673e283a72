"""Files that are there whole or not at all."""

import os
from pathlib import Path

import pytest

from utils.utils_file import atomic_write


def test_text_and_bytes_in_a_new_folder(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a" / "b" / "text.txt") as file:
        file.write("ä\n")
    assert (tmp_path / "a" / "b" / "text.txt").read_bytes() == "ä\n".encode()
    with atomic_write(str(tmp_path / "bytes.bin"), "wb") as file:
        file.write(b"\r\n\x00")
    assert (tmp_path / "bytes.bin").read_bytes() == b"\r\n\x00"


def test_the_name_is_taken_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    with atomic_write(path) as file:
        file.write("x")
    assert order == ["fsync", "replace"] and path.read_text() == "x"
