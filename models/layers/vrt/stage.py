"""One stage of VRT: change of size, mutual and self attention, parallel warping (arXiv 2201.12288, figure 2).

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.backends import eager
from models.layers.backends.attention_backend import AttentionBackend
from models.layers.ops.few_frames import few_frames
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSAG, GatedMlp, ResidualLinear, rows_at_once
from models.layers.vrt.window_attention import WindowCodes
from models.layers.vrt.window_layout import WindowLayouts


class SpaceToChannels(nn.Module):
    """(B, T, H, W, C) to (B, T, H/2, W/2, 4*C); channels in the order (column, row, C) of the 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pixels = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return pixels.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)


class ChannelsToSpace(nn.Module):
    """Inverse of `SpaceToChannels`: (B, T, H, W, 4*C) to (B, T, 2*H, 2*W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pixels = x.unflatten(4, (2, 2, -1))
        return pixels.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(2, 3)


def change_of_size(kind: str, in_dim: int, dim: int) -> nn.Sequential:
    """What a stage starts with, on (B, T, H, W, in_dim): "none" (LayerNorm), "down" or "up" by two, to `dim`."""
    if kind == "none":
        return nn.Sequential(nn.Identity(), nn.LayerNorm(dim))
    if kind == "down":
        return nn.Sequential(SpaceToChannels(), nn.LayerNorm(4 * in_dim), nn.Linear(4 * in_dim, dim))
    assert kind == "up", kind
    return nn.Sequential(ChannelsToSpace(), nn.LayerNorm(in_dim // 4), nn.Linear(in_dim // 4, dim))


class Stage(nn.Module):
    """One stage.

    Args:
        in_dim, dim: channels before and after.
        depth: blocks; int(depth * mul_attn_ratio) of them with mutual attention on frame pairs, the others with self
            attention only.
        num_heads: attention heads.
        pair_codes, window_codes: constants of the two-frame window and of the whole window.
        resize: "none", "down" or "up".
        scale: 1, 2, 4 or 8, of the stage's features.
        pa_frames: neighbours that are aligned to each frame, both directions together; 0 for none.
        deformable_groups: see `DeformableAlignment`.
        drop_paths: of the stage's blocks. Both groups take them from the start, as the published weights' training did.
        mul_attn_ratio, mlp_ratio, qkv_bias, qk_scale, checkpoint_attn, checkpoint_ffn: see `TMSA`.
        checkpoint_align: recompute in the backward pass how neighbours are aligned and fused.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        pair_codes: WindowCodes,
        window_codes: WindowCodes,
        *,
        resize: str,
        scale: int,
        pa_frames: int,
        deformable_groups: int,
        drop_paths: Sequence[float],
        mul_attn_ratio: float = 0.75,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        checkpoint_attn: bool = False,
        checkpoint_ffn: bool = False,
        checkpoint_align: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_align = checkpoint_align
        pairs = int(depth * mul_attn_ratio)
        self.reshape = change_of_size(resize, in_dim, dim)
        self._widening = 4 * dim / in_dim if resize == "up" else 1.0

        def group(blocks: int, codes: WindowCodes, mutual: bool) -> TMSAG:
            return TMSAG(
                dim,
                blocks,
                num_heads,
                codes,
                mutual=mutual,
                drop_paths=drop_paths,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                checkpoint_attn=checkpoint_attn,
                checkpoint_ffn=checkpoint_ffn,
            )

        self.residual_group1 = group(pairs, pair_codes, mutual=True)
        self.linear1 = ResidualLinear(dim, dim)
        self.residual_group2 = group(depth - pairs, window_codes, mutual=False)
        self.linear2 = ResidualLinear(dim, dim)
        self.aligns = bool(pa_frames)
        if pa_frames:
            self.pa_deform = DeformableAlignment(dim, pa_frames, deformable_groups, scale)
            self.pa_fuse = GatedMlp(3 * dim, 3 * dim, dim)

    def forward(self, x: Tensor, flows: Tensor | None, layouts: WindowLayouts, backend: AttentionBackend) -> Tensor:
        """(B, T, H, W, in_dim) to (B, T, H', W', dim).

        Args:
            flows: (2, B, T-1, K, 2, H', W') from `neighbour_flows`; None where there is no neighbour.
        """
        x = few_frames(self.reshape, x, self._widening)
        x = self.linear1(x, self.residual_group1(x, layouts, backend))
        x = self.linear2(x, self.residual_group2(x, layouts, backend))
        if not self.aligns:
            return x
        if self.checkpoint_align and torch.is_grad_enabled():
            return checkpoint(self._fuse, x, flows, backend, use_reentrant=False, preserve_rng_state=False)
        return self._fuse(x, flows, backend)

    def _fuse(self, x: Tensor, flows: Tensor | None, backend: AttentionBackend) -> Tensor:
        """The frame and its aligned neighbours, which replace the features without a residual."""
        if backend.plain or torch.is_grad_enabled() or flows is None:
            if flows is None:
                backward = forward = torch.zeros_like(x)
            else:
                ((_, backward, forward),) = backend.align(self.pa_deform, x, flows)
            joined = torch.cat((x, backward, forward), -1)
            return eager.gated_mlp(self.pa_fuse, joined) if backend.plain else self.pa_fuse(joined)
        out = torch.empty_like(x)
        for part, backward, forward in backend.align(self.pa_deform, x, flows):
            out[part] = self._fuse_part(x[part], backward, forward)
            del backward, forward
        return out

    def _fuse_part(self, x: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """`pa_fuse`, so many pixels at a time that what is between them stays in a CPU's cache."""
        sources = [part.reshape(-1, part.shape[-1]) for part in (x, backward, forward)]
        out = torch.empty_like(sources[0])
        step = rows_at_once(out, 3 * out.shape[1])
        for start in range(0, out.shape[0], step):
            part = slice(start, start + step)
            out[part] = self.pa_fuse(torch.cat([source[part] for source in sources], 1))
        return out.view(x.shape)
