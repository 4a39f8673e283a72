"""Attention over time at each pixel: within the spike features, and from frame features to spike features.

A clip has few frames, so a pixel has few tokens, and there are very many pixels: one batched matrix product computes
all pixels and heads of a chunk. Chunks of at most `max_batch_tokens` pixels bound the memory and don't change the
result. A learned bias per head and distance in time encodes the order of frames; distances beyond the training clip's
share the bias of the largest one, so that longer clips can be tested.
Design: docs/architecture.md. Test: `python -m pytest tests/models/layers/spike/test_temporal_attention.py`.

Legend: B batch, T frames (queries), T' tokens in time of the sources, H height, W width, C channels, P pixels (B*H*W),
N heads, D channels of a head, S tokens that a query attends to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.ops import chunks
from models.layers.ops.chunks import over_pixels, recomputing
from models.layers.ops.compiled import CompiledBlock
from models.layers.ops.linear import zero_start
from models.layers.vrt.arguments import mlp_ratio_faults
from utils.user_error import UserError
from utils.utils_registry import FUSIONS, Faults, check_rules, raise_faults

# Pixels of a chunk: 3 * 128**2, the value of the project's first documents (`chunk_limit`).
MAX_BATCH_TOKENS = 49152


class RelativeBias(nn.Module):
    """Learned attention bias per head, per distance in time and, with a neighbourhood, per place.

    Initialised to decrease with distance, faster in the first heads than in the last, plus a little noise so that past
    and future differ.

    Args:
        num_heads: N.
        reach: largest distance in frames that has its own bias.
        window: side of the spatial neighbourhood, odd.
        steps: frames per query and per key.
    """

    def __init__(self, num_heads: int, reach: int, window: int, steps: tuple[int, int]) -> None:
        super().__init__()
        self.reach, self.steps = reach, steps
        slopes = 2.0 ** -torch.arange(num_heads)[:, None]
        noise = nn.init.trunc_normal_(torch.empty(num_heads, 2 * reach + 1), std=0.02)
        self.time = nn.Parameter(noise - slopes * torch.arange(-reach, reach + 1).abs())
        if window > 1:
            offsets = torch.arange(window) - window // 2
            places = offsets.square()[:, None] + offsets.square()
            self.place = nn.Parameter(-slopes * places.flatten())
        else:
            self.register_parameter("place", None)

    def forward(self, num_queries: int, num_keys: int) -> Tensor:
        """(N, T, S): keys in the order (place, time)."""
        device = self.time.device
        queries = torch.arange(num_queries, device=device) * self.steps[0]  # (T,)
        keys = torch.arange(num_keys, device=device) * self.steps[1]  # (T',)
        distances = (queries[:, None] - keys).clamp(-self.reach, self.reach)  # (T, T')
        bias = self.time[:, distances + self.reach]  # (N, T, T')
        if self.place is None:
            return bias
        return (self.place[:, None, :, None] + bias[:, :, None]).flatten(2)  # (N, T, S), S = places * T'


class TemporalAttention(nn.Module):
    """Multi-head attention over the times of a pixel, or of its neighbourhood.

    Args:
        dim: C.
        num_heads: N, which divides C.
        reach, window, steps: see `RelativeBias`.
    """

    def __init__(self, dim: int, num_heads: int, reach: int, window: int = 1, steps: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.query = nn.Linear(dim, dim)
        # No bias: a bias of the keys would add the same number to all scores of a query, and have no gradient.
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.bias = RelativeBias(num_heads, reach, window, steps)
        self.project = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, sources: Tensor) -> Tensor:
        """Attends from frames to sources.

        Args:
            queries: (B, T, H, W, C).
            sources: (B, T', H + window - 1, W + window - 1, C), with a margin for the neighbourhood.

        Returns:
            (B, T, H, W, C).
        """
        batch, count, height, width, dim = queries.shape
        heads = (self.num_heads, dim // self.num_heads)
        query = self.query(queries).view(batch, count, -1, *heads).permute(0, 2, 3, 1, 4)  # (B, H*W, N, T, D)
        query = query.flatten(0, 2) * heads[1] ** -0.5  # (P*N, T, D)
        key, value = self._neighbours(self.key_value(sources), height, width)  # (P*N, S, D) each
        scores = torch.bmm(query, key.mT).unflatten(0, (-1, self.num_heads))  # (P, N, T, S)
        weights = (scores + self.bias(count, sources.shape[1])).softmax(-1)  # (P, N, T, S)
        out = torch.bmm(weights.flatten(0, 1).to(value.dtype), value)  # (P*N, T, D)
        out = out.view(batch, height * width, self.num_heads, count, -1).permute(0, 3, 1, 2, 4)  # (B, T, H*W, N, D)
        return self.project(out.reshape(queries.shape))  # (B, T, H, W, C)

    def _neighbours(self, sources: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Keys and values of every pixel and head, (P*N, S, D): (B, T', ..., 2*C) in the order (place, time)."""
        places = [
            sources[:, :, top : top + height, left : left + width]
            for top in range(self.window)
            for left in range(self.window)
        ]
        stacked = torch.stack(places, 1) if len(places) > 1 else sources[:, None]  # (B, places, T', H, W, 2*C)
        split = stacked.unflatten(-1, (2, self.num_heads, -1))  # (B, places, T', H, W, 2, N, D)
        tokens = split.permute(5, 0, 3, 4, 6, 1, 2, 7).flatten(5, 6).flatten(1, 4)  # (2, P*N, S, D)
        return tokens[0], tokens[1]


class TemporalBlock(CompiledBlock):
    """x + attention over time, then x + MLP(LN x), at one scale.

    Args:
        dim: C.
        num_heads, reach, window, steps: see `TemporalAttention`.
        mlp_ratio: hidden channels of the MLP over C.
        cross: keys and values come from another tensor than the queries.
        max_batch_tokens: largest number of pixels in a chunk.
        recompute: gradient checkpointing, chunk by chunk.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        reach: int,
        *,
        window: int = 1,
        steps: tuple[int, int] = (1, 1),
        mlp_ratio: float = 2.0,
        cross: bool = False,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.margin, self.max_batch_tokens, self.recompute = window // 2, max_batch_tokens, recompute
        self.norm1 = nn.LayerNorm(dim)
        self.norm_source = nn.LayerNorm(dim) if cross else None
        self.attn = TemporalAttention(dim, num_heads, reach, window, steps)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self._hidden = hidden
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, sources: Tensor | None = None) -> Tensor:
        """(B, T, H, W, C) to the same shape; `sources` (B, T', H, W, C) for cross-attention."""
        assert (sources is None) == (self.norm_source is None), "sources are for cross-attention"
        if sources is not None:
            sources = with_margin(sources, self.margin)  # (B, T', H + 2*margin, W + 2*margin, C)
        return over_pixels(self._run, x, sources, self._max_pixels(x, sources))  # (B, T, H, W, C)

    def transform(self, x: Tensor, sources: Tensor | None) -> Tensor:
        """The block's formula, (B, T, H, W, C) to the same shape; `sources` include their margin."""
        queries = self.norm1(x)  # (B, T, H, W, C)
        keys = queries if sources is None or self.norm_source is None else self.norm_source(sources)  # (B, T', ..., C)
        x = x + self.attn(queries, keys)  # (B, T, H, W, C)
        return x + self.mlp(self.norm2(x))  # (B, T, H, W, C)

    def _run(self, x: Tensor, sources: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return self.transform(x, sources)
        return recomputing(self.compiled(_transform), self.recompute)(self, x, sources)

    def _max_pixels(self, x: Tensor, sources: Tensor | None) -> int:
        """Pixels in a chunk."""
        if torch.is_grad_enabled():
            return self.max_batch_tokens
        seen = x.shape[1] if sources is None else sources.shape[1] * self.attn.window**2
        # The widest result is keys and values, or the MLP's hidden channels.
        widest = max(2 * seen * x.shape[4], x.shape[1] * self._hidden)
        return min(self.max_batch_tokens, chunks.FRAMES.items(x, widest * x.element_size()))


def _transform(block: TemporalBlock, x: Tensor, sources: Tensor | None) -> Tensor:
    """`TemporalBlock.transform` as a module-level function, so that blocks share its compiled graphs."""
    return block.transform(x, sources)


def with_margin(x: Tensor, margin: int) -> Tensor:
    """(B, T, H, W, C) with its edges repeated `margin` times on all four sides."""
    for dim in (2, 3) if margin else ():
        repeats = [-1] * x.dim()
        repeats[dim] = margin
        first, last = (x.narrow(dim, place, 1).expand(repeats) for place in (0, x.shape[dim] - 1))
        x = torch.cat((first, x, last), dim)
    return x


class SpikeTemporalSA(nn.Module):
    """Self-attention over time within the spike features of each scale.

    Args:
        channels: C of the four scales.
        reach: largest distance in frames with a bias of its own: that of the training clip.
        time_steps: frames per token of each scale.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP over C.
        max_batch_tokens: largest number of pixels in a chunk.
        checkpoint: recompute in the backward pass.

    Raises:
        UserError: arguments that do not fit together, by their option keys.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reach: int,
        time_steps: Sequence[int],
        *,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        checkpoint: bool = False,
    ) -> None:
        raise_faults("netG.spike_attn_", self.faults(locals()))
        super().__init__()
        self.scales = nn.ModuleList(
            TemporalBlock(
                dim,
                heads,
                reach,
                steps=(step, step),
                mlp_ratio=mlp_ratio,
                max_batch_tokens=max_batch_tokens,
                recompute=checkpoint,
            )
            for dim, step in zip(channels, time_steps, strict=True)
        )

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_heads, _mlp_ratio, _max_batch_tokens), arguments)

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Four tensors (B, T', H', W', C) to the same shapes."""
        return [block(x) for block, x in zip(self.scales, pyramid, strict=True)]  # (B, T', H', W', C) each


@FUSIONS.register("temporal_cross_attention", "MultiScaleTemporalCrossAttnFuse", "TemporalCrossAttn")
class TemporalCrossAttentionFusion(nn.Module):
    """Attention over time from the frame features of encoder stages 1 to 4 to the spike features.

    The last projections of attention and MLP start at zero: the first output is the frame features, bit for bit.

    Args:
        channels: C of the four scales.
        reach: largest distance in frames with a bias of its own: that of the training clip.
        time_steps: frames per token of each scale of the spike features.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP over C.
        window: side of the neighbourhood of spike features that a pixel attends to; 1: the same pixel only; 3 tolerates
            a misregistration of one pixel.
        max_batch_tokens: largest number of pixels in a chunk.
        checkpoint: recompute in the backward pass.

    Raises:
        UserError: arguments that do not fit together, by their option keys.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reach: int,
        time_steps: Sequence[int],
        *,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        window: int = 1,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        checkpoint: bool = False,
    ) -> None:
        raise_faults("netG.fuse_", self.faults(locals()))
        super().__init__()
        self.scales = nn.ModuleList()
        for dim, step in zip(channels, time_steps, strict=True):
            block = TemporalBlock(
                dim,
                heads,
                reach,
                window=window,
                steps=(1, step),
                mlp_ratio=mlp_ratio,
                cross=True,
                max_batch_tokens=max_batch_tokens,
                recompute=checkpoint,
            )
            zero_start(block.attn.project)
            zero_start(block.mlp[-1])
            self.scales.append(block)

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_heads, _mlp_ratio, _window, _max_batch_tokens), arguments)

    def forward(self, stage: int, frames: Tensor, spikes: Tensor) -> Tensor:
        """Fuses one scale.

        Args:
            stage: 0..3.
            frames: (B, T, H, W, C), output of encoder stage `stage` + 1.
            spikes: (B, T', H, W, C), features of the same scale.

        Returns:
            (B, T, H, W, C).
        """
        assert frames.shape[2:] == spikes.shape[2:], (frames.shape, spikes.shape)
        return self.scales[stage](frames, spikes)  # (B, T, H, W, C)


def chunk_limit(adaptive_chunk: bool, max_batch_tokens: int, chunk_size: int, chunk_shape: str) -> int:
    """`max_batch_tokens` from the chunk keys of the project's first documents.

    Args:
        adaptive_chunk: True: the limit is `max_batch_tokens`; False: it is `chunk_size`**2.
        chunk_size: side of a square chunk.
        chunk_shape: "square", "wide" or "tall", of `chunk_size`**2 pixels each; the result doesn't depend on it.

    Raises:
        UserError: unknown `chunk_shape`.
    """
    shapes = ("square", "wide", "tall")
    if chunk_shape not in shapes:
        raise UserError(f"chunk_shape: {chunk_shape!r} is unknown. Choices: {', '.join(shapes)}.")
    return max_batch_tokens if adaptive_chunk else chunk_size**2


def _heads(channels: Sequence[int], heads: int) -> Faults:
    if heads < 1 or any(dim % heads for dim in channels):
        yield "heads", f"must divide netG.embed_dims[:4] = {list(channels)}; got {heads}"


def _mlp_ratio(channels: Sequence[int], mlp_ratio: float) -> Faults:
    yield from mlp_ratio_faults(mlp_ratio, channels)


def _window(window: int) -> Faults:
    if window < 1 or window % 2 == 0:
        yield "window", f"side of a neighbourhood, an odd number, at least 1; got {window}"


def _max_batch_tokens(max_batch_tokens: int) -> Faults:
    if max_batch_tokens < 1:
        yield "max_batch_tokens", f"pixels computed at a time, at least 1; got {max_batch_tokens}"
