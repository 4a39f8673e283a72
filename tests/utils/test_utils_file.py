"""Files that are there whole or not at all."""

import os
import subprocess
from pathlib import Path

import pytest

from utils.user_error import UserError
from utils.utils_file import (
    atomic_write,
    check_relative,
    list_folder,
    natural_order,
    read_json,
    read_text,
    read_yaml,
    remove_stale,
    walk_folders,
)


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


def test_listing_is_in_natural_order_and_without_hidden_files(tmp_path: Path) -> None:
    for name in ("10.png", "2.PNG", "1.png", "._3.png", "notes.txt", "b10/x.png", "b9/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_folder(tmp_path, (".png",))] == ["1.png", "2.PNG", "10.png"]
    assert [path.name for path in list_folder(tmp_path)] == ["1.png", "2.PNG", "10.png", "b9", "b10", "notes.txt"]
    assert [folder.name for folder, _ in walk_folders(tmp_path, (".png",))] == [tmp_path.name, "b9", "b10"]
    assert natural_order("a²") < natural_order("a²1")  # a digit to Unicode, but no number


def test_what_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip").mkdir()
    link = tmp_path / "clip" / "moved"
    link.symlink_to("../gone")
    with pytest.raises(ValueError, match=r"clip/moved: a link to \.\./gone, which does not exist"):
        list(walk_folders(tmp_path, (".png",)))
    link.unlink()
    link.symlink_to("..")
    with pytest.raises(ValueError, match="moved: a link back to a folder that it lies in"):
        list(walk_folders(tmp_path, (".png",)))
    link.unlink()
    listdir = os.listdir

    def denied(folder: Path) -> list[str]:
        if Path(folder).name == "clip":
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(ValueError, match=r"clip: the folder can't be listed \(Permission denied\)"):
        list(walk_folders(tmp_path, (".png",)))


def test_text_and_json(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(path) == {"a": 1}
    for content, message in {
        b'{"a": "\xe9"}': "no text in UTF-8",
        b"[" * 100_000: "nested too deeply",
        b"1" * 5000: "not readable as JSON",
        b"{": "not readable as JSON",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"file\.json: .*{message}"):
            read_json(path)
    os.mkfifo(tmp_path / "pipe")
    for bad, message in {"pipe": "a pipe", "absent": "No such file", ".": "a folder"}.items():
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path / bad)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "..", ".", "", "a\\b", "a\0", "a/./b"])
def test_names_that_lead_out(name: str) -> None:
    assert check_relative("a/b c..d", "list") == "a/b c..d"
    with pytest.raises(ValueError, match=r"list: the name .* leads out of the folder"):
        check_relative(name, "list")


def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f".a.mp4.{dead.pid}.tmp", f"clip/.b.{dead.pid}.tmp.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    kept = [f".a.{os.getpid()}.tmp", ".notes.tmp", "a.1.tmp"]
    for name in kept:
        (tmp_path / name).touch()
    remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\nb: [*a, *a]",
        "a: !!int abc",
        "a: !!timestamp x",
        "a: 2024-99-99",
        "a: !!python/object:os.system x",
        "[" * 5000,
        "a: b: c",
    ],
)
def test_yaml_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("\ufeffspike_h: 250\n")
    assert read_yaml(path) == {"spike_h": 250}
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: not readable as YAML"):
        read_yaml(path)
