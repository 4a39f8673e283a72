"""Groups of blocks and the stages of VRT (arXiv 2201.12288, figure 2).

    group     x -> blocks, of which odd ones shift their windows by half
    RTMSA     x + linear(group x)
    stage     resize, x + linear(mutual and self attention), x + linear(self attention), alignment of neighbours

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction.
"""

from torch import Tensor, nn

from models.layers.ops.chunks import over_frames
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA, GatedMlp, ResidualLinear
from models.layers.vrt.executor import Executor
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import Size3, WindowLayouts


class SpaceToChannels(nn.Module):
    """(B, T, H, W, C) to (B, T, H/2, W/2, 4*C); channels in the order (column, row, C) of the 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pixels = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, T, H/2, 2, W/2, 2, C)
        return pixels.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)  # (B, T, H/2, W/2, 4*C)


class ChannelsToSpace(nn.Module):
    """Inverse of `SpaceToChannels`: (B, T, H, W, 4*C) to (B, T, 2*H, 2*W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pixels = x.unflatten(4, (2, 2, -1))  # (B, T, H, W, 2 columns, 2 rows, C)
        return pixels.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(2, 3)  # (B, T, 2*H, 2*W, C)


def change_of_size(kind: str, in_dim: int, dim: int) -> nn.Sequential:
    """First layers of a stage, (B, T, H, W, in_dim) to `dim` channels: "none" (LayerNorm), "down" or "up" by two."""
    if kind == "none":
        return nn.Sequential(nn.Identity(), nn.LayerNorm(dim))
    if kind == "down":
        return nn.Sequential(SpaceToChannels(), nn.LayerNorm(4 * in_dim), nn.Linear(4 * in_dim, dim))
    assert kind == "up", kind
    return nn.Sequential(ChannelsToSpace(), nn.LayerNorm(in_dim // 4), nn.Linear(in_dim // 4, dim))


class TMSAG(nn.Module):
    """A group of blocks with the same window; odd blocks shift it by half.

    Args:
        settings: see `BlockSettings`; `drop_paths` may have more entries than there are blocks.
        depth: number of blocks.
        codes: shared constants of the window.
        mutual: see `TMSA`.
    """

    def __init__(self, settings: BlockSettings, depth: int, codes: WindowCodes, *, mutual: bool) -> None:
        super().__init__()
        frames, height, width = codes.window
        half = (frames // 2, height // 2, width // 2)
        self.blocks = nn.ModuleList(
            TMSA(settings, codes, shift=half if i % 2 else (0, 0, 0), mutual=mutual, drop_path=settings.drop_paths[i])
            for i in range(depth)
        )

    def forward(self, x: Tensor, layouts: WindowLayouts, executor: Executor) -> Tensor:
        """(B, T, H, W, C) to the same shape: x itself without blocks, otherwise a new tensor."""
        size: Size3 = (x.shape[1], x.shape[2], x.shape[3])
        tokens = x.reshape(-1, x.shape[-1])  # (B*T*H*W, C)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, TMSA)
            layout = layouts.get(size, block.window, block.shift, block.mutual)
            tokens = executor.run(block, tokens, layout, overwrite=i > 0)  # (B*T*H*W, C)
        return tokens.view(x.shape)  # (B, T, H, W, C)


class RTMSA(nn.Module):
    """x + linear(self-attention blocks of x), with one block per entry of `settings.drop_paths`."""

    def __init__(self, settings: BlockSettings, codes: WindowCodes) -> None:
        super().__init__()
        self.residual_group = TMSAG(settings, len(settings.drop_paths), codes, mutual=False)
        self.linear = ResidualLinear(settings.dim, settings.dim)

    def forward(self, x: Tensor, layouts: WindowLayouts, executor: Executor) -> Tensor:
        """(B, T, H, W, C) to the same shape."""
        return self.linear(x, self.residual_group(x, layouts, executor))  # (B, T, H, W, C)


class Stage(nn.Module):
    """One stage.

    Args:
        in_dim: channels before the stage.
        settings: settings of its blocks, one per entry of `drop_paths`. Both groups use `drop_paths` from its first
            entry on, as in the training of the published weights.
        pair_codes, window_codes: constants of the two-frame window and of the whole window.
        resize: "none", "down" or "up".
        scale: 1, 2, 4 or 8, of the stage's features.
        pa_frames: neighbours that are aligned to each frame, both directions together; 0 for none.
        deformable_groups: see `DeformableAlignment`.
        mul_attn_ratio: share of the blocks with mutual attention on frame pairs, rounded down; the others have self
            attention only.
        checkpoint_align: recompute in the backward pass how neighbours are aligned and fused.
    """

    def __init__(
        self,
        in_dim: int,
        settings: BlockSettings,
        pair_codes: WindowCodes,
        window_codes: WindowCodes,
        *,
        resize: str,
        scale: int,
        pa_frames: int,
        deformable_groups: int,
        mul_attn_ratio: float = 0.75,
        checkpoint_align: bool = False,
    ) -> None:
        super().__init__()
        dim, depth = settings.dim, len(settings.drop_paths)
        pairs = int(depth * mul_attn_ratio)
        self.checkpoint_align = checkpoint_align
        self.reshape = change_of_size(resize, in_dim, dim)
        self._widening = 4 * dim / in_dim if resize == "up" else 1.0
        self.residual_group1 = TMSAG(settings, pairs, pair_codes, mutual=True)
        self.linear1 = ResidualLinear(dim, dim)
        self.residual_group2 = TMSAG(settings, depth - pairs, window_codes, mutual=False)
        self.linear2 = ResidualLinear(dim, dim)
        self.aligns = bool(pa_frames)
        if pa_frames:
            self.pa_deform = DeformableAlignment(dim, pa_frames, deformable_groups, scale)
            self.pa_fuse = GatedMlp(3 * dim, 3 * dim, dim)

    def forward(self, x: Tensor, flows: Tensor | None, layouts: WindowLayouts, executor: Executor) -> Tensor:
        """(B, T, H, W, in_dim) to (B, T, H', W', dim).

        Args:
            flows: (2, B, T-1, K, 2, H', W') from `neighbour_flows`; None without neighbours.
        """
        x = over_frames(self.reshape, x, self._widening)  # (B, T, H', W', dim)
        x = self.linear1(x, self.residual_group1(x, layouts, executor))  # (B, T, H', W', dim)
        x = self.linear2(x, self.residual_group2(x, layouts, executor))  # (B, T, H', W', dim)
        if not self.aligns:
            return x
        # The fused features replace x; the paper's stage has no residual here.
        return executor.align(self.pa_deform, self.pa_fuse, x, flows, self.checkpoint_align)  # (B, T, H', W', dim)
