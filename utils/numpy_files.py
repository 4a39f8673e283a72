"""Reads NumPy files of unknown origin: checks sizes before unpacking, and reports any fault as a one-line UserError.

Test: `python -m pytest tests/utils/test_numpy_files.py`.
"""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from utils.user_error import UserError
from utils.utils_file import open_regular

MOST_BYTES = 1 << 32
"""Largest unpacked size of an array, 4 GiB: far above the 125 MB of 1000 packed spike frames of 1000x1000 pixels."""


def read_npz(path: Path | str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz and verifies their CRC-32s.

    Args:
        names: names of the arrays to read; None: all.

    Raises:
        UserError: no such file, not an .npz, or damaged; encrypted; an array is missing, holds Python objects, or is
            larger than `MOST_BYTES`.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                stored = [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
                missing = sorted(set(names or ()) - set(stored))
                if missing:
                    raise ValueError(f"it has no {', '.join(missing)}")
                return {name: _read_member(archive, name) for name in names or stored}
        except Exception as error:  # zipfile, zlib and numpy raise exceptions of any type on damaged bytes
            raise UserError(f"{path}: no readable .npz ({error}); write or copy it again") from error


def map_npy(path: Path | str) -> np.ndarray:
    """The array of an .npy, mapped into memory.

    Raises:
        UserError: no such file, not an .npy, cut short, or of Python objects.
    """
    with open_regular(path) as file:
        if file.read(6) != b"\x93NUMPY":
            raise UserError(f"{path}: cannot be read as a numpy file, which begins with \\x93NUMPY; copy it again")
    try:
        result: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return result
    except Exception as error:  # numpy raises exceptions of any type on damaged headers
        raise UserError(f"{path}: cannot be read as a numpy file ({error}); copy it again") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads an array whose header agrees with its size."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    with archive.open(entry) as member:
        header = _header(member)
        size = math.prod(header[0]) * header[1].itemsize + member.tell()
    if header[1].hasobject or size != entry.file_size or size > MOST_BYTES:
        raise ValueError(f"{name}: {header[1]} {header[0]} in {entry.file_size} bytes")
    with archive.open(entry) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # reading past the last byte makes zipfile compare the CRC-32
            raise ValueError(f"{name} goes on after its end")
    return np.asarray(array)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format, which only structured arrays need")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
