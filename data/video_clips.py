"""Pairs of blurred and sharp frames: finds the clips of a data set, and checks that both sides match.

Clips are those of the folders, or of a meta info file with KAIR's lines `clip n_frames (h,w,c) first_frame`, whose
frame names have the format `filename_tmpl` ("06d"). A data set makes all cheap checks when it is built, and reports all
faults in one message.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.frame_io import Box, Frames, FramesByOrder, natural_order, open_frames
from data.preparations import remedies
from utils.user_error import UserError
from utils.utils_file import atomic_write, check_relative, read_text

# Clips of REDS for validation, as in KAIR.
VAL_PARTITIONS = {
    "REDS4": ["000", "011", "015", "020"],
    "official": [f"{clip:03d}" for clip in range(240, 270)],
}
FAULTS_SHOWN = 10  # so that a message fits a screen
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A sequence of frames.

    Attributes:
        name: name of the clip.
        frames: names of its frames (without extension) in temporal order.
        target: name of the only frame to restore from them (`data/dataset_video_target.py`); None: each frame.
    """

    name: str
    frames: tuple[str, ...]
    target: str | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def middle(self) -> int:
        """Index of the input frame compared with `target`: the middle one, or the first of the middle two."""
        return (len(self.frames) - 1) // 2


class DataFaults(UserError):
    """Faults of the data; the message shows the first ten, `faults` holds all of them."""

    def __init__(self, title: str, faults: list[str]) -> None:
        self.faults = faults
        shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
        more = f"\n  ... and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        super().__init__(f"{title}:{shown}{more}")
        self._arguments = (title, faults)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments  # picklable, as rank 0 sends its error to the other ranks


def report_faults(faults: list[str], title: str) -> None:
    """Raises one `DataFaults` with all faults; does nothing without faults."""
    if faults:
        raise DataFaults(title, faults)


def check_roots(roots: Mapping[str, str | None]) -> None:
    """Raises one UserError that names every missing data root and its option; None stands for an unset option."""
    missing = {key: root for key, root in roots.items() if root is not None and not _exists(root)}
    listed = [f"{key}: {root}" for key, root in missing.items()]
    report_faults([*listed, *remedies(missing.values())] if missing else [], "Data folders that do not exist")


def _exists(root: str) -> bool:
    """Whether a data root exists; "" does not, although Path("") is the current folder."""
    return root != "" and Path(root).expanduser().exists()


