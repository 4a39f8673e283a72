"""Training windows: the right frames and pixels, in any process, and clear messages for data that does not fit."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.augment import Augmentation
from data.dataset_video_train import VideoRecurrentTrainDataset
from data.sampler import GlobalBatchSampler, SampleIndex, init_worker
from tests.data.trees import GoproTree, make_gopro_tree


def dataset(tree: GoproTree, **options: Any) -> VideoRecurrentTrainDataset:
    """A small one; options override."""
    return VideoRecurrentTrainDataset(**{**tree.rgb_roots, "num_frame": 3, "gt_size": 16, "seed": 5, **options})


def read(root: Path, clip: str, frames: list[str]) -> np.ndarray:
    """(T, H, W, 3) RGB as an independent reader sees it."""
    return np.stack([cv2.imread(str(root / clip / f"{frame}.png"))[..., ::-1] for frame in frames])


def test_a_sample_is_the_windows_crop_of_both_sides(tree: GoproTree) -> None:
    data = dataset(tree, random_reverse=True)
    seen = set()
    for epoch in range(3):
        for index in range(len(data)):
            window = data.draw(SampleIndex(epoch, index))
            sample = data[SampleIndex(epoch, index)]
            for key, root in (("L", tree.lq), ("H", tree.gt)):
                crop = read(root, window.clip.name, window.frames)[
                    :, window.box.top : window.box.top + 16, window.box.left : window.box.left + 16
                ]
                expected = window.augmentation.space(crop, axes=(-3, -2)).transpose(0, 3, 1, 2) / np.float32(255)
                assert np.array_equal(sample[key].numpy(), expected)
                assert sample[key].dtype == torch.float32 and sample[key].is_contiguous()
            assert sample["key"] == f"{window.clip.name}/{window.first}"
            assert sorted(window.frames)[0] == window.first
            assert window.frames == sorted(window.frames, reverse=window.augmentation.reverse)
            seen.add(window.augmentation)
    assert len(seen) == 16


def test_one_item_per_frame_redrawn_at_the_end(tree: GoproTree) -> None:
    data = dataset(tree)
    assert len(data) == 14
    starts = [[int(data.draw(SampleIndex(epoch, index)).first) for index in range(7)] for epoch in range(30)]
    assert all(epoch[:5] == [0, 1, 2, 3, 4] for epoch in starts)
    assert {epoch[6] for epoch in starts} == {0, 1, 2, 3, 4}


def test_intervals_are_drawn_and_fit(tree: GoproTree) -> None:
    data = dataset(tree, interval_list=[1, 3])
    gaps = set()
    for epoch in range(20):
        frames = [int(frame) for frame in data.draw(SampleIndex(epoch, 2)).frames]
        gaps.add(frames[1] - frames[0])
        assert len(set(np.diff(frames))) == 1 and 0 <= frames[0] and frames[-1] <= 6
    assert gaps == {1, 3}


def test_crops_reach_every_border_and_repeat_only_by_seed(tree: GoproTree) -> None:
    data = dataset(tree, gt_size=40)
    boxes = [data.draw(SampleIndex(epoch, 0)).box for epoch in range(300)]
    assert {box.top for box in boxes} == set(range(9)) and {box.left for box in boxes} == set(range(25))
    assert boxes[:5] == [dataset(tree, gt_size=40).draw(SampleIndex(epoch, 0)).box for epoch in range(5)]
    assert boxes[:5] != [dataset(tree, gt_size=40, seed=6).draw(SampleIndex(epoch, 0)).box for epoch in range(5)]


def test_switching_augmentation_off_keeps_window_and_crop(tree: GoproTree) -> None:
    plain = dataset(tree, use_hflip=False, use_rot=False)
    for index in range(14):
        window, other = plain.draw(SampleIndex(1, index)), dataset(tree).draw(SampleIndex(1, index))
        assert window.augmentation == Augmentation()
        assert (window.frames, window.box) == (other.frames, other.box)


def test_workers_do_not_change_samples(tree: GoproTree) -> None:
    def batches(workers: int) -> list[dict[str, Any]]:
        data = dataset(tree, random_reverse=True)
        sampler = GlobalBatchSampler(len(data), 2, seed=5)
        loader = DataLoader(data, batch_sampler=sampler, num_workers=workers, worker_init_fn=init_worker)
        iterator = iter(loader)
        return [next(iterator) for _ in range(4)]

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone["key"] == shared["key"]
        assert torch.equal(alone["L"], shared["L"]) and torch.equal(alone["H"], shared["H"])


def test_super_resolution_crops_correspond(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, size=(24, 32), scale=4)
    data = dataset(tree, scale=4, gt_size=64)
    window, sample = data.draw(SampleIndex(0, 1)), data[1]
    assert sample["L"].shape == (3, 3, 16, 16) and sample["H"].shape == (3, 3, 64, 64)
    top, left = 4 * window.box.top, 4 * window.box.left
    crop = read(tree.gt, window.clip.name, window.frames)[:, top : top + 64, left : left + 64]
    expected = window.augmentation.space(crop, axes=(-3, -2)).transpose(0, 3, 1, 2) / np.float32(255)
    assert np.array_equal(sample["H"].numpy(), expected)


def test_cached_data_are_equal(tree: GoproTree) -> None:
    cached = dataset(tree, cache_data=True)
    for root in (tree.lq, tree.gt):
        for file in root.rglob("*.png"):
            file.write_bytes(b"gone")
    fresh = make_gopro_tree(tree.lq.parents[1] / "again")
    assert torch.equal(cached[3]["L"], dataset(fresh)[3]["L"]) and torch.equal(cached[3]["H"], dataset(fresh)[3]["H"])


def test_meta_info_chooses_clips_and_frames(tree: GoproTree, tmp_path: Path) -> None:
    meta = tmp_path / "meta.txt"
    meta.write_text(f"{tree.clips[1]} 4 (48,64,3) 2\r\n")
    data = dataset(tree, meta_info_file=str(meta))
    assert [(clip.name, clip.frames) for clip in data.clips] == [(tree.clips[1], tuple(tree.frames[2:6]))]
    assert [clip.name for clip in dataset(tree, meta_info_file=str(tree.meta_info)).clips] == tree.clips


def test_partition(tree: GoproTree) -> None:
    held_out = [tree.clips[0]]
    assert [clip.name for clip in dataset(tree, val_partition=held_out).clips] == tree.clips[1:]
    assert [clip.name for clip in dataset(tree, val_partition=held_out, test_mode=True).clips] == held_out
    assert [clip.name for clip in dataset(tree, val_partition="REDS4").clips] == tree.clips


def rename_clip(tree: GoproTree) -> dict[str, Any]:
    (tree.gt / tree.clips[0]).rename(tree.gt / "another")
    return {}


def remove_frame(tree: GoproTree) -> dict[str, Any]:
    (tree.gt / tree.clips[1] / "000004.png").unlink()
    return {}


def shrink_frames(tree: GoproTree) -> dict[str, Any]:
    for file in (tree.gt / tree.clips[0]).iterdir():
        cv2.imwrite(str(file), np.zeros((40, 64, 3), np.uint8))
    return {}


def break_first_frame(tree: GoproTree) -> dict[str, Any]:
    (tree.lq / tree.clips[0] / "000000.png").write_text("not an image")
    return {}


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (rename_clip, ["another: in dataroot_gt", "not in dataroot_lq", "train_clip_00: not in dataroot_gt"]),
        (remove_frame, ["train_clip_01: 1 frames not in dataroot_gt", "000004"]),
        (shrink_frames, ["train_clip_00: frames of 40x64 in dataroot_gt and 48x64 in dataroot_lq", "scale 1"]),
        (break_first_frame, ["train_clip_00/000000.png: not a readable picture"]),
        (lambda _: {"scale": 2}, ["scale 2 they must be 96x128"]),
        (lambda _: {"num_frame": 8}, ["7 frames, but num_frame 8 with interval 1 needs 8"]),
        (lambda _: {"interval_list": [1, 4]}, ["interval 4 needs 9"]),
        (lambda _: {"gt_size": 50}, ["48x64 are smaller than the crop of 50x50"]),
        (lambda _: {"gt_size": 15, "scale": 2}, ["gt_size: 15 is not a multiple of scale 2"]),
        (lambda _: {"num_frame": 0}, ["num_frame"]),
        (lambda _: {"n_channels": 1}, ["n_channels: 1"]),
        (lambda _: {"filename_ext": "jpg"}, ["no clip folders with .jpg files", "filename_ext"]),
        (lambda _: {"val_partition": "REDS5"}, ["'REDS5'", "REDS4, official"]),
        (lambda _: {"val_partition": ["clip"]}, ["there are no clips clip"]),
        (lambda _: {"val_partition": "REDS4", "test_mode": True}, ["leaves no clip of 2"]),
        (lambda _: {"io_backend": {"type": "memcached"}}, ["'memcached'", "disk, lmdb"]),
        (lambda _: {"io_backend": {"type": "lmdb"}}, ["is no LMDB folder"]),
        (lambda _: {"meta_info_file": "nowhere.txt"}, ["meta_info_file: nowhere.txt does not exist"]),
    ],
)
def test_unusable_data_are_refused_at_once(tree: GoproTree, change: Any, messages: list[str]) -> None:
    options = change(tree)
    with pytest.raises(ValueError) as error:
        dataset(tree, **options)
    for message in messages:
        assert message in str(error.value)


def test_all_missing_folders_are_named_with_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        VideoRecurrentTrainDataset(dataroot_gt=str(tmp_path / "gt"), dataroot_lq=str(tmp_path / "lq"))
    for message in (str(tmp_path / "gt"), str(tmp_path / "lq"), "--prepare-data", "--demo"):
        assert message in str(error.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, clips=13, frames=1)
    with pytest.raises(ValueError, match=r"train_clip_09: 1 frames, but.*\n  \.\.\. and 3 more$"):
        dataset(tree)


def test_bad_frames_are_named_when_read(tree: GoproTree) -> None:
    data = dataset(tree, num_frame=1)
    first, second = (tree.lq / tree.clips[0] / f"{frame}.png" for frame in tree.frames[1:3])
    first.write_bytes(first.read_bytes()[:200])
    cv2.imwrite(str(second), np.zeros((40, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"train_clip_00/000001\.png: not a readable picture"):
        data[1]
    with pytest.raises(ValueError, match=r"train_clip_00/000002\.png: 40x64 pixels, but .* 48x64"):
        data[2]


@pytest.mark.parametrize("line", ["clip 7 0", "clip seven (48,64,3) 0", "clip"])
def test_bad_meta_info_lines_are_named(tree: GoproTree, tmp_path: Path, line: str) -> None:
    meta = tmp_path / "meta.txt"
    meta.write_text(f"{tree.clips[0]} 7 (48,64,3) 0\n{line}\n")
    with pytest.raises(ValueError, match=r"meta\.txt, line 2"):
        dataset(tree, meta_info_file=str(meta))
    meta.write_text(f"{tree.clips[0]} 9 (48,64,3) 0\n")
    with pytest.raises(ValueError, match=r"2 frames not in dataroot_lq .*000007, 000008"):
        dataset(tree, meta_info_file=str(meta))
    with pytest.raises(ValueError, match="filename_tmpl"):
        dataset(tree, meta_info_file=str(meta), filename_tmpl="six")
