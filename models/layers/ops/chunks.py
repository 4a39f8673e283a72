"""Running a function one chunk at a time, so that its intermediate results exist for one chunk only.

A chunk is a number of frames, rows, windows or pixels. The number follows from a `Budget`: the bytes that the widest
intermediate result of a chunk may take. Chunks change results by rounding at most. With gradients, intermediate results
are kept for the backward pass anyway, so a function runs once on its whole input, or is recomputed (`recomputing`).

Test: `python -m pytest tests/models/layers/ops/test_chunks.py`.

Legend: B batch, T frames, H height, W width, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_stand_in: str | None = None


def processor(x: Tensor) -> str:
    """Type of the device that layers choose their code path for: that of x, unless `laid_out_for` replaces it."""
    return _stand_in or x.device.type


@contextmanager
def laid_out_for(device_type: str) -> Iterator[None]:
    """Makes `processor` return `device_type` inside, to estimate another device's memory with fake tensors
    (`models/training/estimate.py`)."""
    global _stand_in
    before, _stand_in = _stand_in, device_type
    try:
        yield
    finally:
        _stand_in = before


@dataclass(frozen=True)
class Budget:
    """Bytes that the widest intermediate result of a chunk may take.

    Attributes:
        cpu: limit on a CPU, about the size of its caches.
        accelerator: limit on every other device, large enough to keep it busy.
    """

    cpu: int
    accelerator: int

    def items(self, like: Tensor, item_bytes: int) -> int:
        """Number of items in a chunk on the device of `like`, at least 1; each takes `item_bytes`."""
        return max(1, (self.cpu if processor(like) == "cpu" else self.accelerator) // item_bytes)


# Rows of tokens or pixels through several operations: a chunk's results stay in a CPU's second-level caches.
ROWS = Budget(cpu=8 << 20, accelerator=1 << 30)
# Frames through convolutions: on a CPU, smaller chunks are slower, and larger ones are no faster.
FRAMES = Budget(cpu=16 << 20, accelerator=1 << 30)
# Pairs of frames that are aligned. 4 GiB on a GPU holds all pairs of a training clip, so a stage makes one call.
PAIRS = Budget(cpu=16 << 20, accelerator=4 << 30)
# Rows or windows recomputed in the backward pass, which holds several times as many intermediate results.
BACKWARD = Budget(cpu=2 << 20, accelerator=64 << 20)
# Attention scores in the backward pass: two matrices of this size, large enough for batched products of many windows.
SCORES = Budget(cpu=2 << 20, accelerator=256 << 20)


def slices(length: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most `step` items that cover range(length)."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def in_chunks(function: Callable[[slice], Tensor], length: int, step: int, dim: int = 0) -> Tensor:
    """function(slice(0, length)); without gradients concatenated from chunks of `step` items.

    Args:
        function: maps a slice of the items to their results, along `dim`.
        length: number of items.
        step: largest number of items in a chunk.
        dim: dimension of the result, not negative.
    """
    if torch.is_grad_enabled() or step >= length:
        return function(slice(0, length))
    out: Tensor | None = None
    for chunk in slices(length, step):
        result = function(chunk)
        if out is None:
            out = result.new_empty(*result.shape[:dim], length, *result.shape[dim + 1 :])
        out.narrow(dim, chunk.start, chunk.stop - chunk.start).copy_(result)
        del result  # freed before the next chunk is computed
    assert out is not None, length
    return out


def over_frames(function: Callable[[Tensor], Tensor], x: Tensor, widening: float = 1.0) -> Tensor:
    """function(x), (B, T, ...) to (B, T, ...); without gradients in chunks of frames.

    Args:
        function: computes each frame's result from that frame alone.
        x: (B, T, ...).
        widening: size of the widest intermediate or final result over the size of x.
    """
    frames = x.flatten(0, 1)[None]  # (1, B*T, ...)
    numbers = max(1, int(frames[0, 0].numel() * widening))
    step = FRAMES.items(x, numbers * x.element_size())
    if torch.is_grad_enabled() or step >= frames.shape[1]:
        return function(x)
    out = in_chunks(lambda chunk: function(frames[:, chunk]), frames.shape[1], step, dim=1)  # (1, B*T, ...)
    return out[0].unflatten(0, x.shape[:2])


def over_rows(function: Callable[..., Tensor], *inputs: Tensor, width: int, out: Tensor | None = None) -> Tensor:
    """function(*inputs), (..., C') each to (..., C); without gradients in chunks of rows.

    Args:
        function: computes each row's result from that row of the inputs alone.
        inputs: tensors of equal shapes except in the last dimension.
        width: number of elements per row of the widest intermediate result.
        out: contiguous tensor for the result without gradients; may be one of the inputs. None: a new tensor like the
            first input.
    """
    if torch.is_grad_enabled():
        return function(*inputs)
    if out is None:
        out = torch.empty_like(inputs[0], memory_format=torch.contiguous_format)
    rows, of_inputs = out.view(-1, out.shape[-1]), [x.reshape(-1, x.shape[-1]) for x in inputs]  # (rows, C)
    for chunk in slices(rows.shape[0], ROWS.items(rows, width * rows.element_size())):
        rows[chunk] = function(*(x[chunk] for x in of_inputs))
    return out


def over_pixels(
    function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, sources: Tensor | None, max_pixels: int
) -> Tensor:
    """function(x, sources) in chunks of at most `max_pixels` pixels, with and without gradients.

    A chunk consists of whole clips if one fits, else of rows of a clip, else of part of a row.

    Args:
        function: computes each pixel's result from that pixel of x, and from `sources` up to a margin around it.
        x: (B, T, H, W, C).
        sources: None, or (B, T', H + 2*margin, W + 2*margin, C).
        max_pixels: largest B*H*W in one call.
    """
    batch, _, height, width, _ = x.shape
    if batch * height * width <= max_pixels:
        return function(x, sources)
    clips = max(1, max_pixels // (height * width))
    rows = min(height, max(1, max_pixels // width))
    columns = min(width, max_pixels)
    margins = (0, 0) if sources is None else (sources.shape[2] - height, sources.shape[3] - width)

    def of_chunk(first: int, top: int, left: int, chunk: Tensor) -> Tensor:
        if sources is None:
            return function(chunk, None)
        bottom, right = top + chunk.shape[2] + margins[0], left + chunk.shape[3] + margins[1]
        return function(chunk, sources[first : first + chunk.shape[0], :, top:bottom, left:right])

    if not torch.is_grad_enabled():
        out: Tensor | None = None
        for i, j, k in product(range(0, batch, clips), range(0, height, rows), range(0, width, columns)):
            place = (slice(i, i + clips), slice(None), slice(j, j + rows), slice(k, k + columns))
            result = of_chunk(i, j, k, x[place])
            out = result.new_empty(x.shape) if out is None else out
            out[place] = result
        assert out is not None
        return out
    # `split` has one backward operation for all chunks; slices would have one each, every one as large as x.
    results = []
    for i, some_clips in enumerate(x.split(clips)):
        bands = []
        for j, band in enumerate(some_clips.split(rows, 2)):
            bands.append(
                _cat([of_chunk(i * clips, j * rows, k * columns, c) for k, c in enumerate(band.split(columns, 3))], 3)
            )
        results.append(_cat(bands, 2))
    return torch.cat(results)


def _cat(tensors: list[Tensor], dim: int) -> Tensor:
    """`torch.cat`, but a single tensor is not copied."""
    return torch.cat(tensors, dim) if len(tensors) > 1 else tensors[0]


def recomputing(function: Callable[..., Tensor], recompute: bool) -> Callable[..., Tensor]:
    """`function`; with `recompute`, checkpointed: it keeps its inputs only and runs again in the backward pass.

    The function must not use random numbers, as the generator's state is not restored for the second run.
    """
    if not recompute or not torch.is_grad_enabled():
        return function

    def recomputed(*inputs: object) -> Tensor:
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)

    return recomputed


def add_to(x: Tensor, other: Tensor) -> Tensor:
    """x + other; without gradients the result may be written into x, so the caller must not need x afterwards."""
    if torch.is_grad_enabled() or torch.result_type(x, other) != x.dtype:
        return x + other
    return x.add_(other)
