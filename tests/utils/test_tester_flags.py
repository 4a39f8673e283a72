"""What the tester's flags make of an option file."""

import argparse
import json
from pathlib import Path

import pytest

import data.select_dataset  # noqa: F401  (registers the data sets)
import models.select_network  # noqa: F401  (registers the networks)
from utils.options.flags import duration
from utils.options.tester_flags import options, parse, set_name
from utils.user_error import UserError
from utils.utils_option import OptionError, Options


def read(folder: Path, tree: dict, *flags: str) -> Options:
    path = folder / "options.json"
    path.write_text(json.dumps(tree))
    return options(parse(["--opt", str(path), *flags], ""))


@pytest.mark.parametrize("dataset_type", ["SingleVideoRecurrentTestDataset", "VideoRecurrentTestDataset"])
def test_a_flag_switches_off_only_what_the_data_set_has(tmp_path: Path, dataset_type: str) -> None:
    """A set without ground truth has no dataroot_gt to be null."""
    network = {"net_type": "vrt", "upscale": 1, "deformable_groups": 12}
    test = {"dataset_type": dataset_type, "dataroot_lq": "x"}
    opt = read(tmp_path, {"task": "t", "datasets": {"test": test}, "netG": network}, "--folder_lq", "clips")
    assert opt.datasets.test.dataroot_lq == "clips" and opt.netG.spynet_path is None
    assert getattr(opt.datasets.test, "dataroot_gt", None) is None


def test_a_flag_switches_off_only_what_the_network_has(tmp_path: Path) -> None:
    """Only VRT has a SpyNet whose weights a checkpoint replaces."""
    with pytest.raises(OptionError) as raised:
        read(tmp_path, {"task": "t", "netG": {"net_type": "semi_unet", "typo": 1}})
    assert "netG.typo" in str(raised.value) and "spynet_path" not in str(raised.value)


@pytest.mark.parametrize(
    "folder, name",
    [
        ("testsets/vimeo90k", "vimeo90k"),
        ("/mnt/vimeo/davis/clips", "clips"),
        ("/data/UCF101/", "ucf101"),
        ("testsets/Vid4/GT", "vid4"),
        ("vimeo_septuplet/sequences", "vimeo_septuplet"),
    ],
)
def test_the_folders_own_name(folder: str, name: str) -> None:
    assert set_name(folder) == name


def test_durations() -> None:
    assert [duration(text) for text in ("60s", "90", "1.5min")] == [60, 90, 90]
    for text in ("0s", "1h", "-5", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="a time such as 60s"):
            duration(text)


def test_a_network_of_spikes_alone_is_sent_where_it_is_tested() -> None:
    """`SpiklingDataset` has no frames; flags that name some change nothing about it."""
    for flags in ([], ["--folder_lq", "clips"]):
        with pytest.raises(UserError, match=r"pictures of spikes alone.*--method gen.*evaluate_reconstruction"):
            options(parse(["--opt", "options/spikling/train_spikling.json", *flags], ""))
        with pytest.raises(UserError, match=r"pictures of spikes alone"):
            options(parse(["--task", "spike_refine", *flags], ""))
