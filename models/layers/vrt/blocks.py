"""Temporal mutual self attention (TMSA) blocks and groups of VRT (arXiv 2201.12288, section 3.2).

A block is x + attention(LN x), then x + mlp(LN x). Tokens stay channels-last, (B, T, H, W, C) or (B*T*H*W, C).

Without gradients a block takes a few windows at a time through attention and MLP, so that everything between its input
and its output stays in the processor's cache. With gradients it does so on a CPU and where it is to be recomputed
(`models/layers/ops/recompute.py`); else it takes all windows at once.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.backends import eager
from models.layers.backends.attention_backend import AttentionBackend, TokenBackend, WindowBackend
from models.layers.ops.linear import linear
from models.layers.ops.processor import processor
from models.layers.ops.recompute import Windowed, in_parts, recomputed
from models.layers.vrt.window_attention import Biases, WindowAttention, WindowCodes
from models.layers.vrt.window_layout import Part, Size3, WindowLayout, WindowLayouts, from_windows, to_windows

# Largest intermediate result of a part: what stays in a CPU's cache, what keeps a GPU busy. Going backward a row has
# several times as many of them at once.
_WORKSPACE_BYTES = {"cpu": 8 << 20}
_WORKSPACE_BYTES_ACCELERATOR = 1 << 30
_BACKWARD_BYTES = {"cpu": 2 << 20}
_BACKWARD_BYTES_ACCELERATOR = 64 << 20


def rows_at_once(tokens: Tensor, width: int, backward: bool = False) -> int:
    """How many rows of `tokens` (rows, C) to take at once; the widest intermediate result has `width` channels."""
    if backward:
        limit = _BACKWARD_BYTES.get(processor(tokens), _BACKWARD_BYTES_ACCELERATOR)
    else:
        limit = _WORKSPACE_BYTES.get(processor(tokens), _WORKSPACE_BYTES_ACCELERATOR)
    return max(1, limit // (width * tokens.element_size()))


class GatedMlp(nn.Module):
    """fc2(GELU(fc11 x) * fc12 x) (GEGLU, arXiv 2002.05202)."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(in_features, hidden_features)
        self.fc12 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(..., in) to (..., out), plus `skip` of that shape."""
        gate = linear(x, self.fc11.weight, self.fc11.bias, gelu=True)
        hidden = linear(x, self.fc12.weight, self.fc12.bias, times=gate)
        return linear(hidden, self.fc2.weight, self.fc2.bias, plus=skip)


class ResidualLinear(nn.Linear):
    """x + linear(y)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """x, y (B, T, H, W, C). Without gradients the result may take y's place in memory."""
        if torch.is_grad_enabled() or not y.is_contiguous():
            return linear(y, self.weight, self.bias, plus=x)
        rows, skip = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
        step = rows_at_once(rows, rows.shape[1])
        for start in range(0, rows.shape[0], step):
            part = slice(start, start + step)
            rows[part] = linear(rows[part], self.weight, self.bias, plus=skip[part])
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
        drop_path: probability, per sample, that training leaves out a branch.
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
        self._compiled: Callable[..., Tensor] | None = None
        self.checkpoint_attn, self.checkpoint_ffn = checkpoint_attn, checkpoint_ffn
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, codes, mutual=mutual, qkv_bias=qkv_bias, qk_scale=qk_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = GatedMlp(dim, int(dim * mlp_ratio), dim)

    def forward(
        self, tokens: Tensor, layout: WindowLayout, backend: AttentionBackend, out: Tensor | None = None
    ) -> Tensor:
        """Tokens (B*T*H*W, C) to tokens of the same shape.

        Args:
            layout: how the windows lie.
            backend: how attention is computed.
            out: without gradients, where a `WindowBackend`'s result may be written; may be `tokens` itself.
        """
        keep_attn, keep_ffn = self._keep(layout.batch, tokens), self._keep(layout.batch, tokens)
        learning = torch.is_grad_enabled()
        if learning and self._compiled is not None:
            return self._compiled(self, tokens, layout, backend, keep_attn, keep_ffn)
        if isinstance(backend, WindowBackend):
            if not learning:
                windowed = self._windowed(layout, backend, tokens, keep_attn, keep_ffn)
                return in_parts(windowed, tokens, torch.empty_like(tokens) if out is None else out)
            forgets = processor(tokens) == "cpu"
            if forgets or self.checkpoint_attn:
                mlp = forgets or self.checkpoint_ffn
                windowed = self._windowed(layout, backend, tokens, keep_attn, keep_ffn, mlp)
                halves = [self] if mlp else [self.norm1, self.attn]
                tokens = recomputed(windowed, tokens, [p for half in halves for p in half.parameters()])
                return tokens if mlp else tokens + _scaled(self._mlp(tokens), keep_ffn)
        return self._whole(tokens, layout, backend, keep_attn, keep_ffn)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the pass with gradients; the other one goes through a few windows at a time, in loops.

        Drop path stays outside: its probability is every block's own, and blocks that are alike share a graph.

        Args:
            args, kwargs: of `torch.compile`.
        """
        self._compiled = torch.compile(TMSA._whole, *args, **kwargs)

    def _whole(
        self,
        tokens: Tensor,
        layout: WindowLayout,
        backend: AttentionBackend,
        keep_attn: Tensor | None,
        keep_ffn: Tensor | None,
    ) -> Tensor:
        """All windows at once."""
        if isinstance(backend, TokenBackend):
            attention = _maybe_checkpoint(self._attention_of_tokens, self.checkpoint_attn)
            tokens = tokens + _scaled(attention(tokens, layout, backend), keep_attn)
            added = backend.add_mlp(self.norm2, self.mlp, tokens, keep_ffn)
            if added is not None:
                return added
        else:
            assert isinstance(backend, WindowBackend)
            attention = _maybe_checkpoint(self._attention, self.checkpoint_attn)
            x = to_windows(tokens, layout)
            keep_windows = None if keep_attn is None else keep_attn[layout.samples]
            biases = self.attn.biases(layout.window, [kind for kind, _ in layout.segments], backend.keys_first)
            branch = attention(x, layout.padding, layout.window, layout.segments, biases, backend)
            tokens = from_windows(x + _scaled(branch, keep_windows), layout)
        if torch.is_grad_enabled() or backend.plain:
            mlp = _maybe_checkpoint(self._plain_mlp if backend.plain else self._mlp, self.checkpoint_ffn)
            return tokens + _scaled(mlp(tokens), keep_ffn)
        return self._add_mlp_in_parts(tokens, keep_ffn)

    def _attention_of_tokens(self, tokens: Tensor, layout: WindowLayout, backend: TokenBackend) -> Tensor:
        return backend.attend_half(self.norm1, self.attn, tokens, layout)

    def _add_mlp_in_parts(self, tokens: Tensor, keep: Tensor | None) -> Tensor:
        """tokens + mlp(LN tokens), written into `tokens`."""
        rows = tokens if keep is None else tokens.view(keep.numel(), -1, tokens.shape[1])
        for i, sample in enumerate((rows,) if keep is None else rows):
            step = rows_at_once(sample, self.mlp.fc11.out_features)
            for part in sample.split(step):
                branch = self._mlp(part)
                part += branch if keep is None else branch * keep[i]
        return tokens

    def _attention(
        self,
        x: Tensor,
        padding: Tensor | None,
        window: Size3,
        segments: Iterable[tuple[int, int]],
        biases: Biases,
        backend: WindowBackend,
    ) -> Tensor:
        x = self.norm1(x)
        if padding is not None:
            x = x.masked_fill(padding[:, None], 0)
        return self.attn(x, window, segments, biases, backend.attend)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def _plain_mlp(self, x: Tensor) -> Tensor:
        return eager.gated_mlp(self.mlp, self.norm2(x))

    def _keep(self, batch: int, like: Tensor) -> Tensor | None:
        """(B,) factor of a branch per sample: 0 or 1 / (1 - drop_path); None where nothing is dropped."""
        if not self.training or not self.drop_path:
            return None
        kept = 1 - self.drop_path
        return torch.rand(batch, device=like.device).add_(kept).floor_().div_(kept).to(like.dtype)

    def _windowed(
        self,
        layout: WindowLayout,
        backend: WindowBackend,
        tokens: Tensor,
        keep_attn: Tensor | None,
        keep_ffn: Tensor | None,
        mlp: bool = True,
    ) -> Windowed:
        """The block, or its attention half alone, for a few windows at a time."""

        def of_part(x: Tensor, part: Part, biases: Biases) -> Tensor:
            keep = None if keep_attn is None else keep_attn[part.samples]
            branch = self._attention(x, part.padding, layout.window, part.segments, biases, backend)
            x = x + _scaled(branch, keep)
            if not mlp:
                return x
            if keep_ffn is None:
                return self.mlp(self.norm2(x), skip=x)
            return x + _scaled(self._mlp(x), keep_ffn[part.samples])

        step, back = (
            max(1, rows_at_once(tokens, 3 * tokens.shape[1], backward) // layout.tokens_per_window)
            for backward in (False, True)
        )
        return Windowed(of_part, self.attn, backend.keys_first, layout, step, back)


def _scaled(rows: Tensor, factors: Tensor | None) -> Tensor:
    """Rows (n*k, C), the k of each of n factors multiplied by it."""
    if factors is None:
        return rows
    return (rows.view(factors.numel(), -1, rows.shape[1]) * factors.view(-1, 1, 1)).view(rows.shape)


def _maybe_checkpoint(function: Callable[..., Tensor], wanted: bool) -> Callable[..., Tensor]:
    """The function, or one that recomputes it in the backward pass instead of keeping its intermediate results."""
    if not wanted:
        return function

    def recomputing(*args: object) -> Tensor:
        return checkpoint(function, *args, use_reentrant=False)

    return recomputing


class TMSAG(nn.Module):
    """A run of blocks with the same window; odd blocks shift it by half.

    Args:
        dim, num_heads, mutual, mlp_ratio, qkv_bias, qk_scale, checkpoint_attn, checkpoint_ffn: as of `TMSA`.
        depth: number of blocks.
        codes: shared constants of the window.
        drop_paths: drop-path probability of each block; more than `depth` are allowed.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        codes: WindowCodes,
        *,
        mutual: bool,
        drop_paths: Sequence[float],
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        checkpoint_attn: bool = False,
        checkpoint_ffn: bool = False,
    ) -> None:
        super().__init__()
        frames, height, width = codes.window
        self.blocks = nn.ModuleList(
            TMSA(
                dim,
                num_heads,
                codes,
                shift=(frames // 2, height // 2, width // 2) if i % 2 else (0, 0, 0),
                mutual=mutual,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop_path=drop_paths[i],
                checkpoint_attn=checkpoint_attn,
                checkpoint_ffn=checkpoint_ffn,
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor, layouts: WindowLayouts, backend: AttentionBackend) -> Tensor:
        """(B, T, H, W, C) to the same shape; the result never shares memory with x."""
        size: Size3 = (x.shape[1], x.shape[2], x.shape[3])
        tokens = x.reshape(-1, x.shape[-1])
        stream = isinstance(backend, WindowBackend) and not torch.is_grad_enabled()
        if stream:
            tokens = tokens.clone()
        for block in self.blocks:
            assert isinstance(block, TMSA)
            layout = layouts.get(size, block.window, block.shift, block.mutual)
            tokens = block(tokens, layout, backend, out=tokens if stream else None)
        return tokens.view(x.shape)


class RTMSA(nn.Module):
    """x + linear(self-attention blocks of x); arguments as of `TMSAG`."""

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        codes: WindowCodes,
        *,
        drop_paths: Sequence[float],
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        checkpoint_attn: bool = False,
        checkpoint_ffn: bool = False,
    ) -> None:
        super().__init__()
        self.residual_group = TMSAG(
            dim,
            depth,
            num_heads,
            codes,
            mutual=False,
            drop_paths=drop_paths,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            checkpoint_attn=checkpoint_attn,
            checkpoint_ffn=checkpoint_ffn,
        )
        self.linear = ResidualLinear(dim, dim)

    def forward(self, x: Tensor, layouts: WindowLayouts, backend: AttentionBackend) -> Tensor:
        """(B, T, H, W, C) to the same shape."""
        return self.linear(x, self.residual_group(x, layouts, backend))
