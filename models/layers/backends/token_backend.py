"""Base of the back ends whose attention takes a block's tokens in the order of the grid: `eager`, Triton.

Legend: B batch, T frames, H height, W width, C channels.
"""

from abc import abstractmethod
from functools import partial

from torch import Tensor, nn

from models.layers.backends.backend import Backend
from models.layers.ops.chunks import over_rows, recomputing
from models.layers.vrt.blocks import TMSA, BranchFactors, scaled
from models.layers.vrt.window_attention import WindowAttention
from models.layers.vrt.window_layout import WindowLayout


class TokenBackend(Backend):
    """The attention half of a block, on tokens in the grid's order."""

    @abstractmethod
    def attend_tokens(self, attention: WindowAttention, x: Tensor, layout: WindowLayout) -> Tensor:
        """`WindowAttention` of all windows, from the block's normalised tokens to the projection's result.

        Differentiable in `x` and in the parameters of `attention`: `qkv_self`, `relative_position_bias_table`, `proj`
        and, where `attention.mutual`, `qkv_mut`. Constants of the window: `attention.codes`.

        Args:
            x: (B*T*H*W, C) in the order of (B, T, H, W), after the block's LayerNorm. A padded place is a zero token
                after the LayerNorm; its key and value are attended to, not masked.
            layout: `size`, `window`, `shift` and `batch` for index arithmetic; `index` and `inverse` for gathers.

        Returns:
            (B*T*H*W, C), which the block adds to its input.
        """

    def attend_half(
        self, norm: nn.LayerNorm, attention: WindowAttention, tokens: Tensor, layout: WindowLayout
    ) -> Tensor:
        """`attend_tokens` after the LayerNorm; overridden by back ends that fuse the two."""
        return self.attend_tokens(attention, norm(tokens), layout)

    def add_mlp(self, block: TMSA, tokens: Tensor, factor: Tensor | None) -> Tensor:
        """tokens + factor * mlp(LN tokens), (B*T*H*W, C); without gradients it may be written into `tokens`.

        Args:
            factor: (B,) or None.
        """
        if factor is not None:
            return recomputing(block.add_mlp, block.checkpoint_ffn)(tokens, factor)
        add = recomputing(partial(block.add_mlp, factor=None), block.checkpoint_ffn)
        return over_rows(add, tokens, width=block.mlp.fc11.out_features, out=tokens)

    def run_whole(self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
        """See `Backend.run_whole`."""
        attend = recomputing(self.attend_half, block.checkpoint_attn)
        branch = attend(block.norm1, block.attn, tokens, layout)  # (B*T*H*W, C)
        return self.add_mlp(block, tokens + scaled(branch, factors.attention), factors.mlp)  # (B*T*H*W, C)
