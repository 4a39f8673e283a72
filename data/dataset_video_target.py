"""Test sets with one target frame per group of input frames: the middle one (Vimeo-90K), or a left-out one
(interpolation).

    VideoTestVimeo90KDataset       im1 ... im7 -> im4; with temporal_scale 2: im1, im3, im5, im7 -> im4
    VFI_DAVIS                      frames 0, 2, 4, 6 of a clip -> frame 3, then 2, 4, 6, 8 -> 5, ...; 480x840
    VFI_Vid4                       frames 0, 0, 2, 4 -> 1, then 0, 2, 4, 6 -> 3, ...: every odd frame
    VFI_UCF101                     frame0 ... frame3 -> framet; 224x224
    VideoInterpolationTestDataset  frames k-1 ... k+2 of any clip -> a new one between k and k+1; without ground truth

All but the last follow the published tester, with its crops around the centre. An entry of `clips` is one group of
frames; the tester's average gives every group the same weight, as does our mean over frames.
Test: `python -m pytest tests/data/test_dataset_video_target.py`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from data.frame_io import Frames, open_frames
from data.video_clips import Clip, bits_of, check_channels, check_roots, report_faults, to_tensor
from utils.options.flags import VIMEO_LIST
from utils.user_error import UserError
from utils.utils_file import read_text
from utils.utils_registry import DATASETS, Faults, raise_faults

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class _TargetDataset(Dataset[dict[str, Any]], ABC):
    """Groups of input frames and their target frames.

    An item is {"L": (T,3,H,W) float32 RGB in [0, 1], "bits": bits per channel of the files, 8 or 16, "folder": the
    clip's name, "lq_path": [T names of files]}, and, if the target frame exists, "H": (1,3,H*scale,W*scale).

    Raises:
        UserError: the data can't be used with these options; the message lists all faults found.
    """

    dataroot_lq: str
    """Frames, <clip>/<frame>.<ext>."""
    dataroot_gt: str | None = None
    """Folder of the target frames, under the same names; null: dataroot_lq, if scale is 1."""
    filename_ext: str | None = None
    """The frames' extension; null: any image."""
    io_backend: dict[str, str] | None = None
    """{"type": "disk"} (the default) or {"type": "lmdb"}."""
    scale: int = 1
    """Size of the target frames over that of the input frames."""
    n_channels: int = 3
    """Only 3."""
    cache_data: bool = False
    """Decode all frames into memory first."""
    crop: Sequence[int] | None = None
    """Rows and columns of the crop around the centre of all frames, black beyond a smaller frame; null: no crop."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        crop = arguments.get("crop")
        if crop is not None and (len(crop) != 2 or min(crop) < 1):
            yield "crop", f"[rows, columns], or null for whole frames; got {list(crop)}"

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        check_channels(self.n_channels)
        check_roots({"dataroot_lq": self.dataroot_lq, "dataroot_gt": self.dataroot_gt})
        self.lq = open_frames("dataroot_lq", self.dataroot_lq, self.io_backend, self.filename_ext)
        self.gt, self.fps = self._open_gt(), self.lq.fps
        self.clips = [group for name, frames in self.lq.clips.items() for group in self._groups(name, frames)]
        faults = list(self._faults()) if self.clips else [f"no clip has the required frames: {self._needs()}"]
        report_faults(faults, f"The test data in {self.dataroot_lq} can't be used")
        if self.cache_data:
            self.lq.preload(dict.fromkeys((clip.name, frame) for clip in self.clips for frame in clip.frames))
            if self.gt is not None:
                self.gt.preload((clip.name, str(clip.target)) for clip in self.clips)
        logger.info("%s: %d target frames", type(self).__name__, len(self))

    @abstractmethod
    def _groups(self, clip: str, frames: list[str]) -> Iterator[Clip]:
        """The groups of frames of one clip."""

    @abstractmethod
    def _needs(self) -> str:
        """Description of the required layout of a clip, for messages."""

    def _open_gt(self) -> Frames | None:
        """The target frames; None if they don't exist."""
        if self.dataroot_gt is None:
            return self.lq if self.scale == 1 else None
        return open_frames("dataroot_gt", self.dataroot_gt, self.io_backend, self.filename_ext, self.lq.single)

    def _faults(self) -> Iterator[str]:
        """Missing frames."""
        for clip in self.clips:
            lq_frames = self.lq.clips[clip.name]
            yield from (
                f"{clip.name}: {name} is not in {self.lq.root}" for name in clip.frames if name not in lq_frames
            )
            if self.gt is not None and clip.target not in self.gt.clips.get(clip.name, []):
                yield f"{clip.name}: {clip.target}, the target frame, is not in {self.gt.root}"

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.load(index)

    def content(self, index: int) -> Iterator[bytes]:
        """All bytes of the input files of group `index`."""
        clip = self.clips[index]
        return self.lq.content(clip.name, clip.frames)

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Frames [begin, end) of a group, as an item; it has "H" if they include the middle one."""
        clip = self.clips[index]
        numbers = range(len(clip))[begin:end]
        frames = [clip.frames[number] for number in numbers]
        blurred = self._cropped(self.lq.stack(clip.name, frames))
        sample: dict[str, Any] = {
            "L": to_tensor(blurred),
            "bits": bits_of(blurred),
            "folder": clip.name,
            "lq_path": [self.lq.where(clip.name, frame) for frame in frames],
        }
        if self.gt is not None and clip.middle in numbers:
            assert clip.target is not None
            sample["H"] = to_tensor(self._cropped(self.gt.stack(clip.name, [clip.target])))
        return sample

    def _cropped(self, frames: np.ndarray) -> np.ndarray:
        return frames if self.crop is None else center_crop(frames, self.crop)


def center_crop(frames: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Frames (T,h,w,3) cropped around their centre to `size` (rows, columns), padded with black if smaller.

    Half pixels are rounded to even, as in torchvision's CenterCrop.
    """
    for axis, length in enumerate(size, 1):
        lacking = max(length - frames.shape[axis], 0)
        border = [(0, 0)] * frames.ndim
        border[axis] = (lacking // 2, lacking - lacking // 2)
        frames = np.pad(frames, border)
        begin = round((frames.shape[axis] - length) / 2)
        frames = frames.take(range(begin, begin + length), axis)
    return frames


@DATASETS.register("VideoTestVimeo90KDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoTestVimeo90KDataset(_TargetDataset):
    """Septuplets of Vimeo-90K, <sequence>/<number>/im1.png ... im7.png; the target is im4."""

    meta_info_file: str | None = None
    """List of the septuplets to test, with lines that begin with `<sequence>/<number>`; KAIR's list of Vimeo-90K's test
    clips is data/meta_info/meta_info_Vimeo90K_test_GT.txt."""
    all_clips: bool = False
    """Score all septuplets of the folder; their mean is not comparable to published ones."""
    num_frame: int = 7
    """Number of input frames, those in the middle of the seven."""
    temporal_scale: int = 1
    """Stride between input frames; 2 interpolates im4 from im1, im3, im5 and im7."""
    pad_sequence: bool = False
    """Repeat the last input frame, for attention windows of an even length."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from _TargetDataset.faults(arguments)
        if arguments.get("num_frame", 7) not in (1, 3, 5, 7):
            yield "num_frame", f"choices: 1, 3, 5, 7, centred on the middle frame; got {arguments['num_frame']}"

    def __post_init__(self) -> None:
        scored = self.dataroot_gt is not None or self.scale == 1
        if self.meta_info_file is None and scored and not self.all_clips:
            raise UserError(
                f"meta_info_file: published scores are means over the test clips of {VIMEO_LIST}, which KAIR has and "
                "prepare_vimeo90k writes; name the list, or score all clips of the folder with all_clips (--all_clips)."
            )
        self._chosen = None if self.meta_info_file is None else _read_list(self.meta_info_file)
        super().__post_init__()

    def _groups(self, clip: str, frames: list[str]) -> Iterator[Clip]:
        if self._chosen is None or clip in self._chosen:
            first = (9 - self.num_frame) // 2
            numbers = [*range(first, first + self.num_frame, self.temporal_scale)]
            numbers += numbers[-1:] if self.pad_sequence else []
            yield Clip(clip, tuple(f"im{number}" for number in numbers), target="im4")

    def _needs(self) -> str:
        return "<sequence>/<number>/im1.png ... im7.png, of those that meta_info_file names"

    def _faults(self) -> Iterator[str]:
        missing = sorted((self._chosen or set()) - set(self.lq.clips))
        yield from (f"{name}: in {self.meta_info_file}, not in {self.lq.root}" for name in missing)
        yield from super()._faults()


def _read_list(meta_info_file: str) -> set[str]:
    """The first word of each line of a list: the names of septuplets."""
    path = Path(meta_info_file).expanduser()
    if not path.is_file():
        raise UserError(
            f"meta_info_file: {path} does not exist; KAIR's data/meta_info has the list of Vimeo-90K's test clips, "
            "prepare_vimeo90k writes it; all_clips (--all_clips) with meta_info_file null needs no list."
        )
    return {line.split()[0] for line in read_text(path).splitlines() if line.strip()}


@DATASETS.register("VFI_DAVIS")
@dataclass(kw_only=True, eq=False, repr=False)
class VFI_DAVIS(_TargetDataset):
    """Every other frame of a clip is input; targets are the left-out frames with two input frames on either side."""

    crop: Sequence[int] | None = (480, 840)
    """Rows and columns of the crop around the centre of all frames, black beyond a smaller frame; null: no crop."""

    def _groups(self, clip: str, frames: list[str]) -> Iterator[Clip]:
        for first in range(0, len(frames) - 6, 2):
            yield Clip(clip, tuple(frames[first : first + 7 : 2]), target=frames[first + 3])

    def _needs(self) -> str:
        return "seven frames or more"


@DATASETS.register("VFI_Vid4")
@dataclass(kw_only=True, eq=False, repr=False)
class VFI_Vid4(_TargetDataset):
    """Every other frame of a clip is input; targets are all left-out frames. At a clip's ends the outermost frames are
    repeated, and so is the last one if the number of frames is even.
    """

    def _groups(self, clip: str, frames: list[str]) -> Iterator[Clip]:
        frames = frames if len(frames) % 2 else [*frames, frames[-1]]
        last = len(frames) - 1
        for target in range(1, last, 2):
            around = [min(max(target + step, 0), last) for step in (-3, -1, 1, 3)]
            yield Clip(clip, tuple(frames[place] for place in around), target=frames[target])

    def _needs(self) -> str:
        return "two frames or more"


@DATASETS.register("VFI_UCF101")
@dataclass(kw_only=True, eq=False, repr=False)
class VFI_UCF101(_TargetDataset):
    """Four input frames; the target is the frame between the middle two."""

    crop: Sequence[int] | None = (224, 224)
    """Rows and columns of the crop around the centre of all frames, black beyond a smaller frame; null: no crop."""

    def _groups(self, clip: str, frames: list[str]) -> Iterator[Clip]:
        yield Clip(clip, tuple(f"frame{number}" for number in range(4)), target="framet")

    def _needs(self) -> str:
        return "frame0.png ... frame3.png, framet.png"


@DATASETS.register("VideoInterpolationTestDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoInterpolationTestDataset(_TargetDataset):
    """New frames between all frames of a clip, called `<before>_<after>`; at its ends the outermost are repeated."""

    def _open_gt(self) -> None:
        if self.dataroot_gt is not None:
            raise UserError("dataroot_gt: new frames have no ground truth; VFI_DAVIS restores left-out frames.")

    def _groups(self, clip: str, frames: list[str]) -> Iterator[Clip]:
        last = len(frames) - 1
        for number in range(last):
            around = (max(number - 1, 0), number, number + 1, min(number + 2, last))
            yield Clip(clip, tuple(frames[k] for k in around), target=f"{frames[number]}_{frames[number + 1]}")

    def _needs(self) -> str:
        return "two frames or more"
