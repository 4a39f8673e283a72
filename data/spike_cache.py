"""Encoded spikes of whole frames kept in .npz files, by a key that holds everything that they depend on.

    "spike_cache": "/fast/disk/spikes"

Decoding a crop costs little more than reading it from such a file (docs/data.md); the cache is for slow representations
of whole frames. A file's key names the spike file (path, size, inode, times of change), the exposure,
the geometry, the encoding with all parameters, and the source code that encodes; it is stored in the file and compared
when the file is read, so that nothing stale is ever used. Old files may be deleted at any time.
Test: `python -m pytest tests/data/test_spike_cache.py`.
"""

import functools
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.picture_crop import Box
from utils.utils_file import atomic_write

SOURCES = ("data/spike/*.py", "data/spike_io.py", "data/spike_cache.py", "utils/spike_loader.py")


class SpikeCache:
    """Files of encoded frames.

    Args:
        folder: where they are.
        shared: what all entries depend on, besides their own part of the key.
    """

    def __init__(self, folder: Path, shared: dict[str, Any]) -> None:
        self.folder = folder
        self.shared = {**shared, "code": code_version()}

    def read(self, path: Path, own: dict[str, Any], box: Box, encode: Callable[[], np.ndarray]) -> np.ndarray:
        """A box of an encoded frame, (channels, h, w) float32; `encode` makes the whole frame where it is not there.

        Args:
            path: the spike file.
            own: what this entry depends on besides it: exposure, geometry.
        """
        state = path.stat()
        file = [str(path.resolve()), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
        key = json.dumps({**self.shared, **own, "file": file}, sort_keys=True)
        stored = self.folder / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        if not stored.is_file():
            with atomic_write(stored, "wb") as target:
                np.savez(target, channels=encode(), key=np.array(key))
        found, channels = _open(stored)
        assert found == key, f"{stored}: two keys have one hash"
        return np.ascontiguousarray(channels[:, box.top : box.top + box.height, box.left : box.left + box.width])


@functools.cache
def code_version() -> str:
    """A hash of the code that encodes, and numpy's version."""
    root = Path(__file__).resolve().parents[1]
    content = hashlib.sha256(np.__version__.encode())
    for pattern in SOURCES:
        for source in sorted(root.glob(pattern)):
            content.update(source.read_bytes())
    return content.hexdigest()


def description(part: Any) -> Any:
    """An object by its class and attributes, as JSON values: two that encode alike have one description."""
    if isinstance(part, np.ndarray):
        return part.tolist()
    if isinstance(part, dict):
        return {str(key): description(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [description(value) for value in part]
    if hasattr(part, "__dict__"):
        return {"class": type(part).__qualname__, **{key: description(value) for key, value in vars(part).items()}}
    return part


def _open(stored: Path) -> tuple[str, np.ndarray]:
    """The key, and the channels mapped into memory, so that a box reads no more than its rows."""
    with zipfile.ZipFile(stored) as archive:
        with archive.open("key.npy") as member:
            key = str(np.lib.format.read_array(member))
        entry = archive.getinfo("channels.npy")
        with archive.open(entry) as member:
            np.lib.format.read_magic(member)
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            header = member.tell()
    with open(stored, "rb") as file:  # the local header's own lengths: its extra field may be padded
        file.seek(entry.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
    offset = entry.header_offset + 30 + int(lengths.sum()) + header
    return key, np.memmap(stored, dtype, "r", offset, shape)
