"""Data sets of denoising, Vimeo super-resolution and interpolation: what samples hold; and that the recipes train."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import main_train_vrt
from data.dataset_video_denoise import VideoRecurrentTrainNonblindDenoisingDataset
from data.dataset_video_train import VideoRecurrentTrainDataset
from data.dataset_video_vimeo import VideoRecurrentTrainVimeoDataset, VideoRecurrentTrainVimeoVFIDataset
from data.sampler import SampleIndex
from scripts.data_preparation import prepare
from tests.data.raw_trees import write_pictures
from tests.data.trees import GoproTree
from tests.docs.test_readme import ROOT
from tests.tiny import NETWORK, alone
from utils.user_error import UserError
from utils.utils_option import load_options

VIMEO = [f"im{k}.png" for k in range(1, 8)]


@pytest.fixture
def vimeo(tmp_path: Path) -> dict[str, Any]:
    """Two clips of seven frames, 64x72 and a quarter of that; options that name them."""
    for seed, clip in enumerate(("00001/0001", "00001/0002")):
        write_pictures(tmp_path / "gt" / clip, VIMEO, (64, 72), seed)
        for name in VIMEO:
            small = cv2.resize(cv2.imread(str(tmp_path / "gt" / clip / name)), (18, 16), interpolation=cv2.INTER_AREA)
            (tmp_path / "lq" / clip).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "lq" / clip / name), small)
    meta = tmp_path / "meta.txt"
    meta.write_text("00001/0001 7 (64,72,3)\n00001/0002 7 (64,72,3)\n")
    return {
        "dataroot_gt": str(tmp_path / "gt"),
        "dataroot_lq": str(tmp_path / "lq"),
        "meta_info_file": str(meta),
        "seed": 3,
    }


def whole(root: str, clip: str) -> torch.Tensor:
    frames = [cv2.imread(f"{root}/{clip}/{name}")[..., ::-1] for name in VIMEO]
    return torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2) / np.float32(255))


def test_denoising_adds_noise_of_the_level_that_it_tells(tree: GoproTree) -> None:
    options = {"dataroot_gt": str(tree.gt), "num_frame": 3, "gt_size": 40, "seed": 5}
    data = VideoRecurrentTrainNonblindDenoisingDataset(**options, sigma_min=5, sigma_max=60)
    sharp = VideoRecurrentTrainDataset(**options, dataroot_lq=str(tree.gt))
    levels = []
    for index in range(14):
        sample, plain = data[SampleIndex(1, index)], sharp[SampleIndex(1, index)]
        assert sample["key"] == plain["key"] and torch.equal(sample["H"], plain["H"])
        noise, level = sample["L"][:, :3] - sample["H"], sample["L"][:, 3:]
        assert level.shape == (3, 1, 40, 40) and (level == level[0, 0, 0, 0]).all()
        levels.append(255 * float(level[0, 0, 0, 0]))
        assert abs(float(noise.std()) * 255 / levels[-1] - 1) < 0.05 and abs(float(noise.mean())) < 0.01
        assert torch.equal(data[SampleIndex(1, index)]["L"], sample["L"])
    assert 5 <= min(levels) < 20 and 45 < max(levels) <= 60
    assert not torch.equal(data[SampleIndex(2, 0)]["L"][:, 3], data[SampleIndex(1, 0)]["L"][:, 3])


def test_vimeo_clips_are_items(vimeo: dict[str, Any]) -> None:
    data = VideoRecurrentTrainVimeoDataset(
        **vimeo, scale=4, gt_size=64, pad_sequence=True, use_rot=False, use_hflip=False
    )
    assert len(data) == 2
    sample, window = data[1], data.draw(SampleIndex(0, 1))
    assert sample["key"] == "00001/0002" and sample["L"].shape == (8, 3, 16, 16) and sample["H"].shape == (8, 3, 64, 64)
    top, left = window.box.top, window.box.left
    expected = whole(vimeo["dataroot_lq"], "00001/0002")[:, :, top : top + 16, left : left + 16]
    assert torch.equal(sample["L"][:7], expected) and torch.equal(sample["L"][7], expected[6])
    expected = whole(vimeo["dataroot_gt"], "00001/0002")[:, :, 4 * top : 4 * top + 64, 4 * left : 4 * left + 64]
    assert torch.equal(sample["H"][:7], expected) and torch.equal(sample["H"][7], expected[6])


def test_vimeo_num_frame_and_flip(vimeo: dict[str, Any]) -> None:
    assert VideoRecurrentTrainVimeoDataset(**vimeo, scale=4, gt_size=64, num_frame=-1)[0]["L"].shape[0] == 7
    data = VideoRecurrentTrainVimeoDataset(**vimeo, scale=4, gt_size=64, num_frame=3, flip_sequence=True)
    assert data.draw(SampleIndex(0, 0)).frames == ["im3", "im4", "im5"]
    sample = data[0]
    assert torch.equal(sample["L"][3:], sample["L"][:3].flip(0)) and sample["H"].shape == (6, 3, 64, 64)
    reverse = VideoRecurrentTrainVimeoDataset(**vimeo, scale=4, gt_size=64, random_reverse=True)
    orders = {tuple(reverse.draw(SampleIndex(epoch, 0)).frames) for epoch in range(12)}
    assert len(orders) == 2 and all(sorted(order) == [f"im{k}" for k in range(1, 8)] for order in orders)


def test_interpolation_takes_every_other_frame(vimeo: dict[str, Any]) -> None:
    data = VideoRecurrentTrainVimeoVFIDataset(**vimeo, gt_size=64, use_hflip=False, use_rot=False)
    sample, window = data[0], data.draw(SampleIndex(0, 0))
    left = window.box.left
    frames = whole(vimeo["dataroot_gt"], "00001/0001")[:, :, :, left : left + 64]
    assert torch.equal(sample["L"], frames[[0, 2, 4, 6]]) and torch.equal(sample["H"], frames[[3]])
    more = VideoRecurrentTrainVimeoVFIDataset(**vimeo, gt_size=64, num_frame=4, temporal_scale=3)
    assert more.draw(SampleIndex(0, 0)).frames == ["im2", "im3", "im4", "im5"]
    assert more[0]["L"].shape[0] == 2 and more[0]["H"].shape[0] == 2


def test_colours_change_alike_in_all_frames(vimeo: dict[str, Any]) -> None:
    plain = VideoRecurrentTrainVimeoVFIDataset(**vimeo, gt_size=64)
    jittered = VideoRecurrentTrainVimeoVFIDataset(**vimeo, gt_size=64, color_jitter=True)
    before, after = plain[0], jittered[0]
    change = (after["L"] - before["L"]).abs()
    assert 0.002 < float(change.mean()) < 0.1
    assert abs(float((after["H"] - before["H"]).mean() - (after["L"] - before["L"]).mean())) < 0.01
    assert torch.equal(jittered[0]["L"], after["L"])


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (VideoRecurrentTrainNonblindDenoisingDataset, {"sigma_min": 9, "sigma_max": 3}, "0 <= sigma_min <= sigma_max"),
        (VideoRecurrentTrainNonblindDenoisingDataset, {"scale": 2}, "denoising keeps the size"),
        (
            VideoRecurrentTrainVimeoDataset,
            {"pad_sequence": True, "flip_sequence": True},
            "or flip_sequence",
        ),
        (VideoRecurrentTrainVimeoVFIDataset, {"num_frame": 6}, "4 frames of 7 with temporal_scale 2"),
        (VideoRecurrentTrainVimeoVFIDataset, {"temporal_scale": 1}, "2 or more"),
        (VideoRecurrentTrainVimeoVFIDataset, {"pad_sequence": True}, "not supported by interpolation"),
        (VideoRecurrentTrainVimeoDataset, {"filename_tmpl": "im"}, "formats no number"),
        (VideoRecurrentTrainVimeoDataset, {"filename_tmpl": "im{}.{}"}, "formats no number"),
    ],
)
def test_mistakes(vimeo: dict[str, Any], make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{**vimeo, "scale": 4 if make is VideoRecurrentTrainVimeoDataset else 1, "gt_size": 64, **options})


def raw_data(root: Path, name: str) -> None:
    """The raw data of a recipe, as downloaded."""
    if "vimeo" in name:
        raw = root / "trainsets/vimeo90k"
        for source, size in (("", (64, 64)), ("_matlabLRx4", (16, 16)), ("_BDLRx4", (16, 16))):
            for seed, clip in enumerate(("00001/0001", "00002/0001")):
                write_pictures(raw / f"vimeo_septuplet{source}/sequences/{clip}", VIMEO, size, seed)
        (raw / "vimeo_septuplet/sep_trainlist.txt").write_text("00001/0001\n")
        (raw / "vimeo_septuplet/sep_testlist.txt").write_text("00002/0001\n")
    elif "reds" in name:
        for clip in ("000", "001", "011", "015", "020"):
            for kind, size in (("sharp", (64, 64)), ("sharp_bicubic/X4", (16, 16))):
                folder = root / f"trainsets/REDS/train/train_{kind}/{clip}"
                write_pictures(folder, [f"{k:08d}.png" for k in range(6)], size)
    else:
        raw = root / "trainsets/DAVIS"
        write_pictures(raw / "JPEGImages/480p/bear", [f"{k:05d}.jpg" for k in range(6)], (64, 64))
        (raw / "ImageSets/2017").mkdir(parents=True)
        (raw / "ImageSets/2017/train.txt").write_text("bear\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "frames", "changes"),
    [
        ("001", 2, {"pa_frames": 2}),
        ("002", 3, {"pa_frames": 4}),
        ("003", 8, {"pa_frames": 2}),
        ("004", 8, {"pa_frames": 2}),
        ("008", 2, {"pa_frames": 2, "nonblind_denoising": True}),
        ("009", 4, {"pa_frames": 0}),
    ],
)
def test_recipes_train(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, number: str, frames: int, changes: dict[str, Any]
) -> None:
    """Each recipe as it stands, but for the size of the network, on data that its preparation laid out."""
    (recipe,) = (repository / "options/vrt").glob(f"{number}_train_*.json")
    monkeypatch.chdir(tmp_path)
    raw_data(tmp_path, recipe.stem)
    assert prepare.main(["--opt", str(recipe)]) == 0
    upscale = 4 if number in ("001", "002", "003", "004") else 1
    network = {**NETWORK, "upscale": upscale, "img_size": [frames, 16, 16], "deformable_groups": 4, **changes}
    small = [f"netG.{key}={json.dumps(value)}" for key, value in network.items() if key != "net_type"]
    for key in ("use_checkpoint_attn", "use_checkpoint_ffn"):
        small.append(f"netG.{key}=false")
    sizes = [f"datasets.train.num_frame={frames}"] if number in ("001", "002", "008") else []
    sizes += [f"datasets.train.gt_size={16 * upscale}", "datasets.train.dataloader_num_workers=0"]
    rest = ["netG.spynet_path=null", "path.pretrained_netG=null", "train.total_iter=2"]
    tests = number == "009"  # its test set is not one of whole clips
    rest += [] if tests else ["datasets.test=null"]
    rest += ["datasets.train.dataloader_batch_size=1", "logger.tensorboard=false", "train.checkpoint_print=1"]
    with alone():
        assert main_train_vrt.main(["--opt", str(recipe), "--set", *small, *sizes, *rest]) == 0
    log = (Path("experiments") / recipe.stem / "train.log").read_text()
    assert log.count("G_loss:") == 2 and "skipped" not in log and ("Average PSNR" in log) == tests


def test_faults_of_a_section_come_together_and_before_any_file_is_read() -> None:
    """Of both phases, with those of the spikes; none of the folders exists."""
    with pytest.raises(UserError) as refused:
        load_options(
            ROOT / "options" / "demo" / "quickstart.json",
            [
                "datasets.train.num_frame=0",
                "datasets.train.interval_list=[0]",
                "datasets.train.contrast_jitter=2",
                "datasets.train.spike_hot_pixels=1.5",
                "datasets.test.num_frame=0",
            ],
        )
    told = str(refused.value)
    for key in ("num_frame", "interval_list", "contrast_jitter", "spike_hot_pixels"):
        assert f"datasets.train.{key}" in told
    assert "datasets.test.num_frame" in told and "5 faults" in told
