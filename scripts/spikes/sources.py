"""The stream a command works on: its arguments, opening it, and reading it in blocks.

.dat files (docs/spike_format.md) and .npy arrays are read where needed; .npz files (spikling's pairs, or one array of
spikes under any name) are decompressed whole.
"""

import argparse
import functools
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.spike.reconstruction.automatic import WHITE, automatic_threshold
from data.spike.spikling_npz import load_spike_numpy
from utils.numpy_files import map_npy, read_npz
from utils.spike_loader import SpikeStream, find_threshold
from utils.user_error import UserError
from utils.utils_progress import progress

BLOCK = 64  # frames read at once
AUTO = "auto"


@dataclass(frozen=True)
class Source:
    """A stream and what is known about it.

    Attributes:
        path: the file.
        stream: `SpikeStream`, or (T, h, w) uint8.
        stated_threshold: intensity = firing rate x this, by the command or a config.yaml; None: nobody says.
    """

    path: Path
    stream: SpikeStream | np.ndarray
    stated_threshold: float | None

    @functools.cached_property
    def threshold(self) -> float:
        """As stated, else chosen from the stream's brightness; intensity = firing rate x threshold."""
        if self.stated_threshold is not None:
            return self.stated_threshold
        return automatic_threshold(self.block, len(self))

    @property
    def brightness(self) -> str:
        """Which threshold is used, for people."""
        if self.stated_threshold is not None:
            return f"intensity = rate x {self.threshold:g}"
        return (
            f"intensity = rate x {self.threshold:g}, chosen so that the brightest percent is shown at {WHITE:g} "
            "(--threshold sets it)"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        length, height, width = self.stream.shape
        return length, height, width

    def __len__(self) -> int:
        return len(self.stream)

    def block(self, begin: int, end: int, *, as_stored: bool = False) -> np.ndarray:
        """Frames [begin, end), (end - begin, h, w) uint8; `as_stored`: a .dat file's rows in the file's order."""
        if isinstance(self.stream, SpikeStream):
            return self.stream.get_block_spikes(begin, end - begin, flipud=False if as_stored else None)
        spikes = np.array(self.stream[begin:end], np.uint8)
        if spikes.max() > 1:
            raise UserError(f"{self.path}: spikes must be 0 or 1, found {spikes.max()}")
        return spikes

    def blocks(self, begin: int, end: int, title: str, *, as_stored: bool = False) -> Iterator[np.ndarray]:
        """Frames [begin, end) a few at a time, under a progress bar."""
        with progress(end - begin, title, "frame") as bar:
            for first in range(begin, end, BLOCK):
                last = min(first + BLOCK, end)
                yield self.block(first, last, as_stored=as_stored)
                bar.update(last - first)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """The stream, and how its file is to be read."""
    add = parser.add_argument
    add("spikes", type=Path, help="spike stream: .dat, .npy or .npz")
    add("--spike_h", type=int, help="height of a .dat (default: config.yaml, or the file's size)")
    add("--spike_w", type=int, help="width of a .dat")
    add("--top_down", action="store_true", help="rows of the .dat are stored top-down (default: bottom-up)")
    add("--head_columns", type=int, default=0, help="columns recorded after the picture's last one (default 0)")
    add("--axes", choices=("thw", "hwt"), default="thw", help="order of an array's axes (default thw: time first)")
    add(
        "--threshold",
        type=_threshold,
        help="intensity = rate x this, or auto: from the stream's own brightness (default: config.yaml's "
        "spike_threshold, else auto)",
    )


def _threshold(text: str) -> float | str:
    """A number, or AUTO as it is."""
    return text if text == AUTO else float(text)


def open_source(args: argparse.Namespace) -> Source:
    """Opens what `add_source_arguments` describes.

    Raises:
        UserError: no such file, not a stream, or arguments that do not fit the kind of file.
    """
    path: Path = args.spikes
    stream: SpikeStream | np.ndarray
    if path.suffix.lower() in (".npy", ".npz"):
        if args.spike_h or args.spike_w or args.top_down or args.head_columns:
            raise UserError(f"{path}: --spike_h, --spike_w, --top_down and --head_columns are for .dat files")
        stream = _open_array(path, args.axes)
    else:
        stream = SpikeStream(
            path,
            args.spike_h,
            args.spike_w,
            not args.top_down,
            args.head_columns,
            # Whoever says where to end does not ask for the incomplete frame after it.
            drop_incomplete=getattr(args, "end", None) is not None,
        )
    threshold = find_threshold(path.resolve().parent) if args.threshold is None else args.threshold
    if threshold == AUTO:
        threshold = None
    if threshold is not None and not 0 < threshold < math.inf:
        raise UserError(f"--threshold {threshold}: a number above 0, or auto, is needed (GoPro spike set: 2.0)")
    return Source(path, stream, threshold)


def _open_array(path: Path, axes: str) -> np.ndarray:
    """(T, h, w) uint8 or bool of an .npy (mapped, if of these types) or .npz file."""
    array = _from_archive(path) if zipfile.is_zipfile(path) else map_npy(path)
    if array.ndim != 3 or array.dtype.kind not in "biuf" or array.size == 0:
        raise UserError(f"{path}: {array.dtype} of shape {array.shape}; spikes are zeros and ones with three axes")
    if array.dtype not in (np.uint8, np.bool_):
        spikes = array == 1
        wrong = array[~(spikes | (array == 0))]  # NaN as well
        if wrong.size:
            raise UserError(f"{path}: spikes must be 0 or 1, found {wrong[0]}")
        array = spikes
    return array.transpose(2, 0, 1) if axes == "hwt" else array


def _from_archive(path: Path) -> np.ndarray:
    """The spikes of an .npz."""
    arrays = read_npz(path)
    if {"seq", "tag", "length"} <= arrays.keys():
        return load_spike_numpy(path)[0]
    found = [array for array in arrays.values() if array.ndim == 3]
    if len(found) != 1:
        raise UserError(f"{path}: holds {', '.join(sorted(arrays))}; one array with three axes is needed")
    return found[0]


def frame_range(source: Source, begin: int, end: int | None, stride: int = 1) -> range:
    """Spike frames [begin, end) by `stride`.

    Raises:
        UserError: none, or frames that are not in the stream.
    """
    length = len(source)
    last = length if end is None else end
    if not 0 <= begin < last <= length or stride < 1:
        raise UserError(
            f"{source.path}: frames {begin} to {last} by {stride} were asked for; it has frames [0, {length})"
        )
    return range(begin, last, stride)
