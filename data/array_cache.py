"""Caches arrays in .npz files under a key of everything they depend on; damaged files are computed again.

The file stores the key, and reading compares it, so that no outdated array is used. A process verifies a file's CRC-32s
before its first read and then maps the file into memory, so that it reads only the parts it needs. Files of the cache
may be deleted at any time. Test: `python -m pytest tests/data/test_array_cache.py`.
"""

import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.utils_file import atomic_write

logger = logging.getLogger(__name__)


class ArrayCache:
    """A folder of arrays.

    Args:
        folder: folder of the files; created with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: set[tuple[str, int, int, int]] = set()

    def read(self, stem: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, mapped into memory, read-only.

        Args:
            stem: beginning of the file's name.
            key: everything that the array depends on.
            make: computes the array if the file is missing or damaged.

        Raises:
            OSError: the file can't be written.
        """
        path = self.folder / f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        if path.exists():
            try:
                return self._open(path, key)
            except Exception as error:  # zipfile and numpy raise exceptions of any type on damaged bytes
                logger.warning("%s: damaged (%s); it is recreated", path, error)
                path.unlink()
        with atomic_write(path, "wb") as file:
            np.savez(file, channels=np.ascontiguousarray(make()), key=np.array(key))
        return self._open(path, key)

    def _open(self, path: Path, key: str) -> np.ndarray:
        """Maps the array of a file into memory; raises an exception if the file is damaged or of another key."""
        status = path.stat()
        state = (path.name, status.st_ino, status.st_size, status.st_mtime_ns)
        with zipfile.ZipFile(path) as archive:
            if state not in self._verified and (bad := archive.testzip()) is not None:
                raise ValueError(f"the check sum of {bad} does not hold")
            with archive.open("key.npy") as member:
                found = str(np.lib.format.read_array(member))
            entry = archive.getinfo("channels.npy")
            with archive.open(entry) as member:
                np.lib.format.read_magic(member)
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
                header = member.tell()
        if found != key or fortran_order or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("another key or layout than was written")
        with open(path, "rb") as file:  # lengths from the local header, whose extra field may be longer by padding
            file.seek(entry.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
        offset = entry.header_offset + 30 + int(lengths.sum()) + header
        array = np.memmap(path, dtype, "r", offset, shape)
        if array.nbytes + header != entry.file_size:
            raise ValueError(f"{entry.file_size - header} bytes for an array of {array.nbytes}")
        self._verified.add(state)
        return array
