"""Chooses the tile of `tile` "auto": of all that fit into the memory allowed the one that computes fewest pixels twice.

A network of windows takes memory in proportion to a tile's pixels. Two small tiles are measured, and the straight line
through both says what a large one will take, with a margin; on a CPU what holds a window's frames is added.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.tile_plan import plan_time, spread, whole_windows
from utils.user_error import UserError
from utils.utils_memory import give_back_memory, is_out_of_memory, peak_memory, reset_peak, used_memory
from utils.utils_tile import Tiling

MOST_FRAMES = 48
"""Of an automatic tile, so that host memory does not depend on a clip's length."""
PROBE_SIDES = (64, 64, 128)
"""Rows and columns, about, of the tiles that are measured; the first run warms up."""
MARGIN = 1.15
"""What is expected is taken this many times."""


@dataclass(frozen=True)
class TileCost:
    """What a tile takes: `fixed` bytes, `per_pixel` for each of its frames' pixels, and of the host `per_host_pixel`
    for each pixel of the whole frames that it is cut from.
    """

    fixed: float
    per_pixel: float
    per_host_pixel: float

    def of(self, tile: Sequence[int], size: Sequence[int]) -> float:
        """Bytes that a tile of (frames, rows, columns) of frames of (rows, columns) is expected to take."""
        host = self.per_host_pixel * tile[0] * math.prod(size)
        return self.fixed + MARGIN * (self.per_pixel * math.prod(tile) + host)


def measure_cost(
    run: Callable[..., Tensor], lq: Tensor, spike: Tensor | None, tiling: Tiling, device: torch.device
) -> TileCost:
    """Measures small tiles.

    Args:
        run: the network.
        lq, spike: a few frames of a clip, (1,t,C,H,W) and (1,t,K,h,w) or None.
        tiling: all about tiles but their size.

    Raises:
        UserError: even these do not fit into the memory that is allowed.
    """
    units = tile_units(lq, spike, tiling.window)
    pixels, taken = [], []
    for side in PROBE_SIDES:
        sides = [min(length, -(-side // unit) * unit) for length, unit in zip(lq.shape[3:], units, strict=True)]
        pixels.append(lq.shape[1] * math.prod(sides))
        try:
            taken.append(_measure(run, lq, spike, sides, device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            told = f"a tile of {lq.shape[1]} frames, {sides[0]} x {sides[1]}, does not fit"
            raise UserError(f"max_memory: {told} ({str(error).splitlines()[0]}); allow more") from error
    grows = pixels[-1] > pixels[-2] and taken[-1] > taken[-2]
    slope = (taken[-1] - taken[-2]) / (pixels[-1] - pixels[-2]) if grows else taken[-1] / pixels[-1]
    host = 0.0 if device.type == "cuda" else _host_bytes(lq, spike, tiling.scale)
    return TileCost(max(taken[-1] - slope * pixels[-1], 0.0), slope, host)


def choose_tile(
    cost: TileCost, frames: int, size: Sequence[int], units: Sequence[int], tiling: Tiling, room: float
) -> tuple[int, int, int]:
    """Frames, rows and columns of the tile for a clip.

    Args:
        cost: as measured.
        frames, size: of the clip; rows and columns.
        units: what rows and columns of a tile are multiples of.
        tiling: all about tiles but their size.
        room: bytes that a tile may take.

    Raises:
        UserError: even the smallest tile takes more.
    """
    overlap, window = tiling.overlap, tiling.window[0]
    axes = [
        _counts(frames, overlap[0], window),
        *(_sides(size[axis - 1], overlap[axis], units[axis - 1]) for axis in (1, 2)),
    ]
    fitting = []
    for tile in itertools.product(*axes):
        (count, *_), (rows, *_), (columns, *_) = tile
        # The frames that complete the last attention window are computed too.
        if cost.of((whole_windows(count, window), rows, columns), size) <= room:
            fitting.append((math.prod(share for _, share in tile), -count * rows * columns, (count, rows, columns)))
    if not fitting:
        least = [axis[0][0] for axis in axes]
        raise UserError(
            f"max_memory: a tile of {least[0]} frames, {least[1]} x {least[2]}, takes about "
            f"{cost.of(least, size) / 1e9:.2f} GB, {max(room, 0) / 1e9:.2f} GB are left; allow more"
        )
    return min(fitting)[2]


def tile_units(lq: Tensor, spike: Tensor | None, window: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns that tiles are multiples of: whole attention windows, and whole spike pixels."""
    units = []
    for axis in (3, 4):
        step = 1 if spike is None else lq.shape[axis] // math.gcd(lq.shape[axis], spike.shape[axis])
        units.append(math.lcm(step, window[axis - 2]))
    return units[0], units[1]


def least_side(overlap: int, unit: int) -> int:
    """Rows or columns below which a tile would be little but overlap."""
    return -(-max(2 * overlap, overlap + unit) // unit) * unit


def _measure(
    run: Callable[..., Tensor], lq: Tensor, spike: Tensor | None, sides: list[int], device: torch.device
) -> int:
    """Bytes that a tile in the picture's corner takes, its result included."""
    tiles = [lq[..., : sides[0], : sides[1]].contiguous()]
    if spike is not None:
        h, w = (sides[k] * spike.shape[3 + k] // lq.shape[3 + k] for k in range(2))
        tiles.append(spike[..., :h, :w].contiguous())
    give_back_memory(device)
    before = used_memory(device)
    reset_peak(device)
    run(*tiles)
    return max(peak_memory(device) - before, 0)


def _host_bytes(lq: Tensor, spike: Tensor | None, scale: int) -> float:
    """Of the host's memory per pixel of a window's frames: input read, kept and put together, output made and added."""
    spikes = 0 if spike is None else spike[0, 0].numel() / lq[0, 0, 0].numel()
    return 4 * (3 * lq.shape[2] + 3 * spikes + 6 * 3 * scale**2)


def _counts(frames: int, overlap: int, window: int) -> list[tuple[int, float]]:
    """Frames of a tile, and how often each frame is computed."""
    longest = min(frames, MOST_FRAMES)
    counts = list(range(-(-max(window, overlap + 2) // window) * window, longest, window))
    untiled = [(frames, whole_windows(frames, window) / frames)] if longest == frames else []
    plans = [plan_time(frames, count, overlap, window=window) for count in [*counts, *([] if untiled else [longest])]]
    sizes = [(plan[0].end, len(plan)) for plan in plans]
    return _distinct([*((size, whole_windows(size, window) * number / frames) for size, number in sizes), *untiled])


def _sides(length: int, overlap: int, unit: int) -> list[tuple[int, float]]:
    """Rows or columns of a tile, and how often each is computed."""
    padded = -(-length // unit) * unit
    plans = [spread(padded, side, overlap, unit, unit) for side in range(least_side(overlap, unit), padded, unit)]
    return _distinct([*((size, size * len(begins) / length) for size, begins in plans), (length, 1.0)])


def _distinct(tiles: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted(set(tiles))
