"""Window attention as an operator on tokens in the grid's own order, by Triton kernels (`triton_kernels.py`).

Scores, masks, rolled or partitioned copies never exist in memory; what is kept for the backward pass is the input, the
output and one log-sum-exp per token and head. The operators are registered with torch, so that `torch.compile` and
checkpointing take them as they take its own. Under autocast they compute in the type of `qkv`, with float32 sums.
Gradients are summed in a fixed order.

Measured, and compared with the plain formula, by `python scripts/benchmark/bench_attention.py` on a GPU.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_LOG2E = math.log2(math.e)
# Programs that keep a large GPU busy; a constant, so that sums have the same order on every machine.
_FORWARD_PROGRAMS = 4096
_BIAS_PROGRAMS = 512


@torch.library.custom_op("s_vrt::window_attention", mutates_args=())
def window_attention(
    qkv: Tensor,
    bias: Tensor | None,
    fill: Tensor | None,
    code: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
    heads: int,
    scale: float,
    mutual: bool,
) -> tuple[Tensor, Tensor]:
    """softmax(q kT * scale + bias + mask) v within the windows of a cyclically shifted and padded grid.

    Args:
        qkv: (B, T, H, W, 3*C), channels in the order (query or key or value, head, channel of a head).
        bias: (heads, N, N), the same for every window.
        fill: (3*C,), queries, keys and values where the padded grid has no token; zero if None.
        code: (height*width of a window, 3*C), added to `qkv` by a token's place in its window.
        window, shift: (frames, height, width), fitted to the grid (`window_layout.fit_window`).
        scale: factor of q kT.
        mutual: attention between the two frames of a window, whose queries' outputs land at the keys' frame.

    Returns:
        (B, T, H, W, C), and the log2-sum-exp2 of the scores (windows, heads, N), in which N is a frame's if mutual.
    """
    from models.layers import triton_kernels as kernels

    grid = _Grid(qkv, window, shift, heads, mutual)
    out = qkv.new_empty(*qkv.shape[:4], grid.channels)
    lse = qkv.new_empty(grid.windows, heads, grid.tokens, dtype=torch.float32)
    rows, columns = grid.tiles()
    per_program = grid.per_program(-(-grid.tokens // rows) * heads, _FORWARD_PROGRAMS)
    kernels.attention_forward[(-(-grid.windows // per_program), -(-grid.tokens // rows), heads)](
        qkv,
        None if bias is None else (bias * _LOG2E).to(qkv.dtype),
        fill,
        code,
        out,
        lse,
        grid.size,
        grid.padded,
        grid.windows,
        per_program,
        qkv.stride(3),
        scale * _LOG2E,
        **grid.constants(rows, columns),
        BIASED=bias is not None,
        FILLED=grid.is_padded and fill is not None,
        CODED=code is not None,
    )
    return out, lse


class _Grid:
    """Sizes that all kernels take."""

    def __init__(self, qkv: Tensor, window: Sequence[int], shift: Sequence[int], heads: int, mutual: bool) -> None:
        self.batch = qkv.shape[0]
        self.size = (qkv.shape[1], qkv.shape[2], qkv.shape[3])
        padded = [-(-length // extent) * extent for length, extent in zip(self.size, window, strict=True)]
        self.padded = (padded[0], padded[1], padded[2])
        self.is_padded = self.padded != self.size
        # Mutual attention is attention within single frames, with queries from the other frame of the pair.
        self.window = (1 if mutual else window[0], window[1], window[2])
        self.shift = (shift[0], shift[1], shift[2])
        self.tokens = math.prod(self.window)
        self.windows = self.batch * math.prod(self.padded) // self.tokens
        self.heads, self.mutual = heads, mutual
        self.channels = qkv.shape[4] // 3
        self.precision = _precision(qkv.dtype)

    def tiles(self) -> tuple[int, int]:
        """Queries and keys per tile: powers of two, at least 16, which a tensor core needs."""
        fitting = 1 << (max(self.tokens, 16) - 1).bit_length()
        return min(fitting, 64), min(fitting, 128)

    def per_program(self, tiles: int, programs: int) -> int:
        """Windows per program, so that there are about so many programs."""
        return max(1, self.windows * tiles // programs)

    def constants(self, rows: int, columns: int) -> dict[str, Any]:
        """Arguments by which kernels are specialised."""
        head_dim = self.channels // self.heads
        return {
            "WINDOW": self.window,
            "SHIFT": self.shift,
            "HEADS": self.heads,
            "HEAD_DIM": head_dim,
            "BLOCK_D": 1 << (max(head_dim, 16) - 1).bit_length(),
            "BLOCK_M": rows,
            "BLOCK_N": columns,
            "MUTUAL": self.mutual,
            "PRECISION": self.precision,
            "num_warps": 4,
            "num_stages": 2,
        }


def _precision(dtype: torch.dtype) -> str:
    """How tensor cores multiply float32, as torch is set to do it."""
    return "ieee" if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest" else "tf32"


@window_attention.register_fake
def _(qkv, bias, fill, code, window, shift, heads, scale, mutual):  # type: ignore[no-untyped-def]
    grid = _Grid(qkv, window, shift, heads, mutual)
    return (
        qkv.new_empty(*qkv.shape[:4], grid.channels),
        qkv.new_empty(grid.windows, heads, grid.tokens, dtype=torch.float32),
    )


@torch.library.custom_op("s_vrt::window_attention_backward", mutates_args=())
def window_attention_backward(
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor | None,
    fill: Tensor | None,
    code: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window: Sequence[int],
    shift: Sequence[int],
    heads: int,
    scale: float,
    mutual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of qkv, bias, fill and code of `window_attention`, given that of its output; empty for a None."""
    grid = _Grid(qkv, window, shift, heads, mutual)
    grad = _rows(grad)
    grads = qkv.new_empty(grid.batch, *grid.padded, 3 * grid.channels)
    grad_bias = _launch_backward(grid, grads, grad, qkv, bias, fill, code, out, lse, scale)
    empty = qkv.new_empty(0)
    return (
        grads[:, : grid.size[0], : grid.size[1], : grid.size[2]].contiguous(),
        empty if bias is None else grad_bias.to(bias.dtype),
        empty if fill is None else _outside(grads, grid.size).to(fill.dtype),
        empty if code is None else _by_place(grads, grid).to(code.dtype),
    )