class FramePairs:
    """Blurred (low-quality) frames and, if available, their sharp (ground-truth) frames.

    Args:
        dataroot_lq, dataroot_gt: roots as in `frame_io`; `dataroot_gt` None: no ground truth.
        scale: size of the sharp frames over that of the blurred ones.
        meta_info_file, filename_tmpl: list of clips and frames; None: all clips and frames of the roots.
        filename_ext: extension of the frames; None: any image.
        io_backend: {"type": "disk" | "lmdb"}.
        pair_by: "name": both sides have the same clip and frame names; "order": clips and frames are paired by their
            positions in natural order, under the blurred ones' names.
        val_partition, test_mode: clips for validation: left out, or with `test_mode` the only ones used.

    Raises:
        UserError: a root is missing or contains no frames; the meta info file or the partition is invalid.
    """

    def __init__(
        self,
        *,
        dataroot_lq: str,
        dataroot_gt: str | None,
        scale: int,
        meta_info_file: str | None,
        filename_tmpl: str,
        filename_ext: str | None,
        io_backend: dict[str, Any] | None,
        pair_by: str = "name",
        val_partition: str | list[str] | None = None,
        test_mode: bool = False,
    ) -> None:
        self.scale = scale
        self.lq = open_frames("dataroot_lq", dataroot_lq, io_backend, filename_ext)
        self.gt: Frames | None = None
        if dataroot_gt is not None:
            self.gt = open_frames("dataroot_gt", dataroot_gt, io_backend, filename_ext, self.lq.single)
            if pair_by == "order":
                self.gt = FramesByOrder(self.gt, self.lq, "dataroot_gt")
        if meta_info_file is None:
            clips = [Clip(name, tuple(frames)) for name, frames in self.lq.clips.items()]
        else:
            clips = read_meta_info(meta_info_file, filename_tmpl)
        self.by_listing = meta_info_file is None
        self.clips = select_partition(clips, val_partition, test_mode)

    def faults(self) -> list[str]:
        """Faults of the pairs: frames on one side only, differing sizes, unreadable first frames."""
        faults: list[str] = []
        sides = {"dataroot_lq": self.lq} if self.gt is None else {"dataroot_lq": self.lq, "dataroot_gt": self.gt}
        if self.gt is not None and self.by_listing:
            alone = [name for name in self.gt.clips if name not in self.lq.clips]
            faults += [f"{name}: in dataroot_gt {self.gt.root}, not in dataroot_lq {self.lq.root}" for name in alone]
            for clip in self.clips:
                faults += _missing(clip.name, self.gt.clips.get(clip.name, []), self.lq, "dataroot_lq")
        for clip in self.clips:
            missing: list[str] = []
            for option, side in sides.items():
                missing += _missing(clip.name, clip.frames, side, option)
            faults += missing or self._size_faults(clip)
        return faults

    def _size_faults(self, clip: Clip) -> list[str]:
        """Faults of the first frames: unreadable, or of sizes that don't match."""
        try:
            height, width = self.lq.size(clip.name)
            sharp = self.gt.size(clip.name) if self.gt is not None else (height * self.scale, width * self.scale)
        except UserError as error:
            return [str(error)]
        if sharp == (height * self.scale, width * self.scale):
            return []
        return [
            f"{clip.name}: frames of {sharp[0]}x{sharp[1]} in dataroot_gt and {height}x{width} in dataroot_lq; "
            f"with scale {self.scale} they must be {height * self.scale}x{width * self.scale}"
        ]

    def read_lq(self, clip: str, frames: list[str], box: Box | None = None) -> np.ndarray:
        """Blurred frames, (T, h, w, 3) uint8 RGB; the box in their pixels."""
        return self.lq.stack(clip, frames, box)

    def read_gt(self, clip: str, frames: list[str], box: Box | None = None) -> np.ndarray:
        """Sharp frames, (T, h*scale, w*scale, 3) uint8 RGB; the box in pixels of the blurred frames."""
        assert self.gt is not None, "no ground truth"
        sharp_box = None if box is None else box.scaled(self.scale)
        return self.gt.stack(clip, frames, sharp_box)

    def preload(self) -> None:
        """Decodes all frames into memory (`cache_data`)."""
        for side in (self.lq, self.gt):
            if side is not None:
                side.preload((clip.name, frame) for clip in self.clips for frame in clip.frames)


def read_meta_info(path: str, filename_tmpl: str) -> list[Clip]:
    """Clips of a meta info file, lines `clip n_frames (h,w,c) first_frame`; first_frame defaults to 1, for KAIR's
    Vimeo file.

    Args:
        filename_tmpl: format of frame names from numbers, "06d" or "im{}".

    Raises:
        UserError: no such file, a line of another form, a bad template.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"meta_info_file: {path} does not exist; null takes all clips of the data folders.")
    name = _frame_namer(filename_tmpl)
    clips = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\S.*?)\s+(\d{1,7})\s+(?:\([\d,]+\)|\S+\s+(\d{1,9}))\s*", line)
        if match is None:
            raise UserError(f"{path}, line {number}: {line!r} is not `clip n_frames (h,w,c) first_frame`.")
        first = 1 if match[3] is None else int(match[3])
        check_relative(f"{match[1]}/{name(first)}", f"{path}, line {number}")
        clips.append(Clip(match[1], tuple(name(k) for k in range(first, first + int(match[2])))))
    if not clips:
        raise UserError(f"meta_info_file: {path} names no clips.")
    return clips


def _frame_namer(filename_tmpl: str) -> Callable[[int], str]:
    """A function from a frame's number to its name."""
    name = filename_tmpl.format if "{" in filename_tmpl else lambda number: format(number, filename_tmpl)
    try:
        if name(0) == name(1):
            raise UserError("every number has the same name")
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(
            f'filename_tmpl: {filename_tmpl!r} formats no number; "06d" names frames 000000, "im{{}}" im0.'
        ) from error
    return name


