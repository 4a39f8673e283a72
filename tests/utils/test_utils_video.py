"""Videos are written whole or not at all, with the sound of their source, and Chromium plays them."""

import errno
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.browser import Browser
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
    with VideoWriter(tmp_path / "empty.mp4", fps=12):
        pass
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may become larger than `size` bytes, as if the disk were full."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_nothing_is_left_where_the_disk_is_full(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with largest_file(20_000), pytest.raises(OSError) as raised, VideoWriter(tmp_path / "walk.mp4", fps=12) as video:
        for _ in range(100):
            video.write(random.integers(0, 255, (128, 128, 3), dtype=np.uint8))
    assert raised.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def film(path: Path, sound: str) -> Path:
    """Two seconds of a film with a tone."""
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=25), container.add_stream(sound, rate=48000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for index in range(50):
            picture = np.full((48, 64, 3), 5 * index, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for index in range(96):
            tone = (np.sin(np.arange(2048) / 20) * 8000).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 1024 * index, Fraction(1, 48000)
            container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())
    return path


@pytest.mark.parametrize(("name", "sound"), [("a.mp4", "aac"), ("a.mov", "pcm_s16le")])
def test_the_sound_of_the_source(tmp_path: Path, name: str, sound: str) -> None:
    with VideoWriter(tmp_path / "out.mp4", 30000 / 1001, sound=film(tmp_path / name, sound)) as video:
        for _ in range(30):
            video.write(np.zeros((32, 48, 3), np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        seconds = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert seconds == pytest.approx([1.001, 1.001], abs=0.03)  # a packet of AAC lasts 0.02 s


def test_chromium_plays_them(browser: Browser, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 25, sound=film(tmp_path / "a.mov", "pcm_s16le")) as video:
        for index in range(25):
            video.write(np.full((36, 50, 3), (10 * index, 0, 0), np.uint8))
    page = tmp_path / "page.html"
    page.write_text('<video src="out.mp4" muted></video>')
    browser.open(page)
    played = browser.run(
        """const video = document.querySelector("video");
        return new Promise(resolve => {
            video.onerror = () => resolve(video.error.message);
            video.onseeked = () => resolve([video.videoWidth, video.videoHeight, video.duration]);
            video.currentTime = 0.8;
        })"""
    )
    assert played == [50, 36, pytest.approx(1.0, abs=0.05)]
