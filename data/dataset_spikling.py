"""Pairs of a run of spike frames and the sharp picture at its middle, to train and test networks for reconstruction.

    python main_train_vrt.py --opt options/spikling/train_spikling.json

`layout` chooses the source (`data/spike_pairs.py`): spikling's .npz pairs, Spike-Zoo's base set, or simulation on
demand, from videos or pictures. A spike has the value of the camera's threshold, so sums over frames are intensity.
Test: `python -m pytest tests/data/test_dataset_spikling.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from data.augment import Augmentation
from data.frame_io import Box
from data.sampler import SampleIndex, sample_rng
from data.spike.encoding import threshold_faults
from data.spike_pairs import BasePairs, NpzPairs, PairSource, PicturePairs, Sensor, SpikePair, VideoPairs
from data.video_clips import Clip
from utils.spike_loader import find_threshold
from utils.user_error import UserError
from utils.utils_registry import DATASETS, Faults, check_rules, least_faults, raise_faults, range_faults

REDS_THRESHOLD = 1 / 0.6
"""Threshold of REDS_BASE, Spike-Zoo's set in the layout `base`, where firing rate = 0.6 x intensity."""


@DATASETS.register("SpiklingDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class SpiklingDataset(Dataset[dict[str, Any]]):
    """Training pairs; an item is {"L": (1,W,h,w), "H": (1,1,h,w), "key": name}, float32.

    `L` holds W spike frames, with the threshold as the value of a spike; `H`, in [0,1], the scene at frame W // 2.
    Indexed with a `SampleIndex(epoch, index)`, or with an int (epoch 0).

    Raises:
        UserError: the data can't be used with these options.
    """

    packs_spikes: ClassVar[str | None] = "window"
    tested_by: ClassVar[str] = "SpikeStreamTestDataset"
    """The data set for testing networks trained on this one on clips named on the command line."""
    split: ClassVar[str] = "train"

    dataroot: str
    """By `layout`: folder of .npz pairs; Spike-Zoo's set, or its train/ or test/; videos or folders of frames;
    pictures."""
    layout: Literal["npz", "base", "videos", "pictures"] = "npz"
    """Source of the pairs, see `data/spike_pairs.py`."""
    window: int = 32
    """Spike frames per sample, W."""
    gt_size: int = 0
    """Side of the training crop; 0: whole pictures."""
    use_hflip: bool = True
    """Mirror half of the samples."""
    use_rot: bool = True
    """Flip half of the samples vertically, transpose half of them (square crops only)."""
    spike_threshold: float | None = None
    """npz, base: intensity = rate x threshold; null: 1 for npz; for base that of config.yaml, else that of REDS_BASE,
    1/0.6."""
    spike_center: int | None = None
    """base: spike frame of the sharp picture; null: the stream's middle."""
    spike_h: int | None = None
    """base: height of the spike picture; null: from the nearest config.yaml, else from the file's size."""
    spike_w: int | None = None
    """base: width of the spike picture; null: as for the height."""
    spike_flipud: bool = True
    """base: the files' rows are stored bottom-up."""
    sim_ratio: int = 2
    """Simulation: pixels of the videos or pictures per spike pixel and axis."""
    sim_threshold: Sequence[float] = (1.0, 4.0)
    """Simulation: range of the camera's threshold, drawn log-uniformly."""
    sim_gain: Sequence[float] = (1.0, 1.0)
    """Simulation: range of the exposure, a factor on light and sharp picture."""
    sim_gain_spread: float = 0.0
    """Simulation: largest standard deviation of the pixels' sensitivity."""
    sim_spurious: float = 0.0
    """Simulation: largest probability per frame of a spurious spike in a pixel."""
    sim_ticks: int = 16
    """videos: pictures per video frame, interpolated by optical flow."""
    sim_strides: Sequence[int] = (1, 2)
    """videos: strides in pictures between spike frames; one is drawn per sample."""
    sim_cache: str | None = None
    """videos: folder that caches the interpolated pictures; null: computed in memory."""
    sim_speed: Sequence[float] = (0.0, 0.4)
    """pictures: range of the camera's top speed, in pixels per spike frame."""
    seed: int = 0
    """train.manual_seed."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from least_faults(arguments, 1, "window", "sim_ratio")
        yield from least_faults(arguments, 0, "gt_size")
        yield from range_faults(arguments, "sim_threshold", positive=True)
        yield from range_faults(arguments, "sim_gain", "sim_speed", positive=False)
        yield from check_rules((threshold_faults, _size), arguments)

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        self.source = self._source()
        sizes = [self.source.size(index) for index in range(len(self.source.names))]
        small = [name for name, size in zip(self.source.names, sizes, strict=True) if min(size) < self.gt_size]
        if small:
            raise UserError(
                f"gt_size: pictures are smaller than the crop of {self.gt_size}: {len(small)} of {len(sizes)}, "
                f"first {small[0]}"
            )

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        sample = index if isinstance(index, SampleIndex) else SampleIndex(0, index)
        rng = sample_rng(self.seed, sample)
        height, width = self.source.size(sample.index)
        rows, columns = self.gt_size or height, self.gt_size or width
        box = Box(int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns)
        square = rows == columns
        augmentation = Augmentation.draw(rng, use_hflip=self.use_hflip, use_rot=self.use_rot, random_reverse=False)
        if not square:
            augmentation = Augmentation(augmentation.hflip, augmentation.vflip)
        pair = self.source.read(sample.index, box, rng)
        return {**self._tensors(pair, augmentation), "key": self.source.names[sample.index]}

    def _source(self) -> PairSource:
        """The source chosen by `layout`."""
        root, window = Path(self.dataroot).expanduser(), self.window
        if self.layout == "npz":
            return NpzPairs(root, window, 1.0 if self.spike_threshold is None else self.spike_threshold)
        if self.layout == "base":
            size = None if self.spike_h is None or self.spike_w is None else (self.spike_h, self.spike_w)
            root = root if (root / "spike").is_dir() or not (root / self.split).is_dir() else root / self.split
            threshold = self.spike_threshold or find_threshold(root / "spike") or REDS_THRESHOLD
            return BasePairs(root, window, threshold, self.spike_center, size, self.spike_flipud)
        sensor = Sensor(_range(self.sim_threshold), _range(self.sim_gain), self.sim_gain_spread, self.sim_spurious)
        if self.layout == "pictures":
            return PicturePairs(root, window, sensor, self.sim_ratio, _range(self.sim_speed))
        cache = None if self.sim_cache is None else Path(self.sim_cache).expanduser()
        return VideoPairs(root, window, sensor, self.sim_ratio, self.sim_ticks, self.sim_strides, cache)

    @staticmethod
    def _tensors(pair: SpikePair, augmentation: Augmentation) -> dict[str, Any]:
        """`L` (1,W,h,w) and `H` (1,1,h,w) of a pair."""
        spikes = torch.from_numpy(np.ascontiguousarray(augmentation.space(pair.spikes)))
        sharp = torch.from_numpy(np.ascontiguousarray(augmentation.space(pair.sharp)))
        return {"L": spikes.float().mul_(pair.threshold)[None], "H": sharp.float().div_(255)[None, None]}


@DATASETS.register("SpiklingTestDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class SpiklingTestDataset(SpiklingDataset):
    """Whole pairs for testing, the same in every run; items have "folder" and "lq_path" instead of "key"."""

    split: ClassVar[str] = "test"
    fps: ClassVar[float | None] = None
    """Pairs are no film."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clips = [Clip(name.replace("/", "_"), (name,)) for name in self.source.names]

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        return self.load(index.index if isinstance(index, SampleIndex) else index)

    def content(self, index: int) -> Iterator[bytes]:
        """The spikes and the threshold of pair `index`."""
        pair = self._whole(index)
        yield repr((pair.spikes.shape, pair.threshold)).encode()
        yield pair.spikes.tobytes()

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """The pair `index`, as a clip of one picture: [0, 1) is its only range of frames."""
        assert begin == 0 and end in (1, None), (begin, end)
        clip = self.clips[index]
        return {**self._tensors(self._whole(index), Augmentation()), "folder": clip.name, "lq_path": [clip.frames[0]]}

    def _whole(self, index: int) -> SpikePair:
        box = Box(0, 0, *self.source.size(index))
        return self.source.read(index, box, sample_rng(self.seed, SampleIndex(0, index)))


def _size(spike_h: int | None, spike_w: int | None) -> Faults:
    if (spike_h is None) != (spike_w is None):
        yield "spike_h", f"{spike_h}, but spike_w is {spike_w}; give both or neither"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A range given as a list, as a pair."""
    least, greatest = values
    return least, greatest
