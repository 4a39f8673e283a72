"""NAF blocks (Chen et al., "Simple Baselines for Image Restoration", 2022) without their global pooling.

    x = x + beta  * conv1x1(gate(depthwise3x3(conv1x1(norm x))))        gate(u, v) = u * v
    x = x + gamma * conv1x1(gate(conv1x1(norm x)))

Without the pooling (simplified channel attention), a pixel's result depends on its receptive field alone, so it is the
same in a tile and in the whole picture. Features are channels-last, as the normalisation needs, and in which CPUs
convolve faster (13.0 against 9.1 crops a second in training, one thread).

Legend: N pictures, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.ops.linear import linear
from utils.utils_registry import Faults

SCALES = 3  # full, half and quarter size: the layers that `NAFUNet.forward` calls


class NAFBlock(nn.Module):
    """One block on channels-last features (N,H,W,C), where 1x1 convolutions are linear layers.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = nn.LayerNorm(channels)
        self.expand1 = nn.Linear(channels, wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.project1 = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.expand2 = nn.Linear(channels, wide)
        self.project2 = nn.Linear(channels, channels)
        # Small, so that a deep stack starts near the identity; not zero, so that all weights have gradients at once.
        self.beta = nn.Parameter(torch.full((channels,), 0.1))
        self.gamma = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(N,H,W,C) to the same shape."""
        y = apply_linear(self.expand1, self.norm1(x)).permute(0, 3, 1, 2)  # (N,2C,H,W), a view
        u, v = self.depthwise(y).permute(0, 2, 3, 1).chunk(2, -1)  # (N,H,W,C) each
        x = add_scaled(x, self.project1, u * v, self.beta)  # (N,H,W,C)
        u, v = apply_linear(self.expand2, self.norm2(x)).chunk(2, -1)  # (N,H,W,C) each
        return add_scaled(x, self.project2, u * v, self.gamma)  # (N,H,W,C)


def apply_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)`, (...,in) to (...,out), by `models.layers.ops.linear`."""
    return linear(x, layer.weight, layer.bias)  # (...,out)


def add_scaled(x: Tensor, layer: nn.Linear, y: Tensor, scale: Tensor) -> Tensor:
    """x + layer(y) * scale, (...,out), for x (...,out), y (...,in) and scale (out,).

    The factor is multiplied into the weights, so that the sum can be done while the product is in registers.
    """
    return linear(y, layer.weight * scale[:, None], layer.bias * scale, plus=x)  # (...,out)


def block_faults(blocks: Sequence[int]) -> Faults:
    """Faults of `blocks` of a `NAFUNet`."""
    if len(blocks) != SCALES or min(blocks) < 0:
        yield "blocks", f"three numbers, 0 or more, one for each scale; got {list(blocks)}"


class NAFUNet(nn.Module):
    """U-Net of NAF blocks at three scales, with sums as skip connections.

    Args:
        channels: C at full size; doubled at each further scale.
        blocks: number of NAF blocks of the encoder at each scale; the decoder has as many at full and half size.
    """

    def __init__(self, channels: int, blocks: Sequence[int]) -> None:
        super().__init__()
        assert len(blocks) == SCALES, blocks
        first, second, third = (channels * 2**scale for scale in range(SCALES))
        self.encode1, self.decode1 = _stack(first, blocks[0]), _stack(first, blocks[0])
        self.encode2, self.decode2 = _stack(second, blocks[1]), _stack(second, blocks[1])
        self.bottom = _stack(third, blocks[2])
        self.down1, self.down2 = nn.Linear(4 * first, second), nn.Linear(4 * second, third)
        self.up1, self.up2 = nn.Linear(second, 4 * first), nn.Linear(third, 4 * second)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W), H and W multiples of 4, to the same shape."""
        x1 = self.encode1(x.permute(0, 2, 3, 1).contiguous())  # (N,H,W,C)
        x2 = self.encode2(halved(x1, self.down1))  # (N,H/2,W/2,2C)
        x3 = self.bottom(halved(x2, self.down2))  # (N,H/4,W/4,4C)
        x2 = self.decode2(x2 + doubled(apply_linear(self.up2, x3)))  # (N,H/2,W/2,2C)
        return self.decode1(x1 + doubled(apply_linear(self.up1, x2))).permute(0, 3, 1, 2)  # (N,C,H,W), a view


def halved(x: Tensor, layer: nn.Linear) -> Tensor:
    """(N,H,W,C) to (N,H/2,W/2,C'): a 2x2 convolution of stride 2, as a linear layer on squares of four pixels."""
    number, height, width, channels = x.shape
    squares = x.view(number, height // 2, 2, width // 2, 2, channels).transpose(2, 3)  # (N,H/2,W/2,2,2,C)
    return apply_linear(layer, squares.reshape(number, height // 2, width // 2, 4 * channels))


def doubled(x: Tensor) -> Tensor:
    """(N,H,W,4C) to (N,2H,2W,C): channels become squares of four pixels, the inverse of the first step of `halved`."""
    number, height, width, channels = x.shape
    squares = x.view(number, height, width, 2, 2, channels // 4).transpose(2, 3)  # (N,H,2,W,2,C)
    return squares.reshape(number, 2 * height, 2 * width, channels // 4)


def _stack(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(blocks)))
