"""Test clips: whole, in parts, single, without ground truth; and both sides have to agree."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.dataset_video_test import SingleVideoRecurrentTestDataset, VideoRecurrentTestDataset
from tests.data.trees import GoproTree, make_gopro_tree


def pixels(root: Path, clip: str, frames: list[str]) -> torch.Tensor:
    """(T, 3, H, W) float32 RGB as an independent reader sees it."""
    images = np.stack([cv2.imread(str(root / clip / f"{frame}.png"))[..., ::-1] for frame in frames])
    return torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))


def test_an_item_is_a_whole_clip(tree: GoproTree) -> None:
    data = VideoRecurrentTestDataset(**tree.rgb_roots)
    assert [(clip.name, len(clip)) for clip in data.clips] == [(clip, 7) for clip in tree.clips]
    for index, clip in enumerate(tree.clips):
        sample = data[index]
        assert torch.equal(sample["L"], pixels(tree.lq, clip, tree.frames))
        assert torch.equal(sample["H"], pixels(tree.gt, clip, tree.frames))
        assert sample["folder"] == clip
        assert sample["lq_path"] == [str(tree.lq / clip / f"{frame}.png") for frame in tree.frames]


def test_batched_by_a_loader_as_in_kair(tree: GoproTree) -> None:
    batch = list(DataLoader(VideoRecurrentTestDataset(**tree.rgb_roots), num_workers=1))[1]
    assert batch["folder"][0] == tree.clips[1]
    assert batch["lq_path"][3][0] == str(tree.lq / tree.clips[1] / "000003.png")
    assert batch["L"].shape == (1, 7, 3, 48, 64)


def test_parts_are_parts_of_the_whole(tree: GoproTree) -> None:
    data = VideoRecurrentTestDataset(**tree.rgb_roots)
    whole, part = data[1], data.load(1, 2, 5)
    assert torch.equal(part["L"], whole["L"][2:5]) and torch.equal(part["H"], whole["H"][2:5])
    assert part["lq_path"] == whole["lq_path"][2:5]


def test_first_frames_only(tree: GoproTree) -> None:
    data = VideoRecurrentTestDataset(**tree.rgb_roots, num_frame=2)
    assert torch.equal(data[0]["L"], pixels(tree.lq, tree.clips[0], tree.frames[:2])) and len(data.clips[0]) == 2
    assert len(VideoRecurrentTestDataset(**tree.rgb_roots, num_frame=20).clips[0]) == 7
    for wrong in (0, -2):
        with pytest.raises(ValueError, match="num_frame"):
            VideoRecurrentTestDataset(**tree.rgb_roots, num_frame=wrong)


def test_without_ground_truth(tree: GoproTree) -> None:
    for data in (
        SingleVideoRecurrentTestDataset(dataroot_lq=str(tree.lq)),
        VideoRecurrentTestDataset(dataroot_lq=str(tree.lq), dataroot_gt=None),
    ):
        assert set(data[0]) == {"L", "bits", "folder", "lq_path"}
        assert torch.equal(data[0]["L"], pixels(tree.lq, tree.clips[0], tree.frames))


def test_single_folders_pair_whatever_their_names(tree: GoproTree) -> None:
    blur, sharp = tree.lq / tree.clips[0], tree.gt / tree.clips[1]
    data = VideoRecurrentTestDataset(dataroot_lq=str(blur), dataroot_gt=str(sharp))
    assert len(data) == 1 and data[0]["folder"] == tree.clips[0]
    assert torch.equal(data[0]["H"], pixels(tree.gt, tree.clips[1], tree.frames))


def test_cached_data_are_equal(tree: GoproTree) -> None:
    expected = VideoRecurrentTestDataset(**tree.rgb_roots)[0]
    cached = VideoRecurrentTestDataset(**tree.rgb_roots, cache_data=True)
    for file in tree.lq.rglob("*.png"):
        file.unlink()
    assert torch.equal(cached[0]["L"], expected["L"]) and torch.equal(cached[0]["H"], expected["H"])


def test_super_resolution_sizes(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, size=(24, 32), scale=2, frames=2)
    assert VideoRecurrentTestDataset(**tree.rgb_roots, scale=2)[0]["H"].shape == (2, 3, 48, 64)
    with pytest.raises(ValueError, match="frames of 48x64 in dataroot_gt and 24x32 in dataroot_lq; with scale 1"):
        VideoRecurrentTestDataset(**tree.rgb_roots)


def test_denoising_adds_the_same_noise_as_kair_and_its_level(tree: GoproTree) -> None:
    data = VideoRecurrentTestDataset(dataroot_lq=str(tree.gt), dataroot_gt=str(tree.gt), sigma=30)
    sample = data[1]
    torch.manual_seed(0)
    level = torch.full_like(sample["H"], 30 / 255)
    assert torch.allclose(sample["L"][:, :3], sample["H"] + torch.normal(mean=0, std=level), atol=1e-6)
    assert torch.equal(sample["L"][:, 3:], level[:, :1])
    assert torch.equal(data.load(1, 2, 4)["L"], sample["L"][2:4])
    noisy = VideoRecurrentTestDataset(dataroot_lq=str(tree.gt), dataroot_gt=None, sigma=30)[1]["L"]
    assert torch.equal(noisy, torch.cat([sample["H"], level[:, :1]], dim=1))
    with pytest.raises(ValueError, match="denoising takes no spikes"):
        VideoRecurrentTestDatasetRGBSpike(**tree.roots, spike={"representation": "tfp"}, sigma=30)


def test_noise_is_added_to_the_sharp_frames(tree: GoproTree, caplog: pytest.LogCaptureFixture) -> None:
    """Also where other blurred ones are named, as KAIR does; that these are not used is said."""
    with caplog.at_level(logging.WARNING):
        other = VideoRecurrentTestDataset(**tree.rgb_roots, sigma=30)[1]
    plain = VideoRecurrentTestDataset(dataroot_lq=str(tree.gt), dataroot_gt=str(tree.gt), sigma=30)[1]
    assert torch.equal(other["L"], plain["L"])
    assert [record.getMessage() for record in caplog.records] == [
        f"dataroot_lq {tree.lq}: not used; as in KAIR, the noise of sigma 30 is added to the sharp frames of {tree.gt}"
    ]


@pytest.mark.parametrize("cache_data", [False, True])
def test_frames_of_other_names_pair_by_order(tmp_path: Path, cache_data: bool) -> None:
    tree = make_gopro_tree(tmp_path, frames=3)
    expected = VideoRecurrentTestDataset(**tree.rgb_roots)
    samples = [expected[0], expected[1]]
    for clip in tree.clips:
        for number, frame in enumerate(tree.frames):
            (tree.gt / clip / f"{frame}.png").rename(tree.gt / clip / f"sharp{number}.png")
        (tree.gt / clip).rename(tree.gt / f"gt_{clip}")
    with pytest.raises(ValueError, match="not in dataroot_gt"):
        VideoRecurrentTestDataset(**tree.rgb_roots)
    paired = VideoRecurrentTestDataset(**tree.rgb_roots, pair_by="order", cache_data=cache_data)
    for number, sample in enumerate(samples):
        assert torch.equal(paired[number]["L"], sample["L"]) and torch.equal(paired[number]["H"], sample["H"])
    (tree.gt / f"gt_{tree.clips[0]}" / "sharp1.png").unlink()
    with pytest.raises(ValueError, match=r'2 frames in .*, 3 in .*; pair_by "order" needs as many'):
        VideoRecurrentTestDataset(**tree.rgb_roots, pair_by="order")
    remove(tree.gt / f"gt_{tree.clips[0]}")
    with pytest.raises(ValueError, match=r'dataroot_gt: 1 clips in .*, 2 clips in .*; pair_by "order"'):
        VideoRecurrentTestDataset(**tree.rgb_roots, pair_by="order")


def remove(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: remove(tree.gt / tree.clips[1]), "train_clip_01: not in dataroot_gt"),
        (lambda tree: remove(tree.lq / tree.clips[1]), "train_clip_01: in dataroot_gt .*, not in dataroot_lq"),
        (lambda tree: (tree.gt / tree.clips[0] / "000006.png").unlink(), "1 frames not in dataroot_gt .*: 000006"),
        (lambda tree: (tree.lq / tree.clips[0] / "000000.png").unlink(), "1 frames not in dataroot_lq .*: 000000"),
    ],
)
def test_frames_on_one_side_only_are_refused(tree: GoproTree, change: Any, message: str) -> None:
    change(tree)
    with pytest.raises(ValueError, match=message):
        VideoRecurrentTestDataset(**tree.rgb_roots)
