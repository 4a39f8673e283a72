"""Caches encoded spikes of whole frames in .npz files, under a key of everything they depend on.

    "spike_cache": "/fast/disk/spikes"

The cache is for slow representations of whole frames: decoding a crop takes little longer than reading it from a cached
file (docs/data.md). A key contains the spike file (path, size, inode, times of change), the exposure, the geometry, the
encoding with all parameters, and the source code of the encoding. It is stored in the file and compared on reading, so
that no outdated file is used. Files may be deleted at any time.
Test: `python -m pytest tests/data/test_spike_cache.py`.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.array_cache import ArrayCache
from data.picture_crop import Box

# Code in the key: what the encoding of spikes depends on.
SOURCES = ("data/spike/**/*.py", "data/spike_io.py", "data/spike_cache.py", "utils/charge.py", "utils/spike_*.py")


class SpikeCache:
    """Files of encoded frames.

    Args:
        folder: folder of the files.
        shared: part of the key that all entries share.
    """

    def __init__(self, folder: Path, shared: dict[str, Any]) -> None:
        self._arrays = ArrayCache(folder)
        self.shared = {**shared, "code": code_version()}

    def read(self, path: Path, own: dict[str, Any], box: Box, encode: Callable[[], np.ndarray]) -> np.ndarray:
        """A box of an encoded frame, (channels, h, w) float32.

        Args:
            path: the spike file.
            own: further parts of this entry's key: exposure, geometry.
            encode: encodes the whole frame if it is not in the cache.
        """
        state = path.stat()
        file = [str(path.resolve()), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
        key = json.dumps({**self.shared, **own, "file": file}, sort_keys=True)
        channels = self._arrays.read(path.stem, key, encode)
        return np.ascontiguousarray(channels[:, box.top : box.top + box.height, box.left : box.left + box.width])


@functools.cache
def code_version() -> str:
    """A hash of the encoding's code and numpy's version."""
    root = Path(__file__).resolve().parents[1]
    content = hashlib.sha256(np.__version__.encode())
    for pattern in SOURCES:
        for source in sorted(root.glob(pattern)):
            content.update(source.read_bytes())
    return content.hexdigest()


def description(part: Any) -> Any:
    """An object's class and attributes as JSON values, which are equal for objects that encode equally."""
    if isinstance(part, np.ndarray):
        return part.tolist()
    if isinstance(part, dict):
        return {str(key): description(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [description(value) for value in part]
    if hasattr(part, "__dict__"):
        return {"class": type(part).__qualname__, **{key: description(value) for key, value in vars(part).items()}}
    return part
