"""Orientation and moment of spikes, measured against frames that are known to belong to them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.registration import (
    FLIPS,
    center_scores,
    exposure_rate,
    gray_at_size,
    measure_center,
    orientation_scores,
    orientations,
)
from data.spike.simulation.motion import CameraScene, load_photograph
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.presets import PRESETS
from data.spike.simulation.simulate import integrate_and_fire, sensor_light
from data.spike.stream_report import reversed_bits, stream_report
from data.spike.sync import ExposureWindow, default_window
from tests.data.trees import write_dat
from utils.spike_loader import SpikeStream, write_spikes
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
    estimate = measure_center(stream, window, gray, sharp=True, reach=8)
    assert estimate.offset == 0 and estimate.best > 0.95
    late = ExposureWindow(window.begin, window.end, 44)
    assert measure_center(stream, late, gray, sharp=True, reach=8).offset == -4
    scores = orientations(exposure_rate(stream, window), gray)
    assert scores["none"] > 0.75 and scores["up-down"] < 0.1


SIZE = (64, 80)


@pytest.fixture(scope="module")
def walk() -> tuple[np.ndarray, np.ndarray]:
    """Spikes (64, 64, 80) of a moving walk, and the (64, 80, 3) pictures."""
    rng = np.random.default_rng(0)
    frames = CameraScene(load_photograph("chelsea.png"), load_photograph("coffee.png"), SIZE, 6.0, rng).frames(64)
    pictures = np.stack(list(frames))
    light = np.stack([sensor_light(picture, 1) for picture in pictures])
    return integrate_and_fire(light, 2.0, rng), pictures


@pytest.mark.parametrize(
    ("bit_order", "flip"),
    [("little", "none"), ("little", "up-down"), ("little", "left-right"), ("little", "both"), ("big", "up-down")],
)
def test_orientation_is_found(walk: tuple[np.ndarray, np.ndarray], tmp_path: Path, bit_order: str, flip: str) -> None:
    spikes, pictures = walk
    turned = {"none": spikes, "up-down": spikes[:, ::-1], "left-right": spikes[:, :, ::-1]}
    stored = turned.get(flip, spikes[:, ::-1, ::-1])
    write_spikes(tmp_path / "a.dat", stored if bit_order == "little" else reversed_bits(stored), flipud=False)
    gray = gray_at_size(pictures[40], SIZE)
    best, second, *_ = rows = orientation_scores(SpikeStream(tmp_path / "a.dat", *SIZE), gray, range(20, 60, 4))
    assert (best.bit_order, best.flip) == (bit_order, flip) and len(rows) == 8
    assert best.edge_correlation > 2 * abs(second.edge_correlation)


@pytest.mark.parametrize("moment", [25, 33, 38])
def test_center_is_found(walk: tuple[np.ndarray, np.ndarray], tmp_path: Path, moment: int) -> None:
    spikes, pictures = walk
    write_spikes(tmp_path / "a.dat", spikes)
    big = cv2.resize(pictures[moment], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    scores = center_scores(SpikeStream(tmp_path / "a.dat", *SIZE), gray_at_size(big, SIZE), range(64))
    assert abs(int(scores.argmax()) - moment) <= 1


def test_constant_pictures_correlate_with_nothing(walk: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    write_spikes(tmp_path / "a.dat", walk[0])
    rows = orientation_scores(SpikeStream(tmp_path / "a.dat", *SIZE), np.full(SIZE, 0.5, np.float32), [5])
    assert all(row.correlation == row.edge_correlation == 0 for row in rows)


def test_reversed_bits_need_whole_bytes() -> None:
    with pytest.raises(ValueError, match="a whole number of bytes"):
        reversed_bits(np.zeros((2, 3, 3), np.uint8))


def test_report_of_a_stream_with_faults(walk: tuple[np.ndarray, np.ndarray]) -> None:
    spikes = walk[0].copy()
    spikes[:, 10, 20], spikes[:, 30, 40] = 1, 0
    report = stream_report([spikes[:5], spikes[5:40], spikes[40:]])
    assert report.frames == 64 and report.mean_rate == pytest.approx(spikes.mean())
    np.testing.assert_allclose(report.rate, spikes.mean(axis=0), rtol=1e-6)
    assert report.hot.tolist() == [[10, 20]] and report.dead.tolist() == [[30, 40]]
    assert report.highest_rate == 1 and report.lowest_rate == 0
    assert report.consecutive == pytest.approx((spikes[1:] & spikes[:-1]).sum() / spikes.sum())
    assert report.bit_order == "little" and not report.width_in_doubt


def test_report_tells_wrong_bits_and_a_wrong_width(walk: tuple[np.ndarray, np.ndarray]) -> None:
    spikes = walk[0]
    assert stream_report([reversed_bits(spikes)]).bit_order == "big"
    smooth = integrate_and_fire(np.broadcast_to(np.linspace(0.1, 1, 80), (64, 64, 80)), 2.0)
    assert not stream_report([smooth]).width_in_doubt
    assert stream_report([smooth.reshape(64, 80, 64)]).width_in_doubt
    assert stream_report([np.zeros((4, 3, 3), np.uint8)]).bit_order == "unknown"
    with pytest.raises(ValueError, match="no spike frame"):
        stream_report([])


@pytest.mark.parametrize("photons", [None, 50, 3])
@pytest.mark.parametrize("light", [1.0, 0.1])
def test_report_doubts_a_wrong_size(photons: float | None, light: float) -> None:
    """The same bits cut into frames of another height; noisy and dark ones too."""
    scene = np.broadcast_to(np.linspace(0.1, 0.9, 80, dtype=np.float32), (200, 60, 80)) * np.float32(light)
    sensor = PRESETS["v2s"].sensor((60, 80), np.random.default_rng(0), SensorNoise(photons=photons))
    spikes = sensor.step(scene)
    assert stream_report([spikes]).irregularity < 0.35
    flat = spikes.ravel()
    assert stream_report([flat[: len(flat) // 5200 * 5200].reshape(-1, 65, 80)]).irregularity > 0.5


def test_spikes_in_every_frame_tell_nothing_of_the_size() -> None:
    report = stream_report([np.ones((9, 8, 8), np.uint8)])
    assert np.isnan(report.irregularity) and not report.geometry_in_doubt


def test_real_samples_lie_as_they_are_read(shared_data: Path) -> None:
    folder = shared_data / "gopro_spike_sample"
    stream = SpikeStream(folder / "000226.dat", 360, 640)
    report = stream_report([stream.get_spike_matrix(flipud=False)])
    assert report.mean_rate == pytest.approx(0.2062, abs=5e-5)
    assert report.bit_order == "little" and report.consecutive == 0
    gray = gray_at_size(cv2.imread(str(folder / "000226.png"))[..., ::-1].copy(), (360, 640))
    best, second, *_ = orientation_scores(stream, gray, [40])
    assert (best.bit_order, best.flip) == ("little", "up-down")
    assert best.edge_correlation > 0.9 and second.edge_correlation < 0.3
    assert 36 + int(center_scores(stream, gray, range(36, 45)).argmax()) == 40
