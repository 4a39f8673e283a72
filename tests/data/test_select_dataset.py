"""Options choose data sets; everything that options can name is registered by one import."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.select_dataset import define_Dataset
from tests.data.trees import GoproTree
from utils.options.checks import input_channels
from utils.options.parts import Registries, dataset_model, representation_model
from utils.utils_registry import DATASETS, REPRESENTATIONS


@dataclass
class Section:
    """What `load_options` gives, as far as it matters here."""

    dataset_type: str
    values: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        return self.values


def test_names_and_aliases() -> None:
    for name in ("VideoRecurrentTrainDatasetRGBSpike", "TrainDatasetRGBSpike", "vrt_video_rgbspike"):
        assert DATASETS.get(name) is VideoRecurrentTrainDatasetRGBSpike
    assert {
        "SingleVideoRecurrentTestDataset",
        "VideoRecurrentTestDataset",
        "VideoRecurrentTestDatasetRGBSpike",
        "VideoRecurrentTrainDataset",
    } <= set(DATASETS.names())
    assert {"tfp", "voxel"} <= set(REPRESENTATIONS.names())


def test_every_key_is_annotated() -> None:
    for name in DATASETS.names():
        for key, parameter in DATASETS.parameters(name).items():
            assert parameter.annotation is not parameter.empty, f"{name}: {key}"


@pytest.mark.parametrize(
    ("dataset_type", "spike", "values", "channels"),
    [
        ("VideoRecurrentTrainDataset", None, {"gt_size": 16, "interval_list": [1]}, 3),
        ("VideoRecurrentTrainDatasetRGBSpike", {"representation": "tfp", "bins": 5}, {"gt_size": 16}, 8),
        ("VideoRecurrentTestDatasetRGBSpike", {"representation": "tfp"}, {"input_pack_mode": "concat"}, 7),
        ("TrainDatasetRGBSpike", {"representation": "voxel"}, {"input_pack_mode": "dual", "gt_size": 16}, 3),
    ],
)
def test_input_channels_follow_from_the_options(
    tree: GoproTree, dataset_type: str, spike: dict[str, Any] | None, values: dict[str, Any], channels: int
) -> None:
    """What the options derive for `netG.in_chans` is what L has."""
    parts = Registries()
    roots = tree.rgb_roots if spike is None else {**tree.roots, "spike": spike}
    representation = representation_model(parts, spike["representation"] if spike else "tfp")
    schema = dataset_model(parts, dataset_type, representation)
    section = schema.model_validate({"name": "data", "dataset_type": dataset_type, **values, **roots})
    assert input_channels(section, 3, parts) == channels
    assert define_Dataset(section, seed=0, scale=1, n_channels=3)[0]["L"].shape[1] == channels


def test_seed_and_scale_are_injected_where_wanted(tree: GoproTree) -> None:
    train: Any = define_Dataset(
        Section("videorecurrenttraindataset", {**tree.rgb_roots, "gt_size": 16}), seed=7, scale=1, n_channels=3
    )
    assert (train.seed, train.scale, train.gt_size) == (7, 1, 16)
    section = Section("SingleVideoRecurrentTestDataset", {"dataroot_lq": str(tree.lq)})
    test: Any = define_Dataset(section, seed=7, scale=2, n_channels=3)
    assert not hasattr(test, "seed") and test.scale == 2
    with pytest.raises(ValueError, match="Did you mean 'VideoRecurrentTrainDataset'"):
        define_Dataset(Section("VideoRecurentTrainDataset"), seed=0, scale=1, n_channels=3)
