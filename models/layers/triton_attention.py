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
