"""Alignment of frames on a CPU without gradients, in chunks of rows.

The offset network's input and output and the samples have 2 to 9 times the features' channels, so they are computed
for one chunk of rows at a time, which fits the cache. The offset network's hidden layers run on whole frames; its last
layer, offsets, modulation, samples and their product with the weights run chunk by chunk. Results equal those of
`DeformableAlignment.align` up to rounding, in fewer passes: because of

    (10 / scale) * tanh(o) = (10 / scale) * (2 * sigmoid(2 * o) - 1)

one sigmoid computes offsets and modulation, and the last layer's channels are reordered so that its output is the
sampling grid.
Test: `python -m pytest tests/models/layers/test_warping.py`.

Legend: n pairs of frames, C channels, H height, W width, K neighbours, G deformable groups, r rows of a chunk.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.ops import chunks
from models.layers.ops.chunks import slices
from models.layers.ops.deform_conv import TAPS, taps
from models.layers.ops.flow_warp import at_least_float32, flow_warp
from models.layers.ops.linear import product
from models.layers.vrt.alignment import DeformableAlignment


def align_rows(alignment: DeformableAlignment, neighbours: Tensor, current: Tensor, flows: Tensor) -> Tensor:
    """Aligned features (n, C, H, W).

    Args:
        alignment: the layer whose weights are used.
        neighbours: (n, K, C, H, W).
        current: (n, H, W, C).
        flows: (n, K, 2, H, W).
    """
    hidden = _hidden(alignment.conv_offset, neighbours, current, flows)
    last = alignment.conv_offset[6]
    assert isinstance(last, nn.Conv2d)
    weight, bias = _grid_layer(last, alignment.deformable_groups)
    flows = at_least_float32(flows)
    sources = neighbours.to(flows.dtype)
    count, height, width, _ = current.shape
    out = sources.new_empty(count, height * width, alignment.weight.shape[0])
    for rows in slices(height, chunks.ROWS.items(hidden, weight.shape[0] * width * 4)):
        for i in range(count):
            chunk = hidden[i : i + 1, :, max(rows.start - 1, 0) : rows.stop + 1].contiguous()
            raw = at_least_float32(_conv(chunk, weight, bias, rows, height))
            pixels = out[i, rows.start * width : rows.stop * width]
            with torch.autocast("cpu", enabled=False):
                _deformed(alignment, sources[i], raw[0].sigmoid_(), flows[i, :, :, rows], rows, pixels)
    return out.view(count, height, width, -1).permute(0, 3, 1, 2)


def _hidden(layers: nn.Sequential, neighbours: Tensor, current: Tensor, flows: Tensor) -> Tensor:
    """Input of the offset network's last layer, (n, C, H, W)."""
    height = current.shape[1]
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    results = []
    row_bytes = first.in_channels * current.shape[0] * current.shape[2] * current.element_size()
    for rows in slices(height, chunks.ROWS.items(current, row_bytes)):
        top, bottom = max(rows.start - 1, 0), min(rows.stop + 1, height)
        flow = flows[..., top:bottom, :]
        warped = [_channels_last(flow_warp(neighbours[:, k], flow[:, k], top=top)) for k in range(flows.shape[1])]
        flow = flow.flatten(1, 2).permute(0, 2, 3, 1).to(current.dtype)
        # Channels-last in memory, with which convolutions run fastest.
        seen = torch.cat((*warped, current[:, top:bottom], flow), -1).permute(0, 3, 1, 2)
        results.append(_conv(seen, first.weight, first.bias, rows, height))
    x = torch.cat(results, 2) if len(results) > 1 else results.pop()
    for layer in layers[1:6]:
        x = F.leaky_relu_(x, layer.negative_slope) if isinstance(layer, nn.LeakyReLU) else layer(x)
    return x


def _channels_last(x: Tensor) -> Tensor:
    """(n, C, H, W) to a dense (n, H, W, C): one picture at a time, as PyTorch transposes matrices block by block."""
    out = x.new_empty(x.shape[0], x[0, 0].numel(), x.shape[1])
    for to, image in zip(out, x, strict=True):
        to.copy_(image.flatten(1).t())
    return out.view(-1, *x.shape[2:], x.shape[1])


def _conv(chunk: Tensor, weight: Tensor, bias: Tensor | None, rows: slice, height: int) -> Tensor:
    """3x3 convolution of rows `rows` of a picture; `chunk` has one more row on each side, except at the picture's
    edges."""
    at_top, at_bottom = rows.start == 0, rows.stop == height
    if at_top and at_bottom:
        return F.conv2d(chunk, weight, bias, padding=1)
    if at_top or at_bottom:
        chunk = F.pad(chunk, (0, 0, int(at_top), int(at_bottom)))
    return F.conv2d(chunk, weight, bias, padding=(0, 1))


def _grid_layer(layer: nn.Conv2d, groups: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the last layer, reordered: its output is offsets (G, (x, y), taps), doubled, then modulation
    (G, taps)."""
    reordered = []
    assert layer.bias is not None
    for parameter in (layer.weight, layer.bias):
        offsets, modulation = parameter.split((2 * TAPS * groups, TAPS * groups))
        offsets = offsets.unflatten(0, (groups, TAPS, 2)).flip(2).transpose(1, 2).flatten(0, 2)
        reordered.append(torch.cat((2 * offsets, modulation)))
    return reordered[0], reordered[1]


def _deformed(
    alignment: DeformableAlignment, sources: Tensor, gates: Tensor, flows: Tensor, rows: slice, out: Tensor
) -> None:
    """A chunk of the deformable convolution.

    Args:
        sources: (K, C, H, W).
        gates: (27*G, r, W), sigmoid of the output of `_grid_layer`'s layer; overwritten.
        flows: (K, 2, r, W).
        out: (r*W, C), where the result is written.
    """
    reach, channels, height, width = sources.shape
    groups, count = alignment.deformable_groups, rows.stop - rows.start
    size = flows.new_tensor((width, height)).view(2, 1, 1, 1)
    # In `grid_sample`'s coordinates, from -1 to 1 over the picture.
    places = (flows[:, :, None] + taps(rows, width, flows) - alignment.max_residue).mul_(2 / size).add_(1 / size - 1)
    offsets, modulation = gates.split((2 * TAPS * groups, TAPS * groups))
    grid = offsets.view(reach, -1, 2, TAPS, count, width)
    torch.addcmul(places[:, None], grid, 4 * alignment.max_residue / size, out=grid)
    factors = modulation.view(reach, -1, 1, TAPS, count * width)
    kernels = alignment.weight.to(sources.dtype).view(reach, -1, channels * TAPS)
    bias = alignment.bias.to(sources.dtype).view(reach, -1, 1)
    for k, part in enumerate(out.chunk(reach, 1)):
        samples = F.grid_sample(
            sources[k].view(grid.shape[1], -1, height, width),
            grid[k].flatten(2, 3).permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=False,
        )  # fmt: skip
        samples = samples.view(grid.shape[1], -1, TAPS, count * width).mul_(factors[k])
        part.copy_(product(kernels[k], samples.view(channels * TAPS, -1)).add_(bias[k]).t())
