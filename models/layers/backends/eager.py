"""The back end "eager": VRT's window attention and alignment by separate operations on whole tensors.

Scores, bias, mask and softmax are separate passes over a matrix of all pairs of tokens; shift and windows are padded,
rolled and permuted copies; every shifted window has its own mask; frames are aligned pair by pair, by torchvision.
Implementations usually do it this way. It is the reference of the tests and the baseline of
`scripts/benchmark/bench_vrt.py`. Chosen by `"compute_backend": "eager"`.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window, K neighbours per direction; T', H', W'
padded to multiples of the window.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.backends.backend import COMPUTE_BACKENDS
from models.layers.backends.token_backend import TokenBackend
from models.layers.ops.chunks import recomputing
from models.layers.ops.deform_conv import torchvision_deform_conv3x3
from models.layers.ops.flow_warp import at_least_float32, flow_warp
from models.layers.ops.frame_conv import FrameConv
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA, GatedMlp, scaled
from models.layers.vrt.window_attention import SHIFT_MASK, WindowAttention
from models.layers.vrt.window_layout import WindowLayout


@COMPUTE_BACKENDS.register("eager")
class EagerBackend(TokenBackend):
    """Plain attention; runs everywhere."""

    chunked = False
    automatic = False  # it is what the others are compared with

    def align_clip(self, alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Backend.align_clip`."""
        return align(alignment, x, flows)

    def apply_mlp(self, mlp: GatedMlp, x: Tensor) -> Tensor:
        """See `Backend.apply_mlp`: operation by operation."""
        return mlp.fc2(F.gelu(mlp.fc11(x)) * mlp.fc12(x))  # (..., out)

    def add_mlp(self, block: TMSA, tokens: Tensor, factor: Tensor | None) -> Tensor:
        """See `TokenBackend.add_mlp`."""

        def branch(tokens: Tensor) -> Tensor:
            return self.apply_mlp(block.mlp, block.norm2(tokens))

        return tokens + scaled(recomputing(branch, block.checkpoint_ffn)(tokens), factor)

    def convolve(self, conv: FrameConv, frames: Tensor) -> Tensor:
        """See `Executor.convolve`: as the three-dimensional convolution that the weight is stored for."""
        return nn.Conv3d.forward(conv, frames.transpose(0, 1)[None])[0].transpose(0, 1)  # (n, out, H, W)

    def attend_tokens(self, attention: WindowAttention, x: Tensor, layout: WindowLayout) -> Tensor:
        """See `TokenBackend.attend_tokens`."""
        size, shift, per_window = layout.size, layout.shift, layout.tokens_per_window
        padded = [-(-n // w) * w for n, w in zip(size, layout.window, strict=True)]
        bottom = [p - n for p, n in zip(padded, size, strict=True)]
        # (B, T', H', W', C)
        grid = F.pad(x.view(layout.batch, *size, -1), (0, 0, 0, bottom[2], 0, bottom[1], 0, bottom[0]))
        mask = None
        if any(shift):
            grid = torch.roll(grid, [-s for s in shift], (1, 2, 3))
            mask = layout.full_mask * SHIFT_MASK  # (windows of a sample, N, N)
        windows = _partition(grid, layout.window)  # (windows, N, C)
        bias = attention.codes.relative_bias(attention.relative_position_bias_table, layout.window)  # (heads, N, N)
        heads = attention.num_heads
        # (windows, heads, N, head_dim) each
        q, k, v = attention.qkv_self(windows).view(*windows.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        result = _attend(q, k, v, attention.scale, bias, mask)  # (windows, N, C)
        if attention.mutual:
            half = per_window // 2
            coded = windows + attention.codes.position_code(layout.window)  # (windows, N, C)
            q, k, v = attention.qkv_mut(coded).view(*windows.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
            spatial = None if mask is None else mask[:, :half, :half]
            # (windows, N/2, C) each
            of_first = _attend(q[:, :, half:], k[:, :, :half], v[:, :, :half], attention.scale, None, spatial)
            of_second = _attend(q[:, :, :half], k[:, :, half:], v[:, :, half:], attention.scale, None, spatial)
            result = torch.cat((torch.cat((of_first, of_second), 1), result), 2)  # (windows, N, 2*C)
        grid = _join(attention.proj(result), layout.batch, padded, layout.window)  # (B, T', H', W', C)
        if any(shift):
            grid = torch.roll(grid, shift, (1, 2, 3))
        return grid[:, : size[0], : size[1], : size[2]].reshape(x.shape)  # (B*T*H*W, C)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """(windows, heads, N, head_dim) to (windows, N, C); bias (heads, N, N), mask (windows of a sample, N, N)."""
    scores = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask[:, None].to(scores.dtype)).flatten(0, 1)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


def _partition(grid: Tensor, window: tuple[int, int, int]) -> Tensor:
    """(B, T, H, W, C) to (windows, N, C)."""
    cut = grid.unflatten(3, (-1, window[2])).unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(0, 3)


def _join(windows: Tensor, batch: int, size: list[int], window: tuple[int, int, int]) -> Tensor:
    """Inverse of `_partition`."""
    counts = [n // w for n, w in zip(size, window, strict=True)]
    cut = windows.view(batch, *counts, *window, -1)
    return cut.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *size, -1)


def align(alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
    """`DeformableAlignment.forward`, frame by frame."""
    frames = x.permute(0, 1, 4, 2, 3)
    count, reach = x.shape[1], alignment.reach
    zeros = torch.zeros_like(frames[:, 0])
    results = []
    for direction, step in enumerate((1, -1)):
        aligned = [zeros] * count
        for t in range(count - 1) if step > 0 else range(1, count):
            here = [flows[direction, :, t if step > 0 else t - 1, k] for k in range(reach)]
            places = [t + step * (k + 1) for k in range(reach)]
            neighbours = [frames[:, p] if 0 <= p < count else zeros for p in places]
            aligned[t] = _align_frame(alignment, frames[:, t], neighbours, here)
        results.append(torch.stack(aligned, 1).permute(0, 1, 3, 4, 2))
    return results[0], results[1]


def _align_frame(
    alignment: DeformableAlignment, current: Tensor, neighbours: list[Tensor], flows: list[Tensor]
) -> Tensor:
    """(B, C, H, W): K neighbours (B, C, H, W) aligned to a frame by their flows (B, 2, H, W)."""
    warped = [flow_warp(other, flow) for other, flow in zip(neighbours, flows, strict=True)]
    first, second, modulation = torch.chunk(alignment.conv_offset(torch.cat((*warped, current, *flows), 1)), 3, 1)
    offset = alignment.max_residue * torch.tanh(torch.cat((first, second), 1))
    parts = torch.chunk(offset, len(flows), 1)
    offset = torch.cat([p + f.flip(1).repeat(1, p.shape[1] // 2, 1, 1) for p, f in zip(parts, flows, strict=True)], 1)
    # torchvision computes it in float32 where autocast is on, but not on every device.
    tensors = torch.cat(neighbours, 1), offset, torch.sigmoid(modulation), alignment.weight, alignment.bias
    with torch.autocast(current.device.type, enabled=False):
        aligned = torchvision_deform_conv3x3(*(at_least_float32(tensor) for tensor in tensors))
    return aligned.to(current.dtype)  # (B, C, H, W)
