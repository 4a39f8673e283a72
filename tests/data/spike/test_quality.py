"""Reconstruction quality on the real samples: the figures of their README, to a tenth of a dB or so."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow, default_window
from utils.spike_loader import SpikeStream

WINDOW_41 = {"representation": "tfp", "bins": 1}
TFI = {"representation": "interval", "orders": [1]}
INTERVAL_2 = {"representation": "interval", "orders": [2]}
GAUSSIAN = {"representation": "gaussian", "sigma": 6.0}
REDS = ["200_part1", "203_part2", "203_part3"]


def psnr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """dB, both in [0, 1]; the estimate clipped there."""
    return float(-10 * np.log10(np.mean((np.clip(estimate, 0, 1) - reference) ** 2)))


def quality(stream: SpikeStream, spike: dict, window: ExposureWindow, threshold: float, sharp: np.ndarray) -> float:
    encoding = build_encoding(spike, threshold)
    return psnr(encoding.encode_crop(stream, window, 0, 0, stream.spike_h, stream.spike_w)[0], sharp)


@pytest.mark.parametrize(
    ("spike", "expected"), [(WINDOW_41, 28.0), (TFI, 24.4), (INTERVAL_2, 32.0), (GAUSSIAN, 34.4)], ids=str
)
def test_gopro(shared_data: Path, spike: dict, expected: float) -> None:
    """The sharp frame of clip GOPR0884_11_00 at spike frame 40, intensity = 2 x rate."""
    folder = shared_data / "gopro_spike_sample"
    stream = SpikeStream(folder / "000226.dat", 360, 640)
    gray = cv2.imread(str(folder / "000226.png"), cv2.IMREAD_GRAYSCALE)
    sharp = cv2.resize(gray, (640, 360), interpolation=cv2.INTER_AREA) / 255
    window = default_window("GOPR0884_11_00", len(stream))
    if spike is WINDOW_41:
        window = ExposureWindow(window.center - 20, window.center + 21, window.center)
    assert quality(stream, spike, window, 2.0, sharp) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(
    ("spike", "expected"),
    [(WINDOW_41, [31.60, 23.50, 23.72]), (TFI, [21.71, 24.55, 25.87]), (INTERVAL_2, [31.07, 27.85, 27.89])],
    ids=str,
)
def test_reds(shared_data: Path, spike: dict, expected: list[float]) -> None:
    """The three streams of the five that lie there, at spike frame 150, intensity = rate / 0.6."""
    for name, figure in zip(REDS, expected, strict=True):
        stream = SpikeStream(shared_data / "reds_base" / f"{name}.dat")
        assert stream.shape == (301, 250, 400)
        sharp = cv2.imread(str(shared_data / "reds_base" / f"{name}.png"), cv2.IMREAD_GRAYSCALE) / 255
        window = default_window(name, len(stream))
        assert window.center == 150
        if spike is WINDOW_41:
            window = ExposureWindow(130, 171, 150)
        assert quality(stream, spike, window, 1 / 0.6, sharp) == pytest.approx(figure, abs=0.03)
