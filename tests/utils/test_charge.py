"""Rates between spikes, against the definition written out pixel by pixel."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data.spike.frame_sums import gaussian_weights, weighted_sums
from data.spike.weighted_rates import weighted_rates
from utils.charge import interpolated_rates


def by_definition(spikes: np.ndarray) -> np.ndarray:
    """(T,) spikes of a pixel to its rates (T,)."""
    frames = len(spikes)
    ends = [-1, *np.flatnonzero(spikes).tolist(), frames]
    lengths = np.diff(ends)
    if len(lengths) > 1:
        lengths[[0, -1]] = max(lengths[:2]), max(lengths[-2:])
    rates = np.zeros(frames)
    for begin, end, length in zip(ends[:-1], ends[1:], lengths, strict=True):
        for frame in range(max(begin, 0), min(end + 1, frames)):
            rates[frame] += (0.5 if frame in (begin, end) else 1.0) / length
    return rates


@pytest.fixture
def spikes() -> Tensor:
    """(40,60) of pixels that fire often, seldom, always, once and never."""
    rng = np.random.default_rng(0)
    drawn = (rng.random((40, 60)) < rng.uniform(0.02, 0.9, 60)).astype(np.uint8)
    drawn[:, :3] = [0, 1, 0]
    drawn[5, 2] = 1
    return torch.from_numpy(drawn)


def test_rates_are_those_of_the_definition(spikes: Tensor) -> None:
    expected = np.stack([by_definition(pixel) for pixel in spikes.T.numpy()], axis=1)
    np.testing.assert_allclose(interpolated_rates(spikes).numpy(), expected, rtol=1e-6)


def test_time_reversed_is_the_reverse(spikes: Tensor) -> None:
    assert torch.equal(interpolated_rates(spikes.flip(0)).flip(0), interpolated_rates(spikes))


def test_some_of_the_frames(spikes: Tensor) -> None:
    for asked in (slice(10, 25), slice(0, 1), slice(35, 40)):
        assert torch.equal(interpolated_rates(spikes, asked=asked), interpolated_rates(spikes)[asked])


def test_a_constant_light_has_a_constant_rate() -> None:
    spikes = torch.zeros(50, 1)
    spikes[3::7] = 1
    assert torch.equal(interpolated_rates(spikes), torch.full((50, 1), 1 / 7))


def test_frames_outside_the_stream_change_nothing(spikes: Tensor) -> None:
    """Two streams of different lengths, side by side."""
    padded = torch.full((60, 2, 60), -1.0)
    padded[7:47, 0], padded[:30, 1] = spikes * 2.5, spikes[:30]
    stream = torch.tensor([[7], [0]], dtype=torch.int16), torch.tensor([[47], [30]], dtype=torch.int16)
    rates = interpolated_rates(padded, stream)
    assert torch.equal(rates[7:47, 0], interpolated_rates(spikes))
    assert torch.equal(rates[:30, 1], interpolated_rates(spikes[:30]))


def test_weighted_rates_of_a_crop_are_the_crop() -> None:
    rng = np.random.default_rng(1)
    spikes = (rng.random((64, 150, 120)) < 0.2).astype(np.uint8)
    weights = np.stack([gaussian_weights(30, sigma, 0, 64) for sigma in (1.5, 6.0)])
    crop = np.ascontiguousarray(spikes[:, 5:100, 7:90])
    assert np.array_equal(weighted_rates(crop, weights), weighted_rates(spikes, weights)[:, 5:100, 7:90])


def test_noise_is_a_fraction_of_that_of_counting() -> None:
    """A still and dim ramp, seen through a Gaussian of 6 frames: less than a third of the error."""
    light = np.linspace(0.02, 0.15, 500)
    charge = light * np.arange(1, 201)[:, None] + np.random.default_rng(2).random(500)
    spikes = np.diff(np.floor(charge), axis=0, prepend=0).astype(np.uint8)[1:, None]
    weights = gaussian_weights(100, 6.0, 0, 199)[None]
    counted, between = (way(spikes, weights)[0, 0] / weights.sum() for way in (weighted_sums, weighted_rates))
    errors = [float(np.sqrt(np.mean((rates - light) ** 2))) for rates in (counted, between)]
    assert errors[1] < errors[0] / 3, errors
