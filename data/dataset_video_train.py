"""Training samples of blurred and sharp video: runs of frames, randomly cropped and augmented.

One item per frame of the data set, as in KAIR: a sample begins at that frame, or at a random one if it would exceed the
clip's end. All random draws depend on (seed, epoch, index) only, so that workers, ranks and resuming don't change a
sample. Test: `python -m pytest tests/data/test_dataset_video_train.py`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from data.augment import Appearance, Augmentation
from data.frame_io import Box
from data.sampler import SampleIndex, sample_rng
from data.video_clips import Clip, FramePairs, check_channels, check_roots, report_faults, to_tensor
from utils.user_error import UserError
from utils.utils_registry import DATASETS, Faults, least_faults, raise_faults

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """The place of one training sample in its clip, and its augmentation.

    Attributes:
        clip: its clip.
        frames: names of its frames, in the order of the item.
        first: name of its first frame in time.
        box: the crop, in pixels of the blurred frames.
        augmentation: flips, transposition, direction of time.
        entropy: seed, epoch and index, on which all further random draws depend.
    """

    clip: Clip
    frames: list[str]
    first: str
    box: Box
    augmentation: Augmentation
    entropy: tuple[int, ...] = (0, 0, 0)


@DATASETS.register("VideoRecurrentTrainDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTrainDataset(Dataset[dict[str, Any]]):
    """Samples of blurred frames with their sharp frames.

    Indexed with a `SampleIndex(epoch, index)`, or with an int (epoch 0). An item is
    {"L": (T,3,h,w), "H": (T,3,gt_size,gt_size), "key": "clip/first frame"}: float32 RGB in [0, 1], h = gt_size/scale.

    Raises:
        UserError: the data can't be used with these options; the message lists all faults found.
    """

    tested_by: ClassVar[str] = "VideoRecurrentTestDataset"
    """The data set for testing networks trained on this one on clips named on the command line."""

    packs_spikes: ClassVar[str | None] = None

    dataroot_gt: str
    """Sharp frames, <clip>/<frame>.<ext> or an LMDB."""
    dataroot_lq: str
    """Blurred frames, with the same names."""
    meta_info_file: str | None = None
    """List of clips and frames, lines `clip n_frames (h,w,c) first_frame`; null: all in the folders."""
    filename_tmpl: str = "06d"
    """Format of frame names from the frame numbers in the meta info file."""
    filename_ext: str = "png"
    """The frames' extension."""
    val_partition: str | list[str] | None = None
    """Clips excluded from training: "REDS4", "official", or a list."""
    test_mode: bool = False
    """True: use only the clips of val_partition."""
    io_backend: dict[str, str] | None = None
    """{"type": "disk"} (the default) or {"type": "lmdb"}."""
    cache_data: bool = False
    """Decode all frames into memory first."""
    num_frame: int = 6
    """Frames per sample, T."""
    gt_size: int = 256
    """Side of the crop in pixels of the sharp frames."""
    interval_list: Sequence[int] = (1,)
    """Distances between a sample's frames, one drawn per sample."""
    random_reverse: bool = False
    """Reverse time in half of the samples."""
    use_hflip: bool = True
    """Mirror half of the samples."""
    use_rot: bool = True
    """Flip half of the samples vertically, transpose half of them."""
    brightness_jitter: float = 0.0
    """Change a sample's brightness by up to this, in either direction."""
    contrast_jitter: float = 0.0
    """Change a sample's contrast by a factor from 1 - this to 1 + this."""
    seed: int = 0
    """train.manual_seed."""
    scale: int = 1
    """Size of the sharp frames over that of the blurred ones."""
    n_channels: int = 3
    """Only 3."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from least_faults(arguments, 1, "num_frame", "gt_size")
        intervals = arguments.get("interval_list", [1])
        if not intervals or min(intervals) < 1:
            yield "interval_list", f"a list of distances of 1 or more; got {list(intervals)}"
        for key in ("brightness_jitter", "contrast_jitter"):
            if not 0 <= arguments.get(key, 0) < 1:
                yield key, f"from 0 (off) to below 1; got {arguments[key]}"

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        check_channels(self.n_channels)
        if self.gt_size % self.scale:
            raise UserError(f"gt_size: {self.gt_size} is not a multiple of scale {self.scale}.")
        check_roots(self._roots())
        self.pairs = FramePairs(
            dataroot_lq=self.dataroot_lq,
            dataroot_gt=self.dataroot_gt,
            scale=self.scale,
            meta_info_file=self.meta_info_file,
            filename_tmpl=self.filename_tmpl,
            filename_ext=self.filename_ext,
            io_backend=self.io_backend,
            val_partition=self.val_partition,
            test_mode=self.test_mode,
        )
        self.clips = self.pairs.clips
        report_faults(self._faults(), f"The training data in {self.dataroot_lq} can't be used")
        self._items = [(clip, position) for clip in self.clips for position in self._starts(clip)]
        if self.cache_data:
            self.pairs.preload()
        logger.info("%s: %d clips, %d frames", type(self).__name__, len(self.clips), len(self))

    def _roots(self) -> dict[str, str | None]:
        """Data roots by their options."""
        return {"dataroot_gt": self.dataroot_gt, "dataroot_lq": self.dataroot_lq}

    def _faults(self) -> list[str]:
        """Faults that prevent using the data with these options."""
        faults = self.pairs.faults()
        if faults:
            return faults
        span = (self.num_frame - 1) * max(self.interval_list) + 1
        side = self.gt_size // self.scale
        for clip in self.clips:
            if len(clip) < span:
                faults.append(
                    f"{clip.name}: {len(clip)} frames, but num_frame {self.num_frame} with interval "
                    f"{max(self.interval_list)} needs {span}"
                )
            height, width = self.pairs.lq.size(clip.name)
            if min(height, width) < side:
                faults.append(
                    f"{clip.name}: blurred frames of {height}x{width} are smaller than the crop of {side}x{side} "
                    f"(gt_size {self.gt_size})"
                )
        return faults

    def _starts(self, clip: Clip) -> Sequence[int]:
        """Positions in a clip at which items begin."""
        return range(len(clip))

    def __len__(self) -> int:
        return len(self._items)

    def draw(self, index: SampleIndex) -> Sample:
        """Draws one sample, always with the same draws in the same order, so that an option changes no other draw."""
        clip, start = self._items[index.index]
        rng = sample_rng(self.seed, index)
        interval = self.interval_list[int(rng.integers(len(self.interval_list)))]
        last_start = len(clip) - ((self.num_frame - 1) * interval + 1)
        redrawn = int(rng.integers(last_start + 1))
        start = start if start <= last_start else redrawn
        frames = list(clip.frames[start : start + self.num_frame * interval : interval])
        assert len(frames) == self.num_frame
        first = frames[0]
        height, width = self.pairs.lq.size(clip.name)
        side, step = self.gt_size // self.scale, self._crop_step()
        top = int(rng.integers((height - side) // step + 1)) * step
        left = int(rng.integers((width - side) // step + 1)) * step
        augmentation = Augmentation.draw(
            rng, use_hflip=self.use_hflip, use_rot=self.use_rot, random_reverse=self.random_reverse
        )
        if augmentation.reverse:
            frames.reverse()
        entropy = self.seed, index.epoch, index.index
        return Sample(clip, frames, first, Box(top, left, side, side), augmentation, entropy)

    def _crop_step(self) -> int:
        """Stride of the crops' positions, in pixels of the blurred frames."""
        return 1

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        return self.read(self.draw(index if isinstance(index, SampleIndex) else SampleIndex(0, index)))

    def read(self, sample: Sample) -> dict[str, Any]:
        """The item of a sample: its pictures and its key."""
        blurred = self.pairs.read_lq(sample.clip.name, sample.frames, sample.box)
        return {
            "L": self._augmented(blurred, sample),
            "H": self._augmented(self._sharp(sample), sample),
            "key": f"{sample.clip.name}/{sample.first}",
        }

    def _sharp(self, sample: Sample) -> np.ndarray:
        """The sharp frames of a sample's crop, (T, h*scale, w*scale, 3) uint8 RGB."""
        return self.pairs.read_gt(sample.clip.name, sample.frames, sample.box)

    def _augmented(self, frames: np.ndarray, sample: Sample) -> torch.Tensor:
        """Augmented frames: (T, h, w, 3) to (T, 3, h, w) in [0, 1], flipped, transposed, in changed light."""
        appearance = Appearance.draw(
            sample.entropy, brightness_jitter=self.brightness_jitter, contrast_jitter=self.contrast_jitter
        )
        return appearance.apply(to_tensor(sample.augmentation.space(frames, axes=(-3, -2))))
