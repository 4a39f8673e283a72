"""What the tester's flags make of an option file."""

import argparse
import json
from pathlib import Path

import pytest

import data.select_dataset  # noqa: F401  (registers the data sets)
import models.select_network  # noqa: F401  (registers the networks)
from utils.options.flags import duration
from utils.options.tester_flags import input_root, options, parse, set_name
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


@pytest.mark.parametrize("name", ["train_guided_s", "train_nafnet_s"])
def test_what_was_trained_on_generated_samples_is_tested_on_folders(repository: Path, name: str) -> None:
    flags = ["--folder_lq", "clips", "--folder_spike", "spikes"]
    opt = options(parse(["--opt", str(repository / f"options/svrt/{name}.json"), *flags], ""))
    test = opt.datasets.test
    assert test is not None and test.dataset_type == "VideoRecurrentTestDatasetRGBSpike"
    assert (test.input_pack_mode, test.spike.representation) == ("dual", "guided")  # type: ignore[attr-defined]
    assert opt.netG.spike_bins == 23  # type: ignore[attr-defined]


def test_durations() -> None:
    assert [duration(text) for text in ("60s", "90", "1.5min")] == [60, 90, 90]
    for text in ("0s", "1h", "-5", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="a time such as 60s"):
            duration(text)


@pytest.mark.parametrize("which", [["--opt", "options/spikling/train_spikling.json"], ["--task", "spike_refine"]])
def test_clips_of_a_network_of_spikes_alone(which: list[str]) -> None:
    """The test set's class, window and tiles follow from the network, whatever test set the options have."""
    refine = which[0] == "--task"
    opt = options(parse([*which, "--folder_spike", "clip.dat", "--set", "datasets.test.stride=3"], ""))
    assert opt.datasets.test is not None and opt.datasets.test.dataset_type == "SpikeStreamTestDataset"
    named = opt.datasets.test.arguments()
    assert named["dataroot_spike"] == "clip.dat" and named["dataroot_lq"] is None is named["dataroot_gt"]
    assert (named["window"], named["partial_windows"], named["stride"]) == (241 if refine else 32, refine, 3)
    assert opt.val.tile_size == (1, 0, 0)
    auto = options(parse([*which, "--folder_spike", "clip.dat", "--tile", "auto"], "")).val.tile_size
    assert auto == ("auto" if refine else (1, 0, 0))  # semi_unet normalises pictures as a whole
    flags = ["--folder_lq", "clip.mp4", "--folder_spike", "clip.dat", "--folder_gt", "sharp"]
    section = options(parse([*which, *flags], "")).datasets.test
    assert section is not None and section.arguments()["dataroot_lq"] == "clip.mp4"
    assert section.arguments()["dataroot_gt"] == "sharp"


def test_a_network_of_spikes_alone_without_any_data_set(tmp_path: Path) -> None:
    """Its `model` says what it is."""
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"task": "own", "model": "spikling", "netG": {"net_type": "semi_unet"}}))
    section = options(parse(["--opt", str(path), "--folder_spike", "clip.dat"], "")).datasets.test
    assert section is not None and section.arguments()["window"] == 32


def test_a_network_of_spikes_alone_is_tested_on_its_own_test_set() -> None:
    opt = options(parse(["--task", "spike_refine"], ""))
    assert opt.datasets.test is not None and opt.datasets.test.dataset_type == "SpiklingTestDataset"
    assert input_root(opt.datasets.test) == "testsets/REDS_BASE"


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--folder_lq", "clips"], "--folder_spike: this network makes pictures of spikes alone"),
        (["--folder_spike", "a.dat", "--times", "0:1:1/4"], "--times: for networks that restore blurred frames"),
        (["--folder_spike", "a.dat", "--trust"], "--trust: for networks"),
        (["--folder_spike", "a.dat", "--sweep", "drop=1"], "--sweep: for networks"),
        (["--folder_spike", "a.dat", "--tile", "1", "8", "8"], "--tile: .* normalises each picture as a whole"),
    ],
)
def test_flags_that_a_network_of_spikes_alone_refuses(flags: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        options(parse(["--opt", "options/spikling/train_spikling.json", *flags], ""))


def test_spikes_and_sharp_frames_need_the_blurred_ones() -> None:
    for flag in ("--folder_spike", "--folder_gt"):
        with pytest.raises(UserError, match=f"{flag}: it goes with the blurred frames"):
            options(parse(["--task", "guided", flag, "x"], ""))
