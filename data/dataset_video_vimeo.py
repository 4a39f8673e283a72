"""Training on Vimeo-90K, whose clips are seven frames im1 to im7: super-resolution and frame interpolation.

    <root>/00001/0001/im1.png ... im7.png, or an LMDB with keys 00001/0001/im1

One item is one clip, as in KAIR for the models 003, 004 (`VideoRecurrentTrainVimeoDataset`) and 009
(`VideoRecurrentTrainVimeoVFIDataset`). Test: `python -m pytest tests/data/test_dataset_tasks.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from data.augment import NOISE, chance
from data.dataset_video_train import Sample, VideoRecurrentTrainDataset
from data.video_clips import Clip
from utils.utils_registry import DATASETS, Faults, check_rules

CLIP_FRAMES = 7  # Vimeo-90K consists of septuplets
COLOUR_JITTER = 0.05  # largest change of brightness, contrast, saturation and hue, as in KAIR


@DATASETS.register("VideoRecurrentTrainVimeoDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTrainVimeoDataset(VideoRecurrentTrainDataset):
    """The middle `num_frame` frames of each clip, as samples of `VideoRecurrentTrainDataset`."""

    filename_tmpl: str = "im{}"
    """Format of frame names from frame numbers."""
    num_frame: int = -1
    """Frames per sample, T, from the clip's middle; -1: all seven."""
    pad_sequence: bool = False
    """Repeat the last frame: T + 1 frames, for attention windows of an even length."""
    flip_sequence: bool = False
    """Append the frames in reverse: 2 T frames."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        frames = {"num_frame": CLIP_FRAMES} if arguments.get("num_frame") == -1 else {}
        yield from VideoRecurrentTrainDataset.faults({**arguments, **frames})
        if arguments.get("pad_sequence") and arguments.get("flip_sequence"):
            yield "pad_sequence", "choose either this or flip_sequence"

    def __post_init__(self) -> None:
        self.num_frame = CLIP_FRAMES if self.num_frame == -1 else self.num_frame
        super().__post_init__()

    def _starts(self, clip: Clip) -> Sequence[int]:
        return [(len(clip) - self.num_frame) // 2]

    def read(self, sample: Sample) -> dict[str, Any]:
        item = super().read(sample)
        for key in ("L", "H"):
            frames = item[key]
            if self.pad_sequence:
                item[key] = torch.cat([frames, frames[-1:]])
            if self.flip_sequence:
                item[key] = torch.cat([frames, frames.flip(0)])
        return {**item, "key": sample.clip.name}


@DATASETS.register("VideoRecurrentTrainVimeoVFIDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTrainVimeoVFIDataset(VideoRecurrentTrainVimeoDataset):
    """Frame interpolation: every other frame is input, and the frame between the middle two is the target.

    An item is {"L": (4,3,gt_size,gt_size), frames 1, 3, 5, 7; "H": (1,3,gt_size,gt_size), frame 4; "key": the clip}.
    """

    tested_by: ClassVar[str] = "VideoInterpolationTestDataset"
    """The data set for testing networks trained on this one on clips named on the command line."""

    dataroot_lq: str = ""
    """Not used, as input and target are sharp frames; KAIR's files repeat their folder here."""
    temporal_scale: int = 2
    """Stride between input frames; the frames between the middle two are interpolated."""
    color_jitter: bool = False
    """Change brightness, contrast, saturation and hue of a sample by up to 5 %."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from VideoRecurrentTrainVimeoDataset.faults(arguments)
        yield from check_rules((_span,), arguments)
        for key, off in (("scale", 1), ("pad_sequence", False), ("flip_sequence", False)):
            if arguments.get(key) not in (None, off):
                yield key, f"not supported by interpolation; got {arguments[key]}"

    def __post_init__(self) -> None:
        self.dataroot_lq = self.dataroot_gt
        super().__post_init__()

    def read(self, sample: Sample) -> dict[str, Any]:
        frames = self._augmented(self.pairs.read_gt(sample.clip.name, sample.frames, sample.box), sample)
        if self.color_jitter:
            frames = jitter_colours(frames, chance(sample.entropy, NOISE))
        before = (self.num_frame - 1 - self.temporal_scale) // 2  # index of the input frame before the target frames
        return {
            "L": frames[:: self.temporal_scale].contiguous(),
            "H": frames[before + 1 : before + self.temporal_scale].contiguous(),
            "key": sample.clip.name,
        }


def jitter_colours(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Changes brightness, contrast, saturation and hue of frames (T, 3, h, w) in [0, 1], equally for all frames."""
    import torchvision.transforms.functional as colours  # here only: torchvision is slow to import

    brightness, contrast, saturation, hue = rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 4)
    changes = [
        lambda x: colours.adjust_brightness(x, 1 + brightness),
        lambda x: colours.adjust_contrast(x, 1 + contrast),
        lambda x: colours.adjust_saturation(x, 1 + saturation),
        lambda x: colours.adjust_hue(x, hue),
    ]
    for index in rng.permutation(len(changes)):
        frames = changes[index](frames)
    return frames


def _span(num_frame: int, temporal_scale: int) -> Faults:
    frames = CLIP_FRAMES if num_frame == -1 else num_frame
    count, rest = divmod(frames - 1, max(1, temporal_scale))
    if temporal_scale < 2 or rest or count % 2 == 0:
        yield (
            "temporal_scale",
            "an even number of input frames, temporal_scale (2 or more) apart, must span num_frame frames, such as 4 "
            f"frames of 7 with temporal_scale 2; got {temporal_scale} for {frames}",
        )
