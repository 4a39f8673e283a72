"""The spike pyramid: its convolution against torch's, its sizes, how spikes come onto its grid, what runs where."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.spike.spike_encoder3d import SpikeEncoder3D, VoxelConv, fit_to_grid

CHANNELS = [8, 12, 8, 12]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encoder(seed: int = 0, **options: Any) -> SpikeEncoder3D:
    torch.manual_seed(seed)
    return SpikeEncoder3D(CHANNELS, **{"bins": 3, **options}).double()


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("size", [(1, 4, 4), (5, 7, 4), (6, 8, 9)])
def test_convolution_is_the_three_dimensional_one(stride: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    conv = VoxelConv(3, 5, stride).double()
    x = noise(2, 3, *size)
    expected = F.conv3d(x, conv.weight, conv.bias, stride, padding=1)
    torch.testing.assert_close(conv(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3), expected, rtol=0, atol=1e-12)


def test_pyramid_equals_its_definition() -> None:
    """In torch's own layout: mean and deviations, projection, residual blocks, strided convolutions, pixel shuffle."""
    network, spikes = encoder(), noise(2, 3, 3, 8, 12)

    def conv(module: VoxelConv, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        return F.conv3d(x, module.weight, module.bias, stride, padding=1)

    def residual_blocks(i: int, x: Tensor) -> Tensor:
        for part in network.blocks[i]:  # type: ignore[union-attr]
            x = x + conv(part.conv2, conv(part.conv1, x).relu())
        return x

    mean = spikes.mean(2, keepdim=True)
    around = torch.cat((mean, 2 * (spikes - mean)), 2)
    levels = [residual_blocks(0, conv(network.project, around.transpose(1, 2)).relu())]
    for i in (1, 2):
        levels.append(residual_blocks(i, conv(network.down[i - 1], levels[-1], (1, 2, 2)).relu()))  # type: ignore[arg-type]
    up: Any = network.up[0]
    wide = F.conv3d(levels[0], up.conv.weight, up.conv.bias, padding=(0, 1, 1)).transpose(1, 2)
    # Channels are in the order (column, row, channel), as in VRT.
    pixels = wide.unflatten(2, (2, 2, -1)).permute(0, 4, 1, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)
    with torch.no_grad():
        for features, reference in zip(network(spikes, (16, 24), (16, 24)), [pixels, *levels], strict=True):
            torch.testing.assert_close(features, reference.permute(0, 2, 3, 4, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("frames", [1, 3])
def test_four_scales(ratio: int, frames: int) -> None:
    pyramid = encoder(ratio=ratio)(noise(2, frames, 3, 32 // ratio, 48 // ratio), (32, 48), (32, 48))
    assert [tuple(f.shape) for f in pyramid] == [(2, frames, 32 >> i, 48 >> i, c) for i, c in enumerate(CHANNELS)]
    assert all(features.is_contiguous() for features in pyramid)


@pytest.mark.parametrize("size", [(16, 24), (12, 18), (13, 21), (1, 1)])
@pytest.mark.parametrize("spike_size", [(16, 24), (8, 12), (4, 6), (5, 7), (23, 11)])
def test_any_size_of_spikes_and_frames(size: tuple[int, int], spike_size: tuple[int, int]) -> None:
    padded = (-(-size[0] // 8) * 8, -(-size[1] // 8) * 8)
    pyramid = encoder()(noise(1, 2, 3, *spike_size), size, padded)
    assert [f.shape[2:4] for f in pyramid] == [(padded[0] >> i, padded[1] >> i) for i in range(4)]


def test_convolutions_run_at_the_sensors_resolution_at_most() -> None:
    network, sizes = encoder(ratio=2), []
    for module in network.modules():
        if isinstance(module, VoxelConv):
            module.register_forward_hook(lambda module, args, result: sizes.append(tuple(args[0].shape[2:4])))
    network(noise(1, 2, 3, 16, 16), (32, 32), (32, 32))
    assert sizes == [(16, 16)] * 6 + [(8, 8)] * 5 + [(4, 4)] * 4


def test_temporal_strides_thin_out_the_smaller_scales() -> None:
    network = encoder(temporal_strides=[1, 2, 2])
    assert network.time_steps == [1, 1, 2, 4]
    pyramid = network(noise(1, 5, 3, 8, 8), (16, 16), (16, 16))
    assert [f.shape[1] for f in pyramid] == [5, 5, 3, 2]


def test_registered_spikes_are_taken_as_they_are() -> None:
    spikes = noise(1, 2, 3, 6, 10)
    assert fit_to_grid(spikes, (12, 20), (12, 20), 2) is spikes
    padded = fit_to_grid(spikes, (12, 20), (16, 24), 2)
    assert torch.equal(padded[..., :6, :10], spikes)
    assert torch.equal(padded[..., 6:, :], padded[..., 5:6, :].expand(-1, -1, -1, 2, -1))
    assert torch.equal(padded[..., 10:], padded[..., 9:10].expand(-1, -1, -1, -1, 2))


@pytest.mark.parametrize("spike_size", [(48, 48), (24, 24), (12, 12), (17, 19)])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_resizing_keeps_places(spike_size: tuple[int, int], ratio: int) -> None:
    """A picture that is linear in the frame's coordinates stays the same linear picture, on every grid; where a coarser
    one does not divide the spikes', to a fifth of a frame pixel.
    """

    def ramp(pixels: int, length: float) -> Tensor:
        return (torch.arange(pixels, dtype=torch.float64) + 0.5) * length / pixels

    spikes = ramp(spike_size[0], 48)[:, None] + 100 * ramp(spike_size[1], 48)
    grid = fit_to_grid(spikes[None, None, None], (48, 48), (48, 56), ratio)[0, 0, 0]
    reference = ramp(48 // ratio, 48)[:, None] + 100 * ramp(48 // ratio, 48)
    inside = slice(8 // ratio, 40 // ratio)  # the border's pixels have no neighbour beyond it
    slack = 1e-9 if spike_size[0] in (48, 24, 12) or ratio < 4 else 0.2 * 101
    torch.testing.assert_close(grid[inside, inside], reference[inside, inside], rtol=0, atol=slack)
    beyond = grid[:, 48 // ratio :]
    torch.testing.assert_close(beyond, beyond[:, :1].expand_as(beyond), rtol=0, atol=1e-9)


def test_a_coarser_grid_averages() -> None:
    """Every spike pixel inside counts the same: nothing is skipped."""
    total = torch.zeros(32, dtype=torch.float64)
    for i in range(32):
        spikes = torch.zeros(1, 1, 1, 32, 1, dtype=torch.float64)
        spikes[..., i, 0] = 1
        total[i] = fit_to_grid(spikes, (32, 8), (32, 8), 4).sum()
    torch.testing.assert_close(total[8:24], total[8:9].expand(16), rtol=0, atol=1e-12)


def test_reversed_time_is_seen() -> None:
    network, spikes = encoder(), noise(1, 4, 3, 8, 8)
    forward, backward = network(spikes, (16, 16), (16, 16)), network(spikes.flip(1), (16, 16), (16, 16))
    for a, b in zip(forward, backward, strict=True):
        assert (a - b.flip(1)).abs().mean() > 0.01 * a.abs().mean()


def test_recomputing_changes_nothing_and_keeps_less() -> None:
    results = []
    for recompute in (False, True):
        network, spikes = encoder(checkpoint=recompute), noise(1, 3, 3, 8, 8).requires_grad_()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.nbytes), t)[1], lambda t: t
        ):
            loss = torch.stack([f.square().mean() for f in network(spikes, (16, 16), (16, 16))]).sum()
        gradients = torch.autograd.grad(loss, [spikes, *network.parameters()])
        results.append((loss, gradients, sum(sizes)))
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(a, b)
    assert results[1][2] < results[0][2] / 2


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match=r"netG\.spike_bins is 3; got \(1, 2, 4, 8, 8\)"):
        encoder()(noise(1, 2, 4, 8, 8), (16, 16), (16, 16))
    with pytest.raises(ValueError) as error:
        SpikeEncoder3D(CHANNELS, bins=0, ratio=3, temporal_strides=[1, 1])
    assert all(f"netG.spike_{key}" in str(error.value) for key in ("bins", "ratio", "temporal_strides"))
    with pytest.raises(ValueError, match="the first 1 are 1"):
        SpikeEncoder3D(CHANNELS, ratio=2, temporal_strides=[2, 1, 1])
