"""Firing rates around the middle of a run of spike frames, as input planes for a network: estimates without training.

    Gaussian   sum over frames of w(t) * light(t), w a normalised Gaussian around the middle or beside it
    interval   threshold * number of spikes / time to the k-th spike on either side (TFI for k = 1)

Every spike has the value of the camera's threshold, so every plane is an estimate of the scene's intensity. Wide
Gaussians have little noise and motion blur, narrow ones are sharp and noisy; those beside the middle show the direction
of motion. The interval adapts to each pixel's brightness (for whole streams: `data/spike/frame_sums.py`).

Legend: N pictures, W spike frames, H height, W' width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_weights(frames: int, sigmas: Sequence[float], centers: Sequence[float]) -> Tensor:
    """Weights of Gaussian rates, (planes, frames) float32; each row sums to one.

    Args:
        frames: W.
        sigmas, centers: standard deviation and centre of each plane, in frames; centres are relative to frame W // 2.
    """
    time = torch.arange(frames, dtype=torch.float64) - frames // 2
    rows = [torch.exp(-((time - c) ** 2) / (2 * s**2)) for s, c in zip(sigmas, centers, strict=True)]
    return torch.stack([row / row.sum() for row in rows]).float()


def weighted_rates(light: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over time: (N,W,H,W') and (planes,W) to (N,planes,H,W')."""
    return F.conv2d(light, weights[:, :, None, None])


def interval_rates(light: Tensor, orders: Sequence[int]) -> Tensor:
    """Intensity from the time between spikes, at the beginning of the middle frame W // 2.

    Each side contributes spikes and time. With at least k spikes: k - 1/2 spikes, and the time to the middle of the
    k-th spike's frame. With fewer: all its spikes and all its frames.

    Args:
        light: (N,W,H,W'), W from 2 to 255 (counts are uint8); every spike has the value of its picture's threshold.
        orders: k of each plane.

    Returns:
        (N,len(orders),H,W'); 0 where a pixel never fired.
    """
    middle = light.shape[1] // 2
    threshold = light.amax(dim=(1, 2, 3), keepdim=True)
    # Number of spikes up to each frame, counted from the middle outwards on either side, (N,W/2,H,W') each.
    counts = [(side > 0).cumsum(1, dtype=torch.uint8) for side in (light[:, middle:], light[:, :middle].flip(1))]
    planes = []
    for order in orders:
        spikes, time = light.new_zeros(()), light.new_zeros(())
        for count in counts:
            seen, passed = count[:, -1:], (count < order).sum(1, keepdim=True)
            full = seen >= order
            spikes = spikes + torch.where(full, order - 0.5, seen.to(light.dtype))
            time = time + torch.where(full, passed + 0.5, passed.to(light.dtype))
        planes.append(spikes / time)
    return torch.cat(planes, 1) * threshold
