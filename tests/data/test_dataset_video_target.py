"""Test sets of one frame made from several: the published rules, and what is missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import CenterCrop

from data.dataset_video_target import (
    VFI_DAVIS,
    VFI_UCF101,
    VFI_Vid4,
    VideoInterpolationTestDataset,
    VideoTestVimeo90KDataset,
    center_crop,
)


def write(folder: Path, names: list[str], size: tuple[int, int] = (8, 12)) -> None:
    """Frames whose gray value is their place."""
    folder.mkdir(parents=True)
    for place, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((*size, 3), place, np.uint8))


def values(tensor) -> list[int]:
    """The gray values of frames."""
    return [round(float(frame.mean()) * 255) for frame in tensor]


SEVEN = [f"im{number}" for number in range(1, 8)]


def test_vimeo_makes_the_fourth_of_seven(tmp_path: Path) -> None:
    for name in ("00001/0001", "00001/0002"):
        write(tmp_path / "lq" / name, SEVEN)
        write(tmp_path / "gt" / name, ["im4"], (32, 48))
    roots = {"dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt"), "scale": 4}
    dataset = VideoTestVimeo90KDataset(**roots, all_clips=True, cache_data=True)
    assert [(clip.name, clip.target) for clip in dataset.clips] == [("00001/0001", "im4"), ("00001/0002", "im4")]
    sample = dataset[1]
    assert values(sample["L"]) == list(range(7)) and sample["H"].shape == (1, 3, 32, 48)
    assert "H" in dataset.load(0, 3, 4) and "H" not in dataset.load(0, 2, 3)
    meta = tmp_path / "list.txt"
    meta.write_text("00001/0002 7 (256,448,3)\n")
    roots["dataroot_gt"] = None
    assert len(VideoTestVimeo90KDataset(**roots)) == 2  # nothing is scored
    chosen = VideoTestVimeo90KDataset(**roots, meta_info_file=str(meta), num_frame=5)
    assert [clip.name for clip in chosen.clips] == ["00001/0002"] and values(chosen[0]["L"]) == [1, 2, 3, 4, 5]
    assert "H" not in chosen[0]
    meta.write_text("00001/0002 7\n00001/0003 7\n")
    with pytest.raises(ValueError, match=r"00001/0003: in .*list\.txt, not in"):
        VideoTestVimeo90KDataset(**roots, meta_info_file=str(meta))


def test_vimeo_interpolates_from_every_other(tmp_path: Path) -> None:
    write(tmp_path / "a/1", SEVEN)
    sample = VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path), temporal_scale=2, all_clips=True)[0]
    assert values(sample["L"]) == [0, 2, 4, 6] and values(sample["H"]) == [3]


def test_vimeo_is_scored_on_the_published_list(tmp_path: Path) -> None:
    write(tmp_path / "a/1", SEVEN)
    with pytest.raises(ValueError, match=r"meta_info_Vimeo90K_test_GT\.txt.*all_clips \(--all_clips\)"):
        VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path))
    with pytest.raises(ValueError, match=r"nowhere\.txt does not exist.*--all_clips"):
        VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path), meta_info_file="nowhere.txt")


def test_vimeo_pads_to_eight_frames(tmp_path: Path) -> None:
    """KAIR's pad_sequence; the frame that is made stays the fourth."""
    write(tmp_path / "a/1", SEVEN)
    dataset = VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path), all_clips=True, pad_sequence=True)
    assert values(dataset[0]["L"]) == [0, 1, 2, 3, 4, 5, 6, 6] and values(dataset[0]["H"]) == [3]
    assert dataset.clips[0].middle == 3 and "H" in dataset.load(0, 3, 4) and "H" not in dataset.load(0, 4, 5)


