"""Cache of compiled libraries, in a folder that only this user may write.

A library runs with all rights of the process that loads it, and a truncated one kills that process (SIGBUS). So a file
is loaded only if this user owns it and its folder, only this user may write them, and its content has the SHA-256 in
its name. Test: `python -m pytest tests/models/layers/backends/cpu/test_library_cache.py`.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from utils.utils_file import sha256_of

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH  # either bit lets another user replace a library


def cached_library(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """Path of the library of a key: the cached file if it is sound, else a new one.

    Args:
        name: beginning of the file's name.
        key: everything that the library depends on.
        build: writes the library to a path in an empty folder.

    Raises:
        OSError: the cache can't be written.
        RuntimeError: the cache belongs to another user; also errors of `build`.
    """
    folder = cache_folder()
    stem = f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    for path in folder.glob(f"{stem}-*.so"):
        if _is_sound(path, stem):
            return path
        path.unlink()
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        built = Path(unfinished) / "library.so"
        build(built)
        built.chmod(0o700)
        with open(built, "rb") as file:
            os.fsync(file.fileno())
        path = folder / f"{stem}-{sha256_of(built)[:32]}.so"
        built.replace(path)  # atomic, so several processes may do this at once; the name follows from the content
    return path


def cache_folder() -> Path:
    """`s_vrt` in XDG_CACHE_HOME or ~/.cache, writable by this user alone; created if missing.

    Raises:
        OSError: the folder can't be created.
        RuntimeError: the folder belongs to another user.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s_vrt"
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.stat()
    if not _is_own(status):
        raise RuntimeError(f"{folder} belongs to another user; set XDG_CACHE_HOME to a folder of your own")
    if status.st_mode & WRITABLE_BY_OTHERS:
        folder.chmod(0o700)
    return folder


def _is_sound(path: Path, stem: str) -> bool:
    """Whether this user owns a library, only this user may write it, and its content matches its name."""
    status = path.lstat()
    own = stat.S_ISREG(status.st_mode) and _is_own(status) and not status.st_mode & WRITABLE_BY_OTHERS
    return own and path.name == f"{stem}-{sha256_of(path)[:32]}.so"


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
