"""A small U-Net for pictures: residual blocks at full, half and quarter size, with sums as skip connections.

Legend: N pictures, C channels, H height, W width; s = 1, 2, 4 the scale of the features.
"""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from utils.utils_registry import Faults

SCALES = 3  # full, half and quarter size, as in spikling's network


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv x)) on (N,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) to the same shape."""
        return x + self.conv2(F.relu(self.conv1(x)))  # (N,C,H,W)


def channel_faults(channels: Sequence[int]) -> Faults:
    """Faults of `channels` of a `SmallUNet`."""
    if len(channels) != SCALES or min(channels) < 1:
        yield "channels", f"three numbers, 1 or more, for full, half and quarter size; got {list(channels)}"


def block_faults(blocks: Sequence[int]) -> Faults:
    """Faults of `blocks` of a `SmallUNet`."""
    if len(blocks) != SCALES or min(blocks) < 0:
        yield "blocks", f"three numbers, 0 or more, for full, half and quarter size; got {list(blocks)}"


class SmallUNet(nn.Module):
    """U-Net of residual blocks: pictures to features at full size.

    Args:
        in_channels: channels of the pictures.
        channels: C at full, half and quarter size.
        blocks: number of residual blocks of the encoder at each size; the decoder has as many at full and half size.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        assert len(channels) == len(blocks) == SCALES, (channels, blocks)
        self.head = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.encoders = nn.ModuleList(_blocks(*at_scale) for at_scale in zip(channels, blocks, strict=True))
        pairs = list(itertools.pairwise(channels))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1) for fine, coarse in pairs)
        self.decoders = nn.ModuleList(_blocks(*at_scale) for at_scale in zip(channels[:-1], blocks[:-1], strict=True))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N,in_channels,H,W), H and W multiples of 4, to (N,channels[0],H,W)."""
        features = self.encoders[0](F.relu(self.head(pictures)))  # (N,channels[0],H,W)
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(features)
            features = encoder(F.relu(down(features)))  # (N,C,H/s,W/s), s = 2, 4
        for up, decoder, skip in zip(self.ups[::-1], self.decoders[::-1], skips[::-1], strict=True):
            features = decoder(F.relu(up(features) + skip))  # (N,C,H/s,W/s), s = 2, 1
        return features


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
