"""Sampling pictures and features along optical flow, and composing flows.

Flow is in pixels, channel 0 to the right and channel 1 downwards: `flow_warp(x, flow)[y, x] = x[y + v, x + u]`.
Grids are at least float32: the 8 significant bits of bfloat16 can't represent odd columns above 256.

Legend: N frames, C channels, H height, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; wider types unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _targets(flow: Tensor, top: int = 0) -> tuple[Tensor, Tensor]:
    """Target columns and rows (N, H, W), in pixels, of flow (N, 2, H, W), whose first row is row `top`."""
    height, width = flow.shape[-2:]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    rows = torch.arange(top, top + height, dtype=flow.dtype, device=flow.device)[:, None]
    return flow[:, 0] + columns, flow[:, 1] + rows


def _normalised(columns: Tensor, rows: Tensor, height: int, width: int) -> Tensor:
    """Pixel coordinates as the grid (..., 2) of `grid_sample` with align_corners=False; True would map all coordinates
    of a side of one pixel to the same place."""
    return torch.stack(((columns * 2 + 1) / width - 1, (rows * 2 + 1) / height - 1), dim=-1)


def flow_warp(x: Tensor, flow: Tensor, padding_mode: str = "zeros", top: int = 0) -> Tensor:
    """Bilinear samples of x (N, C, H, W) at the targets of flow (N, 2, H, W).

    Args:
        padding_mode: "zeros" or "border", for targets outside x.
        top: row of x at which the flow's first row starts; the flow may have fewer rows than x.
    """
    with torch.autocast(x.device.type, enabled=False):
        flow = at_least_float32(flow)
        grid = _normalised(*_targets(flow, top), *x.shape[-2:])
        sampled = F.grid_sample(x.to(flow.dtype), grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)
    return sampled.to(x.dtype)


def flow_warp_nearest4(x: Tensor, flow: Tensor) -> Tensor:
    """The four pixels around the target of flow, zeros outside.

    Args:
        x: (N, C, H, W).
        flow: (N, 2, H, W); receives no gradient, as in the published network's training.

    Returns:
        (N, 4*C, H, W): (floor x, floor y), (floor x, ceil y), (ceil x, floor y), (ceil x, ceil y).
    """
    count, channels, height, width = x.shape
    with torch.autocast(x.device.type, enabled=False):
        columns, rows = _targets(at_least_float32(flow.detach()))
        left, right, top, bottom = columns.floor(), columns.ceil(), rows.floor(), rows.ceil()
        # The four corners are stacked along the grid's rows, so that one call samples all of them.
        grid = _normalised(
            torch.cat((left, left, right, right), 1), torch.cat((top, bottom, top, bottom), 1), height, width
        )
        sampled = F.grid_sample(x.to(grid.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    corners = sampled.view(count, channels, 4, height, width).transpose(1, 2)
    return corners.reshape(count, 4 * channels, height, width).to(x.dtype)


def neighbour_flows(flows: Tensor, reach: int) -> Tensor:
    """Flows from every frame to its next `reach` frames, in both directions of time.

    f(t, t+k) = f(t, t+k-1) + warp(f(t+k-1, t+k), f(t, t+k-1)), for all frames and both directions in one warp per k.
    The published 16-frame model (pa_frames 6) was trained with this order; composing from f(t, t+1) gives a different
    flow from k = 3 on (fixture deblur_pa6).

    Args:
        flows: (2, B, T-1, 2, H, W); [0, :, t] is from frame t to t+1, [1, :, t] from frame t+1 to t.
        reach: neighbours per direction (pa_frames / 2).

    Returns:
        (2, B, T-1, reach, 2, H, W); [0, :, t, k-1] is from frame t to t+k, [1, :, t, k-1] from frame t+1 to t+1-k,
        zeros where there is no such frame.
    """
    pairs = flows.shape[2]
    orders = [flows]
    longer = flows
    for order in range(2, reach + 1):
        count = pairs + 1 - order
        if count < 1:
            orders.append(torch.zeros_like(flows))
            continue
        shorter = torch.stack((longer[0, :, :count], longer[1, :, 1:]))
        last_step = torch.stack((flows[0, :, order - 1 :], flows[1, :, :count]))
        longer = shorter + flow_warp(last_step.flatten(0, 2), shorter.flatten(0, 2)).view_as(shorter)
        missing = (0, 0, 0, 0, 0, 0)
        ahead = F.pad(longer[0], (*missing, 0, order - 1))
        behind = F.pad(longer[1], (*missing, order - 1, 0))
        orders.append(torch.stack((ahead, behind)))
    return torch.stack(orders, dim=3)
