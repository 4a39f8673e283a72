"""Restores a video tile by tile, in time and in space, so that any video fits into memory.

Along each axis neighbouring tiles share overlap = halo + blend + halo: the halo is computed and thrown away, because a
network sees padding beyond it; over the blend a raised cosine leads from one tile to the next. What the frames at a
true border get is never reduced, and the weights of all tiles sum to one at every pixel.

    blend = None   no halo: whatever overlaps is averaged       KAIR's official tester in time
    blend = 0      hard cut in the middle of the overlap        KAIR's official tester in space
    blend = n      cosine ramp over n pixels in the middle of the overlap

Tile and overlap are what is asked for at most and at least: as few tiles as do are spread evenly over the axis, each
only as large as that takes. KAIR instead moves the last tile back to the picture's end, so that it computes most of a
tile again. Tiles begin where attention windows do: what the network halves and cuts into windows is then halved and cut
where it would be without tiles (docs/tiling.md). Several go through the network at once.

Time comes first: `stream` makes frames from one window of frames after the other, and holds no more than a window.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.user_error import UserError

AXES = ("frames", "rows", "columns")
Blend = tuple[int | None, int | None, int | None]
KAIR_BLEND: Blend = (None, 0, 0)


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


@dataclass(frozen=True)
class Tiling:
    """How videos are cut.

    Attributes:
        tile: frames, rows, columns of a tile at most; 0 takes the whole axis.
        overlap: frames, rows, columns that neighbours share at least; less than the tile.
        blend: per axis None, 0 or a number up to `overlap`, see the module.
        scale: size of the network's output over that of its input.
        window: attention window; tiles are multiples of it, and in rows and columns begin at multiples of it.
        batch: tiles that go through the network at once.
    """

    tile: tuple[int, int, int] = (0, 0, 0)
    overlap: tuple[int, int, int] = (0, 0, 0)
    blend: Blend = KAIR_BLEND
    scale: int = 1
    window: tuple[int, int, int] = (1, 1, 1)
    batch: int = 1

    def __post_init__(self) -> None:
        for values, name in ((self.tile, "tile"), (self.overlap, "tile_overlap"), (self.blend, "blend")):
            _check_three(values, name)

    def time(self, frames: int) -> list[Segment]:
        """The windows of a clip."""
        return plan_time(frames, self.tile[0], self.overlap[0], blend=self.blend[0], window=self.window[0])

    def space(self, size: Sequence[int], spike_size: Sequence[int] | None = None) -> tuple[list[Segment], ...]:
        """The segments of rows and of columns.

        Args:
            size: rows and columns of the input. spike_size: of the spikes; tiles begin and end on whole spike pixels.
        """
        # Rows in one whole spike pixel; 9 for 720 rows and 400 of spikes, where 5 spike pixels are the least that fit.
        steps = [1, 1] if spike_size is None else [a // math.gcd(a, b) for a, b in zip(size, spike_size, strict=True)]
        return tuple(
            plan_axis(
                size[axis - 1],
                self.tile[axis],
                self.overlap[axis],
                blend=self.blend[axis],
                scale=self.scale,
                step=steps[axis - 1],
                window=self.window[axis],
                axis=AXES[axis],
            )
            for axis in (1, 2)
        )

    def computed(self, video: Sequence[int]) -> float:
        """Pixels that go through the network over those of a video of (frames, rows, columns)."""
        plans = [self.time(video[0]), *self.space(video[1:])]
        return math.prod(
            sum(part.end - part.begin for part in plan) / length for plan, length in zip(plans, video, strict=True)
        )


def restore_tiled(
    net: Callable[..., Tensor],
    lq: Tensor,
    spike: Tensor | None = None,
    *,
    output_device: torch.device | str = "cpu",
    **tiling: Any,
) -> Tensor:
    """Runs a network over a video in overlapping tiles and puts the results together.

    The network is called as the caller's context says (autocast, inference mode), `net(lq_tile)` or
    `net(lq_tile, spike_tile)`. With a single tile the result is the network's own, bit for bit.

    Args:
        net: takes (B,t,C,h,w), returns (B,t,C',h*scale,w*scale); may return another number of frames (interpolation)
            where the time axis is not split.
        lq: frames (B,T,C,H,W) in any range; left on its device, as are the tiles.
        spike: spike channels (B,T,K,h,w) at their own resolution, cut by the same box.
        output_device: where the results are gathered, in float32.
        tiling: as in `Tiling`.

    Returns:
        (B,T,C',H*scale,W*scale) float32 on `output_device`, detached.

    Raises:
        UserError: a tile, overlap or blend that can't be had, spikes that don't belong to the frames, or a network
            whose result has another size.
    """
    cut = Tiling(**tiling)
    check_video(lq, spike)

    def window(begin: int, end: int) -> Tensor:
        part = None if spike is None else spike[:, begin:end]
        return restore_window(net, lq[:, begin:end], part, cut, output_device)

    return torch.stack([frame for _, frame in stream(window, lq.shape[1], cut)], dim=1)


def stream(
    window: Callable[[int, int], Tensor], frames: int, tiling: Tiling, wanted: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[int, Tensor]]:
    """The frames of a restored clip, in order, as soon as they are complete.

    Args:
        window: restores frames [begin, end): (B,end-begin,C,H,W), or another number of frames (interpolation) where
            that is the whole clip.
        frames: length of the clip.
        tiling: only its time axis counts here.
        wanted: whether a frame is to be made; windows that hold no such frame are passed over.

    Yields:
        Index and (B,C,H,W) of every wanted frame.

    Raises:
        UserError: the network makes another number of frames than it is given, of a part of the clip.
    """
    plan = tiling.time(frames)
    if len(plan) == 1:
        if any(map(wanted, range(frames))):
            made = window(0, frames)
            yield from ((index, frame) for index, frame in enumerate(made.unbind(1)) if wanted(index))
        return
    incomplete: dict[int, Tensor] = {}
    for number, segment in enumerate(plan):
        places = range(segment.place.start, segment.place.stop)
        if any(map(wanted, places)):
            made = window(segment.begin, segment.end)
            if made.shape[1] != segment.end - segment.begin:
                raise UserError(
                    f"the network made {made.shape[1]} frames of {segment.end - segment.begin}; such a network can't "
                    "be tiled in time, use tile 0"
                )
            weights = segment.weights.expand(len(places)).tolist()
            for index, weight, frame in zip(places, weights, made[:, segment.keep].unbind(1), strict=True):
                if wanted(index):
                    incomplete[index] = incomplete[index] + frame * weight if index in incomplete else frame * weight
        following = plan[number + 1].place.start if number + 1 < len(plan) else frames
        for index in sorted(incomplete):
            if index < following:
                yield index, incomplete.pop(index)


def restore_window(
    net: Callable[..., Tensor],
    lq: Tensor,
    spike: Tensor | None,
    tiling: Tiling,
    output_device: torch.device | str = "cpu",
) -> Tensor:
    """Restores frames that go through the network together, in tiles of rows and columns; as `restore_tiled`."""
    rows, columns = tiling.space(lq.shape[3:], None if spike is None else spike.shape[3:])
    boxes = list(itertools.product(rows, columns))
    output: Tensor | None = None
    for chosen in _batches(boxes, tiling.batch):
        cuts = [_cut(lq, spike, *box) for box in chosen]
        made = net(*(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*cuts, strict=True))).detach()
        _check_result(made, len(cuts) * lq.shape[0], lq.shape[1], chosen[0], tiling.scale)
        if len(boxes) == 1:
            return made.to(output_device, torch.float32)
        if output is None:
            size = (lq.shape[0], *made.shape[1:3], *(length * tiling.scale for length in lq.shape[3:]))
            output = torch.zeros(size, dtype=torch.float32, device=output_device)
        for (row, column), result in zip(chosen, made.split(lq.shape[0]), strict=True):
            kept = result[..., row.keep, column.keep].to(output_device, torch.float32)
            weights = (row.weights[:, None] * column.weights).to(output_device)
            output[..., row.place, column.place].addcmul_(kept, weights)
    assert output is not None
    return output


def _batches(boxes: list[tuple[Segment, Segment]], most: int) -> Iterator[list[tuple[Segment, Segment]]]:
    """Boxes of one size, so many at once: the last ones of rows and columns may be smaller than the others."""
    for _, alike in itertools.groupby(sorted(boxes, key=_size), key=_size):
        group = list(alike)
        for first in range(0, len(group), most):
            yield group[first : first + most]


def _size(box: tuple[Segment, Segment]) -> tuple[int, ...]:
    return tuple(part.end - part.begin for part in box)


def default_blend(overlap: Sequence[int]) -> Blend:
    """The blend for an overlap of frames, rows and columns that the measurement in docs/tiling.md found best."""
    return (0, min(8, overlap[1]), min(8, overlap[2]))


def check_tile(tile: Sequence[int], window_size: Sequence[int]) -> None:
    """Checks that rows and columns of a tile are whole attention windows, as KAIR's tester demands.

    The number of frames is free, as in the official settings (40 frames with windows of 6): the network pads them.

    Args:
        tile: frames, rows, columns; 0 for a whole axis.
        window_size: frames, rows, columns of an attention window.

    Raises:
        UserError: not so; the message names the nearest tiles that are.
    """
    _check_three(tile, "tile")
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
    """Cuts one axis into overlapping segments of one size, with weights that sum to one at every output pixel.

    Args:
        length: input pixels of the axis.
        tile: input pixels of a segment, at most; 0 or at least `length` gives a single one.
        overlap: input pixels that neighbours share, at least.
        blend: None, 0 or a number up to `overlap`, see the module.
        scale: output pixels per input pixel.
        step: segments begin and end at multiples of this (a whole spike pixel); must divide `length`.
        window: segments begin at multiples of this (an attention window), and are multiples of it but for the last.
        axis: name for messages.

    Raises:
        UserError: negative numbers, overlap not below the tile, blend above the overlap, or no multiple of `step`
            and `window`.
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
    # The last tile ends with the picture, where the network pads to whole windows as it does without tiles.
    size, begins = spread(-(-length // grid) * grid, tile, overlap, grid, grid)
    return segments_of(begins, [min(begin + size, length) for begin in begins], blend, scale)


def plan_time(frames: int, tile: int, overlap: int, *, blend: int | None = 0, window: int = 1) -> list[Segment]:
    """Cuts a clip into overlapping windows of frames; as `plan_axis`, but all of one length, the last one too.

    They are whole attention windows where the tile is at least one, since frames that a network adds to fill a window
    disturb the others, and begin at even frames, since it compares frames in pairs.
    """
    _check_axis(tile, overlap, blend, AXES[0])
    if tile == 0 or tile >= frames:
        return [Segment(0, frames, slice(None), slice(0, frames), torch.ones(1))]
    grid = 2 if window > 1 and tile - overlap > 1 else 1
    multiple = window if tile // window * window - overlap >= grid else 1
    size, begins = spread(frames, tile, overlap, grid, multiple)
    return segments_of(begins, [begin + size for begin in begins], blend, 1)


def spread(length: int, tile: int, overlap: int, grid: int, multiple: int) -> tuple[int, list[int]]:
    """The size of as few segments as cover an axis, spread evenly, and where they begin.

    Args:
        length, tile: the tile below the length.
        overlap: what neighbours share at least; a size that is at most the tile exceeds it by `grid` or more.
        grid: segments begin at multiples of this, the last one excepted if it has to.
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
    """Segments by their input pixels, with what counts of each."""
    shared = [end - begin for end, begin in zip(ends, begins[1:], strict=False)]
    profiles = [
        _profile(end - begin, before, after, blend, scale)
        for begin, end, before, after in zip(begins, ends, [None, *shared], [*shared, None], strict=True)
    ]
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
    """Weights of a tile's output pixels before they are made to sum to one: zero in the halo, a ramp, then one.

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


def check_video(lq: Tensor, spike: Tensor | None) -> None:
    """
    Raises:
        UserError: frames that are not (B,T,C,H,W), or spikes of another clip.
    """
    if lq.ndim != 5:
        raise ValueError(f"restore_tiled takes frames (B,T,C,H,W), not {tuple(lq.shape)}")
    if spike is not None and (spike.ndim != 5 or spike.shape[:2] != lq.shape[:2]):
        raise UserError(
            f"spikes {tuple(spike.shape)} do not belong to frames {tuple(lq.shape)}: "
            f"they are (B,T,K,h,w) with the same B and T"
        )


def _cut(lq: Tensor, spike: Tensor | None, rows: Segment, columns: Segment) -> list[Tensor]:
    """The frames of one tile and, where there are spikes, the spikes of the same box."""
    tiles = []
    for video in (lq, spike):
        if video is None:
            continue
        box = [
            slice(part.begin * size // whole, part.end * size // whole)
            for part, size, whole in ((rows, video.shape[3], lq.shape[3]), (columns, video.shape[4], lq.shape[4]))
        ]
        tiles.append(video[..., box[0], box[1]].contiguous())
    return tiles


def _check_result(made: Tensor, batch: int, frames: int, box: tuple[Segment, Segment], scale: int) -> None:
    """The network's result must have the size of its tile."""
    rows, columns = (part.end - part.begin for part in box)
    if made.ndim != 5 or (made.shape[0], *made.shape[3:]) != (batch, rows * scale, columns * scale):
        raise UserError(
            f"the network made {tuple(made.shape)} of a tile of {frames} frames, {rows} x {columns}, "
            f"but with scale {scale} it should be {rows * scale} x {columns * scale}; check the option scale"
        )


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


def _check_three(values: Sequence[int | None], name: str) -> None:
    if len(values) != 3:
        raise UserError(f"{name} takes three numbers (frames, rows, columns), not {list(values)}")


def _nearest_multiples(value: int, step: int) -> str:
    """The multiples of `step` around a value, for messages: "184 or 192"."""
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"
