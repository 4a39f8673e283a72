"""Restores a video tile by tile, in time and in space, so that any video fits into memory.

Along each axis neighbouring tiles share `overlap` = halo + blend + halo: the halo is computed and thrown away, because
a network sees padding beyond it; over the `blend` a raised cosine leads from one tile to the next. What the frames at a
true border get is never reduced, and the weights of all tiles sum to one at every pixel.

    blend = None   no halo: whatever overlaps is averaged       KAIR's official tester in time
    blend = 0      hard cut in the middle of the overlap        KAIR's official tester in space
    blend = n      cosine ramp over n pixels in the middle of the overlap

As in KAIR the last tile is moved back to end with the picture, and where it then overlaps more, both count alike. Two
differences are meant: an overlap of 0 works, and a network that enlarges has its halo cut in input pixels (KAIR cuts
half the overlap counted in output pixels, which keeps some of the rim).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AXES = ("frames", "rows", "columns")
KAIR_BLEND: tuple[int | None, int | None, int | None] = (None, 0, 0)


@dataclass(frozen=True)
class Segment:
    """What one tile takes and gives along one axis.

    Attributes:
        begin, end: half-open range of input pixels (or frames) that the network sees.
        keep: the part of its result that counts, in output pixels of the tile.
        place: where that part lies in the whole output.
        weights: weight of each kept pixel, float32; one number where they are all the same.
    """

    begin: int
    end: int
    keep: slice
    place: slice
    weights: Tensor


def restore_tiled(
    net: Callable[..., Tensor],
    lq: Tensor,
    spike: Tensor | None = None,
    *,
    tile: Sequence[int],
    overlap: Sequence[int],
    blend: Sequence[int | None] = KAIR_BLEND,
    scale: int = 1,
    window: Sequence[int] | None = None,
    output_device: torch.device | str = "cpu",
) -> Tensor:
    """Runs a network over a video in overlapping tiles and puts the results together.

    The network is called as the caller's context says (autocast, inference mode), `net(lq_tile)` or
    `net(lq_tile, spike_tile)`, one tile at a time. With a single tile the result is the network's own, bit for bit.

    Args:
        net: takes (B,t,C,h,w), returns (B,t,C',h*scale,w*scale); may return another number of frames (interpolation)
            where the time axis is not split.
        lq: frames (B,T,C,H,W) in any range; left on its device, as are the tiles.
        spike: spike channels (B,T,K,h,w) at their own resolution, cut by the same box.
        tile: frames, rows and columns of a tile; 0, or more than there are, takes the whole axis.
        overlap: frames, rows and columns that neighbouring tiles share; less than the tile.
        blend: per axis None, 0 or a number up to `overlap`, see the module.
        scale: size of the network's output over that of its input.
        window: attention window; given, the tile is checked by `check_tile`.
        output_device: where the results are gathered, in float32.

    Returns:
        (B,T,C',H*scale,W*scale) float32 on `output_device`, detached.

    Raises:
        ValueError: a tile, overlap or blend that can't be had, spikes that don't belong to the frames, or a network
            whose result has another size.
    """
    if window is not None:
        check_tile(tile, window)
    plans = _plan_axes(lq, spike, tile, overlap, blend, scale)
    single = all(len(plan) == 1 for plan in plans)
    output: Tensor | None = None
    for time, rows, columns in itertools.product(*plans):
        result = net(*_cut(lq, spike, time, rows, columns)).detach()
        _check_result(result, lq, (time, rows, columns), scale, time_is_split=len(plans[0]) > 1)
        if single:
            return result.to(output_device, torch.float32)
        if output is None:
            frames = lq.shape[1] if len(plans[0]) > 1 else result.shape[1]
            size = (lq.shape[0], frames, result.shape[2], lq.shape[3] * scale, lq.shape[4] * scale)
            output = torch.zeros(size, dtype=torch.float32, device=output_device)
        kept = result[:, time.keep, :, rows.keep, columns.keep].to(output_device, torch.float32)
        weights = time.weights[:, None, None, None] * rows.weights[:, None] * columns.weights
        output[:, time.place, :, rows.place, columns.place].addcmul_(kept, weights.to(output_device))
    assert output is not None
    return output


def check_tile(tile: Sequence[int], window_size: Sequence[int]) -> None:
    """Checks that rows and columns of a tile are whole attention windows, as KAIR's tester demands.

    The number of frames is free, as in the official settings (40 frames with windows of 6): the network pads them.

    Args:
        tile: frames, rows, columns; 0 for a whole axis.
        window_size: frames, rows, columns of an attention window.

    Raises:
        ValueError: not so; the message names the nearest tiles that are.
    """
    _check_three(tile, "tile")
    for name, size, window in list(zip(AXES, tile, window_size, strict=True))[1:]:
        if size % window:
            raise ValueError(
                f"tile: {size} {name} are no multiple of the attention window of {window}; "
                f"use {_nearest_multiples(size, window)}, or 0 for all {name}"
            )


def plan_axis(
    length: int, tile: int, overlap: int, *, blend: int | None = 0, scale: int = 1, step: int = 1, axis: str = "rows"
) -> list[Segment]:
    """Cuts one axis into overlapping segments with weights that sum to one at every output pixel.

    Args:
        length: input pixels of the axis.
        tile: input pixels of a segment; 0 or at least `length` gives a single one.
        overlap: input pixels that neighbours share.
        blend: None, 0 or a number up to `overlap`, see the module.
        scale: output pixels per input pixel.
        step: segments begin and end at multiples of this (a whole spike pixel); must divide `length`.
        axis: name for messages.

    Raises:
        ValueError: negative numbers, overlap not below the tile, blend above the overlap, or no multiple of `step`.
    """
    _check_axis(tile, overlap, blend, axis)
    if tile == 0 or tile >= length:
        return [Segment(0, length, slice(None), slice(None), torch.ones(1))]
    if tile % step or tile - overlap < step:
        raise ValueError(
            f"tile: {tile} {axis} with an overlap of {overlap} can't be moved by whole spike pixels, {step} {axis} at "
            f"a time; use a tile of {_nearest_multiples(tile, step)} and an overlap at least {step} smaller, "
            f"or 0 for all {axis}"
        )
    assert length % step == 0, f"{length} {axis} are no whole number of spike pixels"
    stride = (tile - overlap) // step * step
    begins = [*range(0, length - tile, stride), length - tile]
    profiles = [
        _profile(tile, tile - stride, blend, scale, first=index == 0, last=index == len(begins) - 1)
        for index in range(len(begins))
    ]
    total = torch.zeros(length * scale, dtype=torch.float64)
    for begin, profile in zip(begins, profiles, strict=True):
        total[begin * scale : (begin + tile) * scale] += profile
    assert total.min() > 0, "a pixel is covered by no tile"
    segments = []
    for begin, profile in zip(begins, profiles, strict=True):
        inside = profile.nonzero().flatten()
        low, high = int(inside[0]), int(inside[-1]) + 1
        place = slice(begin * scale + low, begin * scale + high)
        weights = (profile[low:high] / total[place]).float()
        segments.append(Segment(begin, begin + tile, slice(low, high), place, weights))
    return segments


def _profile(tile: int, overlap: int, blend: int | None, scale: int, *, first: bool, last: bool) -> Tensor:
    """Weights of a tile's output pixels before they are made to sum to one: zero in the halo, a ramp, then one."""
    profile = torch.ones(tile * scale, dtype=torch.float64)
    if blend is None:
        return profile
    left = (overlap - blend) // 2
    right = overlap - blend - left
    phase = (torch.arange(blend * scale, dtype=torch.float64) + 0.5) / max(blend * scale, 1)
    ramp = (1 - torch.cos(math.pi * phase)) / 2
    if not first:
        rise = torch.cat([torch.zeros(left * scale, dtype=torch.float64), ramp])
        profile[: len(rise)] *= rise
    if not last:
        fall = torch.cat([torch.zeros(right * scale, dtype=torch.float64), ramp]).flip(0)
        profile[len(profile) - len(fall) :] *= fall
    return profile


def _plan_axes(
    lq: Tensor,
    spike: Tensor | None,
    tile: Sequence[int],
    overlap: Sequence[int],
    blend: Sequence[int | None],
    scale: int,
) -> list[list[Segment]]:
    """The segments of time, rows and columns."""
    if lq.ndim != 5:
        raise ValueError(f"restore_tiled takes frames (B,T,C,H,W), not {tuple(lq.shape)}")
    for values, name in ((tile, "tile"), (overlap, "tile_overlap"), (blend, "blend")):
        _check_three(values, name)
    lengths = (lq.shape[1], lq.shape[3], lq.shape[4])
    steps: tuple[int, ...] = (1, 1, 1)
    if spike is not None:
        if spike.ndim != 5 or spike.shape[:2] != lq.shape[:2]:
            raise ValueError(
                f"spikes {tuple(spike.shape)} do not belong to frames {tuple(lq.shape)}: "
                f"they are (B,T,K,h,w) with the same B and T"
            )
        # Rows in one whole spike pixel; 9 for 720 rows and 400 of spikes, where 5 spike pixels are the least that fit.
        steps = (1, *(size // math.gcd(size, of) for size, of in zip(lengths[1:], spike.shape[3:], strict=True)))
    scales = (1, scale, scale)
    return [
        plan_axis(length, *numbers, blend=axis_blend, scale=axis_scale, step=step, axis=axis)
        for length, numbers, axis_blend, axis_scale, step, axis in zip(
            lengths, zip(tile, overlap, strict=True), blend, scales, steps, AXES, strict=True
        )
    ]


def _cut(lq: Tensor, spike: Tensor | None, time: Segment, rows: Segment, columns: Segment) -> list[Tensor]:
    """The frames of one tile and, where there are spikes, the spikes of the same box."""
    tiles = []
    for video in (lq, spike):
        if video is None:
            continue
        box = [
            slice(part.begin * size // whole, part.end * size // whole)
            for part, size, whole in ((rows, video.shape[3], lq.shape[3]), (columns, video.shape[4], lq.shape[4]))
        ]
        tiles.append(video[:, time.begin : time.end, :, box[0], box[1]].contiguous())
    return tiles


def _check_result(
    result: Tensor, lq: Tensor, tile: tuple[Segment, Segment, Segment], scale: int, *, time_is_split: bool
) -> None:
    """The network's result must have the size of its tile."""
    frames, rows, columns = (part.end - part.begin for part in tile)
    expected = (lq.shape[0], frames, rows * scale, columns * scale)
    found = (result.shape[0], result.shape[1], *result.shape[3:])
    if result.ndim != 5 or found[2:] != expected[2:] or found[0] != expected[0]:
        raise ValueError(
            f"the network made {tuple(result.shape)} of a tile of {frames} frames, {rows} x {columns}, "
            f"but with scale {scale} it should be {rows * scale} x {columns * scale}; check the option scale"
        )
    if time_is_split and frames != found[1]:
        raise ValueError(
            f"the network made {found[1]} frames of {frames}; such a network can't be tiled in time, use tile 0"
        )


def _check_axis(tile: int, overlap: int, blend: int | None, axis: str) -> None:
    if tile < 0 or overlap < 0 or (blend is not None and blend < 0):
        raise ValueError(f"tile, overlap and blend must not be negative: {tile}, {overlap}, {blend} {axis}")
    if tile and overlap >= tile:
        raise ValueError(
            f"tile_overlap: {overlap} {axis} are not less than the tile of {tile}; "
            f"use at most {tile - 1}, or a tile of 0 for all {axis}"
        )
    if blend is not None and blend > overlap and tile:
        raise ValueError(f"blend: {blend} {axis} are more than the overlap of {overlap}; use at most {overlap}")


def _check_three(values: Sequence[int | None], name: str) -> None:
    if len(values) != 3:
        raise ValueError(f"{name} takes three numbers (frames, rows, columns), not {list(values)}")


def _nearest_multiples(value: int, step: int) -> str:
    """The multiples of `step` around a value, for messages: "184 or 192"."""
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"
