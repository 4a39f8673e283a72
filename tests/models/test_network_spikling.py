"""Networks from spikes to pictures: sizes, what they start from, and pictures from windows of a stream."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.spike.frame_sums import interval_rate
from models.layers.spike.rates import gaussian_weights, interval_rates, weighted_rates
from models.network_spikling import SemiUNet, SpikeRefine, generate, generate_stream
from utils.spike_loader import SpikeStream, write_spikes


class Middle(nn.Module):
    """Shows the window's middle frame."""

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.weight = nn.Parameter(torch.ones(()))
        self.batches: list[int] = []

    def forward(self, L: Tensor) -> Tensor:
        self.batches.append(len(L))
        return self.weight * L[:, :, self.in_chans // 2 : self.in_chans // 2 + 1]


def spikes_of(frames: int, height: int, width: int, rate: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(0).random((frames, height, width)) < rate).astype(np.uint8)


def light_of(spikes: np.ndarray, threshold: float = 1.0) -> Tensor:
    return threshold * torch.from_numpy(spikes).float()[None, None]


def test_semi_unet_has_the_parameters_of_spikling():
    network = SemiUNet()
    assert sum(p.numel() for p in network.parameters()) == 2_895_904
    assert all(p.ndim == 4 for p in network.parameters()), "no biases, no weights of normalisation"


@pytest.mark.parametrize("size", [(8, 12), (6, 8), (9, 7), (5, 4)])
def test_any_height_and_width(size: tuple[int, int]):
    semi, refine = SemiUNet(), SpikeRefine(channels=[4, 4, 4], blocks=[0, 0, 0])
    for network in (semi, refine):
        picture = network(light_of(spikes_of(network.in_chans, *size)))
        assert picture.shape == (1, 1, 1, *size)
        picture.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in semi.parameters())


def test_semi_unet_surrounds_spiklings_rows_with_rows_without_spikes():
    """H % 4 = 2 as spikling's camera has: one row above and one below, as its `generate` does."""
    network = SemiUNet().eval()
    spikes = spikes_of(32, 10, 12)
    padded = np.pad(spikes, ((0, 0), (1, 1), (0, 0)))
    torch.testing.assert_close(network(light_of(spikes)), network(light_of(padded))[..., 1:-1, :])


def test_another_window_and_too_small_pictures_are_told():
    with pytest.raises(ValueError, match=r"windows of 32 spike frames, not \(1, 1, 31, 8, 8\)"):
        SemiUNet()(torch.zeros(1, 1, 31, 8, 8))
    with pytest.raises(ValueError, match="more than 4x4 pixels, not 3x4"):
        SemiUNet()(torch.zeros(1, 1, 32, 3, 4))
    with pytest.raises(ValueError, match=r"netG\.in_chans: .*from 41 to 255; got 32"):
        SpikeRefine(in_chans=32)
    with pytest.raises(ValueError, match=r"netG\.channels: three .*got \[8, 8\]"):
        SpikeRefine(channels=[8, 8])


def test_spike_refine_starts_as_a_mixture_of_rates_that_scales_with_the_threshold():
    network = SpikeRefine(channels=[4, 4, 4], blocks=[0, 0, 1])
    spikes = spikes_of(61, 9, 10)
    light = light_of(spikes, 2.0)
    gaussians = weighted_rates(light[0], gaussian_weights(61, SpikeRefine.SIGMAS, [0.0] * 6))
    rates = torch.cat([gaussians, interval_rates(light[0], SpikeRefine.ORDERS)], 1)
    shares = torch.full((9,), 1.0)
    shares[SpikeRefine.START] = np.e**3
    expected = (rates * (shares / shares.sum())[:, None, None]).sum(1)
    picture = network(light)
    torch.testing.assert_close(picture[0, 0], expected)
    torch.testing.assert_close(network(light_of(spikes, 0.5)), 0.25 * picture)


def test_sums_over_frames_are_not_made_in_half_precision():
    refine, semi = SpikeRefine(channels=[4, 4, 4], blocks=[0, 0, 0]), SemiUNet()
    light = light_of(spikes_of(61, 8, 8))
    exact = refine(light)  # at its start, nothing but rates
    with torch.autocast("cpu", torch.bfloat16):
        halved, picture = refine(light), semi(light[:, :, :32])
    torch.testing.assert_close(halved, exact)
    assert picture.dtype == torch.float32


def test_spike_refine_sees_no_further_than_its_window_and_uses_all_of_it():
    network = SpikeRefine(channels=[4, 4, 4], blocks=[0, 0, 0])
    light = light_of(spikes_of(61, 8, 8)).requires_grad_()
    network(light).sum().backward()
    assert light.grad is not None and (light.grad[0, 0].abs().sum((1, 2)) > 0).all()


def test_gaussian_weights_sum_to_one_around_the_middle():
    weights = gaussian_weights(41, [2.0, 3.0], [0.0, 5.0])
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights.argmax(1).tolist() == [20, 25]
    torch.testing.assert_close(weights[0], weights[0].flip(0))
    constant = torch.full((1, 41, 2, 3), 0.4)
    torch.testing.assert_close(weighted_rates(constant, weights), torch.full((1, 2, 2, 3), 0.4))


@pytest.mark.parametrize("frames", [20, 61])
def test_interval_rates_are_those_of_the_representation(frames: int):
    spikes = spikes_of(frames, 12, 13, rate=0.12)
    spikes[:, 0, :3] = [[0, 1, 0]]
    expected = [interval_rate(spikes, frames // 2, k, frames) * np.float32(2.5) for k in (1, 2, 3)]
    found = interval_rates(light_of(spikes, 2.5)[0], [1, 2, 3])[0].numpy()
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-6)
    assert (found[:, 0, 0] == 0).all() and not np.isnan(found).any()
    assert (interval_rates(torch.zeros(1, 8, 2, 2), [1]) == 0).all()


def test_pictures_of_a_stream_come_in_batches_and_in_order(tmp_path):
    seq = spikes_of(20, 8, 16)
    network = Middle(5)
    starts = [0, 3, 15, 7, 1]
    pictures = list(generate_stream(network, seq, starts, batch_size=2))
    assert network.batches == [2, 2, 1]
    for start, picture in zip(starts, pictures, strict=True):
        np.testing.assert_array_equal(picture, 255 * seq[start + 2])
        assert picture.dtype == np.uint8
    write_spikes(tmp_path / "stream.dat", seq)
    stream = SpikeStream(tmp_path / "stream.dat", 8, 16)
    np.testing.assert_array_equal(np.stack(list(generate_stream(network, stream, starts))), np.stack(pictures))


def test_generate_takes_the_threshold_and_names_windows_outside():
    seq = spikes_of(10, 4, 4)
    np.testing.assert_array_equal(generate(Middle(3), seq, 4, threshold=0.2), 51 * seq[5])
    for start in (-1, 8):
        with pytest.raises(ValueError, match=r"outside the stream's \[0, 10\).* from 0 to 7"):
            generate(Middle(3), seq, start)
