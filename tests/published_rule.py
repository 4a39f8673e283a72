"""The rule of the published tester (KAIR's and VRT's main_test_vrt.py) a second time: over whole pictures, by loops.

    by_the_published_rule(network, lq, tile=(18, 192, 192), overlap=(2, 20, 20), window=(6, 8, 8))

Written from what it does; `utils/tile_plan.py` is held against it.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

Sizes = tuple[int, int, int]


def mirrored(video: Tensor, axis: int, multiple: int) -> Tensor:
    """The last ones in reverse, up to a whole multiple or as many as there are."""
    lacking = (multiple - video.shape[axis] % multiple) % multiple
    order = list(range(video.shape[axis]))
    order += list(reversed(order))[:lacking]
    return video.index_select(axis, torch.tensor(order))


def by_the_published_rule(net: Any, lq: Tensor, tile: Sizes, overlap: Sizes, window: Sizes, scale: int = 1) -> Tensor:
    """The rule, in its own words: sum and count of every output pixel, first over clips, in them over patches."""
    if tile[0] == 0:
        return patches(net, mirrored(lq, 1, window[0]), tile, overlap, window, scale)[:, : lq.shape[1]]
    frames = lq.shape[1]
    starts = [*range(0, frames - tile[0], tile[0] - overlap[0]), max(0, frames - tile[0])]
    total: Any = 0.0
    count = torch.zeros(frames)
    for start in starts:
        of_clip = patches(net, lq[:, start : start + tile[0]], tile, overlap, window, scale)
        placed = torch.zeros(*of_clip.shape[:1], frames, *of_clip.shape[2:])
        placed[:, start : start + tile[0]] = of_clip
        total = total + placed
        count[start : start + tile[0]] += 1
    return total / count[:, None, None, None]


def patches(net: Any, lq: Tensor, tile: Sizes, overlap: Sizes, window: Sizes, scale: int) -> Tensor:
    """The rule in space; `tile[1]` and `overlap[1]` count for rows and columns."""
    side, shared = tile[1], overlap[1]
    rows, columns = lq.shape[3:]
    if side == 0:
        entire = net(mirrored(mirrored(lq, 3, window[1]), 4, window[2]))
        return entire[..., : rows * scale, : columns * scale]
    down = [*range(0, rows - side, side - shared), max(0, rows - side)]
    right = [*range(0, columns - side, side - shared), max(0, columns - side)]
    total = torch.zeros(*lq.shape[:2], 3, rows * scale, columns * scale)
    count = torch.zeros_like(total)
    for top, left in itertools.product(down, right):
        created = net(lq[..., top : top + side, left : left + side])
        keep = torch.ones(created.shape[-2:])
        before, after = shared // 2, shared - shared // 2
        if top != down[0]:
            keep[:before] = 0
        if top != down[-1]:
            keep[keep.shape[0] - after :] = 0
        if left != right[0]:
            keep[:, :before] = 0
        if left != right[-1]:
            keep[:, keep.shape[1] - after :] = 0
        box = (..., slice(top * scale, (top + side) * scale), slice(left * scale, (left + side) * scale))
        total[box] += created * keep
        count[box] += keep
    return total / count
