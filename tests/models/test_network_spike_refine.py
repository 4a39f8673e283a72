"""models/network_spike_refine.py: what it starts from, motion, missing frames, thresholds and sizes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.spike.frame_sums import interval_rate
from models.layers.spike.rates import gaussian_weights, interval_rates, present_frames, weighted_rates
from models.layers.spike.warp import warped
from models.network_spike_refine import BINS, ONE_SIDED, SIGMAS, START, SpikeRefine, aligning_weights, bin_weights
from utils.spike_windows import MISSING, light_window

SMALL: dict[str, Any] = {"channels": 4, "blocks": [0, 0, 0], "flow_channels": 4, "flow_blocks": [0, 0, 0]}


def light_of(frames: int, height: int, width: int, threshold: float = 1.0) -> Tensor:
    spikes = (np.random.default_rng(0).random((frames, height, width)) < 0.3).astype(np.float32)
    return threshold * torch.from_numpy(spikes)[None, None]


def small(**arguments: Any) -> SpikeRefine:
    torch.manual_seed(0)
    return SpikeRefine(**{"in_chans": 61, **SMALL, **arguments}).eval()


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (1, 5)])
def test_any_height_and_width_and_every_weight_learns(size: tuple[int, int]) -> None:
    network = small(blocks=[1, 1, 1], flow_blocks=[1, 0, 0])
    torch.nn.init.normal_(network.conv_last.weight)
    torch.nn.init.normal_(network.flow_last.weight)
    picture = network(light_of(61, *size))
    assert picture.shape == (1, 1, 1, *size)
    picture.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not still


def test_starts_as_a_mixture_of_rates_and_scales_with_the_threshold() -> None:
    network = small()
    light = light_of(61, 16, 16)
    picture = network(light)
    (gaussian,), _ = weighted_rates(light[0], gaussian_weights(61, [SIGMAS[START]], [0.0]), torch.ones(1, 61))
    assert (picture[0, 0] - gaussian).abs().mean() < 0.06 < (light[0, 0, 30] - gaussian).abs().mean()
    torch.testing.assert_close(network(0.5 * light), 0.5 * picture)


def test_planes_of_what_moves_are_shifted_back() -> None:
    """A random texture that moves right by 1.5 pixels per frame before the middle, and down by 1 after it."""
    texture = torch.rand(60, 80, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([-4.0, 0.0, 3.0])
    planes = torch.stack([texture[20:44, 20 + 6 : 26 + 32], texture[20:44, 20:52], texture[17:41, 20:52]])[None]
    motion = torch.tensor([1.5, 0.0, 0.0, 1.0]).view(1, 4, 1, 1).expand(1, 4, 24, 32)
    shifted = warped(planes, motion, times)[..., 4:-4, 7:-7]
    torch.testing.assert_close(shifted, planes[:, 1:2, 4:-4, 7:-7].expand_as(shifted), atol=1e-4, rtol=0)


def test_bins_and_their_means_are_normalised() -> None:
    torch.testing.assert_close(aligning_weights().sum(1), torch.ones(5))
    before, after = aligning_weights()[-2:]
    torch.testing.assert_close(before, after.flip(0))
    assert before[len(BINS) // 2 + 1 :].sum() == 0 and ONE_SIDED > 0
    for frames in (241, 61):
        sums = bin_weights(frames).sum(1)
        inside = torch.tensor([abs(center) < frames / 2 - 20 for center in BINS])
        torch.testing.assert_close(sums[inside], torch.ones(int(inside.sum())), atol=1e-3, rtol=0)
        assert (bin_weights(frames).argmax(1)[inside] == torch.tensor(BINS)[inside] + frames // 2).all()
    assert bin_weights(41).sum(1)[0] < 1e-3  # nothing of the outermost bin


def test_frames_outside_the_stream_count_for_nothing() -> None:
    constant = np.zeros((40, 8, 8), np.uint8)
    constant[::2] = 1  # rate 1/2
    network = small()
    for start in (-30, -10, 9):
        light = torch.from_numpy(light_window(constant, start, 61, 2.0))[None, None]
        assert (light == MISSING).any() and (network(light) - 1).abs().max() < 0.1
    present = present_frames(light[0])
    assert present.sum() == 31
    found = interval_rates(light[0], [1, 2], present)[0].numpy()
    np.testing.assert_allclose(found, [interval_rate(constant, 39, k, 40) * 2 for k in (1, 2)], rtol=1e-6)


def test_a_dark_window_is_black() -> None:
    picture = small()(torch.zeros(1, 1, 61, 8, 8))
    assert torch.isfinite(picture).all() and picture.abs().max() < 1e-6


def test_weights_fit_windows_of_any_length() -> None:
    network, longer = small(), small(in_chans=101)
    longer.load_state_dict(network.state_dict())
    assert longer(light_of(101, 8, 8)).shape == (1, 1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"windows of 61 spike frames"):
        network(light_of(101, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_chans": 40}, r"netG\.in_chans: .*from 41 to 509; got 40"),
        ({"channels": [24, 48, 64]}, r"netG\.channels: .*got \[24, 48, 64\]"),
        ({"flow_channels": 0}, r"netG\.flow_channels"),
        ({"blocks": [1, 2]}, r"netG\.blocks: three"),
        ({"flow_blocks": [1]}, r"netG\.flow_blocks: three"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikeRefine(**arguments)


def test_sums_over_frames_are_not_made_in_half_precision() -> None:
    network, light = small(), light_of(61, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        halved = network(light)
    torch.testing.assert_close(halved, network(light), atol=2e-3, rtol=0)
