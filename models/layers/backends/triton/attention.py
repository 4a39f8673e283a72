"""Window attention as an operator on tokens in the order of the grid, by Triton kernels (`attention_kernels.py`).

No scores, masks, rolled or partitioned copies are written to memory; the backward pass keeps the input, the output and
one log-sum-exp per token and head. The operators are registered with torch, so that `torch.compile` and checkpointing
work with them. They compute in the type of `qkv` (after a linear layer: autocast's), with float32 sums, and sum
gradients in a fixed order.

Measured, and compared with the plain formula, by `python scripts/benchmark/bench_attention.py` on a GPU.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_LOG2E = math.log2(math.e)  # GPUs have an instruction for 2^x, so scores are in units of log2
# Programs to launch, enough for a large GPU; constants, so that sums have the same order on every machine.
_PROGRAMS = 4096
_BIAS_PROGRAMS = 512  # fewer, as every program stores a partial sum as large as the bias


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels; Triton reads this variable when they are imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def product_precision(dtype: torch.dtype) -> str:
    """Precision of products of this type: "half", or for float32 "ieee32" (without tensor cores) or "tf32"."""
    if dtype != torch.float32:
        return "half"
    return "ieee32" if torch.get_float32_matmul_precision() == "highest" else "tf32"


class Tiles(NamedTuple):
    """Rows and columns of a tile (queries and keys), warps per program, and software pipeline stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def attention_tiles(precision: str, backward: bool) -> Tiles:
    """Tiles whose scores stay in registers, as compiling for sm_90 reports, and that fit 100 KB of shared memory.

    Args:
        precision: from `product_precision`.
        backward: for the backward pass.
    """
    if precision == "half":
        return Tiles(64, 128, 8, 2) if backward else Tiles(64, 64, 4, 2)
    return Tiles(32 if precision == "ieee32" else 64, 64, 4, 1 if backward else 2)


