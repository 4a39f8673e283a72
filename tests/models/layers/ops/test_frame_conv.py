"""Per-frame convolutions, up-scaling, and the changes of size between stages."""

import pytest
import torch
from torch.nn import functional as F

from models.layers.ops.frame_conv import FrameConv, Upsample
from models.layers.vrt.blocks import GatedMlp, ResidualLinear
from models.layers.vrt.stage import ChannelsToSpace, SpaceToChannels, change_of_size


def test_frame_conv_is_a_three_dimensional_convolution_of_single_frames() -> None:
    conv = FrameConv(3, 5).double()
    x = torch.randn(2, 4, 3, 6, 7, dtype=torch.float64)
    expected = F.conv3d(x.transpose(1, 2), conv.weight, conv.bias, padding=(0, 1, 1)).transpose(1, 2)
    torch.testing.assert_close(conv(x.flatten(0, 1)).view(2, 4, 5, 6, 7), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("scale", "convolutions"), [(2, [0, 5]), (3, [0, 5]), (4, [0, 5, 10]), (8, [0, 5, 10, 15])])
def test_upsample(scale: int, convolutions: list[int]) -> None:
    module = Upsample(scale, 4)
    assert [i for i, part in enumerate(module) if isinstance(part, FrameConv)] == convolutions
    assert module(torch.randn(2, 4, 3, 5)).shape == (2, 4, 3 * scale, 5 * scale)


def test_space_to_channels_order_and_inverse() -> None:
    x = torch.arange(2 * 3 * 4 * 6 * 5).view(2, 3, 4, 6, 5)
    y = SpaceToChannels()(x)
    assert y.shape == (2, 3, 2, 3, 20)
    for column in range(2):
        for row in range(2):
            start = (column * 2 + row) * 5
            assert torch.equal(y[..., start : start + 5], x[:, :, row::2, column::2])
    assert torch.equal(ChannelsToSpace()(y), x)


def test_change_of_size() -> None:
    x = torch.randn(1, 2, 4, 6, 8)
    for kind, shape in (("none", (4, 6)), ("down", (2, 3)), ("up", (8, 12))):
        assert change_of_size(kind, 8, 8)(x).shape == (1, 2, *shape, 8)


def test_gated_mlp_and_residual_linear() -> None:
    mlp, linear = GatedMlp(4, 6, 3), ResidualLinear(4, 4)
    x, y = torch.randn(2, 3, 4, 5, 4), torch.randn(2, 3, 4, 5, 4)
    torch.testing.assert_close(mlp(x), mlp.fc2(F.gelu(mlp.fc11(x)) * mlp.fc12(x)))
    expected = x + F.linear(y, linear.weight, linear.bias)
    torch.testing.assert_close(linear(x, y), expected)
    with torch.no_grad():
        kept = x.clone()
        torch.testing.assert_close(linear(x, y.clone()), expected)
        torch.testing.assert_close(linear(x, y.transpose(2, 3).contiguous().transpose(2, 3)), expected)
        assert torch.equal(x, kept)
