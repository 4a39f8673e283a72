"""Test sets of one frame made from several: the published rules, and what is missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset_video_target import VFI_DAVIS, VFI_UCF101, VideoInterpolationTestDataset, VideoTestVimeo90KDataset


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
    dataset = VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path / "lq"), dataroot_gt=str(tmp_path / "gt"), scale=4)
    assert [(clip.name, clip.target) for clip in dataset.clips] == [("00001/0001", "im4"), ("00001/0002", "im4")]
    sample = dataset[1]
    assert values(sample["L"]) == list(range(7)) and sample["H"].shape == (1, 3, 32, 48)
    assert "H" in dataset.load(0, 3, 4) and "H" not in dataset.load(0, 2, 3)
    meta = tmp_path / "list.txt"
    meta.write_text("00001/0002 7 (256,448,3)\n")
    roots = {"dataroot_lq": str(tmp_path / "lq"), "scale": 4}
    chosen = VideoTestVimeo90KDataset(**roots, meta_info_file=str(meta), num_frame=5)
    assert [clip.name for clip in chosen.clips] == ["00001/0002"] and values(chosen[0]["L"]) == [1, 2, 3, 4, 5]
    assert "H" not in chosen[0]
    meta.write_text("00001/0002 7\n00001/0003 7\n")
    with pytest.raises(ValueError, match=r"00001/0003: in .*list\.txt, not in"):
        VideoTestVimeo90KDataset(**roots, meta_info_file=str(meta))


def test_vimeo_interpolates_from_every_other(tmp_path: Path) -> None:
    write(tmp_path / "a/1", SEVEN)
    sample = VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path), temporal_scale=2)[0]
    assert values(sample["L"]) == [0, 2, 4, 6] and values(sample["H"]) == [3]


def test_davis_makes_the_frames_between(tmp_path: Path) -> None:
    write(tmp_path / "bear", [f"{k:05d}" for k in range(11)])
    dataset = VFI_DAVIS(dataroot_lq=str(tmp_path))
    assert [(values(item["L"]), values(item["H"])) for item in (dataset[k] for k in range(3))] == [
        ([0, 2, 4, 6], [3]),
        ([2, 4, 6, 8], [5]),
        ([4, 6, 8, 10], [7]),
    ]
    assert len(dataset) == 3 and [clip.target for clip in dataset.clips] == ["00003", "00005", "00007"]


def test_ucf_makes_framet(tmp_path: Path) -> None:
    write(tmp_path / "1", ["frame0", "frame1", "frame2", "frame3", "framet"])
    sample = VFI_UCF101(dataroot_lq=str(tmp_path))[0]
    assert values(sample["L"]) == [0, 1, 2, 3] and values(sample["H"]) == [4]
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
    with pytest.raises(ValueError, match="num_frame: 4"):
        VideoTestVimeo90KDataset(dataroot_lq=str(tmp_path), num_frame=4)
