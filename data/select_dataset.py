"""Builds data sets from the options' `datasets` sections: the only module that depends on both.

Importing this module registers all data sets and spike representations, as `load_options` requires.
"""

from typing import Any, Protocol

import data.dataset_guided_synthetic
import data.dataset_spike_stream
import data.dataset_spike_synthetic
import data.dataset_spikling
import data.dataset_video_denoise
import data.dataset_video_instants
import data.dataset_video_rgbspike
import data.dataset_video_target
import data.dataset_video_test
import data.dataset_video_train
import data.dataset_video_vimeo  # noqa: F401  these register by being imported
from utils.utils_registry import DATASETS


class DatasetSection(Protocol):
    """`datasets.train` or `datasets.test` of the options."""

    dataset_type: str

    def arguments(self) -> dict[str, Any]:
        """The constructor's keyword arguments."""


def define_Dataset(section: DatasetSection, *, seed: int, scale: int, n_channels: int) -> Any:
    """Builds the data set that a section describes.

    Args:
        section: `datasets.train` or `datasets.test`.
        seed: train.manual_seed.
        scale, n_channels: the top-level options. All three are passed to data sets that have such a parameter.

    Returns:
        A `torch.utils.data.Dataset` of samples; one for testing also has `clips` and `load`.

    Raises:
        UserError: no such data set, or its data can't be used.
    """
    parameters = DATASETS.parameters(section.dataset_type)
    injected = {"seed": seed, "scale": scale, "n_channels": n_channels}
    injected = {key: value for key, value in injected.items() if key in parameters}
    return DATASETS.get(section.dataset_type)(**{**section.arguments(), **injected})
