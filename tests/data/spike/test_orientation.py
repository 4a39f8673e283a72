"""data/spike/registration.py and stream_report.py on streams whose orientation, centre and faults are known."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.registration import center_scores, gray_at_size, orientation_scores
from data.spike.simulation.motion import CameraScene, load_photograph
from data.spike.simulation.simulate import integrate_and_fire, sensor_light
from data.spike.stream_report import reversed_bits, stream_report
from utils.spike_loader import SpikeStream, write_spikes

SIZE = (64, 80)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Spikes (64, 64, 80) of a moving scene, and the (64, 80, 3) pictures."""
    rng = np.random.default_rng(0)
    frames = CameraScene(load_photograph("chelsea.png"), load_photograph("coffee.png"), SIZE, 6.0, rng).frames(64)
    pictures = np.stack(list(frames))
    light = np.stack([sensor_light(picture, 1) for picture in pictures])
    return integrate_and_fire(light, 2.0, rng), pictures


@pytest.mark.parametrize(
    ("bit_order", "flip"),
    [("little", "none"), ("little", "up-down"), ("little", "left-right"), ("little", "both"), ("big", "up-down")],
)
def test_orientation_is_found(scene: tuple[np.ndarray, np.ndarray], tmp_path: Path, bit_order: str, flip: str) -> None:
    spikes, pictures = scene
    turned = {"none": spikes, "up-down": spikes[:, ::-1], "left-right": spikes[:, :, ::-1]}
    stored = turned.get(flip, spikes[:, ::-1, ::-1])
    write_spikes(tmp_path / "a.dat", stored if bit_order == "little" else reversed_bits(stored), flipud=False)
    gray = gray_at_size(pictures[40], SIZE)
    best, second, *_ = rows = orientation_scores(SpikeStream(tmp_path / "a.dat", *SIZE), gray, range(20, 60, 4))
    assert (best.bit_order, best.flip) == (bit_order, flip) and len(rows) == 8
    assert best.edge_correlation > 2 * abs(second.edge_correlation)


@pytest.mark.parametrize("moment", [25, 33, 38])
def test_center_is_found(scene: tuple[np.ndarray, np.ndarray], tmp_path: Path, moment: int) -> None:
    spikes, pictures = scene
    write_spikes(tmp_path / "a.dat", spikes)
    big = cv2.resize(pictures[moment], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    scores = center_scores(SpikeStream(tmp_path / "a.dat", *SIZE), gray_at_size(big, SIZE), range(64))
    assert abs(int(scores.argmax()) - moment) <= 1


def test_constant_pictures_correlate_with_nothing(scene: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    write_spikes(tmp_path / "a.dat", scene[0])
    rows = orientation_scores(SpikeStream(tmp_path / "a.dat", *SIZE), np.full(SIZE, 0.5, np.float32), [5])
    assert all(row.correlation == row.edge_correlation == 0 for row in rows)


def test_reversed_bits_need_whole_bytes() -> None:
    with pytest.raises(ValueError, match="no whole bytes"):
        reversed_bits(np.zeros((2, 3, 3), np.uint8))


def test_report_of_a_stream_with_faults(scene: tuple[np.ndarray, np.ndarray]) -> None:
    spikes = scene[0].copy()
    spikes[:, 10, 20], spikes[:, 30, 40] = 1, 0
    report = stream_report([spikes[:5], spikes[5:40], spikes[40:]])
    assert report.frames == 64 and report.mean_rate == pytest.approx(spikes.mean())
    np.testing.assert_allclose(report.rate, spikes.mean(axis=0), rtol=1e-6)
    assert report.hot.tolist() == [[10, 20]] and report.dead.tolist() == [[30, 40]]
    assert report.highest_rate == 1 and report.lowest_rate == 0
    assert report.consecutive == pytest.approx((spikes[1:] & spikes[:-1]).sum() / spikes.sum())
    assert report.bit_order == "little" and not report.width_in_doubt


def test_report_tells_wrong_bits_and_a_wrong_width(scene: tuple[np.ndarray, np.ndarray]) -> None:
    spikes = scene[0]
    assert stream_report([reversed_bits(spikes)]).bit_order == "big"
    smooth = integrate_and_fire(np.broadcast_to(np.linspace(0.1, 1, 80), (64, 64, 80)), 2.0)
    assert not stream_report([smooth]).width_in_doubt
    assert stream_report([smooth.reshape(64, 80, 64)]).width_in_doubt
    assert stream_report([np.zeros((4, 3, 3), np.uint8)]).bit_order == "unknown"
    with pytest.raises(ValueError, match="no spike frame"):
        stream_report([])


def test_real_samples(shared_data: Path) -> None:
    folder = shared_data / "gopro_spike_sample"
    stream = SpikeStream(folder / "000226.dat", 360, 640)
    report = stream_report([stream.get_spike_matrix(flipud=False)])
    assert report.mean_rate == pytest.approx(0.2062, abs=5e-5)
    assert report.bit_order == "little" and report.consecutive == 0
    gray = gray_at_size(cv2.imread(str(folder / "000226.png"))[..., ::-1].copy(), (360, 640))
    best, second, *_ = orientation_scores(stream, gray, [40, 44])
    assert (best.bit_order, best.flip) == ("little", "up-down")
    assert best.edge_correlation > 0.9 and second.edge_correlation < 0.3
    assert 30 + int(center_scores(stream, gray, range(30, 51)).argmax()) == 40