def test_davis_makes_the_frames_between(tmp_path: Path) -> None:
    write(tmp_path / "bear", [f"{k:05d}" for k in range(11)])
    dataset = VFI_DAVIS(dataroot_lq=str(tmp_path), crop=None)
    assert [(values(item["L"]), values(item["H"])) for item in (dataset[k] for k in range(3))] == [
        ([0, 2, 4, 6], [3]),
        ([2, 4, 6, 8], [5]),
        ([4, 6, 8, 10], [7]),
    ]
    assert len(dataset) == 3 and [clip.target for clip in dataset.clips] == ["00003", "00005", "00007"]


def vid4_by_lists(frames: list[int]) -> list[tuple[list[int], int]]:
    """The published rule, as it pads a list at both ends and strides through it."""
    padded = frames + frames[-1:] if len(frames) % 2 == 0 else list(frames)
    padded = [padded[0], -1, *padded, -1, padded[-1]]
    return [
        ([padded[k] for k in range(start, start + 8, 2)], padded[start + 3]) for start in range(0, len(padded) - 6, 2)
    ]


@pytest.mark.parametrize("count", [2, 3, 8, 11])
def test_vid4_makes_every_odd_frame(tmp_path: Path, count: int) -> None:
    write(tmp_path / "walk", [f"{k:03d}" for k in range(count)])
    dataset = VFI_Vid4(dataroot_lq=str(tmp_path))
    made = [(values(item["L"]), values(item["H"])[0]) for item in map(dataset.__getitem__, range(len(dataset)))]
    assert made == vid4_by_lists(list(range(count)))
    if count == 11:
        assert len(made) == 5 and made[0] == ([0, 0, 2, 4], 1) and made[-1] == ([6, 8, 10, 10], 9)


@pytest.mark.parametrize("kind, size", [(VFI_UCF101, (224, 224)), (VFI_DAVIS, (480, 840))])
@pytest.mark.parametrize("shape", [(256, 256), (481, 854), (230, 843), (200, 130)])
def test_the_published_crops_are_torchvisions(kind: type, size: tuple[int, int], shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, *shape, 3), np.uint8)
    expected = CenterCrop(size)(torch.from_numpy(frames).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert kind.crop == size and np.array_equal(center_crop(frames, kind.crop), expected.numpy())


def test_ucf_makes_framet(tmp_path: Path) -> None:
    write(tmp_path / "1", ["frame0", "frame1", "frame2", "frame3", "framet"], (256, 256))
    sample = VFI_UCF101(dataroot_lq=str(tmp_path))[0]
    assert values(sample["L"]) == [0, 1, 2, 3] and values(sample["H"]) == [4]
    assert sample["L"].shape == (4, 3, 224, 224) and sample["H"].shape == (1, 3, 224, 224)
    assert VFI_UCF101(dataroot_lq=str(tmp_path), crop=None)[0]["L"].shape == (4, 3, 256, 256)
    (tmp_path / "1" / "frame2.png").unlink()
    with pytest.raises(ValueError, match=r"1: frame2 is not in"):
        VFI_UCF101(dataroot_lq=str(tmp_path))


def test_new_frames_between_all(tmp_path: Path) -> None:
    write(tmp_path / "walk", ["a", "b", "c"])
    dataset = VideoInterpolationTestDataset(dataroot_lq=str(tmp_path / "walk"))
    assert [(clip.target, values(dataset[k]["L"])) for k, clip in enumerate(dataset.clips)] == [
        ("a_b", [0, 0, 1, 2]),
        ("b_c", [0, 1, 2, 2]),
    ]
    assert "H" not in dataset[0]
    with pytest.raises(ValueError, match="no ground truth"):
        VideoInterpolationTestDataset(dataroot_lq=str(tmp_path), dataroot_gt=str(tmp_path))


def test_clips_that_are_too_short(tmp_path: Path) -> None:
    write(tmp_path / "short", [f"{k}" for k in range(6)])
    with pytest.raises(ValueError, match="seven frames or more"):
        VFI_DAVIS(dataroot_lq=str(tmp_path))
    with pytest.raises(ValueError, match=r"num_frame: choices: 1, 3, 5, 7, .* got 4"):
        VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path), num_frame=4, all_clips=True)
