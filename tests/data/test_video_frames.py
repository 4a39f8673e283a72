"""A video file as a data root: names, frames in any order, from several threads, and what is no video."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset_video_test import SingleVideoRecurrentTestDataset
from data.frame_io import Box, open_frames
from data.video_frames import VideoFrames
from utils.utils_image import decode_rgb

COUNT = 9


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine frames, each a gray of its own, losslessly coded."""
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 12, (32, 18))
    for number in range(COUNT):
        writer.write(np.full((18, 32, 3), 20 * number, np.uint8))
    writer.release()
    return path


def test_frames_in_any_order(video: Path) -> None:
    frames = open_frames("dataroot_lq", str(video))
    assert isinstance(frames, VideoFrames) and frames.single == "walk" and frames.fps == 12
    names = frames.clips["walk"]
    assert names == [f"{number:06d}" for number in range(COUNT)] and frames.size("walk") == (18, 32)
    for number in (0, 1, 2, 2, 7, 3, 0, 8):
        picture = frames.read("walk", names[number])
        assert picture.shape == (18, 32, 3) and abs(float(picture.mean()) - 20 * number) < 2
        np.testing.assert_array_equal(decode_rgb(frames._encoded("walk", names[number]), "x"), picture)
    assert frames.read("walk", names[1], Box(2, 3, 4, 5)).shape == (4, 5, 3)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda name: float(frames.read("walk", name).mean()), names * 3))
    assert np.allclose(read, [20 * number for number in range(COUNT)] * 3, atol=2)


def test_as_a_test_set(video: Path) -> None:
    dataset = SingleVideoRecurrentTestDataset(dataroot_lq=str(video))
    part = dataset.load(0, 3, 5)
    assert part["folder"] == "walk" and part["L"].shape == (2, 3, 18, 32)
    assert torch_values(part) == pytest.approx([60, 80], abs=2)


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_in_another_process(video: Path, start: str) -> None:
    """The reader of this process is open, and stays where it is; a forked one must not close its copy."""
    frames = open_frames("dataroot_lq", str(video))
    frames.read("walk", "000003")
    context = multiprocessing.get_context(start)
    with context.Pool(1) as pool:
        read = pool.starmap_async(frames.read, [("walk", "000005"), ("walk", "000002")]).get(60)
    assert [round(float(picture.mean()), -1) for picture in read] == [100, 40]
    assert round(float(frames.read("walk", "000004").mean()), -1) == 80


def torch_values(sample: dict) -> list[float]:
    return [float(frame.mean()) * 255 for frame in sample["L"]]


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no video")
    with pytest.raises(ValueError, match=r"dataroot_lq: .*text\.txt is neither a folder nor a video file \(.mp4"):
        open_frames("dataroot_lq", str(tmp_path / "text.txt"))
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"broken\.mp4: cannot be decoded as a video"):
        open_frames("dataroot_lq", str(tmp_path / "broken.mp4"))
