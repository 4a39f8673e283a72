"""utils/options/foreign.py: files of the project that the documents come from."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.select_dataset
import models.select_network  # noqa: F401  (both register their parts)
from tests.data.trees import make_gopro_tree
from utils.options.parts import Registries
from utils.utils_option import OptionError, Options, load_options
from utils.utils_registry import Registry

NETWORK = {"depths": [2] * 8, "embed_dims": [32] * 8, "num_heads": [2] * 8, "indep_reconsts": [7]}
# The documents' template for concatenation as it stands there, but for its network, which is no VRT.
TEMPLATE: dict[str, Any] = {
    "task": "vrt_videodeblurring_gopro_rgbspike",
    "model": "vrt",
    "gpu_ids": [0],
    "dist": False,
    "scale": 1,
    "n_channels": 4,
    "path": {"root": "video_deblurring", "pretrained_netG": None, "strict_load": True},
    "datasets": {
        "train": {
            "name": "gopro_rgbspike_train",
            "dataset_type": "vrt_video",
            "dataroot_GT": "/path/to/GoPro/train/GT",
            "dataroot_LQ": "/path/to/GoPro/train/Blur_And_Spike",
            "cache_data": True,
            "num_frames": 6,
            "use_shuffle": True,
            "batch_size": 4,
            "patch_size": [256, 256],
            "num_worker": 8,
        },
        "test": {
            "name": "gopro_rgbspike_val",
            "dataset_type": "vrt_video",
            "dataroot_GT": "/path/to/GoPro/val/GT",
            "dataroot_LQ": "/path/to/GoPro/val/Blur_And_Spike",
            "num_frames": 6,
        },
    },
    "netG": {
        "net_type": "vrt",
        "task": "videodeblurring",
        "scale": 1,
        "in_chans": 4,
        "img_size": [6, 256, 256],
        "window_size": [6, 8, 8],
        **NETWORK,
        "mul_attn_ratio": 0.75,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.2,
        "spynet_path": "pretrained_models/spynet_sintel_final-3d2a1287.pth",
        "pa_frames": 2,
        "deformable_groups": 16,
        "recal_all_flows": False,
    },
    "train": {
        "G_lossfn_type": "charbonnier",
        "E_decay": 0.999,
        "G_optimizer_type": "adam",
        "G_optimizer_lr": 2e-4,
        "G_scheduler_type": "MultiStepLR",
        "G_scheduler_milestones": [250000, 400000, 450000, 475000, 500000],
        "G_scheduler_gamma": 0.5,
        "checkpoint_test": 5000,
    },
}
# The project's baseline, by its keys that KAIR does not have.
BASELINE: dict[str, Any] = {
    "task": "plain",
    "datasets": {
        "train": {
            "dataset_type": "TrainDatasetRGBSpike",
            "dataroot_gt": "gopro/train_GT",
            "dataroot_lq": "gopro/train_GT_blurred",
            "dataroot_spike": "spikes/train",
            "spike_h": 360,
            "spike_w": 640,
            "spike_channels": 4,
            "input_pack_mode": "concat",
            "keep_legacy_l": True,
            "spike": {"reconstruction": {"type": "spikecv_tfp", "num_bins": 4, "middle_tfp_center": 44}},
            "spike_reconstruction": "spikecv_tfp",
            "tfp_half_win_length": 20,
            "rgb_normalize": "imagenet",
            "spike_normalize": {"mean": [0.0] * 4, "std": [1.0] * 4},
            "spike_flow": {"representation": "", "dt": 10},
        },
        "test": {"dataset_type": "TestDataset", "dataroot_gt": "gopro/test_GT", "dataroot_lq": "gopro/test_GT_blurred"},
    },
    "netG": {
        "net_type": "vrt",
        "in_chans": 7,
        "upscale": 1,
        "input_mode": "concat",
        "optical_flow": {"module": "spynet", "checkpoint": "model_zoo/spynet.pth", "params": {}},
        "dcn_type": "DCNv2",
        "use_sgp": False,
        "use_flash_attn": True,
        "fusion": {"enable": False, "operator": "gated"},
        **NETWORK,
    },
    "train": {"amp": {"enable": True, "dtype": "bf16"}, "use_lora": False, "lora_rank": 8, "compile": {"enable": True}},
    "val": {"patch_batch_size": 2},
    "logging": {"use_swanlab": True, "swanlab_project": "p", "swanlab_api_key": "s3cret", "use_tensorboard": False},
}


def load(folder: Path, tree: dict[str, Any], *overrides: str) -> Options:
    (folder / "opt.json").write_text(json.dumps(tree))
    return load_options(folder / "opt.json", overrides)


def faults(folder: Path, tree: dict[str, Any], *overrides: str) -> list[str]:
    with pytest.raises(OptionError) as raised:
        load(folder, tree, *overrides)
    return raised.value.faults


def test_the_documents_template(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opt = load(tmp_path, TEMPLATE)
    train, test = opt.datasets.train, opt.datasets.test
    assert train is not None and test is not None
    assert (train.dataset_type, train.gt_size, train.num_frame) == ("VideoRecurrentTrainDatasetRGBSpike", 256, 6)
    assert (train.dataloader_batch_size, train.dataloader_num_workers, train.cache_data) == (4, 8, True)
    assert test.dataset_type == "VideoRecurrentTestDatasetRGBSpike"
    for section in (train, test):
        assert section.dataroot_spike == section.dataroot_lq
        assert section.arguments()["spike"] == {"representation": "tfp", "bins": 1}
    assert (opt.n_channels, opt.netG.in_chans, opt.train.G_param_strict) == (3, 4, True)
    told = [record.getMessage() for record in caplog.records]
    assert sum("netG.task" in line for line in told) == 1
    assert not any("recal_all_flows" in line or "netG.scale" in line for line in told)


def test_the_documents_template_with_bins_and_a_folder_of_spikes(tmp_path: Path) -> None:
    overrides = ["datasets.train.S=3", "datasets.train.cache_root=cache", "datasets.train.dataroot_spike=raw/train"]
    opt = load(tmp_path, TEMPLATE, *overrides, "netG.in_chans=6", "n_channels=3", "path.strict_load=false")
    assert opt.datasets.train.arguments()["spike"] == opt.datasets.test.arguments()["spike"]
    assert (opt.datasets.train.spike_cache, opt.datasets.test.dataroot_spike) == ("cache", "raw/test")
    assert opt.train.G_param_strict is False


def test_the_documents_network_is_told_to_be_none(tmp_path: Path) -> None:
    lists = ["netG.depths=[8,8,8,8,6,6,6,6]", "netG.num_heads=[6,6,6,6,6,6,6,6]", "netG.deformable_groups=12"]
    found = faults(tmp_path, TEMPLATE, *lists, "netG.embed_dims=[120,120,120,120,180,180,180,180]")
    assert len(found) == 1 and found[0].startswith("netG.embed_dims (--set)")


def test_without_spikes_the_types_are_kairs(tmp_path: Path) -> None:
    opt = load(tmp_path, TEMPLATE, "netG.in_chans=3", "n_channels=3", "datasets.test.dataset_type=TestDataset")
    assert opt.datasets.train.dataset_type == "VideoRecurrentTrainDataset"
    assert opt.datasets.test.dataset_type == "VideoRecurrentTestDataset"


def test_the_projects_baseline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opt = load(tmp_path, BASELINE)
    assert opt.datasets.train.arguments()["spike"] == opt.datasets.test.arguments()["spike"]
    assert opt.datasets.train.arguments()["spike"] == {"representation": "tfp", "bins": 4}
    assert opt.datasets.test.dataroot_spike == "spikes/test"
    assert (opt.netG.spynet_path, opt.train.amp_dtype, opt.train.compile) == ("model_zoo/spynet.pth", "bf16", True)
    assert (opt.val.tile_batch, opt.logger.tensorboard) == (2, False)
    told = "\n".join(record.getMessage() for record in caplog.records)
    for key in (
        "rgb_normalize",
        "keep_legacy_l",
        "use_flash_attn",
        "use_swanlab",
        "tfp_half_win_length",
        "spikecv_tfp",
    ):
        assert told.count(key) == 1, key
    assert not any(key in told for key in ("fusion", "lora", "dcn_type", "spike_flow", "s3cret"))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("train.use_lora", True, "train.use_lora: LoRA is not part of this repository"),
        ("train.two_run", {"enable": True}, "train.two_run: the two-run training is not part"),
        ("train.amp", {"enable": True, "dtype": "int8"}, "train.amp.dtype: expected one of bf16"),
        ("netG.fusion", {"enable": True, "operator": "mamba"}, "netG.fusion: the fusion framework (gated, PASE, Mamba"),
        ("netG.optical_flow", {"module": "scflow"}, "netG.optical_flow.module: 'scflow' is not part"),
        ("netG.dcn_type", "DCNv4", "netG.dcn_type: DCNv4 is not part"),
        ("netG.use_sgp", True, "netG.use_sgp: SGP is not part"),
        ("netG.spynet_path", "other.pth", "netG.optical_flow.checkpoint and netG.spynet_path are the same option"),
        (
            "datasets.train.spike_flow",
            {"representation": "encoding25"},
            "datasets.train.spike_flow: SCFlow is not part",
        ),
        ("datasets.train.spike_reconstruction", "snn", ""),  # the nested one is the newer name and wins
        ("datasets.train.spike", {"reconstruction": {"type": "snn"}}, "spike.reconstruction.type: 'snn' is not part"),
        ("datasets.train.spike_folder_name", "events", "datasets.train.spike_folder_name: another folder than"),
        ("datasets.train.gt_size", [96, 128], "datasets.train.gt_size: [96, 128]: crops are square"),
    ],
)
def test_parts_that_do_not_exist_are_refused_by_name(tmp_path: Path, name: str, value: Any, fault: str) -> None:
    tree = json.loads(json.dumps(BASELINE))
    *sections, key = name.split(".")
    section = tree
    for part in sections:
        section = section[part]
    section[key] = value
    if not fault:
        load(tmp_path, tree)
        return
    found = [told.replace(f" ({tmp_path}/opt.json:1)", "") for told in faults(tmp_path, tree)]
    assert any(fault in told for told in found), found


def test_raw_windows(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(BASELINE))
    tree["datasets"]["train"] |= {
        "spike": {"representation": "raw_window", "raw_window_length": 9},
        "spike_channels": 9,
    }
    del tree["datasets"]["train"]["spike_reconstruction"], tree["datasets"]["train"]["spike_normalize"]
    opt = load(tmp_path, tree, "netG.in_chans=12")
    assert opt.datasets.train.arguments()["spike"] == {"representation": "raw", "length": 9, "edge": "error"}


def test_other_things_are_no_misspellings(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(BASELINE))
    tree["netG"] |= {"met_type": 1, "gpu_type": 1}
    tree["logging"]["comet_name"] = "x"
    tree["datasets"]["test"] = {"dataset_type": "BestDataset"}
    told = {fault.split(" (")[0]: fault for fault in faults(tmp_path, tree)}
    assert "did you mean 'net_type'" in told["netG.met_type"]
    assert "did you mean" not in told["netG.gpu_type"] + told["logger.comet_name"]
    assert "Did you mean" not in told["datasets.test.dataset_type"]


def test_a_key_given_twice_does_not_hide_the_rest(tmp_path: Path) -> None:
    text = json.dumps(BASELINE).replace('"compile"', '"total_iter": 1, "total_iter": 2, "E_decay": "high", "compile"')
    (tmp_path / "opt.json").write_text(text.replace('"val": {', '"val": {"size": 1, '))
    with pytest.raises(OptionError) as raised:
        load_options(tmp_path / "opt.json")
    told = "\n".join(raised.value.faults)
    assert len(raised.value.faults) == 3
    assert "train.total_iter was given already at" in told and "train.E_decay" in told and "val.size" in told


def test_a_parts_own_key_is_its_own(tmp_path: Path) -> None:
    networks = Registry("network", "netG.net_type")

    @networks.register("own")
    class Own:
        def __init__(self, *, fusion: str = "none", in_chans: int = 3) -> None: ...

    (tmp_path / "opt.json").write_text(json.dumps({"task": "x", "netG": {"net_type": "own", "fusion": "sum"}}))
    opt = load_options(tmp_path / "opt.json", registries=Registries(networks=networks))
    assert opt.netG.arguments() == {"fusion": "sum", "in_chans": 3}


def test_spikes_in_the_blurred_frames_folder(tmp_path: Path) -> None:
    """The template's Blur_And_Spike: pictures and <clip>/spike/*.dat in one folder."""
    tree = make_gopro_tree(tmp_path / "set", phase="train", clips=1, frames=7, size=(32, 48), sync=False)
    for clip in tree.clips:
        (tree.spike / clip / "spike").rename(tree.lq / clip / "spike")
    overrides = [f"datasets.train.dataroot_lq={tree.lq}", f"datasets.train.dataroot_gt={tree.gt}"]
    spikes = ["datasets.train.spike_h=16", "datasets.train.spike_w=24", "datasets.train.gt_size=16"]
    opt = load(tmp_path, TEMPLATE, *overrides, *spikes, "datasets.test=null")
    dataset = data.select_dataset.define_Dataset(opt.datasets.train, seed=0, scale=1, n_channels=3)
    sample = dataset[0]
    assert sample["L"].shape == (6, 4, 16, 16) and np.isfinite(sample["L"]).all()


@pytest.fixture(autouse=True)
def _notices_are_caught(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
