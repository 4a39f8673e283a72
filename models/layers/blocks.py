"""Temporal mutual self attention (TMSA) blocks and groups of VRT (arXiv 2201.12288, section 3.2).

A block is x + attention(LN x), then x + mlp(LN x). Tokens stay channels-last, (B, T, H, W, C) or (B*T*H*W, C).

Without gradients a block handles a few windows at a time, attention and MLP together, so that everything between its
input and its output stays in the processor's cache; with gradients it handles all windows at once.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.layers.window_attention import WindowAttention, WindowCodes
from models.layers.window_layout import Size3, WindowLayout, WindowLayouts, from_windows, to_windows

# Largest intermediate result without gradients: what fits a CPU's cache, what keeps a GPU busy.
_WORKSPACE_BYTES = {"cpu": 8 << 20}
_WORKSPACE_BYTES_ACCELERATOR = 1 << 30


def rows_at_once(tokens: Tensor, width: int) -> int:
    """How many rows of `tokens` (rows, C) to take at once, where the widest intermediate result has `width` channels."""
    limit = _WORKSPACE_BYTES.get(tokens.device.type, _WORKSPACE_BYTES_ACCELERATOR)
    return max(1, limit // (width * tokens.element_size()))


class GatedMlp(nn.Module):
    """fc2(GELU(fc11 x) * fc12 x) (GEGLU, arXiv 2002.05202)."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(in_features, hidden_features)
        self.fc12 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


class ResidualLinear(nn.Linear):
    """x + linear(y)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """x, y (B, T, H, W, C). Without gradients the result takes y's place, if y is contiguous."""
        if torch.is_grad_enabled() or not y.is_contiguous() or torch.is_autocast_enabled(x.device.type):
            return x + super().forward(y)
        rows, skip = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
        step = rows_at_once(rows, rows.shape[1])
        for start in range(0, rows.shape[0], step):
            part = slice(start, start + step)
            rows[part] = super().forward(rows[part]).add_(skip[part])
        return y


class TMSA(nn.Module):
    """One block.

    Args:
        dim: channels C.
        num_heads: attention heads.
        codes: shared constants of the window; its size is the block's window.
        shift: cyclic shift of the windows (frames, height, width).
        mutual: mutual attention beside self attention; the window then has two frames.
        mlp_ratio: hidden channels of the MLP over C.
        qkv_bias, qk_scale: see `WindowAttention`.
        drop_path: probability, per sample, of leaving out a branch in training.
        checkpoint_attn, checkpoint_ffn: recompute the attention or MLP half in the backward pass.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        codes: WindowCodes,
        *,
        shift: Size3 = (0, 0, 0),
        mutual: bool = False,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_path: float = 0.0,
        checkpoint_attn: bool = False,
        checkpoint_ffn: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.shift, self.mutual = codes.window, shift, mutual
        self.drop_path = drop_path
        self.checkpoint_attn, self.checkpoint_ffn = checkpoint_attn, checkpoint_ffn
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, codes, mutual=mutual, qkv_bias=qkv_bias, qk_scale=qk_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = GatedMlp(dim, int(dim * mlp_ratio), dim)

    def forward(self, tokens: Tensor, layout: WindowLayout, out: Tensor | None = None) -> Tensor:
        """Tokens (B*T*H*W, C) to tokens of the same shape.

        Args:
            layout: how the windows lie.
            out: without gradients, where to write the result; may be `tokens` itself.
        """
        biases = self.attn.biases(layout.window, [kind for kind, _ in layout.segments])
        keep = self._keep(layout)
        if not torch.is_grad_enabled():
            return self._stream(tokens, layout, biases, keep, torch.empty_like(tokens) if out is None else out)
        x = to_windows(tokens, layout)
        branch = _maybe_checkpoint(self.checkpoint_attn, self._attention, x, layout, layout.segments, biases)
        tokens = from_windows(x + _scaled(branch, keep, layout.samples, layout.tokens_per_window), layout)
        branch = _maybe_checkpoint(self.checkpoint_ffn, self._mlp, tokens)
        every = None if keep is None else torch.arange(keep.numel(), device=tokens.device)
        return tokens + _scaled(branch, self._keep(layout), every, tokens.shape[0] // max(1, layout.batch))

    def _attention(
        self, x: Tensor, layout: WindowLayout, segments: Sequence[tuple[int, int]], biases: dict, padding: Tensor | None
    ) -> Tensor:
        x = self.norm1(x)
        if padding is not None:
            x = x.masked_fill(padding[:, None], 0)
        return self.attn(x, layout.window, segments, biases)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))
