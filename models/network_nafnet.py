"""NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), given the spikes as further channels.

    x = x + beta  * conv1x1(sca(gate(depthwise3x3(conv1x1(norm x)))))    gate(u, v) = u * v
    x = x + gamma * conv1x1(gate(conv1x1(norm x)))                       sca(x) = x * conv1x1(mean of x over the frame)
    output  B + conv3x3(U-Net(conv3x3(B and spike channels)))            B blurred frame

A yardstick beside `guided` (`models/network_guided.py`): the same frames and spike channels as plain inputs, a known
network, no ratios. Its pooling is over the picture that it is given, in training a crop: it has no converter for tests
(Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022).

    python main_train_vrt.py --opt options/svrt/train_nafnet_s.json

Legend: B batch, T frames, N = B*T, K spike channels, C features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.network_guided import resized
from utils.utils_registry import NETWORKS, Faults, check_rules, raise_faults


class LayerNorm2d(nn.LayerNorm):
    """Normalisation of every pixel over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (N,C,H,W)


class SimpleGate(nn.Module):
    """The product of the two halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N,2C,H,W) to (N,C,H,W)."""
        first, second = x.chunk(2, 1)  # (N,C,H,W) each
        return first * second


class SimplifiedChannelAttention(nn.Module):
    """Every channel times a weight, a linear function of the means of all channels over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) to the same shape."""
        return x * self.weights(x.mean((2, 3), keepdim=True))  # (N,C,H,W) * (N,C,1,1)


class NAFNetBlock(nn.Module):
    """The paper's block; beta and gamma start at zero, so that it starts as the identity.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.spatial = nn.Sequential(
            LayerNorm2d(channels, eps=1e-6),
            nn.Conv2d(channels, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            SimpleGate(),
            SimplifiedChannelAttention(channels),
            nn.Conv2d(channels, channels, 1),
        )
        self.pointwise = nn.Sequential(
            LayerNorm2d(channels, eps=1e-6),
            nn.Conv2d(channels, wide, 1),
            SimpleGate(),
            nn.Conv2d(channels, channels, 1),
        )
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) to the same shape."""
        x = x + self.beta * self.spatial(x)  # (N,C,H,W)
        return x + self.gamma * self.pointwise(x)  # (N,C,H,W)


@NETWORKS.register("nafnet")
class NAFNet(nn.Module):
    """Restores (B,T,3,H,W), each frame by itself, with spike channels (B,T,K,h,w) of any representation.

    Args:
        spike_bins: K; follows from the data set.
        channels: C at the frame's size, doubled at each halving.
        encoder: blocks before each halving. middle: blocks at the smallest size. decoder: blocks after each doubling,
            the smallest size's first.

    Raises:
        UserError: arguments that are not valid or do not fit together.
    """

    tile_multiple = (1, 1, 1)
    takes_instants = True  # with a representation whose channels say where in the exposure t is

    def __init__(
        self,
        *,
        spike_bins: int = 23,
        channels: int = 16,
        encoder: Sequence[int] = (1, 1, 4),
        middle: int = 4,
        decoder: Sequence[int] = (1, 1, 1),
    ) -> None:
        raise_faults("netG.", self.faults(locals()))
        super().__init__()
        widths = [channels * 2**level for level in range(len(encoder) + 1)]
        self.multiple = 2 ** len(encoder)
        self.conv_first = nn.Conv2d(3 + spike_bins, channels, 3, padding=1)
        self.encoders = nn.ModuleList(_stack(width, count) for width, count in zip(widths, encoder, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths[:-1])
        self.middle = _stack(widths[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2))
            for width in reversed(widths[:-1])
        )
        self.decoders = nn.ModuleList(
            _stack(width, count) for width, count in zip(reversed(widths[:-1]), decoder, strict=True)
        )
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_channels, _blocks), arguments)

    def forward(self, L: Tensor, L_spike: Tensor) -> Tensor:
        """(B,T,3,H,W) RGB in [0,1] and (B,T,K,h,w) to (B,T,3,H,W); any sizes, h x w showing the same as H x W."""
        blurred = L.flatten(0, 1)  # (N,3,H,W)
        height, width = blurred.shape[-2:]
        spikes = resized(L_spike.flatten(0, 1), (height, width))  # (N,K,H,W)
        border = (0, -width % self.multiple, 0, -height % self.multiple)
        # Channels-last is the layout in which LayerNorm2d needs no copies.
        both = F.pad(torch.cat([blurred, spikes], 1), border, mode="replicate")  # (N,3+K,H',W')
        x = self.conv_first(both.contiguous(memory_format=torch.channels_last))  # (N,C,H',W')
        skips = []
        for encode, down in zip(self.encoders, self.downs, strict=True):
            x = encode(x)  # (N,C*2^l,H'/2^l,W'/2^l) at level l
            skips.append(x)
            x = down(x)  # (N,C*2^(l+1),H'/2^(l+1),W'/2^(l+1))
        x = self.middle(x)
        for up, decode, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decode(up(x) + skip)  # (N,C*2^l,H'/2^l,W'/2^l)
        restored = blurred + self.conv_last(x)[..., :height, :width].float()  # (N,3,H,W)
        return restored.unflatten(0, L.shape[:2])  # (B,T,3,H,W)


def _stack(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(NAFNetBlock(channels) for _ in range(blocks)))


def _channels(channels: int) -> Faults:
    if channels < 1:
        yield "channels", f"at least 1; got {channels}"


def _blocks(encoder: Sequence[int], middle: int, decoder: Sequence[int]) -> Faults:
    if min([middle, *encoder, *decoder]) < 0:
        yield "middle", f"numbers of blocks are 0 or more; got {list(encoder)}, {middle}, {list(decoder)}"
    if len(decoder) != len(encoder) or not encoder:
        yield "decoder", f"one number for each of encoder {list(encoder)}, at least one; got {list(decoder)}"
