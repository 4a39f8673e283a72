"""Videos are written whole or not at all."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.utils_video import MOST_COLUMNS, VideoWriter


def read(path: Path) -> list[np.ndarray]:
    """The frames of a video, BGR."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = capture.read()
        if not good:
            return frames
        frames.append(frame)


def test_odd_sizes_and_colours(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clips" / "walk.mp4", fps=12) as video:
        for value in (40, 200):
            picture = np.zeros((35, 51, 3), np.uint8)
            picture[..., 0] = value
            video.write(picture)
    frames = read(tmp_path / "clips" / "walk.mp4")
    assert [frame.shape for frame in frames] == [(34, 50, 3)] * 2
    assert [round(float(frame[..., 2].mean()) / 20) for frame in frames] == [2, 10]  # red
    assert all(frame[..., 0].mean() < 20 for frame in frames)
    assert cv2.VideoCapture(str(tmp_path / "clips" / "walk.mp4")).get(cv2.CAP_PROP_FPS) == 12
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["walk.mp4"]


def test_what_is_too_wide_is_made_smaller(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "wide.mp4", fps=1) as video:
        video.write(np.zeros((64, 2 * MOST_COLUMNS), np.uint8))
    assert read(tmp_path / "wide.mp4")[0].shape == (32, MOST_COLUMNS, 3)


def test_nothing_is_left_of_a_video_that_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "walk.mp4", fps=12) as video:
        video.write(np.zeros((32, 32, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    video = VideoWriter(tmp_path / "walk.mp4", fps=12)
    video.write(np.zeros((32, 32, 3), np.uint8))
    video.count += 1  # as if a picture had not fitted on the disk
    with pytest.raises(OSError, match=r"walk\.mp4: 1 of 2 pictures could be written; is the disk full"):
        video.close()
    assert list(tmp_path.iterdir()) == []
    with VideoWriter(tmp_path / "empty.mp4", fps=12):
        pass
    assert list(tmp_path.iterdir()) == []
