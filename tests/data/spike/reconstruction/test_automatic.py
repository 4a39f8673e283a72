"""automatic.py: brightness and averaging time of recordings whose light and motion are known."""

import dataclasses

import numpy as np
import pytest

from data.spike.reconstruction.automatic import (
    SIGMAS,
    WHITE,
    automatic_sigma,
    automatic_threshold,
    charge_sigma,
    window_length,
)
from data.spike.reconstruction.reconstruct import charge, gaussian
from data.spike.simulation.motion import CameraScene, load_photograph
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.presets import PRESETS

SIZE, FRAMES = (64, 80), 400
NOISE = SensorNoise(photons=20, dark_current=0.02, hot_pixels=0.001)


def moving_scene(speed: float) -> np.ndarray:
    """(FRAMES, h, w) float64 in [0, 1]; `speed` in pixels per 8 spike frames."""
    photographs = load_photograph("coffee.png"), load_photograph("chelsea.png")
    frames = CameraScene(*photographs, SIZE, speed, np.random.default_rng(1)).frames(FRAMES)
    return np.stack([frame[..., 1] for frame in frames]) / 255


def recording(light: np.ndarray, white_rate: float, noise: SensorNoise | None = NOISE) -> np.ndarray:
    """Spikes (T, h, w) at which white fires with `white_rate`."""
    model = dataclasses.replace(PRESETS["v2s"], threshold=1 / white_rate)
    return model.sensor(light.shape[1:], np.random.default_rng(2), noise).step(light)


@pytest.mark.parametrize(("speed", "white_rate"), [(0.3, 0.03), (0.3, 0.06), (1.0, 0.06), (1.0, 0.2)])
def test_width_is_within_half_a_decibel_of_the_best(speed: float, white_rate: float) -> None:
    """Low light, mean rates 0.01 to 0.07, with shot noise, dark current and hot pixels."""
    light = moving_scene(speed)
    spikes = recording(light, white_rate)
    times = list(range(120, 300, 30))

    def psnr(sigma: float) -> float:
        pictures = gaussian(spikes, times, 1 / white_rate, sigma=sigma)
        return float(-10 * np.log10(np.mean((pictures - light[times]) ** 2)))

    chosen = psnr(automatic_sigma(lambda begin, end: spikes[begin:end], FRAMES))
    assert chosen > max(psnr(sigma) for sigma in SIGMAS) - 0.5


@pytest.mark.parametrize(("speed", "white_rate"), [(0.3, 0.06), (1.0, 0.06)])
def test_width_of_charge_is_within_half_a_decibel_of_the_best(speed: float, white_rate: float) -> None:
    """And better than the Gaussian at its own width."""
    light = moving_scene(speed)
    spikes, times = recording(light, white_rate), [150, 180]

    def psnr(pictures: np.ndarray) -> float:
        return float(-10 * np.log10(np.mean((pictures - light[times]) ** 2)))

    sigma = automatic_sigma(lambda begin, end: spikes[begin:end], FRAMES)
    threshold = 1 / white_rate
    chosen = psnr(charge(spikes, times, threshold, sigma=charge_sigma(sigma)))
    assert chosen > max(psnr(charge(spikes, times, threshold, sigma=width)) for width in SIGMAS[3:9]) - 0.5
    assert chosen > psnr(gaussian(spikes, times, threshold, sigma=sigma)) + 0.5


@pytest.mark.parametrize("white_rate", [0.02, 0.1, 0.5])
def test_brightest_percent_becomes_white_despite_hot_pixels(white_rate: float) -> None:
    light = np.tile(np.linspace(0, 1, SIZE[1]), (FRAMES, SIZE[0], 1))
    spikes = recording(light, white_rate, None)
    spikes[:, ::9, ::9] = 1
    threshold = automatic_threshold(lambda begin, end: spikes[begin:end], FRAMES)
    assert threshold * white_rate == pytest.approx(WHITE, rel=0.1)


def test_dark_and_short_streams() -> None:
    dark = np.zeros((3, 4, 5), np.uint8)
    assert automatic_threshold(lambda begin, end: dark[begin:end], 3) == 1.0
    assert automatic_sigma(lambda begin, end: dark[begin:end], 3) in SIGMAS


def test_window_has_the_variance_of_the_gaussian() -> None:
    for sigma in SIGMAS:
        length = window_length(sigma)
        assert length % 2 == 1 and abs(length - np.sqrt(12) * sigma) <= 1
