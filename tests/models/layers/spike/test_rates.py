"""models/layers/spike/rates.py: Gaussian rates and intervals, of whole windows and of such with missing frames."""

import numpy as np
import pytest
import torch

from data.spike.frame_sums import interval_rate
from models.layers.spike.rates import (
    gaussian_weights,
    interpolated_light,
    interval_rates,
    present_frames,
    weighted_rates,
)
from utils.charge import interpolated_rates
from utils.spike_windows import MISSING


def test_gaussian_weights_sum_to_one_around_the_middle() -> None:
    weights = gaussian_weights(41, [2.0, 3.0], [0.0, 5.0])
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights.argmax(1).tolist() == [20, 25]
    torch.testing.assert_close(weights[0], weights[0].flip(0))


def test_a_constant_stays_constant_whatever_is_missing() -> None:
    weights = gaussian_weights(41, [2.0, 6.0, 3.0], [0.0, 5.0, -20.0])
    light = torch.full((2, 41, 2, 3), 0.4)
    light[1, :18] = MISSING
    rates, share = weighted_rates(light, weights, present_frames(light))
    torch.testing.assert_close(rates[:, :2], torch.full((2, 2, 2, 3), 0.4))
    torch.testing.assert_close(share[0], torch.ones(3))
    assert share[1, 0] > 0.8 > share[1, 2] and abs(float(share[1, 2])) < 1e-3


@pytest.mark.parametrize("frames", [20, 61])
def test_interval_rates_are_those_of_the_representation(frames: int) -> None:
    spikes = (np.random.default_rng(0).random((frames, 12, 13)) < 0.12).astype(np.uint8)
    spikes[:, 0, :3] = [[0, 1, 0]]
    light = 2.5 * torch.from_numpy(spikes).float()[None]
    expected = [interval_rate(spikes, frames // 2, k, frames) * np.float32(2.5) for k in (1, 2, 3)]
    found = interval_rates(light, [1, 2, 3], torch.ones(1, frames))[0].numpy()
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-6)
    assert (found[:, 0, 0] == 0).all() and not np.isnan(found).any()
    assert (interval_rates(torch.zeros(1, 8, 2, 2), [1], torch.ones(1, 8)) == 0).all()


def test_interpolated_light_is_that_of_the_frames_present() -> None:
    """Each picture of a batch has its own threshold and its own missing frames."""
    spikes = (torch.rand(2, 20, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    light = spikes * torch.tensor([2.0, 5.0]).view(2, 1, 1, 1)
    light[0, :4], light[1, 15:] = MISSING, MISSING
    rates = interpolated_light(light, present_frames(light))
    assert (rates[0, :4] == MISSING).all() and (rates[1, 15:] == MISSING).all()
    assert torch.equal(rates[0, 4:], 2 * interpolated_rates(spikes[0, 4:]))
    assert torch.equal(rates[1, :15], 5 * interpolated_rates(spikes[1, :15]))
