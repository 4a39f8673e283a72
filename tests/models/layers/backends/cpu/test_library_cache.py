"""A cached library is loaded only as it was written, and by whom."""

import os
import stat
from pathlib import Path

import pytest

from models.layers.backends.cpu.library_cache import cache_folder, cached_library

CONTENT = os.urandom(5000)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """What is built from now on, in an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return []


def library(built: list[Path], key: str = "key") -> Path:
    def build(path: Path) -> None:
        built.append(path)
        path.write_bytes(CONTENT)

    return cached_library("kernel", key, build)


def test_built_once_for_a_key_and_for_this_user_alone(built: list[Path]) -> None:
    path = library(built)
    assert library(built) == path and len(built) == 1 and path.read_bytes() == CONTENT
    assert library(built, "other") != path and len(built) == 2
    assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    assert sorted(cache_folder().iterdir()) == sorted([path, library(built, "other")])


def cut(path: Path) -> None:
    path.write_bytes(CONTENT[:100])


def flip(path: Path) -> None:
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("change", [cut, flip, link, lambda path: path.chmod(0o722), lambda path: path.chmod(0o770)])
def test_what_was_changed_is_built_anew(built: list[Path], change) -> None:
    path = library(built)
    change(path)
    assert library(built) == path and len(built) == 2
    assert path.read_bytes() == CONTENT and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o700


def test_folders_that_others_may_write(built: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cache_folder().chmod(0o777)
    assert stat.S_IMODE(library(built).parent.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: 12345, raising=False)
    with pytest.raises(RuntimeError, match=r"s_vrt belongs to another user; set XDG_CACHE_HOME"):
        library(built)


def test_the_library_is_on_the_disk_before_it_has_its_name(built: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda path, target: (order.append("replace"), replace(path, target))[1])
    library(built)
    assert order == ["fsync", "replace"]
