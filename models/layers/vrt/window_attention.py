"""Self and mutual attention within three-dimensional windows (VRT, arXiv 2201.12288, section 3.2).

Self attention has a learned bias per relative position. Mutual attention pairs the two frames of a window: queries of
frame 2 attend to keys and values of frame 1, and the results are placed at frame 1's positions; and vice versa.

Constants that depend on the window alone are computed once per network and shared by all blocks (`WindowCodes`).
Published checkpoints repeat them in every block as `relative_position_index` and `position_bias`: these keys are
written on saving and compared on loading, but not stored.

Legend: C channels, N tokens of a window, windows = number of windows.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.ops.linear import linear
from models.layers.vrt.window_layout import Size3, Windows

# Added to the scores of pairs of tokens that a shift brought together. The published weights were trained with -100.
SHIFT_MASK = -100.0

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
# Terms added to the scores of self and of mutual attention, by kind of window (`WindowAttention.biases`).
Biases = dict[int, tuple[Tensor, Tensor | None]]


def relative_position_index(window: Size3) -> Tensor:
    """(N, N) int64: row of the bias table for every pair of tokens of a window (frames, height, width)."""
    axes = [torch.arange(length) for length in window]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    offsets = places[:, :, None] - places[:, None, :]
    index = torch.zeros_like(offsets[0])
    for offset, length in zip(offsets, window, strict=True):
        index = index * (2 * length - 1) + offset + length - 1
    return index


def sine_position_code(height: int, width: int, channels: int) -> Tensor:
    """(1, height*width, channels) float32: DETR's normalised sine code, half the channels for y, then half for x."""
    per_axis = channels // 2
    wavelength = 10000.0 ** (2 * torch.div(torch.arange(per_axis), 2, rounding_mode="floor") / per_axis)
    codes = []
    for length in (height, width):
        angle = torch.arange(1, length + 1, dtype=torch.float32) / (length + 1e-6) * (2 * math.pi)
        angle = angle[:, None] / wavelength
        codes.append(torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1))
    rows = codes[0][:, None].expand(height, width, -1)
    columns = codes[1][None].expand(height, width, -1)
    return torch.cat((rows, columns), dim=2).reshape(1, height * width, -1)


