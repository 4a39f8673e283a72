"""Training of non-blind video denoising: sharp frames, Gaussian noise of a random level, and that level as a channel.

    "dataset_type": "VideoRecurrentTrainNonblindDenoisingDataset", "sigma_min": 0, "sigma_max": 50

As in KAIR for the model 008. Noise and level depend on (seed, epoch, index), like all random draws.
Test: `python -m pytest tests/data/test_dataset_tasks.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.augment import NOISE, chance
from data.dataset_video_train import Sample, VideoRecurrentTrainDataset
from utils.utils_registry import DATASETS, Faults, check_rules


@DATASETS.register("VideoRecurrentTrainNonblindDenoisingDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTrainNonblindDenoisingDataset(VideoRecurrentTrainDataset):
    """Samples of sharp frames with noise.

    An item is {"L": (T,4,gt_size,gt_size), noisy frames (not clamped) and the noise level / 255, "H": (T,3,...)}.
    """

    dataroot_lq: str = ""
    """Not used, as noise is added to the sharp frames; KAIR's files repeat their folder here."""
    sigma_min: float = 0.0
    """Smallest standard deviation of the noise, in 8-bit steps."""
    sigma_max: float = 50.0
    """Largest standard deviation; a sample's is drawn uniformly between both."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from VideoRecurrentTrainDataset.faults(arguments)
        yield from check_rules((_sigma,), arguments)
        if arguments.get("scale") not in (None, 1):
            yield "scale", f"denoising keeps the size, 1; got {arguments['scale']}"

    def __post_init__(self) -> None:
        self.dataroot_lq = self.dataroot_gt
        super().__post_init__()

    def read(self, sample: Sample) -> dict[str, Any]:
        sharp = self._augmented(self.pairs.read_gt(sample.clip.name, sample.frames, sample.box), sample)
        rng = chance(sample.entropy, NOISE)
        level = float(rng.uniform(self.sigma_min, self.sigma_max)) / 255
        noise = torch.from_numpy(rng.standard_normal(sharp.shape, np.float32))
        noisy = torch.cat([sharp + level * noise, torch.full_like(sharp[:, :1], level)], dim=1)
        return {"L": noisy, "H": sharp, "key": f"{sample.clip.name}/{sample.first}"}


def _sigma(sigma_min: float, sigma_max: float) -> Faults:
    if not 0 <= sigma_min <= sigma_max:
        yield "sigma_min", f"0 <= sigma_min <= sigma_max is needed; got {sigma_min} and {sigma_max}"