class _Grid:
    """The windows of a grid, and further arguments of all kernels."""

    def __init__(self, qkv: Tensor, window: Sequence[int], shift: Sequence[int], heads: int, mutual: bool) -> None:
        self.batch = qkv.shape[0]
        self.size = (qkv.shape[1], qkv.shape[2], qkv.shape[3])
        padded = [-(-length // extent) * extent for length, extent in zip(self.size, window, strict=True)]
        self.padded = (padded[0], padded[1], padded[2])
        # Mutual attention is attention within single frames, with queries from the other frame of the pair.
        self.window = (1 if mutual else window[0], window[1], window[2])
        self.shift = (shift[0], shift[1], shift[2])
        self.tokens = math.prod(self.window)
        self.windows = self.batch * math.prod(self.padded) // self.tokens
        self.heads, self.mutual = heads, mutual
        self.channels = qkv.shape[4] // 3
        self.precision = product_precision(qkv.dtype)

    def tiles(self, backward: bool) -> Tiles:
        """Tiles no larger than the window needs; sides are powers of two, at least 16, as tensor cores require."""
        most = attention_tiles(self.precision, backward)
        fitting = 1 << (max(self.tokens, 16) - 1).bit_length()
        warps = 4 if fitting <= 64 else most.warps
        return Tiles(min(most.rows, fitting), min(most.columns, fitting), warps, most.stages)

    def count(self, extent: int) -> int:
        """Number of tiles of `extent` tokens per window."""
        return -(-self.tokens // extent)

    def windows_per_program(self, tiles: int, programs: int) -> int:
        """Windows per program, so that about `programs` programs are launched."""
        return max(1, self.windows * tiles * self.heads // programs)


class _Inputs(NamedTuple):
    """Tensors of `window_attention`; the bias is in units of log2."""

    qkv: Tensor
    bias: Tensor | None
    fill: Tensor | None
    code: Tensor | None
    out: Tensor
    lse: Tensor


def _launch(
    kernel: Any,
    grid: _Grid,
    inputs: _Inputs,
    scale: float,
    tiles: Tiles,
    launch: tuple[int, int],
    *own_arguments: object,
    **constants: object,
) -> None:
    """Runs a kernel of `attention_kernels.py`.

    Args:
        launch: tiles per window and head, each of which has its own program, and windows per program.
        own_arguments: arguments of this kernel alone.
    """
    head_dim = grid.channels // grid.heads
    programs, windows_per_program = launch
    precision = "tf32" if grid.precision == "tf32" else "ieee"
    kernel[(-(-grid.windows // windows_per_program), programs, grid.heads)](
        *inputs,
        *(grid.size, grid.padded, grid.windows, windows_per_program, inputs.qkv.stride(3), scale * _LOG2E),
        *own_arguments,
        WINDOW=grid.window,
        SHIFT=grid.shift,
        HEADS=grid.heads,
        HEAD_DIM=head_dim,
        BLOCK_D=1 << (max(head_dim, 16) - 1).bit_length(),
        BLOCK_M=tiles.rows,
        BLOCK_N=tiles.columns,
        MUTUAL=grid.mutual,
        BIASED=inputs.bias is not None,
        PADDED=grid.padded != grid.size,
        FILLED=grid.padded != grid.size and inputs.fill is not None,
        CODED=inputs.code is not None,
        PRECISION="upcast" if interpreted() else precision,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **constants,
    )


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
        fill: (3*C,), query, key and value of padded places; zero if None.
        code: (height*width of a window, 3*C), added to queries, keys and values by their place in the window.
        window, shift: (frames, height, width), fitted to the grid (`window_layout.fit_window`).
        scale: factor of q kT.
        mutual: attention between the two frames of a window; outputs are placed at the keys' frame.

    Returns:
        (B, T, H, W, C), and the log2-sum-exp2 of the scores (windows, heads, N); if mutual, N is that of one frame.
    """
    from models.layers.backends.triton import attention_kernels as kernels

    grid = _Grid(qkv, window, shift, heads, mutual)
    qkv = _with_rows(qkv)
    out = qkv.new_empty(*qkv.shape[:4], grid.channels)
    lse = qkv.new_empty(grid.windows, heads, grid.tokens, dtype=torch.float32)
    inputs = _Inputs(qkv, _scaled(bias, qkv), fill, code, out, lse)
    tiles = grid.tiles(backward=False)
    count = grid.count(tiles.rows)
    launch = (count, grid.windows_per_program(count, _PROGRAMS))
    _launch(kernels.attention_forward, grid, inputs, scale, tiles, launch)
    return out, lse


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
    """Gradients of qkv, bias, fill and code of `window_attention`, given its output's; empty for an input of None."""
    grid = _Grid(qkv, window, shift, heads, mutual)
    inputs = _Inputs(_with_rows(qkv), _scaled(bias, qkv), fill, code, out, lse)
    grads, grad_bias = _gradients(grid, inputs, scale, _with_rows(grad))
    return (
        grads[:, : grid.size[0], : grid.size[1], : grid.size[2]].contiguous(),
        qkv.new_empty(0) if bias is None else grad_bias.to(bias.dtype),
        qkv.new_empty(0) if fill is None else _sum_outside(grads, grid.size).to(fill.dtype),
        qkv.new_empty(0) if code is None else _sum_by_place(grads, grid).to(code.dtype),
    )


def _gradients(grid: _Grid, inputs: _Inputs, scale: float, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of queries, keys and values on the padded grid (B, T', H', W', 3*C), and of the bias (heads, N, N)."""
    from models.layers.backends.triton import attention_kernels as kernels

    tiles = grid.tiles(backward=True)
    columns, all_tiles = grid.count(tiles.columns), grid.count(tiles.rows) * grid.count(tiles.columns)
    grads = grad.new_empty(grid.batch, *grid.padded, 3 * grid.channels)
    # Each tile of keys contributes a share of the queries' gradient; a single tile writes the gradient itself.
    shares = grads[None, ..., : grid.channels]
    if columns > 1:
        shares = torch.empty(columns, *shares.shape[1:], dtype=torch.float32, device=grad.device)
    # If all queries are in one tile, the same kernel sums the bias' gradient.
    along = inputs.bias is not None and grid.count(tiles.rows) == 1
    per_program = grid.windows_per_program(columns, _BIAS_PROGRAMS if along else _PROGRAMS)
    per_sum = per_program if along else grid.windows_per_program(all_tiles, _BIAS_PROGRAMS)
    groups = 0 if inputs.bias is None else -(-grid.windows // per_sum)
    sums = torch.empty(groups, grid.heads, grid.tokens, grid.tokens, dtype=torch.float32, device=grad.device)
    _launch(
        *(kernels.attention_backward, grid, inputs, scale, tiles, (columns, per_program)),
        *(grad, grad.stride(3), sums if along else None),
        *(grads, shares, shares.stride(4), shares.stride(0), scale),
        SUM_BIAS=along,
    )
    if columns > 1:
        grads[..., : grid.channels] = shares.sum(0)
    if groups and not along:
        _launch(
            *(kernels.attention_backward_bias, grid, inputs, scale, tiles, (all_tiles, per_sum)),
            *(grad, grad.stride(3), sums),
        )
    return grads, sums.sum(0)


def _scaled(bias: Tensor | None, like: Tensor) -> Tensor | None:
    """The bias in units of log2."""
    return None if bias is None else (bias * _LOG2E).to(like.dtype).contiguous()


def _with_rows(x: Tensor) -> Tensor:
    """x (B, T, H, W, C), copied unless its rows (..., C) have a constant stride."""
    _, frames, height, width, _ = x.shape
    step = x.stride(3)
    regular = x.stride() == (frames * height * width * step, height * width * step, width * step, step, 1)
    return x if regular else x.contiguous()


def _sum_outside(grads: Tensor, size: tuple[int, int, int]) -> Tensor:
    """(3*C,) sum over the places of the padded grid outside `size`."""
    frames, height, width = size
    slabs = grads[:, frames:], grads[:, :frames, height:], grads[:, :frames, :height, width:]
    return torch.stack([slab.sum((0, 1, 2, 3), dtype=torch.float32) for slab in slabs]).sum(0)


def _sum_by_place(grads: Tensor, grid: _Grid) -> Tensor:
    """(height*width of a window, 3*C) sum over the windows and frames of the padded grid."""
    plane = grads.sum((0, 1), dtype=torch.float32).roll((-grid.shift[1], -grid.shift[2]), (0, 1))
    return plane.unflatten(1, (-1, grid.window[2])).unflatten(0, (-1, grid.window[1])).sum((0, 2)).flatten(0, 1)


@window_attention.register_fake
def _(qkv, bias, fill, code, window, shift, heads, scale, mutual):  # type: ignore[no-untyped-def]
    grid = _Grid(qkv, window, shift, heads, mutual)
    return (
        qkv.new_empty(*qkv.shape[:4], grid.channels),
        qkv.new_empty(grid.windows, heads, grid.tokens, dtype=torch.float32),
    )


@window_attention_backward.register_fake
def _(grad, qkv, bias, fill, code, out, lse, window, shift, heads, scale, mutual):  # type: ignore[no-untyped-def]
    bias_grads = (qkv.new_empty(0) if x is None else x.new_empty(x.shape) for x in (bias, fill, code))
    return qkv.new_empty(qkv.shape), *bias_grads


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.settings = inputs[4:]
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    tensors = ctx.saved_tensors
    grads = window_attention_backward(grad, *tensors, *ctx.settings)
    needed = [None if x is None else g for g, x in zip(grads, tensors[:4], strict=True)]
    return *needed, *(None for _ in ctx.settings)


window_attention.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.s_vrt.window_attention)
def _flop(qkv, bias, fill, code, *settings, **_kwargs):  # type: ignore[no-untyped-def]
    return _flop_of_products(qkv, *settings)


@register_flop_formula(torch.ops.s_vrt.window_attention_backward)
def _backward_flop(grad, qkv, bias, fill, code, out, lse, *settings, **_kwargs):  # type: ignore[no-untyped-def]
    """The recomputed scores and four products of the same size, as PyTorch counts its fused attention."""
    return _flop_of_products(qkv, *settings) * 5 // 2


def _flop_of_products(
    qkv: Sequence[int], window: Sequence[int], shift: Sequence[int], heads: int, scale: float, mutual: bool
) -> int:
    """Floating-point operations of q kT and of the weights times v, for the shape `qkv`."""
    tokens = math.prod(window[1:] if mutual else window)
    padded = math.prod(-(-length // extent) * extent for length, extent in zip(qkv[1:4], window, strict=True))
    return 2 * 2 * qkv[0] * padded * tokens * qkv[4] // 3
