"""VRT's parallel warping by the kernels of `triton_deform.py`: all pairs of frames of both directions in one call each.

Only the convolutions between the two operators are torch's, channels-last and in autocast's type. The last of them gets
its channels in the order that the kernels read, by its weight's rows.

Compared with the other path by `python scripts/benchmark/bench_alignment.py`.

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction, n pairs of a frame and a direction.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.attention_backend import compute_dtype
from models.layers.parallel_warping import DeformableAlignment
from models.layers.triton_deform import TAPS, alignment_features, deformable_alignment

# What the offset convolutions give at once without gradients.
_RAW_BYTES = 4 << 30


def align(alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
    """What `DeformableAlignment.forward` computes."""
    frames = x.flatten(0, 1).to(compute_dtype(x))
    targets, sources, places = _pairs(x.shape[0], x.shape[1], alignment.reach, x.device)
    flows = flows.flatten(0, 2).float()
    *hidden, last = alignment.conv_offset
    weight, bias = by_tap(last.weight, alignment.reach), by_tap(last.bias, alignment.reach)
    out = x.new_zeros(2 * frames.shape[0], *x.shape[2:])
    step = max(1, _RAW_BYTES // (bias.shape[0] * x.shape[2] * x.shape[3] * frames.element_size()))
    if torch.is_grad_enabled():
        step = len(targets)
    for i in range(0, len(targets), step):
        part = slice(i, i + step)
        features = alignment_features(frames, targets[part], sources[part], flows[part]).permute(0, 3, 1, 2)
        for layer in hidden:
            features = layer(features)
        raw = F.conv2d(features, weight, bias, padding=1).permute(0, 2, 3, 1)
        aligned = deformable_alignment(
            raw, flows[part], frames, sources[part], alignment.weight, alignment.bias, alignment.max_residue
        )
        out.index_copy_(0, places[part], aligned.to(x.dtype))
    backward, forward = out.view(2, *x.shape)
    return backward, forward


def by_tap(parameter: Tensor, reach: int) -> Tensor:
    """A parameter (27*groups, ...) of the last offset convolution with its rows in the order (neighbour, tap, y or x or
    modulation, group), in which `deformable_alignment` takes them."""
    size = parameter.shape[1:]
    offsets, modulations = parameter.split((parameter.shape[0] * 2 // 3, parameter.shape[0] // 3))
    parts = offsets.view(reach, -1, TAPS, 2, *size), modulations.view(reach, -1, TAPS, 1, *size)
    return torch.cat(parts, 3).movedim(1, 3).flatten(0, 3)


def _pairs(batch: int, count: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the frames that are aligned to (n,), of their neighbours (n, K), -1 where there is none, and of the
    places of the results (n,) in (2, B, T)."""
    frames = torch.arange(batch * count, dtype=torch.int32, device=device).view(batch, count)
    targets = torch.stack((frames[:, :-1], frames[:, 1:])).unsqueeze(3)
    steps = torch.arange(1, reach + 1, dtype=torch.int32, device=device)
    sources = targets + torch.stack((steps, -steps)).view(2, 1, 1, -1)
    sources = sources.masked_fill(sources // count != targets // count, -1)
    places = targets + batch * count * torch.arange(2, device=device).view(2, 1, 1, 1)
    return targets.flatten(), sources.flatten(0, 2), places.flatten()


def alignment_difference(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference from `DeformableAlignment.forward` in a small case, in result and gradients, each as a share of
    its largest value.

    Args:
        dtype: autocast's type, or float32 without it.
    """
    with torch.device("meta"):
        alignment = DeformableAlignment(6, 2, 3, 4)
    alignment.to_empty(device=device)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 3, 4, 5, 6), (2, 1, 2, 1, 2, 4, 5), *(parameter.shape for parameter in alignment.parameters())]
    values = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    with torch.no_grad():
        for parameter, value in zip(alignment.parameters(), values[2:], strict=True):
            parameter.copy_(value * 0.1)
    leaves = [values[0].requires_grad_(), values[1].requires_grad_(), *alignment.parameters()]
    results = []
    for run in (align, DeformableAlignment.forward):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            out = torch.stack(run(alignment, *leaves[:2]))
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    return max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in zip(*results, strict=True))
