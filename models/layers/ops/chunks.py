"""Running a function one chunk at a time, so that its intermediate results never exist for the whole input.

A chunk is a number of frames, rows, windows or pixels. How many follows from a `Budget`: the bytes that the widest
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
    """Type of the device that computes with x: "cpu", "cuda", ... Layers may take another path on a CPU."""
    return _stand_in or x.device.type


@contextmanager
def laid_out_for(device_type: str) -> Iterator[None]:
    """Inside, all tensors count as those of such a device: for tensors without data (`models/training/estimate.py`)."""
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
        cpu: what stays in a processor's cache, or little more.
        accelerator: on every other device: what keeps it busy.
    """

    cpu: int
    accelerator: int

    def items(self, like: Tensor, item_bytes: int) -> int:
        """Number of items in a chunk on the device of `like`, at least 1; each has `item_bytes` of that result."""
        return max(1, (self.cpu if processor(like) == "cpu" else self.accelerator) // item_bytes)


# Rows of tokens or pixels through several operations. All of them stay in a CPU's second-level caches.
ROWS = Budget(cpu=8 << 20, accelerator=1 << 30)
# Whole frames through convolutions. Smaller chunks make convolutions slower on a CPU; larger ones gain nothing.
FRAMES = Budget(cpu=16 << 20, accelerator=1 << 30)
# Pairs of frames that are aligned. A GPU is given more: all pairs of a training clip go through one call per stage.
PAIRS = Budget(cpu=16 << 20, accelerator=4 << 30)
# Rows or windows that are recomputed in the backward pass, where several times as many results are alive at once.
BACKWARD = Budget(cpu=2 << 20, accelerator=64 << 20)
# Attention scores in the backward pass: two matrices of that size, in batched products that need many windows.
SCORES = Budget(cpu=2 << 20, accelerator=256 << 20)


def slices(length: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most `step` items that cover range(length)."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def in_chunks(function: Callable[[slice], Tensor], length: int, step: int, dim: int = 0) -> Tensor:
    """function(slice(0, length)); without gradients joined from `step` items at a time.

    Args:
        function: the result for a slice of the items, which are along `dim` of the result.
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
        del result  # before the next chunk's is computed
    assert out is not None, length
    return out


def over_frames(function: Callable[[Tensor], Tensor], x: Tensor, widening: float = 1.0) -> Tensor:
    """function(x), (B, T, ...) to (B, T, ...); without gradients a few frames at a time.

    Args:
        function: treats every frame alike and on its own.
        x: (B, T, ...).
        widening: numbers of the widest intermediate or final result over those of x.
    """
    frames = x.flatten(0, 1)[None]  # (1, B*T, ...)
    numbers = max(1, int(frames[0, 0].numel() * widening))
    step = FRAMES.items(x, numbers * x.element_size())
    if torch.is_grad_enabled() or step >= frames.shape[1]:
        return function(x)
    out = in_chunks(lambda chunk: function(frames[:, chunk]), frames.shape[1], step, dim=1)  # (1, B*T, ...)
    return out[0].unflatten(0, x.shape[:2])


def over_rows(function: Callable[..., Tensor], *inputs: Tensor, width: int, out: Tensor | None = None) -> Tensor:
    """function(*inputs), (..., C') each to (..., C); without gradients a chunk of rows at a time.

    Args:
        function: treats every row alike and on its own.
        inputs: of equal shapes but for the last dimension.
        width: numbers in a row of the widest intermediate result.
        out: contiguous, where the result is written without gradients; may be one of the inputs. None: a new tensor
            like the first input.
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
    """function(x, sources) for at most `max_pixels` pixels at a time, with and without gradients.

    A chunk is whole clips, else rows, else parts of a row.

    Args:
        function: treats every pixel alike; a pixel of x depends on that of `sources` and those up to a margin beside.
        x: (B, T, H, W, C).
        sources: None, or (B, T', H + 2*margin, W + 2*margin, C).
        max_pixels: limit of B*H*W in one call.
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
    # `split` has one backward operation for all its chunks, where slices have one of the full size each.
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
    """`torch.cat`, without a copy of a single tensor."""
    return torch.cat(tensors, dim) if len(tensors) > 1 else tensors[0]


def recomputing(function: Callable[..., Tensor], recompute: bool) -> Callable[..., Tensor]:
    """`function`; with `recompute` one that keeps its inputs only, and runs again in the backward pass.

    The function draws nothing at random: the state of random numbers is not put back for the second run.
    """
    if not recompute or not torch.is_grad_enabled():
        return function

    def recomputed(*inputs: object) -> Tensor:
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)

    return recomputed


def add_to(x: Tensor, other: Tensor) -> Tensor:
    """x + other; without gradients it may be written into x, which nothing else may need."""
    if torch.is_grad_enabled() or torch.result_type(x, other) != x.dtype:
        return x + other
    return x.add_(other)
