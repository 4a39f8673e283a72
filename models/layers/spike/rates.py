"""Firing rates around the middle of a run of spike frames, as input planes for a network: estimates without training.

    Gaussian   sum over frames of w(t) * light(t), w a normalised Gaussian around the middle or beside it
    interval   threshold * number of spikes / time to the k-th spike on either side (TFI for k = 1)

Every spike has the value of the camera's threshold, so every plane is an estimate of the scene's intensity. Wide
Gaussians have little noise and motion blur, narrow ones are sharp and noisy; those beside the middle show the direction
of motion. The interval adapts to each pixel's brightness (for whole streams: `data/spike/frame_sums.py`).

Frames beyond the stream's ends have the value MISSING; every plane is computed from the other frames.

Legend: N pictures, W spike frames, H height, W' width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.spike_windows import MISSING

LEAST_WEIGHT = 1e-6  # divisor of a Gaussian without frames: not 0, and far below the weight of one frame


def gaussian_weights(frames: int, sigmas: Sequence[float], centers: Sequence[float]) -> Tensor:
    """Weights of Gaussian rates, (planes, frames) float32; each row sums to one.

    Args:
        frames: W.
        sigmas, centers: standard deviation and centre of each plane, in frames; centres are relative to frame W // 2.
    """
    time = torch.arange(frames, dtype=torch.float64) - frames // 2
    rows = [torch.exp(-((time - c) ** 2) / (2 * s**2)) for s, c in zip(sigmas, centers, strict=True)]
    return torch.stack([row / row.sum() for row in rows]).float()


def present_frames(light: Tensor) -> Tensor:
    """(N,W) float32: 1 for the frames of (N,W,H,W') in the stream, 0 for those with the value MISSING."""
    return (light[:, :, 0, 0] >= 0).float()


def weighted_rates(light: Tensor, weights: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means over the frames present.

    Args:
        light: (N,W,H,W'), MISSING in missing frames.
        weights: (planes,W), rows sum to one.
        present: (N,W) of 0 and 1.

    Returns:
        (N,planes,H,W') rates, 0 without a frame; (N,planes) sums of the weights of the frames present.
    """
    share = present @ weights.T  # (N,planes)
    missing = MISSING * ((1 - present) @ weights.T)  # (N,planes), contribution of missing frames to the sums
    sums = F.conv2d(light, weights[:, :, None, None]) - missing[:, :, None, None]  # (N,planes,H,W')
    return sums / share.clamp_min(LEAST_WEIGHT)[:, :, None, None], share  # (N,planes,H,W'), (N,planes)


def interval_rates(light: Tensor, orders: Sequence[int], present: Tensor) -> Tensor:
    """Intensity from the time between spikes, at the beginning of the middle frame W // 2.

    Each side contributes spikes and time. With at least k spikes: k - 1/2 spikes, and the time to the middle of the
    k-th spike's frame. With fewer: all its spikes and all its frames.

    Args:
        light: (N,W,H,W'), W from 2 to 509 (counts are uint8), MISSING in missing frames, which must be at the ends;
            every spike has the value of its picture's threshold.
        orders: k of each plane.
        present: (N,W) of 0 and 1.

    Returns:
        (N,len(orders),H,W'); 0 where a pixel never fired.
    """
    middle = light.shape[1] // 2
    threshold = light.amax(dim=(1, 2, 3), keepdim=True)  # (N,1,1,1)
    sides = [(light[:, middle:], present[:, middle:]), (light[:, :middle].flip(1), present[:, :middle].flip(1))]
    # Number of spikes up to each frame, counted from the middle outwards on either side, (N,W/2,H,W') each, and the
    # number of frames that are present.
    counts = [((side > 0).cumsum(1, dtype=torch.uint8), here.sum(1)[:, None, None, None]) for side, here in sides]
    planes = []
    for order in orders:
        spikes, time = light.new_zeros(()), light.new_zeros(())
        for count, frames in counts:
            seen = count[:, -1:]
            passed = (count < order).sum(1, keepdim=True, dtype=torch.int16)
            full = seen >= order
            spikes = spikes + torch.where(full, order - 0.5, seen.to(light.dtype))
            time = time + torch.where(full, passed + 0.5, frames)
        planes.append(spikes / time.clamp_min(1))
    return torch.cat(planes, 1) * threshold
