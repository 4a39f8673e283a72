"""models/network_guided.py: starts as a ratio, takes any size, tiles exactly, frames are independent."""

import pytest
import torch
from torch import Tensor, nn

from models.layers.spike.ratios import spike_features
from models.network_guided import Guided, resized
from utils.utils_tile import restore_tiled

BINS = 12  # 2 widths, mean, 6 further rates, 3 constants


def clip(
    height: int = 24, width: int = 32, ratio: int = 2, frames: int = 2, threshold: float = 2.0
) -> tuple[Tensor, ...]:
    """Frames (1,T,3,H,W) and channels (1,T,K,h,w): whole numbers of spikes, times their intensity."""
    generator = torch.Generator().manual_seed(height * width + ratio)
    frame = torch.rand(1, frames, 3, height, width, generator=generator)
    size = (1, frames, BINS - 3, height // ratio, width // ratio)
    rates = torch.randint(0, 9, size, generator=generator).float() * threshold / 32
    constants = torch.tensor([threshold / 32, 0.5, 0.6]).view(3, 1, 1).expand(1, frames, 3, *size[-2:])
    return frame, torch.cat([rates, constants], 2)


def network(trained: bool = True) -> Guided:
    """A small network; as if trained, its last convolution is not zero."""
    torch.manual_seed(0)
    net = Guided(spike_bins=BINS, widths=2, start=1, channels=8, blocks=[1, 1, 2]).eval()
    if trained:
        nn.init.normal_(net.conv_last.weight, std=0.05)
    return net


def test_at_the_start_it_is_mostly_the_ratio_of_one_width() -> None:
    net = network(trained=False)
    assert net.conv_last.bias is not None
    net.conv_last.bias.data[4 * net.start : 4 * net.start + 4] = 100.0
    frames, spikes = clip()
    rates, mean, one_spike = spikes[:, :, 1:2], spikes[:, :, 2:3], spikes[:, :, -3:-2]
    ratio = (rates + one_spike) / (mean + one_spike)
    expected = frames * resized(ratio.log()[0], (24, 32)).exp()
    torch.testing.assert_close(net(frames, spikes), expected, rtol=1e-5, atol=1e-6)


def test_without_the_noise_channel_zeros_stand_in_its_place() -> None:
    spikes = clip()[1][0]
    with_noise, without = spike_features(spikes, 2).features, spike_features(spikes, 2, noise_channel=False).features
    differs = [index for index in range(BINS) if not torch.equal(with_noise[:, index], without[:, index])]
    assert differs == [BINS - 4] and not without[:, BINS - 4].any()
    assert Guided(spike_bins=BINS, widths=2, start=1, channels=4, blocks=[0, 0, 0], noise_channel=False)(*clip()).any()


@pytest.mark.parametrize(("height", "width", "ratio"), [(24, 32, 2), (22, 34, 1), (28, 20, 4), (15, 27, 3), (2, 2, 2)])
def test_any_size_and_ratio(height: int, width: int, ratio: int) -> None:
    frames, spikes = clip(height, width, ratio)
    restored = network()(frames, spikes)
    assert restored.shape == frames.shape and torch.isfinite(restored).all()


def test_frames_are_restored_one_by_one() -> None:
    frames, spikes = clip(frames=3)
    net = network()
    single = torch.cat([net(frames[:, i : i + 1], spikes[:, i : i + 1]) for i in range(3)], 1)
    torch.testing.assert_close(net(frames, spikes), single)


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_tiles_are_exact(ratio: int) -> None:
    net = network()
    frames, spikes = clip(112, 136, ratio, frames=1)
    # The halo of half the overlap is as wide as the receptive field of this small network.
    tiled = restore_tiled(
        net, frames, spikes, tile=(0, 96, 96), overlap=(0, 80, 80), blend=(0, 0, 0), window=Guided.tile_multiple
    )
    torch.testing.assert_close(tiled, net(frames, spikes), rtol=0, atol=1e-5)


def test_ratios_do_not_depend_on_the_threshold() -> None:
    _, low = clip(threshold=1.0)
    _, high = clip(threshold=4.0)
    torch.testing.assert_close(spike_features(low[0], 2).log_ratios, spike_features(high[0], 2).log_ratios)


def test_a_dark_pixel_without_spikes_keeps_its_blurred_value() -> None:
    _, spikes = clip()
    spikes[:, :, : BINS - 3] = 0
    assert (spike_features(spikes[0], 2).log_ratios == 0).all()


def test_all_parameters_learn() -> None:
    frames, spikes = clip()
    net = network()
    net(frames, spikes).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in net.parameters())


@pytest.mark.parametrize(
    "arguments",
    [{"widths": 0}, {"widths": 9}, {"start": 2}, {"start": 5}, {"blocks": [1, 1]}, {"channels": 0}],
    ids=str,
)
def test_arguments_that_do_not_fit(arguments: dict) -> None:
    with pytest.raises(ValueError, match="netG"):
        Guided(**{"spike_bins": BINS, "widths": 2, "start": 1, "channels": 8, "blocks": [1, 1, 1], **arguments})
