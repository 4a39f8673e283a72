"""Temporal mutual self attention (TMSA), the block of VRT (arXiv 2201.12288, section 3.2).

    x = x + attention(LN x)        self attention within windows, and mutual attention between a window's two frames
    x = x + mlp(LN x)              fc2(GELU(fc11 x) * fc12 x)

Tokens are channels-last. The back ends in `models/layers/backends` decide how a block runs: all windows at once or in
chunks, recomputed, compiled, by which kernel.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.ops.chunks import over_rows
from models.layers.ops.compiled import CompiledBlock
from models.layers.ops.linear import linear
from models.layers.vrt.window_attention import Attend, Biases, BlockSettings, WindowAttention, WindowCodes
from models.layers.vrt.window_layout import Size3, Windows


class GatedMlp(nn.Module):
    """fc2(GELU(fc11 x) * fc12 x) (GEGLU, arXiv 2002.05202)."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(in_features, hidden_features)
        self.fc12 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(..., in) to (..., out), plus `skip` of the result's shape if given."""
        gate = linear(x, self.fc11.weight, self.fc11.bias, gelu=True)  # (..., hidden)
        hidden = linear(x, self.fc12.weight, self.fc12.bias, times=gate)  # (..., hidden)
        return linear(hidden, self.fc2.weight, self.fc2.bias, plus=skip)  # (..., out)


class ResidualLinear(nn.Linear):
    """x + linear(y)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """x, y (B, T, H, W, C). Without gradients the result may be written into y."""

        def add(x: Tensor, y: Tensor) -> Tensor:
            return linear(y, self.weight, self.bias, plus=x)  # (..., C)

        return over_rows(add, x, y, width=y.shape[-1], out=y if y.is_contiguous() else None)  # (B, T, H, W, C)


@dataclass(frozen=True)
class BranchFactors:
    """Factors of a block's two branches per sample, 0 or 1 / (1 - drop_path), (B,); None where nothing is dropped."""

    attention: Tensor | None = None
    mlp: Tensor | None = None


class TMSA(CompiledBlock):
    """One block.

    Args:
        settings: see `BlockSettings`.
        codes: shared constants of the window; its size is the block's window.
        shift: cyclic shift of the windows (frames, height, width).
        mutual: mutual attention beside self attention; the window then has two frames.
        drop_path: probability, per sample, that training leaves out a branch.
    """

    def __init__(
        self,
        settings: BlockSettings,
        codes: WindowCodes,
        *,
        shift: Size3 = (0, 0, 0),
        mutual: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window, self.shift, self.mutual = codes.window, shift, mutual
        self.drop_path = drop_path
        self.checkpoint_attn, self.checkpoint_ffn = settings.checkpoint_attn, settings.checkpoint_ffn
        dim = settings.dim
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(settings, codes, mutual=mutual)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = GatedMlp(dim, int(dim * settings.mlp_ratio), dim)

    def forward(
        self, x: Tensor, windows: Windows, biases: Biases, attend: Attend, factors: BranchFactors | None = None
    ) -> Tensor:
        """Tokens of windows, (windows * N, C), to tokens of the same shape.

        Args:
            windows, biases, attend: see `WindowAttention.forward`.
            factors: from `draw_factors`; None: no branch is dropped.
        """
        factors = factors or BranchFactors()
        x = self.add_attention(x, windows, biases, attend, factors.attention)  # (windows * N, C)
        return self.add_mlp(x, None if factors.mlp is None else factors.mlp[windows.samples])  # (windows * N, C)

    def add_attention(
        self, x: Tensor, windows: Windows, biases: Biases, attend: Attend, factor: Tensor | None
    ) -> Tensor:
        """x + factor * attention(LN x), of tokens (windows * N, C); `factor` (B,) or None."""
        y = windows.zero_padding(self.norm1(x))  # (windows * N, C); the published network pads after the norm
        y = self.attn(y, windows, biases, attend)  # (windows * N, C)
        return x + scaled(y, None if factor is None else factor[windows.samples])  # (windows * N, C)

    def add_mlp(self, x: Tensor, factor: Tensor | None) -> Tensor:
        """x + factor * mlp(LN x), of tokens (rows, C); `factor` (n,), for n equal groups of rows, or None."""
        y = self.norm2(x)  # (rows, C)
        return self.mlp(y, skip=x) if factor is None else x + scaled(self.mlp(y), factor)  # (rows, C)

    def draw_factors(self, batch: int, like: Tensor) -> BranchFactors:
        """Draws the factors of each sample's branches for one pass, on the device and in the type of `like`."""
        if not self.training or not self.drop_path:
            return BranchFactors()
        keep = 1 - self.drop_path
        draws = (torch.rand(batch, device=like.device).add_(keep).floor_().div_(keep).to(like.dtype) for _ in range(2))
        return BranchFactors(*draws)


def scaled(rows: Tensor, factors: Tensor | None) -> Tensor:
    """Rows (n*k, C), of which each group of k is multiplied by one of n factors."""
    if factors is None:
        return rows
    return (rows.view(factors.numel(), -1, rows.shape[1]) * factors.view(-1, 1, 1)).view(rows.shape)
