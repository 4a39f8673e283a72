"""Divides one axis of a video (frames, rows or columns) into overlapping segments with weights, by our rule
(`plan_axis`, `plan_time`) or the published tester's (`plan_published`).

    [(segment.begin, segment.end) for segment in plan_axis(720, 192, 20, window=8)]

`utils/utils_tile.py` and docs/tiling.md explain the rules.
Test: `python -m pytest tests/utils/test_utils_tile.py tests/utils/test_published_tiles.py`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.user_error import UserError

AXES = ("frames", "rows", "columns")  # names of the tiled axes, in the order of `tile`, for messages
Blend = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Segment:
    """Input and output range of one tile along one axis.

    Attributes:
        begin, end: half-open range of input pixels (or frames) of the tile.
        keep: part of the tile's result that is used, in output pixels of the tile.
        place: the range of that part in the whole output.
        weights: weight of each kept pixel, float32; a single number if all are equal.
    """

    begin: int
    end: int
    keep: slice
    place: slice
    weights: Tensor


def default_blend(overlap: Sequence[int]) -> Blend:
    """Default blend for an overlap of frames, rows and columns: the best of the measurement in docs/tiling.md."""
    return (0, min(8, overlap[1]), min(8, overlap[2]))


def check_tile(tile: Sequence[int], window_size: Sequence[int]) -> None:
    """Checks that rows and columns of a tile are multiples of the attention window, as KAIR's tester requires.

    The number of frames is free, as in the official settings (40 frames, windows of 6 frames): the network pads them.

    Args:
        tile: frames, rows, columns; 0 for a whole axis.
        window_size: frames, rows, columns of an attention window.

    Raises:
        UserError: they are not; the message names the nearest valid tiles.
    """
    check_three(tile, "tile")
    for name, size, window in list(zip(AXES, tile, window_size, strict=True))[1:]:
        if size % window:
            raise UserError(
                f"tile: {size} {name} are no multiple of the attention window of {window}; "
                f"use {_nearest_multiples(size, window)}, or 0 for all {name}"
            )


def plan_axis(
    length: int,
    tile: int,
    overlap: int,
    *,
    blend: int | None = 0,
    scale: int = 1,
    step: int = 1,
    window: int = 1,
    axis: str = "rows",
) -> list[Segment]:
    """Divides one axis into overlapping segments of equal size, with weights that sum to one at every output pixel.

    Args:
        length: input pixels of the axis.
        tile: largest number of input pixels of a segment; 0 or at least `length`: one segment.
        overlap: smallest number of input pixels that neighbours share.
        blend: None, 0 or a number up to `overlap`, see `utils/utils_tile.py`.
        scale: output pixels per input pixel.
        step: segments begin and end at multiples of this (a whole spike pixel); must divide `length`.
        window: segments begin at multiples of this (the attention window); all but the last are multiples of it.
        axis: name for messages.

    Raises:
        UserError: negative numbers, overlap not below the tile, blend above the overlap, or a tile that is no multiple
            of `step` and `window`.
    """
    _check_axis(tile, overlap, blend, axis)
    if tile == 0 or tile >= length:
        return [Segment(0, length, slice(None), slice(0, length * scale), torch.ones(1))]
    grid = math.lcm(step, window)
    if tile % grid or tile - overlap < grid:
        raise UserError(
            f"tile: {tile} {axis} with an overlap of {overlap} can't be moved by whole attention windows and spike "
            f"pixels, {grid} {axis} at a time; use a tile of {_nearest_multiples(tile, grid)} and an overlap at least "
            f"{grid} smaller, or 0 for all {axis}"
        )
    assert length % step == 0, f"{length} {axis} are no whole number of spike pixels"
    # The last tile ends with the picture; there the network pads to whole windows, as it does without tiles.
    size, begins = spread(-(-length // grid) * grid, tile, overlap, grid, grid)
    return segments_of(begins, [min(begin + size, length) for begin in begins], blend, scale)


def plan_time(frames: int, tile: int, overlap: int, *, blend: int | None = 0, window: int = 1) -> list[Segment]:
    """Divides a clip into overlapping segments of frames, like `plan_axis`, but all of one length, the last one too.

    If the tile is at least one attention window long, segments are whole windows, because frames with which the network
    pads a window disturb the others. They begin at even frames, because mutual attention pairs frames.
    """
    _check_axis(tile, overlap, blend, AXES[0])
    if tile == 0 or tile >= frames:
        return [Segment(0, frames, slice(None), slice(0, frames), torch.ones(1))]
    grid = 2 if window > 1 and tile - overlap > 1 else 1
    multiple = window if tile // window * window - overlap >= grid else 1
    size, begins = spread(frames, tile, overlap, grid, multiple)
    return segments_of(begins, [begin + size for begin in begins], blend, 1)


def plan_published(length: int, tile: int, overlap: int, *, trims: bool, scale: int = 1) -> list[Segment]:
    """Divides one axis like the published tester, main_test_vrt.py of KAIR and VRT.

    Tiles begin every `tile - overlap` input pixels; the last one is moved back to the axis's end. In space (`trims`)
    half of the overlap is cut from a tile towards each neighbour, rounded down at its beginning and up at its end. The
    half is counted in output pixels, so with super-resolution most of the overlap remains; it is averaged.

    Args:
        length: input pixels (or frames) of the axis.
        tile: input pixels of a tile; 0 or at least `length`: one tile.
        overlap: input pixels that neighbours share. With 0 no tile is trimmed, whereas the published tester drops whole
            tiles and writes NaN.
        trims: whether half of the overlap is cut from tiles.
        scale: output pixels per input pixel.

    Raises:
        UserError: negative numbers, or an overlap not below the tile.
    """
    _check_axis(tile, overlap, None, "rows" if trims else AXES[0])
    if tile == 0 or tile >= length:
        return [Segment(0, length, slice(None), slice(0, length * scale), torch.ones(1))]
    begins = [*range(0, length - tile, tile - overlap), length - tile]
    ends = [begin + tile for begin in begins]
    profiles = []
    for begin, end in zip(begins, ends, strict=True):
        profile = torch.ones(tile * scale, dtype=torch.float64)
        if trims and begin > 0:
            profile[: overlap // 2] = 0
        if trims and end < length:
            profile[tile * scale - (overlap - overlap // 2) :] = 0
        profiles.append(profile)
    return _weighted(begins, ends, profiles, scale)


def whole_windows(length: int, window: int) -> int:
    """Length after its last attention window is filled by mirroring, which at most doubles it."""
    return length + min(-length % window, length)


def spread(length: int, tile: int, overlap: int, grid: int, multiple: int) -> tuple[int, list[int]]:
    """Size and first pixels of the fewest segments of equal size that cover an axis, spread evenly.

    Args:
        length, tile: pixels of the axis and of the largest segment, tile < length.
        overlap: smallest number of pixels that neighbours share, at most tile - grid.
        grid: segments begin at multiples of this, except the last one if necessary.
        multiple: sizes are multiples of this.
    """
    number = -(-(length - overlap) // (tile - overlap))
    while True:
        least = -(-(length + (number - 1) * overlap) // number)
        for size in range(-(-least // multiple) * multiple, tile + 1, multiple):
            last = length - size
            begins = [*(index * last // (number - 1) // grid * grid for index in range(number - 1)), last]
            if all(after - before <= size - overlap for before, after in itertools.pairwise(begins)):
                return size, begins
        number += 1


def segments_of(begins: list[int], ends: list[int], blend: int | None, scale: int) -> list[Segment]:
    """Segments from their input ranges, with `keep`, `place` and weights."""
    shared = [end - begin for end, begin in zip(ends, begins[1:], strict=False)]
    profiles = [
        _profile(end - begin, before, after, blend, scale)
        for begin, end, before, after in zip(begins, ends, [None, *shared], [*shared, None], strict=True)
    ]
    return _weighted(begins, ends, profiles, scale)


def _weighted(begins: list[int], ends: list[int], profiles: list[Tensor], scale: int) -> list[Segment]:
    """Segments with their profiles, normalised to sum to one, as weights; pixels with profile 0 are not kept."""
    total = torch.zeros(ends[-1] * scale, dtype=torch.float64)
    for begin, end, profile in zip(begins, ends, profiles, strict=True):
        total[begin * scale : end * scale] += profile
    assert total.min() > 0, "a pixel is covered by no tile"
    segments = []
    for begin, end, profile in zip(begins, ends, profiles, strict=True):
        inside = profile.nonzero().flatten()
        low, high = int(inside[0]), int(inside[-1]) + 1
        place = slice(begin * scale + low, begin * scale + high)
        weights = (profile[low:high] / total[place]).float()
        segments.append(Segment(begin, end, slice(low, high), place, weights))
    return segments


def _profile(size: int, before: int | None, after: int | None, blend: int | None, scale: int) -> Tensor:
    """Weights of a tile's output pixels before normalisation: zero in the halo, a ramp, then one.

    Args:
        before, after: pixels shared with the tile before and after it; None at a true border.
    """
    profile = torch.ones(size * scale, dtype=torch.float64)
    if blend is None:
        return profile
    phase = (torch.arange(blend * scale, dtype=torch.float64) + 0.5) / max(blend * scale, 1)
    ramp = (1 - torch.cos(math.pi * phase)) / 2
    if before is not None:
        left = (before - blend) // 2
        rise = torch.cat([torch.zeros(left * scale, dtype=torch.float64), ramp])
        profile[: len(rise)] *= rise
    if after is not None:
        right = after - blend - (after - blend) // 2
        fall = torch.cat([torch.zeros(right * scale, dtype=torch.float64), ramp]).flip(0)
        profile[len(profile) - len(fall) :] *= fall
    return profile


def _check_axis(tile: int, overlap: int, blend: int | None, axis: str) -> None:
    if tile < 0 or overlap < 0 or (blend is not None and blend < 0):
        raise UserError(f"tile, overlap and blend must not be negative: {tile}, {overlap}, {blend} {axis}")
    if tile and overlap >= tile:
        raise UserError(
            f"tile_overlap: {overlap} {axis} are not less than the tile of {tile}; "
            f"use at most {tile - 1}, or a tile of 0 for all {axis}"
        )
    if blend is not None and blend > overlap and tile:
        raise UserError(f"blend: {blend} {axis} are more than the overlap of {overlap}; use at most {overlap}")


def check_three(values: Sequence[int | None], name: str) -> None:
    if len(values) != 3:
        raise UserError(f"{name} takes three numbers (frames, rows, columns), not {list(values)}")


def _nearest_multiples(value: int, step: int) -> str:
    """The multiples of `step` below and above a value, for messages: "184 or 192"."""
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"
