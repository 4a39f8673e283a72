"""models/network_nafnet.py: the paper's formulas, starts as the input, any size, frames are independent."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import data.select_dataset  # noqa: F401  registers the data sets
import models.select_model  # noqa: F401  registers the losses
from models.network_nafnet import LayerNorm2d, NAFNet, NAFNetBlock
from utils.user_error import UserError
from utils.utils_option import load_options


def network() -> NAFNet:
    torch.manual_seed(0)
    net = NAFNet(spike_bins=5, channels=4, encoder=[1, 1], middle=1, decoder=[1, 1]).eval()
    for module in net.modules():
        if isinstance(module, NAFNetBlock):
            nn.init.normal_(module.beta)
            nn.init.normal_(module.gamma)
    return net


def test_block_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    block, x = NAFNetBlock(4), torch.randn(2, 4, 6, 5)
    assert torch.equal(block(x), x)  # beta and gamma start at zero
    nn.init.normal_(block.beta)
    nn.init.normal_(block.gamma)
    norm, expand, depthwise, _, attention, project = block.spatial
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    y = (x - mean) / (variance + 1e-6).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), y)
    y = F.conv2d(F.conv2d(y, expand.weight, expand.bias), depthwise.weight, depthwise.bias, padding=1, groups=8)
    y = y[:, :4] * y[:, 4:]
    y = y * F.conv2d(y.mean((2, 3), keepdim=True), attention.weights.weight, attention.weights.bias)
    z = x + block.beta * F.conv2d(y, project.weight, project.bias)
    y = F.conv2d(LayerNorm2d.forward(block.pointwise[0], z), block.pointwise[1].weight, block.pointwise[1].bias)
    expected = z + block.gamma * F.conv2d(y[:, :4] * y[:, 4:], block.pointwise[3].weight, block.pointwise[3].bias)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("height", "width", "ratio"), [(8, 12, 2), (7, 13, 1), (10, 9, 3)])
def test_any_size_and_each_frame_by_itself(height: int, width: int, ratio: int) -> None:
    net, generator = network(), torch.Generator().manual_seed(height)
    frames = torch.rand(2, 3, 3, height, width, generator=generator)
    spikes = torch.rand(2, 3, 5, height // ratio, width // ratio, generator=generator)
    restored = net(frames, spikes)
    assert restored.shape == frames.shape and not torch.equal(restored, frames)
    torch.testing.assert_close(net(frames[1:, 1:2], spikes[1:, 1:2]), restored[1:, 1:2])


def test_without_its_last_convolution_it_is_the_blurred_frame() -> None:
    net = network()
    nn.init.zeros_(net.conv_last.weight)
    nn.init.zeros_(net.conv_last.bias)  # type: ignore[arg-type]
    frames = torch.rand(1, 1, 3, 8, 8)
    assert torch.equal(net(frames, torch.rand(1, 1, 5, 4, 4)), frames)


def test_size_beside_the_light_network() -> None:
    """The option file's network has about its parameters."""
    arguments = load_options("options/svrt/train_nafnet_s.json").netG.arguments()
    assert sum(parameter.numel() for parameter in NAFNet(**arguments).parameters()) == 741_091


@pytest.mark.parametrize(
    ("change", "message"),
    [({"channels": 0}, "channels"), ({"middle": -1}, "middle"), ({"decoder": [1]}, "decoder")],
)
def test_faults(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"netG.{message}"):
        NAFNet(**change)  # type: ignore[arg-type]