def _shift_masks(window: Size3) -> Tensor:
    """(8, N, N) bool: pairs to mask in windows that wrap around in time (4), height (2), width (1)."""
    crossings = []
    for axis, length in enumerate(window):
        shape = [1, 1, 1]
        shape[axis] = length
        wrapped = (torch.arange(length) >= length - length // 2).view(shape).expand(window).reshape(-1)
        crossings.append(wrapped[:, None] != wrapped[None, :])
    kinds = [[crossing for bit, crossing in zip((4, 2, 1), crossings, strict=True) if kind & bit] for kind in range(8)]
    unmasked = torch.zeros_like(crossings[0])
    return torch.stack([torch.stack([unmasked, *kind]).any(0) for kind in kinds])


class WindowCodes(nn.Module):
    """Constants that depend on the window's size alone, shared by all blocks with that window.

    The tensors are buffers, so that `.to()` and `deepcopy` include them; they are not persistent.

    Args:
        window: (frames, height, width).
        position_channels: channels of the sine code for mutual attention; 0 for none.
    """

    relative_position_index: Tensor
    position_bias: Tensor
    shift_masks: Tensor

    def __init__(self, window: Size3, position_channels: int = 0) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.register_buffer("shift_masks", _shift_masks(window), persistent=False)
        if position_channels:
            code = sine_position_code(window[1], window[2], position_channels)
            self.register_buffer("position_bias", code, persistent=False)

    def _places(self, window: Size3) -> Tensor:
        """(n,) indices of the tokens of a smaller window, placed at the origin of this one."""
        device = self.relative_position_index.device
        frames, rows, columns = (torch.arange(length, device=device) for length in window)
        return ((frames[:, None, None] * self.window[1] + rows[:, None]) * self.window[2] + columns).reshape(-1)

    def relative_bias(self, table: Tensor, window: Size3) -> Tensor:
        """(heads, n, n): the bias table (rows, heads) gathered for all pairs of a window no larger than this one."""
        index = self.relative_position_index
        if window != self.window:
            places = self._places(window)
            index = index[places][:, places]
        return table.t().index_select(1, index.reshape(-1)).view(-1, *index.shape)

    def shift_mask(self, kind: int, window: Size3) -> Tensor:
        """(n, n) bool: pairs to mask in windows of this kind (`WindowLayout.segments`)."""
        mask = self.shift_masks[kind]
        if window != self.window:
            places = self._places(window)
            mask = mask[places][:, places]
        return mask

    def position_code(self, window: Size3) -> Tensor:
        """(1, frames*height*width, C): the sine code, the same for each frame of the window."""
        code = self.position_bias
        if window[1:] != self.window[1:]:
            code = code[:, self._places((1, window[1], window[2]))]
        return code.repeat(1, window[0], 1)


@dataclass(frozen=True)
class BlockSettings:
    """Settings that all blocks of a stage or group share.

    Attributes:
        dim: channels C, a multiple of `num_heads`.
        num_heads: attention heads.
        drop_paths: per block, the probability per sample that training drops a branch.
        mlp_ratio: hidden channels of the MLP over C.
        qkv_bias: whether the query, key and value projections have a bias.
        qk_scale: factor of the attention scores; head_dim**-0.5 if None.
        checkpoint_attn, checkpoint_ffn: recompute the attention or MLP half in the backward pass.
    """

    dim: int
    num_heads: int
    drop_paths: tuple[float, ...]
    mlp_ratio: float = 2.0
    qkv_bias: bool = True
    qk_scale: float | None = None
    checkpoint_attn: bool = False
    checkpoint_ffn: bool = False


def joined_heads(heads: Tensor) -> Tensor:
    """(windows, heads, N, head_dim) to tokens (windows * N, C)."""
    return heads.transpose(1, 2).flatten(2).flatten(0, 1)


class WindowAttention(nn.Module):
    """Attention within windows; all tensors are in window order (`models/layers/vrt/window_layout.py`).

        own = softmax(q kT * scale + bias) v                       self attention of a window's N tokens
        mutual = softmax(q' k'T * scale) v'                        queries of one frame, keys and values of the other
        result = proj([mutual, own])                               or proj(own)

    Args:
        settings: `dim`, `num_heads`, `qkv_bias` and `qk_scale` are used.
        codes: shared constants of the window.
        mutual: add mutual attention between the two frames of a window.
    """

    def __init__(self, settings: BlockSettings, codes: WindowCodes, *, mutual: bool = False) -> None:
        super().__init__()
        dim, self.num_heads = settings.dim, settings.num_heads
        self.mutual = mutual
        self.scale = (dim // self.num_heads) ** -0.5 if settings.qk_scale is None else settings.qk_scale
        self.codes = codes
        rows = math.prod(2 * length - 1 for length in codes.window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, self.num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv_self = nn.Linear(dim, dim * 3, bias=settings.qkv_bias)
        self.proj = nn.Linear(dim * 2 if mutual else dim, dim)
        if mutual:
            self.qkv_mut = nn.Linear(dim, dim * 3, bias=settings.qkv_bias)

    def biases(self, window: Size3, kinds: Iterable[int], keys_first: bool = False) -> Biases:
        """Terms added to the scores, by kind of window: (1, heads, N, N) for self attention and, if windows wrap around
        in space, (1, 1, N/2, N/2) for mutual attention; queries before keys unless `keys_first`."""
        table = self.relative_position_bias_table
        # To transpose the bias, reverse the table, as opposite offsets have opposite rows. The masks are symmetric.
        bias = self.codes.relative_bias(table.flip(0) if keys_first else table, window)[None]
        result: Biases = {}
        for kind in kinds:
            if not kind:
                result[kind] = bias, None
                continue
            mask = self.codes.shift_mask(kind, window).to(bias.dtype) * SHIFT_MASK
            # Mutual attention takes the mask of the window's first frame only: a pair of the first and the last frame,
            # which a shift in time brings together, stays unmasked, as in the published weights' training.
            half = mask.shape[0] // 2
            result[kind] = bias + mask, mask[None, None, :half, :half] if kind & 3 else None
        return result

    def forward(self, tokens: Tensor, windows: Windows, biases: Biases, attend: Attend) -> Tensor:
        """Tokens (windows * N, C) to tokens of the same shape.

        Args:
            windows: size and kinds of the windows.
            biases: from `biases`.
            attend: softmax(q kT * scale + bias) v, as `WindowBackend.attend`.
        """
        *of_mutual, of_own = self.proj.weight.split(tokens.shape[1], dim=1)  # (C, C) each
        q, k, v = self._qkv(tokens, windows)  # (windows, heads, N, head_dim) each
        if self.mutual:
            other_q, other_k, other_v = self._mutual_qkv(tokens, windows)  # (2 * windows, heads, N/2, head_dim) each
        results, start = [], 0
        # Attend and project one kind of windows at a time: joining before the projection would copy the tensors that
        # attention keeps for the backward pass.
        for kind, count in windows.segments:
            own_bias, mutual_bias = biases[kind]
            part, pairs = slice(start, start + count), slice(2 * start, 2 * (start + count))
            result = None
            if self.mutual:
                mutual = attend(other_q[pairs], other_k[pairs], other_v[pairs], mutual_bias, self.scale)
                result = linear(joined_heads(mutual), of_mutual[0], None)  # (count * N, C)
            own = attend(q[part], k[part], v[part], own_bias, self.scale)  # (count, heads, N, head_dim)
            results.append(linear(joined_heads(own), of_own, self.proj.bias, plus=result))  # (count * N, C)
            start += count
        return results[0] if len(results) == 1 else torch.cat(results)  # (windows * N, C)

    def _qkv(self, tokens: Tensor, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (windows, heads, N, head_dim) each."""
        shape = (-1, windows.tokens_per_window, 3, self.num_heads, tokens.shape[1] // self.num_heads)
        q, k, v = linear(tokens, self.qkv_self.weight, self.qkv_self.bias).view(shape).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _mutual_qkv(self, tokens: Tensor, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of one frame, keys and values of its pair's other: (2 * windows, heads, N/2, head_dim) each."""
        per_window, code = windows.tokens_per_window, self.codes.position_code(windows.window)  # N, (1, N, C)
        coded = (tokens.view(-1, per_window, tokens.shape[1]) + code).view(tokens.shape)  # (windows * N, C)
        projected = linear(coded, self.qkv_mut.weight, self.qkv_mut.bias)  # (windows * N, 3 * C)
        pairs = projected.view(-1, 2, per_window // 2, 3, self.num_heads, tokens.shape[1] // self.num_heads)
        swapped = pairs[:, :, :, 0].flip(1).flatten(0, 1).transpose(1, 2)
        keys, values = pairs[:, :, :, 1:].flatten(0, 1).permute(2, 0, 3, 1, 4)
        return swapped, keys, values

    def _constants(self) -> dict[str, Tensor]:
        constants = {"relative_position_index": self.codes.relative_position_index}
        if self.mutual:
            constants["position_bias"] = self.codes.position_bias
        return constants

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, value in self._constants().items():
            destination[prefix + name] = value

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name, own in self._constants().items():
            stored = state_dict.pop(prefix + name, None)
            if stored is None:
                continue
            halved = torch.float16 in (stored.dtype, own.dtype) or torch.bfloat16 in (stored.dtype, own.dtype)
            tolerance = (
                1e-2 if halved else 1e-4
            )  # bfloat16 rounds 1 to 2**-8; float32 codes differ by their trigonometry
            if stored.shape != own.shape or (stored.cpu().double() - own.cpu()).abs().max() > tolerance:
                error_msgs.append(
                    f"{prefix}{name}: the checkpoint's constant {tuple(stored.shape)} is not that of a window "
                    f"{self.codes.window}: it belongs to a network with another netG.window_size or order of tokens."
                )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
