"""Writes spike streams as `.dat` files (docs/spike_format.md), at once or block by block.

write_spikes("a.dat", spikes)

with writing_spikes("b.dat") as writer:
    for block in blocks:
        writer.write(block)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import yaml

from utils.user_error import UserError
from utils.utils_file import atomic_write, read_yaml


class SpikeWriter:
    """Writes a `.dat` file block by block, for streams that exceed the memory; created by `writing_spikes`.

    Attributes:
        frames: number of frames written.
    """

    def __init__(self, path: str | Path, file: IO[bytes], flipud: bool) -> None:
        self.path, self.frames = path, 0
        self._file, self._flipud = file, flipud
        self._size: tuple[int, ...] | None = None

    def write(self, spikes: np.ndarray) -> None:
        """Appends spikes (T, H, W), bool or any integers 0/1.

        Raises:
            UserError: not three dimensions, empty, another size than before, or a value other than 0 and 1.
        """
        spikes = np.asarray(spikes)
        if spikes.ndim != 3 or spikes.size == 0:
            raise UserError(
                f"{self.path}: spikes have shape {spikes.shape}; (T, H, W) with at least one pixel is needed."
            )
        self._size = self._size or spikes.shape[1:]
        if spikes.shape[1:] != self._size:
            raise UserError(
                f"{self.path}: spikes of {spikes.shape[1:]} after spikes of {self._size}; one size is needed."
            )
        if spikes.dtype != np.bool_ and not ((spikes == 0) | (spikes == 1)).all():
            raise UserError(f"{self.path}: spikes must be 0 or 1, found values from {spikes.min()} to {spikes.max()}.")
        stored = spikes[:, ::-1] if self._flipud else spikes
        bits = stored.reshape(len(spikes), -1).astype(np.bool_)
        self._file.write(np.packbits(bits, axis=1, bitorder="little").tobytes())
        self.frames += len(spikes)


@contextmanager
def writing_spikes(path: str | Path, flipud: bool = True) -> Iterator[SpikeWriter]:
    """A `SpikeWriter`; the file gets its name when the block ends without an error.

    Args:
        flipud: store rows bottom-up, as cameras and the public data sets do.

    Raises:
        UserError: the block wrote no frame.
    """
    with atomic_write(path, "wb") as file:
        writer = SpikeWriter(path, file, flipud)
        yield writer
        if not writer.frames:
            raise UserError(f"{path}: there was no spike frame to write.")


def write_spikes(path: str | Path, spikes: np.ndarray, flipud: bool = True) -> None:
    """Writes spikes (T, H, W), bool or any integers 0/1, as a `.dat` file; whole or not at all.

    Raises:
        UserError: not three dimensions, empty, or a value other than 0 and 1.
    """
    with writing_spikes(path, flipud) as writer:
        writer.write(spikes)


def check_config(path: Path, height: int, width: int, threshold: float | None) -> None:
    """Checks that config.yaml, if it exists, describes such streams.

    Raises:
        UserError: it describes streams of another size or threshold.
    """
    if not path.is_file():
        return
    described = read_yaml(path) or {}
    stated = {"spike_h": height, "spike_w": width} | ({} if threshold is None else {"spike_threshold": threshold})
    if not isinstance(described, dict) or any(described.get(key) != value for key, value in stated.items()):
        raise UserError(
            f"{path} describes other streams than {height}x{width} at threshold {threshold}: choose another folder, "
            "or --no_config"
        )


def write_config(path: Path, height: int, width: int, threshold: float | None = None) -> None:
    """Writes SpikeCV's config.yaml for unlabelled streams, with `spike_threshold` if given."""
    content = {
        "filename": path.resolve().parent.name,
        "spike_w": width,
        "spike_h": height,
        "is_labeled": False,
        "labeled_data_type": [0],
        "labeled_data_suffix": None,
    }
    if threshold is not None:
        content["spike_threshold"] = threshold
    with atomic_write(path) as file:
        yaml.safe_dump(content, file, sort_keys=False)
