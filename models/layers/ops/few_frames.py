"""A few frames at a time without gradients: what lies between two feature maps never exists for a whole clip.

Used where a frame depends on itself, or on itself and its neighbours. With gradients everything is kept for the
backward pass anyway, and goes in one call.
Test: `python -m pytest tests/models/layers/ops/test_few_frames.py`.

Legend: B batch, T frames.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from models.layers.ops.processor import processor

# Widest intermediate result of a call.
_BYTES = {"cpu": 16 << 20}
_BYTES_ACCELERATOR = 1 << 30


def at_once(like: Tensor, size: int) -> int:
    """How many things to take in one call on this tensor's device, if the widest result of each has `size` numbers."""
    limit = _BYTES.get(processor(like), _BYTES_ACCELERATOR)
    return max(1, limit // (size * like.element_size()))


def few_frames(function: Callable[[Tensor], Tensor], x: Tensor, widening: float = 1.0) -> Tensor:
    """function(x), (B, T, ...) to (B, T, ...).

    Args:
        function: treats every frame alike and on its own.
        x: (B, T, ...).
        widening: numbers of the widest intermediate or final result over those of x.
    """
    images = x.flatten(0, 1)[None]
    step = at_once(x, max(1, int(images[0, 0].numel() * widening)))
    if torch.is_grad_enabled() or step >= images.shape[1]:
        return function(x)
    return joined(map(function, images.split(step, 1)), images.shape[1], 1)[0].unflatten(0, x.shape[:2])


def joined(parts: Iterable[Tensor], length: int, dim: int) -> Tensor:
    """`torch.cat(parts, dim)`, `length` long in that dimension, of parts that are made one after the other."""
    out: Tensor | None = None
    start = 0
    for part in parts:
        if out is None:
            out = part.new_empty(*part.shape[:dim], length, *part.shape[dim + 1 :])
        out.narrow(dim, start, part.shape[dim]).copy_(part)
        start += part.shape[dim]
    assert out is not None and start == length, (start, length)
    return out


def plus(fresh: Tensor, other: Tensor) -> Tensor:
    """fresh + other; without gradients it may take the place of `fresh`, which nothing else may need."""
    if torch.is_grad_enabled() or torch.result_type(fresh, other) != fresh.dtype:
        return fresh + other
    return fresh.add_(other)
