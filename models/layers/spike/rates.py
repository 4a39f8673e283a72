"""Firing rates at the middle of a window, as planes that a network starts from: physically sound before any training.

    Gaussian   sum over frames of w(t) * light(t), w a Gaussian around the middle or beside it, normalised
    interval   light per spike * spikes over the time to the k-th spike on either side (TFI for k = 1)

A spike is worth the camera's threshold, so every plane reads as the scene's intensity. Wide Gaussians are quiet and
blurred by motion, narrow ones sharp and noisy; those beside the middle show where things come from and go to; the
interval adapts to each pixel's brightness (`data/spike/frame_sums.py` has the same for whole streams).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_weights(frames: int, sigmas: Sequence[float], centers: Sequence[float]) -> Tensor:
    """Weights of Gaussian rates, (planes, frames) float32; each row sums to one.

    Args:
        frames: W, spike frames in the window.
        sigmas, centers: of each plane in frames, centres counted from the window's middle frame W // 2.
    """
    time = torch.arange(frames, dtype=torch.float64) - frames // 2
    rows = [torch.exp(-((time - c) ** 2) / (2 * s**2)) for s, c in zip(sigmas, centers, strict=True)]
    return torch.stack([row / row.sum() for row in rows]).float()


def weighted_rates(light: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over time: (N,W,H,W') and (planes,W) to (N,planes,H,W')."""
    return F.conv2d(light, weights[:, :, None, None])


def interval_rates(light: Tensor, orders: Sequence[int]) -> Tensor:
    """Intensity from the time between spikes, at the beginning of the window's middle frame.

    A side with k spikes counts k - 1/2 of them over the time to the middle of the k-th one's frame, a side with fewer
    all of them over all its frames.

    Args:
        light: (N,W,H,W'), W from 2 to 255; every spike worth its threshold, the same within a sample.
        orders: k of each plane.

    Returns:
        (N,len(orders),H,W'); 0 where a pixel never fired.
    """
    middle = light.shape[1] // 2
    threshold = light.amax(dim=(1, 2, 3), keepdim=True)
    # Both sides lead away from the middle; their spikes so far.
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