def write_meta_info(path: Path, frames: Frames, clips: Iterable[str]) -> dict[str, int]:
    """Writes a meta info file for clips of a root; returns the number of frames of each.

    Raises:
        UserError: the numbers of a clip's frames have gaps, which such a file can't express.
    """
    counts = {}
    with atomic_write(path) as file:
        for clip in sorted(clips, key=natural_order):
            numbers = [frame_number(frame) for frame in frames.clips[clip]]
            if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                lacking = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
                raise UserError(f"{clip}: frame numbers are missing in between: {', '.join(map(str, lacking[:5]))}")
            height, width = frames.size(clip)
            file.write(f"{clip} {len(numbers)} ({height},{width},3) {numbers[0]}\n")
            counts[clip] = len(numbers)
    return counts


def frame_number(frame: str) -> int:
    """The number in a frame's name, the last one of several.

    Raises:
        UserError: the name has no number.
    """
    numbers = re.findall(r"\d+", frame)
    if not numbers:
        raise UserError(f"frame {frame!r} has no number in its name, from which its position in the clip follows")
    return int(numbers[-1])


def select_partition(clips: list[Clip], val_partition: str | list[str] | None, test_mode: bool) -> list[Clip]:
    """The clips that are not in `val_partition`, or, with `test_mode`, those that are; None: all clips.

    Args:
        val_partition: "REDS4", "official" (REDS clips 240 to 269), or a list of clip names.

    Raises:
        UserError: no partition has this name, a listed clip does not exist, or no clip is left.
    """
    if val_partition is None:
        return clips
    if isinstance(val_partition, str):
        if val_partition not in VAL_PARTITIONS:
            choices = ", ".join(VAL_PARTITIONS)
            raise UserError(f"val_partition: {val_partition!r} is unknown. Choices: {choices}, or a list of clips.")
        held_out = VAL_PARTITIONS[val_partition]
    else:
        held_out = val_partition
        unknown = sorted(set(held_out) - {clip.name for clip in clips})
        if unknown:
            raise UserError(f"val_partition: there are no clips {', '.join(unknown)}.")
    chosen = [clip for clip in clips if (clip.name in held_out) == test_mode]
    if not chosen:
        raise UserError(f"val_partition: {val_partition!r} with test_mode {test_mode} leaves no clip of {len(clips)}.")
    logger.info("val_partition %s: %d of %d clips", val_partition, len(chosen), len(clips))
    return chosen


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """(T, h, w, 3) uint8 or uint16 to (T, 3, h, w) float32 in [0, 1]."""
    planes = np.ascontiguousarray(np.moveaxis(frames, -1, 1))
    # Convert uint16 to int32, as torch supports few operations on uint16.
    values = torch.from_numpy(planes.astype(np.int32) if planes.dtype == np.uint16 else planes)
    return values.float().div_(np.iinfo(frames.dtype).max)


def bits_of(frames: np.ndarray) -> int:
    """Bits per channel."""
    return 8 * frames.itemsize


def check_channels(n_channels: int) -> None:
    """Raises UserError for anything but RGB."""
    if n_channels != 3:
        raise UserError(f"n_channels: {n_channels}; the video data sets have RGB frames, 3.")


def _missing(name: str, frames: tuple[str, ...] | list[str], side: Frames, option: str) -> Iterator[str]:
    """The fault of a clip, or of its frames, missing on one side."""
    if name not in side.clips:
        yield f"{name}: not in {option} {side.root}"
        return
    present = set(side.clips[name])
    lacking = [frame for frame in frames if frame not in present]
    if lacking:
        names = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        yield f"{name}: {len(lacking)} frames not in {option} {side.root}: {names}"
