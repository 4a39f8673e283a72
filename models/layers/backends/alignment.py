"""Alignment of neighbouring frames without gradients, in chunks of frames, and on a CPU also in chunks of rows.

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction (pa_frames / 2), n pairs of a frame
and a direction in time.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from models.layers.backends.cpu.alignment import align_rows
from models.layers.ops import chunks
from models.layers.ops.chunks import processor, slices
from models.layers.vrt.alignment import DeformableAlignment

# Slices of clips and frames, and the next and the previous frames aligned to them.
Aligned = tuple[tuple[slice, slice], Tensor, Tensor]


def aligned_chunks(alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> Iterator[Aligned]:
    """`DeformableAlignment.forward` in chunks of frames.

    Args:
        x: (B, T, H, W, C), T >= 2.
        flows: (2, B, T-1, K, 2, H, W).

    Yields:
        Slices of clips and of frames, and the next and the previous frames aligned to them, (clips, frames, H, W, C)
        each.
    """
    pairs = _pairs_per_chunk(alignment, x)
    frames = max(1, pairs // 2)
    clips, times = max(1, frames // x.shape[1]), min(x.shape[1], frames)
    for clip, time in product(slices(x.shape[0], clips), slices(x.shape[1], times)):
        ahead, behind = _align_frames(alignment, x[clip], flows[:, clip], time, pairs)
        yield (clip, time), ahead, behind
        del ahead, behind  # freed before the next chunk is computed


def _pairs_per_chunk(alignment: DeformableAlignment, x: Tensor) -> int:
    """Pairs of frames in a chunk; the widest result is the offset network's input on a CPU, elsewhere its output."""
    reach, channels = alignment.reach, 27 * alignment.deformable_groups
    if processor(x) == "cpu":
        channels = x.shape[4] * (1 + reach) + 2 * reach
    return chunks.PAIRS.items(x, 4 * channels * x.shape[2] * x.shape[3])


def _align_frames(alignment: DeformableAlignment, x: Tensor, flows: Tensor, times: slice, pairs: int) -> Tensor:
    """Next and previous frames aligned to frames `times` of all clips, (2, B, frames, H, W, C); both directions in one
    call if `pairs` is above 1."""
    aligned = x.new_zeros(2, *x[:, times].shape)
    # (direction, first, last + 1): frames that have a next one, and frames that have a previous one.
    both = ((0, times.start, min(times.stop, x.shape[1] - 1)), (1, max(times.start, 1), times.stop))
    sides = [side for side in both if side[1] < side[2]]
    for together in [sides] if pairs > 1 else [[side] for side in sides]:
        gathered = [_pairs(alignment, x, flows, *side) for side in together]
        neighbours, current, flow = (_cat(tensors) for tensors in zip(*gathered, strict=True))
        images = _align(alignment, neighbours, current, flow).permute(0, 2, 3, 1)  # (n, H, W, C)
        places = [aligned[side, :, start - times.start : stop - times.start] for side, start, stop in together]
        counts = [place.shape[0] * place.shape[1] for place in places]
        for place, part in zip(places, images.split(counts), strict=True):
            place.copy_(part.unflatten(0, place.shape[:2]))
    return aligned


def _pairs(
    alignment: DeformableAlignment, x: Tensor, flows: Tensor, direction: int, start: int, stop: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of `DeformableAlignment.align` for frames start..stop-1 of all clips, and their next (direction 0) or
    previous (1) frames."""
    count, reach = stop - start, alignment.reach
    neighbours = x.new_empty(x.shape[0], count, reach, x.shape[4], *x.shape[2:4])  # (B, count, K, C, H, W)
    for k in range(reach):
        first = start + (-k - 1 if direction else k + 1)
        # Of the neighbours first..first+count-1, those at indices low..high-1 exist.
        low, high = (min(max(end - first, 0), count) for end in (0, x.shape[1]))
        neighbours[:, :low, k].zero_()
        neighbours[:, high:, k].zero_()
        if low < high:
            neighbours[:, low:high, k] = x[:, first + low : first + high].permute(0, 1, 4, 2, 3)
    flow = flows[direction, :, start - direction : stop - direction]  # (B, count, K, 2, H, W)
    return neighbours.flatten(0, 1), x[:, start:stop].flatten(0, 1), flow.flatten(0, 1)


def _align(alignment: DeformableAlignment, neighbours: Tensor, current: Tensor, flows: Tensor) -> Tensor:
    """See `DeformableAlignment.align`."""
    if processor(current) == "cpu":
        return align_rows(alignment, neighbours, current, flows)
    return alignment.align(neighbours, current, flows)


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """`torch.cat`, but a single tensor is not copied."""
    return torch.cat(tuple(tensors)) if len(tensors) > 1 else tensors[0]
