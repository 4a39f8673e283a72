"""Base of the back ends whose attention takes tensors in window order, and how they run a block.

Without gradients the block runs on one chunk of windows at a time, so that intermediate results stay in the processor's
cache. With gradients, on a CPU or if the block is to be recomputed, the forward pass does the same and keeps the
block's input only; the backward pass runs forward and backward of one chunk at a time. Intermediate results then exist
for one chunk, whereas `torch.utils.checkpoint` recomputes those of the whole block together. In all other cases the
block runs on all windows at once.

Test: `python -m pytest tests/models/layers/backends/test_recompute.py`.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.layers.backends.backend import Backend
from models.layers.ops import chunks
from models.layers.ops.chunks import processor, recomputing
from models.layers.vrt.blocks import TMSA, BranchFactors
from models.layers.vrt.window_attention import Biases, WindowAttention
from models.layers.vrt.window_layout import WindowLayout, Windows, from_windows, to_windows


class WindowBackend(Backend):
    """Attention on tensors in window order.

    Attributes:
        keys_first: `attend` takes the bias transposed, keys before queries.
    """

    keys_first = False

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """softmax(q kT * scale + bias) v, differentiable in all four tensors.

        Args:
            q, k, v: (windows, heads, N, head_dim), any strides.
            bias: (1, 1 or heads, N, N), the same for every window; see `keys_first`.
            scale: factor of q kT.

        Returns:
            (windows, heads, N, head_dim).
        """

    def run_chunked(
        self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors, overwrite: bool
    ) -> Tensor:
        """See `Backend.run_chunked`. Each window is read and written once, so the result may overwrite its input."""
        return self._whole_block(block, layout, factors).run(tokens, tokens if overwrite else torch.empty_like(tokens))

    def run_differentiable(self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
        """See `Backend.run_differentiable`. On a CPU every block that isn't compiled is recomputed."""
        recompute = processor(tokens) == "cpu" or (block.checkpoint_attn and block.checkpoint_ffn)
        if block.is_compiled or not (recompute or block.checkpoint_attn):
            return super().run_differentiable(block, tokens, layout, factors)
        if recompute:
            return self._whole_block(block, layout, factors).recomputed(tokens, list(block.parameters()))
        parameters = [*block.norm1.parameters(), *block.attn.parameters()]
        return block.add_mlp(self._attention_half(block, layout, factors).recomputed(tokens, parameters), factors.mlp)

    def run_whole(self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
        """See `Backend.run_whole`."""
        biases = block.attn.biases(layout.window, layout.kinds, self.keys_first)
        x = to_windows(tokens, layout)  # (windows * N, C)
        x = recomputing(block.add_attention, block.checkpoint_attn)(x, layout, biases, self.attend, factors.attention)
        tokens = from_windows(x, layout)  # (B*T*H*W, C)
        return recomputing(block.add_mlp, block.checkpoint_ffn)(tokens, factors.mlp)  # (B*T*H*W, C)

    def _whole_block(self, block: TMSA, layout: WindowLayout, factors: BranchFactors) -> "WindowFunction":
        def function(x: Tensor, windows: Windows, biases: Biases) -> Tensor:
            return block.forward(x, windows, biases, self.attend, factors)

        return WindowFunction(function, block.attn, self.keys_first, layout)

    def _attention_half(self, block: TMSA, layout: WindowLayout, factors: BranchFactors) -> "WindowFunction":
        def function(x: Tensor, windows: Windows, biases: Biases) -> Tensor:
            return block.add_attention(x, windows, biases, self.attend, factors.attention)

        return WindowFunction(function, block.attn, self.keys_first, layout)


@dataclass(frozen=True)
class WindowFunction:
    """A function of windows, and the layout on whose windows it runs in chunks.

    Attributes:
        function: maps tokens (windows * N, C), their windows and the biases to the new tokens, without random numbers.
        attention: the attention that computes the biases. keys_first: their order (`WindowBackend`).
        layout: all windows of the grid.
    """

    function: Callable[[Tensor, Windows, Biases], Tensor]
    attention: WindowAttention
    keys_first: bool
    layout: WindowLayout

    def biases(self) -> Biases:
        """See `WindowAttention.biases`."""
        return self.attention.biases(self.layout.window, self.layout.kinds, self.keys_first)

    def step(self, tokens: Tensor, budget: chunks.Budget) -> int:
        """Windows in a chunk; the widest intermediate results are queries, keys and values, 3*C channels."""
        return max(
            1, budget.items(tokens, 3 * tokens.shape[1] * tokens.element_size()) // self.layout.tokens_per_window
        )

    def run(self, tokens: Tensor, out: Tensor) -> Tensor:
        """Fills `out` chunk by chunk, without gradients, and returns it.

        Args:
            tokens: (B*T*H*W, C).
            out: (B*T*H*W, C); may be `tokens`.
        """
        biases = self.biases()
        for windows in self.layout.chunks(self.step(tokens, chunks.ROWS)):
            windows.put(self.function(windows.take(tokens), windows, biases), out)
        return out

    def recomputed(self, tokens: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """`run` with first derivatives in tokens and parameters.

        Args:
            tokens: (B*T*H*W, C).
            parameters: all parameters that the function uses, and the table of the biases.

        Returns:
            (B*T*H*W, C).
        """
        return _Recomputed.apply(self, tokens, *parameters)


class _Recomputed(torch.autograd.Function):
    """`WindowFunction.run`; the backward pass recomputes intermediate results."""

    @staticmethod
    def forward(ctx, of_windows, tokens, *parameters):  # type: ignore[no-untyped-def]
        ctx.of_windows, ctx.autocast = of_windows, _autocast_as_now(tokens.device.type)
        ctx.parameters = parameters
        # Save the parameters too: autograd then raises an error if one was changed in place before the backward pass.
        ctx.save_for_backward(tokens, *parameters)
        return of_windows.run(tokens, torch.empty_like(tokens))  # (B*T*H*W, C)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        tokens = ctx.saved_tensors[0]
        with torch.enable_grad(), ctx.autocast():
            return None, *_gradients(ctx.of_windows, grad, tokens, ctx.parameters, ctx.needs_input_grad[1:])


def _gradients(
    of_windows: WindowFunction, grad: Tensor, tokens: Tensor, parameters: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of tokens and parameters where needed, given that of the output."""
    table = of_windows.attention.relative_position_bias_table
    biases = of_windows.biases()
    # One leaf per kind of windows for all chunks, so that the table's gradient is computed once from their sums.
    leaves = {kind: (own.detach().requires_grad_(own.requires_grad), other) for kind, (own, other) in biases.items()}
    learned = [p for p, need in zip(parameters, needed[1:], strict=True) if need and p is not table]
    sums = {leaf: _zeros(leaf) for leaf in (*learned, *(own for own, _ in leaves.values() if own.requires_grad))}
    grad_tokens = torch.empty_like(tokens) if needed[0] else None
    for windows in of_windows.layout.chunks(of_windows.step(tokens, chunks.BACKWARD)):
        rows = windows.take(tokens.detach()).requires_grad_(needed[0])  # (windows * N, C)
        inputs = [x for x in (rows, *learned, *(leaves[kind][0] for kind in windows.kinds)) if x.requires_grad]
        results = of_windows.function(rows, windows, leaves)
        for leaf, one in zip(inputs, torch.autograd.grad(results, inputs, windows.take_gradient(grad)), strict=True):
            if leaf is not rows:
                sums[leaf] += one
            elif grad_tokens is not None:
                windows.put(one, grad_tokens)
    if table.requires_grad:
        own, grads = zip(
            *((biases[kind][0], sums[leaf].to(leaf.dtype)) for kind, (leaf, _) in leaves.items()), strict=True
        )
        (sums[table],) = torch.autograd.grad(own, table, grads)
    return [
        grad_tokens,
        *(sums[p].to(p.dtype) if need else None for p, need in zip(parameters, needed[1:], strict=True)),
    ]


def _zeros(like: Tensor) -> Tensor:
    """Zeros to sum gradients in, at least float32."""
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32), requires_grad=False)


def _autocast_as_now(device_type: str) -> Callable[[], AbstractContextManager]:
    """Factory of a context with the current state of autocast; its cache is off, as weights that were cast without
    gradients must not be reused with gradients."""
    return partial(
        torch.autocast,
        device_type,
        dtype=torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
        cache_enabled=False,
    )
