"""Orientation and moment of spikes, measured against frames that are known to belong to them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.registration import FLIPS, exposure_rate, gray_at_size, measure_center, orientations
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.sync import ExposureWindow, default_window
from tests.data.trees import write_dat
from utils.spike_loader import SpikeStream
from utils.utils_image import imread_rgb

LENGTH, HEIGHT, WIDTH = 64, 64, 96


def scene(time: int) -> np.ndarray:
    """A texture that moves right by a quarter of a pixel a spike frame, (H, W) float32 in [0, 1]."""
    noise = np.random.default_rng(3).random((HEIGHT, WIDTH + LENGTH), np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0.1, 0.9, cv2.NORM_MINMAX)
    moved = np.float32([[1, 0, LENGTH / 2 - time / 4], [0, 1, 0]])
    return cv2.warpAffine(texture, moved, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> SpikeStream:
    light = np.stack([scene(time) for time in range(LENGTH)])
    path = tmp_path_factory.mktemp("registration") / "clip.dat"
    write_dat(path, integrate_and_fire(light, 2.0, np.random.default_rng(0)))
    return SpikeStream(path, HEIGHT, WIDTH)


@pytest.mark.parametrize("stated", [32, 25, 40])
def test_the_sharp_frames_moment_is_found(stream: SpikeStream, stated: int) -> None:
    estimate = measure_center(stream, ExposureWindow(8, 57, stated), scene(32), sharp=True)
    assert abs(estimate.offset - (32 - stated)) <= 1
    assert estimate.best > 0.8 and (estimate.best - estimate.stated > 0.05) == (stated != 32)


@pytest.mark.parametrize("begin", [20, 14, 26])
def test_the_blurred_frames_exposure_is_found(stream: SpikeStream, begin: int) -> None:
    blurred = np.mean([scene(time) for time in range(20, 45)], axis=0)
    estimate = measure_center(stream, ExposureWindow(begin, begin + 25, begin + 12), blurred, sharp=False)
    assert abs(estimate.offset - (20 - begin)) <= 1 and estimate.best > 0.5


def test_the_streams_ends_bound_the_search(stream: SpikeStream) -> None:
    assert measure_center(stream, ExposureWindow(0, LENGTH, 60), scene(63), sharp=True).offset <= 3
    assert measure_center(stream, ExposureWindow(0, LENGTH, 32), scene(32), sharp=False).offset == 0


@pytest.mark.parametrize("turned", FLIPS)
def test_orientations_are_told_apart(stream: SpikeStream, turned: str) -> None:
    blurred = np.mean([scene(time) for time in range(28, 37)], axis=0)
    scores = orientations(exposure_rate(stream, ExposureWindow(28, 37, 32)), FLIPS[turned](blurred))
    assert max(scores, key=lambda name: scores[name]) == turned
    assert scores[turned] > max(score for name, score in scores.items() if name != turned) + 0.2


def test_uniform_pictures_correlate_with_nothing(stream: SpikeStream) -> None:
    assert set(orientations(np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)).values()) == {0.0}


def test_a_real_frame(shared_data: Path) -> None:
    """The rule of the GoPro set: the sharp frame of 11 lies at spike frame 40."""
    sample = shared_data / "gopro_spike_sample"
    stream = SpikeStream(sample / "000226.dat", 360, 640)
    window, gray = default_window("GOPR0884_11_00", 88), gray_at_size(imread_rgb(sample / "000226.png"), (360, 640))
    estimate = measure_center(stream, window, gray, sharp=True)
    assert estimate.offset == 0 and estimate.best > 0.95
    late = ExposureWindow(window.begin, window.end, 44)
    assert measure_center(stream, late, gray, sharp=True).offset == -4
    scores = orientations(exposure_rate(stream, window), gray)
    assert scores["none"] > 0.75 and scores["up-down"] < 0.1
