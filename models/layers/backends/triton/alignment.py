"""VRT's parallel warping by the kernels of `deform.py`: one call of each aligns all pairs of frames in both directions.

The convolutions between the two operators are torch's, channels-last and in autocast's type. The rows of the last one's
weight are reordered, so that its output has the kernels' order of channels.

Compared with the other back ends by `python scripts/benchmark/bench_alignment.py`.

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction, n target frames: each frame once
per direction in which it has a neighbour.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.backends.backend import compute_dtype
from models.layers.backends.triton.deform import TAPS, alignment_features, deformable_alignment
from models.layers.ops import chunks
from models.layers.ops.chunks import slices
from models.layers.ops.deform_conv import torchvision_deform_conv3x3
from models.layers.ops.flow_warp import flow_warp
from models.layers.vrt.alignment import DeformableAlignment


def align(alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
    """`DeformableAlignment.forward`: x (B, T, H, W, C) and flows (2, B, T-1, K, 2, H, W) to aligned next and previous
    frames, (B, T, H, W, C) each."""
    frames = x.flatten(0, 1).to(compute_dtype(x))  # (B*T, H, W, C)
    targets, sources, places = _pairs(x.shape[0], x.shape[1], alignment.reach, x.device)  # (n,), (n, K), (n,)
    flows = flows.flatten(0, 2).float()  # (n, K, 2, H, W)
    *hidden, last = alignment.conv_offset
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    weight, bias = (by_tap(parameter, alignment.reach) for parameter in (last.weight, last.bias))
    out = x.new_zeros(2 * frames.shape[0], *x.shape[2:])
    # The widest result is that of the offset convolutions.
    step = chunks.PAIRS.items(x, bias.shape[0] * x.shape[2] * x.shape[3] * frames.element_size())
    for part in slices(len(targets), len(targets) if torch.is_grad_enabled() else step):
        # (n, (K+1)*C + 2*K, H, W), channels-last in memory
        features = alignment_features(frames, targets[part], sources[part], flows[part]).permute(0, 3, 1, 2)
        for layer in hidden:
            features = layer(features)  # (n, C, H, W)
        raw = F.conv2d(features, weight, bias, padding=1).permute(0, 2, 3, 1)  # (n, H, W, 27*groups)
        aligned = deformable_alignment(  # (n, H, W, C)
            raw, flows[part], frames, sources[part], alignment.weight, alignment.bias, alignment.max_residue
        )
        out.index_copy_(0, places[part], aligned.to(x.dtype))
    backward, forward = out.view(2, *x.shape)
    return backward, forward


def by_tap(parameter: Tensor, reach: int) -> Tensor:
    """A parameter (27*groups, ...) of the last offset convolution, its rows reordered to (neighbour, tap, y or x or
    modulation, group) for `deformable_alignment`."""
    size = parameter.shape[1:]
    offsets, modulations = parameter.split((parameter.shape[0] * 2 // 3, parameter.shape[0] // 3))
    parts = offsets.view(reach, -1, TAPS, 2, *size), modulations.view(reach, -1, TAPS, 1, *size)
    return torch.cat(parts, 3).movedim(1, 3).flatten(0, 3)


def _pairs(batch: int, count: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the target frames, (n,), of their neighbours, (n, K), -1 for a missing one, and of the results in
    (2, B, T), (n,)."""
    frames = torch.arange(batch * count, dtype=torch.int32, device=device).view(batch, count)
    targets = torch.stack((frames[:, :-1], frames[:, 1:])).unsqueeze(3)
    steps = torch.arange(1, reach + 1, dtype=torch.int32, device=device)
    sources = targets + torch.stack((steps, -steps)).view(2, 1, 1, -1)
    sources = sources.masked_fill(sources // count != targets // count, -1)
    places = targets + batch * count * torch.arange(2, device=device).view(2, 1, 1, 1)
    return targets.flatten(), sources.flatten(0, 2), places.flatten()


def plain_alignment(
    raw: Tensor, flows: Tensor, frames: Tensor, targets: Tensor, sources: Tensor, weight: Tensor, bias: Tensor,
    residue: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`alignment_features` and `deformable_alignment` by torchvision; all tensors have one type.

    Args:
        raw: (n, H, W, 27*groups), channels in the order of the published weights.
        flows, frames, targets, sources, weight, bias, residue: see these operators.
    """
    count, reach, _, height, width = flows.shape
    with torch.device("meta"):
        alignment = DeformableAlignment(frames.shape[3], 2 * reach, raw.shape[3] // 27, 1)
    alignment.max_residue = residue
    offset, mask = alignment.offsets(raw.permute(0, 3, 1, 2), flows)
    zeros = torch.zeros_like(frames[:1])
    neighbours = torch.cat((frames, zeros))[sources.long()].permute(0, 1, 4, 2, 3)
    warped = flow_warp(neighbours.flatten(0, 1), flows.flatten(0, 1)).view(count, -1, height, width)
    features = torch.cat((warped, frames[targets.long()].permute(0, 3, 1, 2), flows.flatten(1, 2)), 1)
    aligned = torchvision_deform_conv3x3(neighbours.flatten(1, 2), offset, mask, weight, bias)
    return features.permute(0, 2, 3, 1), aligned.permute(0, 2, 3, 1)


def alignment_difference(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference between the kernels and `plain_alignment` in a small case, over results and gradients, each
    relative to its largest value.

    Args:
        dtype: type of frames and raw offsets.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 4, 5, 81), (2, 1, 2, 4, 5), (2, 4, 5, 6), (6, 6, 3, 3), (6,), (2, 4, 5, 20)
    raw, flows, frames, weight, bias, factor = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    leaves = [raw.to(dtype), flows, frames.to(dtype), weight, bias]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    targets = torch.arange(2, dtype=torch.int32, device=device)
    sources = 1 - targets[:, None]

    def plain() -> tuple[Tensor, Tensor]:
        return plain_alignment(leaves[0].float(), flows, leaves[2].float(), targets, sources, weight, bias, 2.5)

    def kernels() -> tuple[Tensor, Tensor]:
        ordered = by_tap(leaves[0].permute(3, 0, 1, 2), 1).permute(1, 2, 3, 0)
        aligned = deformable_alignment(ordered, flows, leaves[2], sources, weight, bias, 2.5)
        return alignment_features(leaves[2], targets, sources, flows), aligned

    results = []
    for run in (kernels, plain):
        out = torch.cat(run(), -1)
        results.append([out.detach(), *torch.autograd.grad((out * factor).sum(), leaves)])
    # torch's `max` returns NaN if there is one; Python's may not.
    return float(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in zip(*results, strict=True)]).max())
