"""Convolutions of single frames, and the up-scaling built from them.

Published checkpoints store them as three-dimensional convolutions with a 1x3x3 kernel; here they run as two-dimensional
ones, which compute the same sum, several times faster on a CPU.

Legend: N frames of all clips, C channels, H height, W width.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RGB = 3  # channels; a frame's other channels follow them
# Scales that pixel shuffles of 2, or one of 3, can reach; 1 keeps the size.
UPSCALES = (1, 2, 3, 4, 8, 16)
# Input of conv_first, in copies of a frame's channels: the frame, and four nearest pixels of each of two neighbours.
WARPED_COPIES = 9


class FrameConv(nn.Conv3d):
    """3x3 convolution of frames (N, C, H, W), with the weight stored as (out, in, 1, 3, 3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=(1, 3, 3), padding=(0, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Frames (N, in, H, W) to (N, out, H, W), channels-last in memory."""
        input = input.contiguous(memory_format=torch.channels_last)
        return F.conv2d(input, self.weight.squeeze(2), self.bias, padding=1)  # (N, out, H, W)


class Upsample(nn.Sequential):
    """Pixel shuffles to `scale` times the size: frames (N, C, H, W) to (N, C, scale*H, scale*W).

    Args:
        scale: one of `UPSCALES` above 1.
        channels: C.
    """

    def __init__(self, scale: int, channels: int) -> None:
        assert scale > 1 and scale in UPSCALES, scale
        factors = [3] if scale == 3 else [2] * int(math.log2(scale))
        layers: list[nn.Module] = []
        for factor in factors:
            # The two Identity modules keep the published keys, which count two transpositions as modules.
            layers += [FrameConv(channels, factor**2 * channels), nn.Identity(), nn.PixelShuffle(factor), nn.Identity()]
            layers.append(nn.LeakyReLU(0.1))
        super().__init__(*layers, FrameConv(channels, channels))


def widen_conv_first(
    state_dict: Mapping[str, Tensor], in_chans: int, *, pa_frames: int = 2, nonblind_denoising: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """An RGB VRT's checkpoint adapted to a network with spike channels after RGB.

    The weights of the RGB channels, in each of the nine copies, are copied to their places in the wider kernel; those
    of the spike channels are zero. The first output therefore equals the RGB network's for any spikes.

    Args:
        state_dict: a network's state dictionary.
        in_chans: 3 + spike channels of the network that the checkpoint is adapted to.
        pa_frames, nonblind_denoising: arguments of that network.

    Returns:
        The new state dictionary, which shares all other tensors, and the widened keys. If `state_dict` is not of an RGB
        network, an unchanged copy and no keys; `load_strict` then reports the mismatch.
    """
    name = "conv_first.weight"
    copies, noise = WARPED_COPIES if pa_frames else 1, int(nonblind_denoising)
    weight = state_dict.get(name)
    if in_chans == RGB or weight is None or weight.shape[1:] != (copies * RGB + noise, 1, 3, 3):
        return dict(state_dict), []
    images, rest = weight[:, : copies * RGB], weight[:, copies * RGB :]
    wide = weight.new_zeros(weight.shape[0], copies, in_chans, *weight.shape[2:])
    wide[:, :, :RGB] = images.unflatten(1, (copies, RGB))
    return {**state_dict, name: torch.cat((wide.flatten(1, 2), rest), 1)}, [name]
