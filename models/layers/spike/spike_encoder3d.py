"""Spike encoder: three-dimensional convolutions from voxels of spikes to features at the sizes of VRT's encoder.

The input's channels are K time bins per frame; T is that of the RGB frames. Convolutions run at the sensor's resolution
and below. Finer scales are learned pixel shuffles, as the sensor has no finer detail.
Design: docs/architecture.md. Test: `python -m pytest tests/models/layers/spike/test_spike_encoder3d.py`.

Legend: B batch, T frames, K bins, C channels, H height, W width (of frames), h, w (of spike pictures).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.ops import chunks
from models.layers.ops.chunks import in_chunks, over_frames, recomputing
from models.layers.ops.frame_conv import FrameConv
from models.layers.vrt.stage import ChannelsToSpace
from utils.user_error import UserError
from utils.utils_registry import Faults, check_rules, raise_faults

SCALES = 4  # of VRT's encoder, stages 1 to 4
RATIOS = (1, 2, 4, 8)  # the scales of VRT's encoder: the pyramid starts at one of them
# Scales the deviations of an exposure's bins to about the spread of their mean.
DEVIATION_GAIN = 2.0
Size2 = tuple[int, int]


class VoxelConv(nn.Conv3d):
    """3x3x3 convolution of (B, T, H, W, C), zero padding.

    Computed as a two-dimensional convolution of three neighbouring frames, concatenated along the channels: the same
    sum, several times faster on a CPU with few channels, and without cuDNN's slow three-dimensional kernels.

    Args:
        in_channels, out_channels: C before and after.
        stride: strides in (T, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, T, H, W, in) to (B, T', H', W', out), each side divided by its stride and rounded up."""
        count = (input.shape[1] - 1) // self.stride[0] + 1  # T'
        step = chunks.FRAMES.items(input, 3 * input[:, 0].numel() * input.element_size())
        return in_chunks(lambda frames: self._convolve(input, frames), count, step, dim=1)  # (B, T', H', W', out)

    def _convolve(self, input: Tensor, frames: slice) -> Tensor:
        """The frames `frames` of the result."""
        step, *stride = self.stride
        start, stop = frames.start * step - 1, (frames.stop - 1) * step + 2  # input frames; zeros beyond its ends
        low, high = max(start, 0), min(stop, input.shape[1])
        clip = F.pad(input[:, low:high], (0, 0, 0, 0, 0, 0, low - start, stop - high))  # (B, stop-start, H, W, in)
        last = (frames.stop - frames.start - 1) * step
        triples = torch.cat([clip[:, i : i + last + 1 : step] for i in range(3)], -1)  # (B, T', H, W, 3*in)
        weight = self.weight.transpose(1, 2).flatten(1, 2)  # (out, 3*in, 3, 3)
        images = triples.flatten(0, 1).permute(0, 3, 1, 2)  # (B*T', 3*in, H, W)
        features = F.conv2d(images, weight, self.bias, stride, padding=1)  # (B*T', out, H', W')
        return features.permute(0, 2, 3, 1).unflatten(0, triples.shape[:2])  # (B, T', H', W', out)


class ResidualBlock3D(nn.Module):
    """x + conv(ReLU(conv x)) on (B, T, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = VoxelConv(channels, channels)
        self.conv2 = VoxelConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) to the same shape."""
        return x + self.conv2(F.relu(self.conv1(x)))  # (B, T, H, W, C)


class PixelShuffleUp(nn.Module):
    """Twice the height and width: a 3x3 convolution to four times the channels, which become 2x2 pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = FrameConv(in_channels, 4 * out_channels)
        self.shuffle = ChannelsToSpace()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, in) to (B, T, 2*H, 2*W, out)."""
        return over_frames(self._enlarge, x, self.conv.out_channels / self.conv.in_channels)  # (B, T, 2*H, 2*W, out)

    def _enlarge(self, x: Tensor) -> Tensor:
        features = self.conv(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B*T, H, W, 4*out)
        return self.shuffle(features.unflatten(0, x.shape[:2]))  # (B, T, 2*H, 2*W, out)


class SpikeEncoder3D(nn.Module):
    """Voxels of spikes to features at the four sizes of VRT's encoder.

    A convolution projects the bins' mean and their deviations from it (`mean_and_deviations`). Two residual blocks
    follow at the sensor's scale and at every coarser one, with strided convolutions between the scales. Scales finer
    than the sensor's are pixel shuffles of the next coarser one.

    Args:
        channels: C of the four scales: VRT's `embed_dims[:4]`.
        bins: K, time bins per frame.
        ratio: frame pixels per spike pixel, 1, 2, 4 or 8: the scale at which the pyramid starts. GoPro: 2. Spikes of
            another resolution are resized to it.
        temporal_strides: frames per step from scale 1 to 2, 2 to 3 and 3 to 4; 1 keeps all frames.
        checkpoint: recompute the features in the backward pass, scale by scale: less memory, same result.

    Attributes:
        time_steps: frames per token of each scale.

    Raises:
        UserError: arguments that do not fit together, by their option keys.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        bins: int = 32,
        ratio: int = 2,
        temporal_strides: Sequence[int] = (1, 1, 1),
        checkpoint: bool = False,
    ) -> None:
        raise_faults("netG.spike_", self.faults(locals()))
        super().__init__()
        assert len(channels) == SCALES, channels
        self.bins, self.ratio, self.checkpoint = bins, ratio, checkpoint
        self.start = RATIOS.index(ratio)
        self.time_steps = [1] * SCALES
        self.project = VoxelConv(bins + 1, channels[self.start])
        self.up = nn.ModuleList(PixelShuffleUp(channels[i], channels[i - 1]) for i in range(self.start, 0, -1))
        self.down, self.blocks = nn.ModuleList(), nn.ModuleList()
        for i in range(self.start, SCALES):
            if i > self.start:
                step = temporal_strides[i - 1]
                self.time_steps[i] = self.time_steps[i - 1] * step
                self.down.append(VoxelConv(channels[i - 1], channels[i], (step, 2, 2)))
            self.blocks.append(nn.Sequential(ResidualBlock3D(channels[i]), ResidualBlock3D(channels[i])))

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_bins, _ratio, _temporal_strides, _temporal_strides_above), arguments)

    def forward(self, spikes: Tensor, size: Size2, padded: Size2) -> list[Tensor]:
        """Encodes the spikes of a clip.

        Args:
            spikes: (B, T, K, h, w), any h and w; they have the frames' field of view.
            size: (H, W) of the frames.
            padded: (H, W) of the frames after the network's padding at the bottom and on the right: multiples of 8.

        Returns:
            Features (B, T', H', W', C) at 1, 1/2, 1/4, 1/8 of `padded`; T' is T divided by `time_steps`, rounded up.

        Raises:
            UserError: the number of bins is not `bins`.
        """
        if spikes.dim() != 5 or spikes.shape[2] != self.bins:
            raise UserError(
                f"Spikes are (B, T, {self.bins}, h, w), as netG.spike_bins is {self.bins}; got {tuple(spikes.shape)}. "
                "datasets.*.spike must give as many channels."
            )
        grid = fit_to_grid(spikes, size, padded, self.ratio).permute(0, 1, 3, 4, 2)  # (B, T, h, w, K)
        x = F.relu(self.project(mean_and_deviations(grid)))  # (B, T, h, w, C)
        pyramid: list[Tensor] = []
        for i, blocks in enumerate(self.blocks):
            x = F.relu(self.down[i - 1](x)) if i else x  # (B, T', H', W', C)
            x = recomputing(blocks, self.checkpoint)(x)  # (B, T', H', W', C)
            pyramid.append(x)
        for up in self.up:
            pyramid.insert(0, recomputing(up, self.checkpoint)(pyramid[0]))  # (B, T, 2*H', 2*W', C) of the finer scale
        return pyramid


def mean_and_deviations(bins: Tensor) -> Tensor:
    """Bins (..., K) to their mean and `DEVIATION_GAIN` times their deviations from it, (..., K + 1).

    The mean is brightness, which the frames show better; the motion during the exposure is in the deviations. They are
    small beside the mean, so with the bins as input, training would first have to learn the subtraction.
    """
    mean = bins.mean(-1, keepdim=True)
    return torch.cat((mean, DEVIATION_GAIN * (bins - mean)), -1)


def fit_to_grid(spikes: Tensor, size: Size2, padded: Size2, ratio: int) -> Tensor:
    """Spikes (..., h, w) on pixels that are `ratio` frame pixels wide: (..., padded[0]/ratio, padded[1]/ratio).

    Spikes of that resolution are not resampled. Others are resized, by a triangle filter as wide as two grid pixels if
    the grid is coarser, and by linear interpolation if it is finer. Beyond the frames the last pixel is repeated, as
    in the padding of the frames.

    Args:
        size: (H, W) of the frames, whose field of view the spikes have.
        padded: (H, W) of the padded frames, multiples of `ratio`.
    """
    height, width = (length // ratio for length in padded)
    if registers(spikes.shape[-2:], size, ratio):
        right, bottom = width - spikes.shape[-1], height - spikes.shape[-2]
        if not right and not bottom:
            return spikes
        images = F.pad(spikes.flatten(0, -4), (0, right, 0, bottom), mode="replicate")
        return images.unflatten(0, spikes.shape[:-3])
    rows = _resize_matrix(spikes.shape[-2], size[0], height, ratio, spikes)
    columns = _resize_matrix(spikes.shape[-1], size[1], width, ratio, spikes)
    return rows @ (spikes @ columns.mT)


def registers(spike_size: Sequence[int], size: Size2, ratio: int) -> bool:
    """Whether a spike pixel is `ratio` frame pixels wide and high."""
    return all(pixels * ratio == length for pixels, length in zip(spike_size, size, strict=True))


def _resize_matrix(source: int, length: int, target: int, ratio: int, like: Tensor) -> Tensor:
    """(target, source) weights of the source pixels at each target pixel; rows sum to 1.

    Args:
        source: number of pixels that cover `length` frame pixels.
        target: number of pixels of `ratio` frame pixels each.
    """
    # Pixel i covers [i, i+1), so that both grids are aligned at the picture's edge, not at the first pixel's centre.
    scale = ratio * source / length
    centres = ((torch.arange(target, device=like.device, dtype=like.dtype) + 0.5) * scale - 0.5).clamp(0, source - 1)
    places = torch.arange(source, device=like.device, dtype=like.dtype)
    weights = (1 - (centres[:, None] - places).abs() / max(scale, 1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def _bins(bins: int) -> Faults:
    if bins < 1:
        yield "bins", f"time bins per frame, at least 1; got {bins}"


def _ratio(ratio: int) -> Faults:
    if ratio not in RATIOS:
        yield "ratio", f"frame pixels per spike pixel, choices: {', '.join(map(str, RATIOS))}; got {ratio}"


def _temporal_strides(temporal_strides: Sequence[int]) -> Faults:
    if len(temporal_strides) != SCALES - 1 or min(temporal_strides) < 1:
        yield "temporal_strides", f"{SCALES - 1} numbers, 1 or more; got {list(temporal_strides)}"


def _temporal_strides_above(temporal_strides: Sequence[int], ratio: int) -> Faults:
    first = RATIOS.index(ratio) if ratio in RATIOS else 0
    if any(step > 1 for step in temporal_strides[:first]):
        yield (
            "temporal_strides",
            f"the first {first} are 1, as the pyramid of spike_ratio {ratio} starts below them; got "
            f"{list(temporal_strides)}",
        )
