"""Estimates motion from rates, and warps planes of several instants to the middle one along it.

    warped_k(x) = plane_k(x + v(x) t_k)         v: pixels per frame, before (t < 0) and after the middle

Motion is estimated without training, by Gauss-Newton steps of Lucas and Kanade (1981) on a pyramid of blurred planes,

    v <- v - (sum g g' + L)^-1 sum g r,      r = plane(x + v t) - middle(x),   g = t * gradient of plane(x + v t)

with sums over squares of WINDOW x WINDOW pixels. L is the expected noise: where it exceeds the gradients, the velocity
of the coarser level is kept.

Legend: N pictures, K planes, H height, W width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 17  # pixels of a level: enough to average noise, smaller than moving objects
STEPS = 2  # per level: coarser levels leave less than a pixel
LARGEST_STEP = 1.0  # pixels of the level: the gradient is valid no further
TINY = 1e-8  # squared gradients below this are blank areas


def warped(planes: Tensor, motion: Tensor, times: Tensor) -> Tensor:
    """Planes warped to the middle, bilinearly; pixels outside the plane repeat its border.

    Args:
        planes: (N,K,H,W) float32.
        motion: (N,4,H,W) pixels per frame: x, y before the middle and x, y after it.
        times: (K,) the planes' times in frames from the middle.
    """
    before, after = motion.split(2, 1)  # (N,2,H,W) each
    when = times[None, :, None, None, None]  # (1,K,1,1,1)
    shift = torch.where(when < 0, before[:, None], after[:, None]) * when  # (N,K,2,H,W)
    return shifted(planes.flatten(0, 1)[:, None], shift.flatten(0, 1)).view(planes.shape)  # (N,K,H,W)


def shifted(planes: Tensor, shift: Tensor) -> Tensor:
    """Values of (N,1,H,W) at each pixel plus (N,2,H,W) pixels in x and y."""
    height, width = planes.shape[-2:]
    x = torch.arange(width, device=planes.device) + shift[:, 0]  # (N,H,W)
    y = torch.arange(height, device=planes.device)[:, None] + shift[:, 1]  # (N,H,W)
    # grid_sample's coordinates are -1 to 1 between the centres of the outermost pixels.
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)  # (N,H,W,2)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True)  # (N,1,H,W)


def tracked(planes: Tensor, middle: Tensor, times: Tensor, noise: Tensor, scales: Sequence[int]) -> Tensor:
    """Motion (N,2,H/s,W/s) in pixels (of the full size) per frame, s the last of `scales`.

    Args:
        planes, middle: (N,1,H,W) at other times, and at the middle.
        times: (N,) the planes' times in frames from the middle.
        noise: (N,1,H,W) standard deviation of a pixel of `planes`.
        scales: side of a pixel of each level in pixels, the coarsest first.
    """
    velocity = planes.new_zeros(len(planes), 2, 1, 1)  # (N,2,h,w)
    for scale in scales:
        plane, target, deviation = (F.avg_pool2d(part, scale) for part in (planes, middle, noise))  # (N,1,H/s,W/s)
        velocity = F.interpolate(velocity, target.shape[-2:], mode="bilinear", align_corners=False)  # (N,2,H/s,W/s)
        per_frame = (times / scale)[:, None, None, None]  # pixels of the level for a velocity of 1
        damping = (deviation / scale * per_frame) ** 2  # (N,1,H/s,W/s)
        for _ in range(STEPS):
            velocity = velocity + step(plane, target, velocity, per_frame, damping)
    return velocity


def step(plane: Tensor, target: Tensor, velocity: Tensor, per_frame: Tensor, damping: Tensor) -> Tensor:
    """One Gauss-Newton step of the velocity, (N,2,h,w)."""
    now = shifted(plane, velocity * per_frame)  # (N,1,h,w)
    around = F.pad(now, (1, 1, 1, 1), mode="replicate")  # (N,1,h+2,w+2)
    x = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) * per_frame / 2  # (N,1,h,w)
    y = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) * per_frame / 2  # (N,1,h,w)
    error = now - target  # (N,1,h,w)
    products = torch.cat([x * x, y * y, x * y, x * error, y * error], 1)  # (N,5,h,w)
    means = F.avg_pool2d(products, WINDOW, 1, WINDOW // 2, count_include_pad=False)  # (N,5,h,w)
    xx, yy, xy, xe, ye = means.split(1, 1)  # (N,1,h,w) each
    xx, yy = xx + damping + TINY, yy + damping + TINY
    scale = -1 / (xx * yy - xy * xy)  # (N,1,h,w)
    change = scale * torch.cat([yy * xe - xy * ye, xx * ye - xy * xe], 1)  # (N,2,h,w)
    largest = LARGEST_STEP / per_frame.abs()
    return torch.maximum(torch.minimum(change, largest), -largest)
