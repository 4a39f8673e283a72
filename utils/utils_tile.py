"""Restores a video in tiles, in time and in space, so that any video fits into memory.

Along each axis neighbouring tiles share overlap = halo + blend + halo. The halo is computed and discarded, because the
network pads beyond it; over the blend, weights follow a raised cosine from one tile to the next. At the video's true
border no pixel is discarded, and the weights of all tiles sum to one at every pixel.

    blend = None   no halo: the overlap is averaged             KAIR's official tester in time
    blend = 0      hard cut in the middle of the overlap        KAIR's official tester in space
    blend = n      cosine ramp over n pixels in the middle of the overlap

`tile` is the largest size and `overlap` the smallest: the fewest tiles that satisfy both are spread evenly over the
axis, and each is only as large as necessary. KAIR instead moves the last tile back to the picture's end and computes
most of it twice. Tiles begin at multiples of the attention window, so the network halves and partitions a tile at the
same places as the whole picture (docs/tiling.md). `batch` tiles go through the network at once. With `published` the
tiles are exactly those of the official tester (`plan_published`).

If the frames do not fill their last attention window, the last frames are appended in reverse: the network would pad
with zeros, which disturb the last frames. The official tester mirrors axes that are not tiled, also rows and columns.

The time axis is divided first: `stream` restores one segment of frames after another and holds no more than one.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.tile_plan import AXES, Blend, Segment, check_three, plan_axis, plan_published, plan_time, whole_windows
from utils.user_error import UserError

KAIR_BLEND: Blend = (None, 0, 0)  # as KAIR's tester: averaged in time, cut in space


@dataclass(frozen=True)
class Tiling:
    """Division of videos into tiles.

    Attributes:
        tile: largest frames, rows, columns of a tile; 0: the whole axis.
        overlap: smallest frames, rows, columns that neighbours share; less than the tile.
        blend: per axis None, 0 or a number up to `overlap`, see the module.
        scale: size of the network's output over that of its input.
        window: attention window; tiles are multiples of it, and in rows and columns begin at multiples of it.
        batch: tiles that go through the network at once.
        published: use exactly the official tester's tiles; `blend` has no effect.
    """

    tile: tuple[int, int, int] = (0, 0, 0)
    overlap: tuple[int, int, int] = (0, 0, 0)
    blend: Blend = KAIR_BLEND
    scale: int = 1
    window: tuple[int, int, int] = (1, 1, 1)
    batch: int = 1
    published: bool = False

    def __post_init__(self) -> None:
        for values, name in ((self.tile, "tile"), (self.overlap, "tile_overlap"), (self.blend, "blend")):
            check_three(values, name)

    def time(self, frames: int) -> list[Segment]:
        """The segments of a clip along time."""
        if self.published:
            return plan_published(frames, self.tile[0], self.overlap[0], trims=False)
        return plan_time(frames, self.tile[0], self.overlap[0], blend=self.blend[0], window=self.window[0])

    def space(self, size: Sequence[int], spike_size: Sequence[int] | None = None) -> tuple[list[Segment], ...]:
        """The segments of rows and of columns.

        Args:
            size: rows and columns of the input. spike_size: rows and columns of the spikes; tiles begin and end on
                whole spike pixels.
        """
        if self.published:
            return tuple(
                plan_published(size[axis - 1], self.tile[axis], self.overlap[axis], trims=True, scale=self.scale)
                for axis in (1, 2)
            )
        # Fewest pixels that are whole spike pixels: 9 for 720 rows of frames and 400 of spikes (5 spike pixels).
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

    def mirrored(self, size: Sequence[int]) -> tuple[int, ...]:
        """Numbers of last frames, rows and columns to repeat in reverse, to fill the last attention window.

        0 for rows and columns; with `published`, as in the official tester, 0 for tiled axes.

        Args:
            size: (frames, rows, columns).
        """
        axes = [tile == 0 for tile in self.tile] if self.published else [True, False, False]
        return tuple(
            whole_windows(length, window) - length if completed else 0
            for length, window, completed in zip(size, self.window, axes, strict=True)
        )

    def computed(self, video: Sequence[int]) -> float:
        """Pixels of all tiles over the pixels of a video of (frames, rows, columns)."""
        windows = [part.end - part.begin for part in self.time(video[0])]
        frames = sum(length + self.mirrored((length, *video[1:]))[0] for length in windows)
        sides = [sum(part.end - part.begin for part in plan) for plan in self.space(video[1:])]
        return math.prod(length / total for length, total in zip((frames, *sides), video, strict=True))


def restore_tiled(
    net: Callable[..., Tensor],
    lq: Tensor,
    spike: Tensor | None = None,
    *,
    output_device: torch.device | str = "cpu",
    **tiling: Any,
) -> Tensor:
    """Runs a network on a video in overlapping tiles and blends the results.

    The network is called in the caller's context (autocast, inference mode), as `net(lq_tile)` or
    `net(lq_tile, spike_tile)`. With a single tile the result is the network's own, bit for bit.

    Args:
        net: maps (B,t,C,h,w) to (B,t,C',h*scale,w*scale); without tiles in time it may return another number of frames
            (interpolation).
        lq: frames (B,T,C,H,W) in any range, on any device; tiles stay on that device.
        spike: spike channels (B,T,K,h,w) at their own resolution; a tile's cover the same area as its frames.
        output_device: device on which the results are gathered, in float32.
        tiling: attributes of `Tiling`.

    Returns:
        (B,T,C',H*scale,W*scale) float32 on `output_device`, detached.

    Raises:
        UserError: an invalid tile, overlap or blend, spikes that don't belong to the frames, or a result of another
            size.
    """
    cut = Tiling(**tiling)
    check_video(lq, spike)

    def window(begin: int, end: int) -> Tensor:
        part = None if spike is None else spike[:, begin:end]
        return restore_window(net, lq[:, begin:end], part, cut, output_device)

    return torch.stack([frame for _, frame in stream(window, lq.shape[1], cut)], dim=1)


def stream(
    window: Callable[[int, int], Tensor], frames: int, tiling: Tiling, is_needed: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[int, Tensor]]:
    """Restores a clip segment by segment, and yields its frames in order, each as soon as it is complete.

    Args:
        window: restores frames [begin, end): (B,end-begin,C,H,W), or another number of frames (interpolation) if that
            is the whole clip.
        frames: length of the clip.
        tiling: only its time axis is used.
        is_needed: whether a frame must be restored; segments without such a frame are skipped.

    Yields:
        Index and (B,C,H,W) of every needed frame.

    Raises:
        UserError: for a part of the clip, the network returns another number of frames than it was given.
    """
    plan = tiling.time(frames)
    if len(plan) == 1:
        if any(map(is_needed, range(frames))):
            restored = window(0, frames)
            yield from ((index, frame) for index, frame in enumerate(restored.unbind(1)) if is_needed(index))
        return
    incomplete: dict[int, Tensor] = {}
    for number, segment in enumerate(plan):
        places = range(segment.place.start, segment.place.stop)
        if any(map(is_needed, places)):
            restored = window(segment.begin, segment.end)
            if restored.shape[1] != segment.end - segment.begin:
                raise UserError(
                    f"the network made {restored.shape[1]} frames of {segment.end - segment.begin}; such a network "
                    "can't be tiled in time, use tile 0"
                )
            weights = segment.weights.expand(len(places)).tolist()
            for index, weight, frame in zip(places, weights, restored[:, segment.keep].unbind(1), strict=True):
                if is_needed(index):
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
    """Restores one segment of frames in tiles of rows and columns; arguments and result as of `restore_tiled`."""
    given = (lq.shape[1], *lq.shape[3:])
    for axis, count in zip((1, 3, 4), tiling.mirrored(given), strict=True):
        lq = _mirror_end(lq, axis, count)
        spike = spike if spike is None else _mirror_end(spike, axis, count)
    restored = _restore_boxes(net, lq, spike, tiling, output_device)
    rows, columns = (length * tiling.scale for length in given[1:])
    return restored[:, : given[0], :, :rows, :columns]


def _mirror_end(video: Tensor, axis: int, count: int) -> Tensor:
    """A video (B,T,C,H,W) with the last `count` entries of an axis appended in reverse."""
    if not count:
        return video
    return torch.cat([video, video.narrow(axis, video.shape[axis] - count, count).flip(axis)], axis)


def _restore_boxes(
    net: Callable[..., Tensor], lq: Tensor, spike: Tensor | None, tiling: Tiling, output_device: torch.device | str
) -> Tensor:
    """Runs the network on the tiles of rows and columns, and blends the results."""
    rows, columns = tiling.space(lq.shape[3:], None if spike is None else spike.shape[3:])
    boxes = list(itertools.product(rows, columns))
    output: Tensor | None = None
    for chosen in _batches(boxes, tiling.batch):
        cuts = [_cut(lq, spike, *box) for box in chosen]
        results = net(*(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*cuts, strict=True))).detach()
        _check_result(results, len(cuts) * lq.shape[0], lq.shape[1], chosen[0], tiling.scale)
        if len(boxes) == 1:
            return results.to(output_device, torch.float32)
        if output is None:
            size = (lq.shape[0], *results.shape[1:3], *(length * tiling.scale for length in lq.shape[3:]))
            output = torch.zeros(size, dtype=torch.float32, device=output_device)
        for (row, column), result in zip(chosen, results.split(lq.shape[0]), strict=True):
            kept = result[..., row.keep, column.keep].to(output_device, torch.float32)
            weights = (row.weights[:, None] * column.weights).to(output_device)
            output[..., row.place, column.place].addcmul_(kept, weights)
    assert output is not None
    return output


def _batches(boxes: list[tuple[Segment, Segment]], most: int) -> Iterator[list[tuple[Segment, Segment]]]:
    """Groups of at most `most` boxes of equal size; the last boxes of rows and columns may be smaller."""
    for _, alike in itertools.groupby(sorted(boxes, key=_size), key=_size):
        group = list(alike)
        for first in range(0, len(group), most):
            yield group[first : first + most]


def _size(box: tuple[Segment, Segment]) -> tuple[int, ...]:
    return tuple(part.end - part.begin for part in box)


def check_video(lq: Tensor, spike: Tensor | None) -> None:
    """Checks shapes.

    Raises:
        UserError: frames that are not (B,T,C,H,W), or spikes that don't have their B and T.
    """
    if lq.ndim != 5:
        raise UserError(f"restore_tiled takes frames (B,T,C,H,W), not {tuple(lq.shape)}")
    if spike is not None and (spike.ndim != 5 or spike.shape[:2] != lq.shape[:2]):
        raise UserError(
            f"spikes {tuple(spike.shape)} do not belong to frames {tuple(lq.shape)}: "
            f"they are (B,T,K,h,w) with the same B and T"
        )


def _cut(lq: Tensor, spike: Tensor | None, rows: Segment, columns: Segment) -> list[Tensor]:
    """The frames of one tile and, if there are spikes, the spikes of the same area."""
    tiles = []
    for video in (lq, spike):
        if video is None:
            continue
        box = [
            slice(part.begin * size // length, part.end * size // length)
            for part, size, length in ((rows, video.shape[3], lq.shape[3]), (columns, video.shape[4], lq.shape[4]))
        ]
        tiles.append(video[..., box[0], box[1]].contiguous())
    return tiles


def _check_result(result: Tensor, batch: int, frames: int, box: tuple[Segment, Segment], scale: int) -> None:
    """Raises UserError if the network's result does not have the size of its tiles."""
    rows, columns = (part.end - part.begin for part in box)
    if result.ndim != 5 or (result.shape[0], *result.shape[3:]) != (batch, rows * scale, columns * scale):
        raise UserError(
            f"the network made {tuple(result.shape)} of a tile of {frames} frames, {rows} x {columns}, "
            f"but with scale {scale} it should be {rows * scale} x {columns * scale}; check the option scale"
        )
