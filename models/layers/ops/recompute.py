"""A block a few windows at a time, keeping nothing for the backward pass but the block's input.

`in_parts` takes tokens through a function of windows without gradients. `recomputed` is the same, differentiable: going
backward it takes each part through the function once more, and back. What `torch.utils.checkpoint` recomputes lives all
at once; here no intermediate result is larger than a part's, which stays in a CPU's cache.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.layers.vrt.window_attention import Biases, WindowAttention
from models.layers.vrt.window_layout import Part, WindowLayout


@dataclass(frozen=True)
class Windowed:
    """A function of windows, and which windows it takes at a time.

    Attributes:
        function: tokens (windows * N, C) of a part, the part, and the biases, to the tokens that take their place. It
            draws nothing at random.
        attention: whose biases these are. keys_first: how they lie (`WindowBackend`).
        layout: how the windows lie.
        step: windows at a time. step_back: the same in the backward pass.
    """

    function: Callable[[Tensor, Part, Biases], Tensor]
    attention: WindowAttention
    keys_first: bool
    layout: WindowLayout
    step: int
    step_back: int

    def biases(self) -> Biases:
        """See `WindowAttention.biases`."""
        return self.attention.biases(self.layout.window, [kind for kind, _ in self.layout.segments], self.keys_first)


def in_parts(windowed: Windowed, tokens: Tensor, out: Tensor) -> Tensor:
    """`out`, filled part by part without gradients. Each window is read and written once: it may be `tokens`.

    Args:
        tokens, out: (B*T*H*W, C).
    """
    biases = windowed.biases()
    for part in windowed.layout.parts(windowed.step):
        part.put(windowed.function(part.take(tokens), part, biases), out)
    return out


def recomputed(windowed: Windowed, tokens: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """What `in_parts` computes, differentiable once in tokens and parameters.

    Args:
        tokens: (B*T*H*W, C).
        parameters: all that the function uses, and the table of the biases.

    Returns:
        (B*T*H*W, C).
    """
    return _Recomputed.apply(windowed, tokens, *parameters)


class _Recomputed(torch.autograd.Function):
    """`in_parts`, whose backward pass computes again what lies between input and output."""

    @staticmethod
    def forward(ctx, windowed, tokens, *parameters):  # type: ignore[no-untyped-def]
        ctx.windowed, ctx.autocast = windowed, _autocast_as_now(tokens.device.type)
        ctx.parameters = parameters
        # The parameters too: that they were not changed in the meantime is checked.
        ctx.save_for_backward(tokens, *parameters)
        return in_parts(windowed, tokens, torch.empty_like(tokens))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        tokens = ctx.saved_tensors[0]
        with torch.enable_grad(), ctx.autocast():
            return None, *_gradients(ctx.windowed, grad, tokens, ctx.parameters, ctx.needs_input_grad[1:])


def _gradients(
    windowed: Windowed, grad: Tensor, tokens: Tensor, parameters: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of tokens and parameters where needed, given that of the output."""
    table = windowed.attention.relative_position_bias_table
    biases = windowed.biases()
    # Leaves, each for all parts of its kind: the way on to the table is gone once.
    leaves = {kind: (own.detach().requires_grad_(own.requires_grad), other) for kind, (own, other) in biases.items()}
    learned = [p for p, wanted in zip(parameters, needed[1:], strict=True) if wanted and p is not table]
    sums = {leaf: _zeros(leaf) for leaf in (*learned, *(own for own, _ in leaves.values() if own.requires_grad))}
    grad_tokens = torch.empty_like(tokens) if needed[0] else None
    for part in windowed.layout.parts(windowed.step_back):
        rows = part.take(tokens.detach()).requires_grad_(needed[0])
        inputs = [
            leaf for leaf in (rows, *learned, *(leaves[kind][0] for kind, _ in part.segments)) if leaf.requires_grad
        ]
        results = windowed.function(rows, part, leaves)
        for leaf, one in zip(inputs, torch.autograd.grad(results, inputs, part.take_gradient(grad)), strict=True):
            if leaf is not rows:
                sums[leaf] += one
            elif grad_tokens is not None:
                part.put(one, grad_tokens)
    if table.requires_grad:
        own, grads = zip(
            *((biases[kind][0], sums[leaf].to(leaf.dtype)) for kind, (leaf, _) in leaves.items()), strict=True
        )
        (sums[table],) = torch.autograd.grad(own, table, grads)
    return [
        grad_tokens,
        *(sums[p].to(p.dtype) if wanted else None for p, wanted in zip(parameters, needed[1:], strict=True)),
    ]


def _zeros(like: Tensor) -> Tensor:
    """Where gradients are summed: at least in float32."""
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32), requires_grad=False)


def _autocast_as_now(device_type: str) -> Callable[[], AbstractContextManager]:
    """Makes autocast's state of now. Without its cache, which may hold weights that were cast without gradients."""
    return partial(
        torch.autocast,
        device_type,
        dtype=torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
        cache_enabled=False,
    )