def _launch_backward(
    grid: "_Grid",
    grads: Tensor,
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor | None,
    fill: Tensor | None,
    code: Tensor | None,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> Tensor:
    """Fills `grads`, those of the padded grid, and returns that of the bias (heads, N, N)."""
    from models.layers import triton_kernels as kernels

    rows, columns = grid.tiles()
    row_tiles, column_tiles = -(-grid.tokens // rows), -(-grid.tokens // columns)
    scaled_bias = None if bias is None else (bias * _LOG2E).to(qkv.dtype)
    sum_bias = bias is not None and row_tiles == 1
    bias_tiles = row_tiles * column_tiles * grid.heads
    tiles, programs = (bias_tiles, _BIAS_PROGRAMS) if sum_bias else (column_tiles * grid.heads, _FORWARD_PROGRAMS)
    per_program = grid.per_program(tiles, programs)
    groups = -(-grid.windows // per_program)
    bias_per_program = grid.per_program(bias_tiles, _BIAS_PROGRAMS)
    bias_groups = 0 if bias is None else -(-grid.windows // bias_per_program)
    bias_sums = qkv.new_empty(bias_groups, grid.heads, grid.tokens, grid.tokens, dtype=torch.float32)
    shares = grads[None, ..., : grid.channels]
    if column_tiles > 1:
        shares = grads.new_empty(column_tiles, *shares.shape[1:], dtype=torch.float32)
    sizes = (grid.size, grid.padded, grid.windows)
    constants = {**grid.constants(rows, columns), "FILLED": grid.is_padded and fill is not None}
    kernels.attention_backward[(groups, column_tiles, grid.heads)](
        *(qkv, scaled_bias, fill, code, out, lse, grad, shares, grads, bias_sums if sum_bias else None),
        *(*sizes, per_program, qkv.stride(3), grad.stride(3), shares.stride(4), shares.stride(0)),
        *(scale * _LOG2E, scale),
        **constants,
        BIASED=bias is not None,
        CODED=code is not None,
        SUM_BIAS=sum_bias,
    )
    if column_tiles > 1:
        grads[..., : grid.channels] = shares.sum(0)
    if bias is not None and not sum_bias:
        constants.pop("MUTUAL")
        kernels.attention_backward_bias[(bias_groups, row_tiles * column_tiles, grid.heads)](
            *(qkv, scaled_bias, fill, out, lse, grad, bias_sums),
            *(*sizes, bias_per_program, qkv.stride(3), grad.stride(3), scale * _LOG2E),
            **constants,
        )
    return bias_sums.sum(0)


def _rows(x: Tensor) -> Tensor:
    """x (B, T, H, W, C) such that its rows have one stride, copied where they have not."""
    step = x.stride(3)
    strides = (step * x.shape[1] * x.shape[2] * x.shape[3], step * x.shape[2] * x.shape[3], step * x.shape[3], step, 1)
    return x if x.stride() == strides else x.contiguous()


def _outside(grads: Tensor, size: tuple[int, int, int]) -> Tensor:
    """(3*C,) sum over what lies outside `size` in the padded grid."""
    frames, height, width = size
    slabs = grads[:, frames:], grads[:, :frames, height:], grads[:, :frames, :height, width:]
    return torch.stack([slab.sum((0, 1, 2, 3), dtype=torch.float32) for slab in slabs]).sum(0)


def _by_place(grads: Tensor, grid: _Grid) -> Tensor:
    """(height*width of a window, 3*C) sum over the windows and frames of the padded grid."""
    plane = grads.sum((0, 1), dtype=torch.float32).roll((-grid.shift[1], -grid.shift[2]), (0, 1))
    return plane.unflatten(1, (-1, grid.window[2])).unflatten(0, (-1, grid.window[1])).sum((0, 2)).flatten(0, 1)


@window_attention_backward.register_fake
def _(grad, qkv, bias, fill, code, out, lse, window, shift, heads, scale, mutual):  # type: ignore[no-untyped-def]
    return (
        torch.empty_like(qkv, memory_format=torch.contiguous_format),
        *(qkv.new_empty(0) if x is None else torch.empty_like(x) for x in (bias, fill, code)),
    )


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.set_materialize_grads(False)
    tensors, ctx.settings = inputs[:4], inputs[4:]
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    tensors = ctx.saved_tensors
    grads = window_attention_backward(grad, *tensors, *ctx.settings)
    given = [None if x is None else g for g, x in zip(grads, tensors[:4], strict=True)]
    return *given, *(None for _ in ctx.settings)


window_attention.register_autograd(_backward, setup_context=_setup_context)
