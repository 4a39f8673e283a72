"""Assignment of tokens to attention windows, as indices.

Cyclic shift, zero padding to window multiples and the partition into windows (Swin, arXiv 2103.14030, in three
dimensions) are one permutation of tokens here: `tokens[layout.index]` is in window order and
`[layout.inverse]` undoes it. Windows with the same shift mask are adjacent in that order. Only the last window along a
shifted axis wraps around, so there are at most 2**3 kinds of windows, and no mask is expanded over all windows.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from models.layers.ops.chunks import slices

Size3 = tuple[int, int, int]


@dataclass(frozen=True)
class Windows:
    """Consecutive windows of a layout, or all of them.

    Attributes:
        window: a window's size (frames, height, width) on this grid; N is its product.
        segments: (kind, number of windows) in window order; bit 4 of the kind is set where the window wraps around
            in time, bit 2 in height, bit 1 in width. 0 needs no mask.
        index: (windows * N,) int64, row of the token at each place of the window order. A padded place has the row of
            another token of its window, its stand-in.
        padding: (windows * N,) bool, True at padded places, which hold no token; None without padding.
        stand_ins: (windows * N,) int64, place within the window (0 to N-1) of the token at `index`; differs from the
            place itself only at padded places. None without padding.
        samples: (windows,) int64, batch entry of each window.
    """

    window: Size3
    segments: tuple[tuple[int, int], ...]
    index: Tensor
    padding: Tensor | None
    stand_ins: Tensor | None
    samples: Tensor

    @property
    def tokens_per_window(self) -> int:
        """N."""
        return self.window[0] * self.window[1] * self.window[2]

    @property
    def kinds(self) -> list[int]:
        """The kind of each segment."""
        return [kind for kind, _ in self.segments]

    def take(self, tokens: Tensor) -> Tensor:
        """Rows (windows * N, C) of tokens (B*T*H*W, C); padded places hold a copy of their stand-in."""
        return tokens.index_select(0, self.index)

    def take_gradient(self, grad: Tensor) -> Tensor:
        """Like `take`, for the gradient of tokens that `put` wrote; zeros at padded places."""
        rows = self.take(grad)
        return rows if self.padding is None else rows.masked_fill_(self.padding[:, None], 0)

    def put(self, rows: Tensor, tokens: Tensor) -> None:
        """Inverse of `take`: writes rows (windows * N, C) into `tokens` (B*T*H*W, C)."""
        if self.stand_ins is not None:
            # Padded places write the same row as their stand-in: a boolean mask would synchronise with the GPU.
            windows = rows.view(self.samples.numel(), -1, rows.shape[1])  # (windows, N, C)
            places = self.stand_ins.view(*windows.shape[:2], 1).expand_as(windows)
            rows = windows.gather(1, places).view(rows.shape)
        tokens.index_copy_(0, self.index, rows)

    def zero_padding(self, rows: Tensor) -> Tensor:
        """Rows (windows * N, C) with zeros at padded places."""
        return rows if self.padding is None else rows.masked_fill(self.padding[:, None], 0)


@dataclass(frozen=True)
class WindowLayout(Windows):
    """All windows of one (B, T, H, W) token grid.

    Attributes:
        batch: B.
        size: (T, H, W).
        shift: cyclic shift towards the origin on this grid: place p of the shifted axis holds coordinate (p + shift)
            modulo the axis' padded length, a token where that is smaller than the axis.
        inverse: (B*T*H*W,) int64, place of each token in the window order.
    """

    batch: int
    size: Size3
    shift: Size3
    inverse: Tensor

    def chunks(self, step: int) -> Iterator[Windows]:
        """All windows, in order, in chunks of at most `step`."""
        per_window = self.tokens_per_window
        for chunk in slices(self.samples.numel(), step):
            rows = slice(chunk.start * per_window, chunk.stop * per_window)
            segments, first = [], 0
            for kind, count in self.segments:
                inside = min(chunk.stop, first + count) - max(chunk.start, first)
                if inside > 0:
                    segments.append((kind, inside))
                first += count
            yield Windows(
                self.window,
                tuple(segments),
                self.index[rows],
                None if self.padding is None else self.padding[rows],
                None if self.stand_ins is None else self.stand_ins[rows],
                self.samples[chunk],
            )

    @cached_property
    def full_mask(self) -> Tensor:
        """(windows of a sample, N, N) float32: 1 for pairs that only the shift brought into one window; windows in the
        grid's order. Used by the eager back end; as large as the scores of one head."""
        labels = torch.zeros(1, 1, 1, device=self.index.device)
        for axis, (length, extent, step) in enumerate(zip(self.size, self.window, self.shift, strict=True)):
            padded = -(-length // extent) * extent
            place = torch.arange(padded, device=labels.device)
            region = (place >= padded - extent).int() + (place >= padded - step) if step else torch.zeros_like(place)
            shape = [1, 1, 1]
            shape[axis] = padded
            labels = 3 * labels + region.view(shape)
        cut = labels.unflatten(2, (-1, self.window[2])).unflatten(1, (-1, self.window[1]))
        cut = cut.unflatten(0, (-1, self.window[0])).permute(0, 2, 4, 1, 3, 5).reshape(-1, self.tokens_per_window)
        return (cut[:, None] != cut[:, :, None]).float()


def fit_window(size: Size3, window: Size3, shift: Size3, pairs: bool) -> tuple[Size3, Size3]:
    """Window and shift on a grid of `size`: an axis no longer than the window has one window and no shift.

    Args:
        pairs: keep the window's number of frames: mutual attention needs two, so the last frame of an odd number is
            paired with a padded zero frame.
    """
    fitted = [min(length, full) for length, full in zip(size, window, strict=True)]
    moved = [0 if length <= full else step for length, full, step in zip(size, window, shift, strict=True)]
    if pairs:
        fitted[0] = window[0]
    return (fitted[0], fitted[1], fitted[2]), (moved[0], moved[1], moved[2])


def window_layout(
    batch: int, size: Size3, window: Size3, shift: Size3, *, pairs: bool = False, device: torch.device | str = "cpu"
) -> WindowLayout:
    """The layout of `batch` grids of `size` (T, H, W) cut into windows after a cyclic shift.

    Args:
        window: largest window (frames, height, width).
        shift: cyclic shift towards the origin along each axis, smaller than the window.
        pairs: see `fit_window`.
    """
    window, shift = fit_window(size, window, shift, pairs)
    grid, outside, stand_in = _places(size, window, shift, device)  # (windows per axis..., places of a window) each
    tokens, per_window = size[0] * size[1] * size[2], window[0] * window[1] * window[2]
    first_token = torch.arange(batch, device=device) * tokens
    index, padding, stand_ins, samples, segments = [], [], [], [], []
    for bits in product(*[(0, 1) if step else (0,) for step in shift]):
        # Only the last window of a shifted axis wraps around, so the windows of a kind form a box.
        box = tuple(
            slice(None) if not step else slice(-1, None) if bit else slice(0, -1)
            for bit, step in zip(bits, shift, strict=True)
        )
        windows = grid[box].reshape(1, -1, per_window)
        index.append((windows + first_token.view(-1, 1, 1)).reshape(-1))
        padding.append(outside[box].reshape(1, -1).expand(batch, -1).reshape(-1))
        stand_ins.append(stand_in[box].reshape(1, -1).expand(batch, -1).reshape(-1))
        samples.append(torch.arange(batch, device=device).repeat_interleave(windows.shape[1]))
        segments.append((bits[0] * 4 + bits[1] * 2 + bits[2], batch * windows.shape[1]))

    all_index, all_padding = torch.cat(index), torch.cat(padding)
    padded = any(length % extent for length, extent in zip(size, window, strict=True))
    places = torch.arange(all_index.numel(), device=device)
    # Padded places write into an extra entry at the end: a boolean mask would synchronise with the GPU.
    inverse = torch.empty(batch * tokens + 1, dtype=torch.int64, device=device)
    inverse[all_index.masked_fill(all_padding, batch * tokens)] = places
    return WindowLayout(
        window=window,
        segments=tuple(segments),
        index=all_index,
        padding=all_padding if padded else None,
        stand_ins=torch.cat(stand_ins) if padded else None,
        samples=torch.cat(samples),
        batch=batch,
        size=size,
        shift=shift,
        inverse=inverse[:-1],
    )


def _places(size: Size3, window: Size3, shift: Size3, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """For every place of every window of one grid: its token, whether it is padding, and the place that stands in."""
    # Per axis, the source coordinate of every place, (windows, places); coordinates >= `length` are padding.
    axes = []
    for length, extent, step in zip(size, window, shift, strict=True):
        count = -(-length // extent)
        axes.append(((torch.arange(count * extent, device=device) + step) % (count * extent)).view(count, extent))
    missing = [axis >= length for axis, length in zip(axes, size, strict=True)]
    # Padding is shorter than a window, so every window has a token. Its first one is the stand-in of padded places.
    firsts = [absent.int().argmin(1, keepdim=True) for absent in missing]
    own = [
        torch.where(absent, first, torch.arange(absent.shape[1], device=device))
        for absent, first in zip(missing, firsts, strict=True)
    ]
    axes = [axis.gather(1, places) for axis, places in zip(axes, own, strict=True)]
    outside = _combine([absent.long() for absent in missing], (2, 2, 2)) > 0
    return _combine(axes, size), outside, _combine(own, window)


def _combine(axes: list[Tensor], size: Size3) -> Tensor:
    """Flat indices ((first * height) + second) * width + third from those per axis, (windows, places) each; shape
    (windows of each axis, places of each axis)."""
    first, second, third = (
        values.view(
            [*(-1 if i == axis else 1 for i in range(3)), *(values.shape[1] if i == axis else 1 for i in range(3))]
        )
        for axis, values in enumerate(axes)
    )
    return (first * size[1] + second) * size[2] + third


class WindowLayouts:
    """Cache of the layouts of one forward pass."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch = batch
        self.device = device
        self._layouts: dict[tuple[Size3, Size3, Size3, bool], WindowLayout] = {}

    def get(self, size: Size3, window: Size3, shift: Size3, pairs: bool) -> WindowLayout:
        """The layout of a grid of `size` (T, H, W); arguments as in `window_layout`."""
        key = (size, window, shift, pairs)
        if key not in self._layouts:
            self._layouts[key] = window_layout(self.batch, size, window, shift, pairs=pairs, device=self.device)
        return self._layouts[key]


class _Reorder(torch.autograd.Function):
    """rows[index]; its gradient is a gather by `inverse`, which is faster than the default scatter-add."""

    @staticmethod
    def forward(ctx, rows, index, inverse, empty):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inverse, empty)
        return rows.index_select(0, index)  # (len(index), C)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        inverse, empty = ctx.saved_tensors
        grad = grad.index_select(0, inverse)
        return (grad if empty is None else grad.masked_fill_(empty[:, None], 0)), None, None, None


def to_windows(tokens: Tensor, layout: WindowLayout) -> Tensor:
    """Tokens (B*T*H*W, C) in window order (windows * N, C); padded places hold a copy of their stand-in."""
    return _Reorder.apply(tokens, layout.index, layout.inverse, None)


def from_windows(tokens: Tensor, layout: WindowLayout) -> Tensor:
    """Inverse of `to_windows`; drops padded places."""
    return _Reorder.apply(tokens, layout.inverse, layout.index, layout.padding)
