"""Firing rates around the middle of a run of spike frames, as input planes for a network: estimates without training.

    Gaussian   sum over frames of w(t) * light(t), w a normalised Gaussian around the middle or beside it; light(t) is
               the spikes', or the rates' between them times the threshold (`interpolated_light`)
    interval   threshold * number of spikes / time to the k-th spike on either side (`utils/spike_interval.py`)

Every spike has the value of the camera's threshold, so every plane is an estimate of the scene's intensity. Wide
Gaussians have little noise and motion blur, narrow ones are sharp and noisy; those beside the middle show the direction
of motion.

Frames beyond the stream's ends have the value MISSING; every plane is computed from the other frames.

Legend: N pictures, W spike frames, H height, W' width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.charge import interpolated_rates
from utils.spike_interval import doubled_spikes_and_time
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


def interpolated_light(light: Tensor, present: Tensor) -> Tensor:
    """Threshold times the rates between spikes (`utils/charge.py`), of which Gaussians have less noise than of spikes.

    Args:
        light: (N,W,H,W'), MISSING in missing frames, which must be at the ends; W below 2^14.
        present: (N,W) of 0 and 1.

    Returns:
        (N,W,H,W'), MISSING in missing frames.
    """
    threshold = light.amax(dim=(1, 2, 3), keepdim=True)  # (N,1,1,1)
    begin = present.argmax(1).to(torch.int16)[:, None, None]  # (N,1,1)
    end = begin + present.sum(1).to(torch.int16)[:, None, None]  # (N,1,1)
    rates = interpolated_rates(light.transpose(0, 1), (begin, end)).transpose(0, 1)  # (N,W,H,W')
    return torch.where(light >= 0, threshold * rates, MISSING)


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
    """Intensity by the k-interval (`utils/spike_interval.py`), at the beginning of the middle frame W // 2.

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
    planes = []
    counts = [((side > 0).cumsum(1, dtype=torch.uint8), here) for side, here in sides]  # (N,W/2,H,W'), (N,W/2)
    for order in orders:
        spikes, time = zip(*(_of_side(count, here, order) for count, here in counts), strict=True)
        planes.append(sum(spikes).to(light.dtype) / sum(time).clamp_min(1).to(light.dtype))  # (N,1,H,W')
    return torch.cat(planes, 1) * threshold  # (N,len(orders),H,W')


def _of_side(count: Tensor, present: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """`doubled_spikes_and_time`, (N,1,H,W') int16 each.

    Args:
        count: (N,w,H,W') spikes up to each frame of a side, from the middle outwards.
        present: (N,w) of 0 and 1.
    """
    seen = count[:, -1:].to(torch.int16).clamp_max(order)  # (N,1,H,W')
    passed = (count < order).sum(1, keepdim=True, dtype=torch.int16)  # (N,1,H,W')
    frames = present.sum(1).to(torch.int16)[:, None, None, None]  # (N,1,1,1)
    return doubled_spikes_and_time(seen, (seen == order).to(torch.int16), passed, frames)
