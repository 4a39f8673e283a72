"""data/spike/video_source.py: frames in order and at one size, from videos and folders; clear errors."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.video_source import FrameSize, FrameSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), np.full((34, 50, 3), (0, 10, 50 * index), np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_a_folder_is_read_in_order_as_rgb(folder: Path) -> None:
    source = FrameSource(folder, FrameSize())
    assert source.length == 5
    frames = list(source.frames(1, 4))
    assert [tuple(frame[0, 0]) for frame in frames] == [(50, 10, 0), (100, 10, 0), (150, 10, 0)]
    assert FrameSource(folder, FrameSize(), max_frames=2).length == 2


def test_a_video_is_read_from_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG video")
    for index in range(6):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    source = FrameSource(path, FrameSize())
    assert source.length == 6
    levels = [frame.mean() for frame in source.frames(2, 5)]
    np.testing.assert_allclose(levels, [80, 120, 160], atol=3)


def test_sizes_are_covered_and_cut_at_the_centre_to_whole_spike_pixels() -> None:
    frame = np.repeat(np.arange(60, dtype=np.uint8)[None, :, None], 41, axis=0).repeat(3, axis=2)
    assert FrameSize().apply(frame).shape == (40, 60, 3)
    assert FrameSize(scale=0.5, multiple=4).apply(frame).shape == (20, 28, 3)
    cut = FrameSize(target=(41, 20), multiple=1).apply(frame)
    np.testing.assert_array_equal(cut[0, :, 0], np.arange(20, 40))
    assert FrameSize(target=(64, 96)).apply(frame).shape == (64, 96, 3)


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.mp4: no such video"):
        FrameSource(tmp_path / "nothing.mp4", FrameSize())
    with pytest.raises(ValueError, match=r"notes\.txt: cannot be decoded"):
        FrameSource(folder / "notes.txt", FrameSize())
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="empty: no pictures"):
        FrameSource(empty, FrameSize())
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"002\.png: not a readable picture"):
        list(FrameSource(folder, FrameSize()).frames(0, 5))
    cv2.imwrite(str(folder / "002.png"), np.zeros((20, 50, 3), np.uint8))
    with pytest.raises(ValueError, match=r"002\.png: 20x50 pixels, but the first frame has 34x50"):
        list(FrameSource(folder, FrameSize()).frames(0, 5))


@pytest.mark.parametrize("name, code", [("v.avi", "MJPG"), ("v.avi", "FFV1"), ("v.mp4", "mp4v"), ("v.mkv", "FFV1")])
def test_a_video_that_is_cut_short_is_refused(tmp_path: Path, name: str, code: str) -> None:
    path, rng = tmp_path / name, np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {code} video")
    for _ in range(12):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    assert FrameSource(path, FrameSize()).length == 12
    content = path.read_bytes()
    for keep in (0.3, 0.6, 0.95):
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: (cut short|cannot be decoded)"):
            FrameSource(path, FrameSize())


def test_frames_are_read_in_natural_order_and_without_hidden_files(tmp_path: Path) -> None:
    for index in range(12):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((4, 4, 3), index, np.uint8))
    (tmp_path / "._0.png").write_bytes(b"resource fork")
    frames = FrameSource(tmp_path, FrameSize()).frames(0, 12)
    assert [int(frame[0, 0, 0]) for frame in frames] == list(range(12))
