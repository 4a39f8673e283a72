"""Weighted sums over time of the rates between spikes (`utils/charge.py`), independent of crops and of the machine."""

import numpy as np
import torch
from torch import Tensor

from utils.charge import interpolated_rates

PIXELS_AT_ONCE = 16384  # whose rates of some hundred frames stay in the processor's cache
RATE_UNITS = 2**20  # per spike; rates are rounded to them, so that sums in float64 are exact in any order


def weighted_rates(spikes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum over t of weights[s, t] * rate[t], the rates between spikes of `utils/charge.py`, (S, h, w) float32.

    Args:
        spikes: (L, h, w) uint8.
        weights: (S, L) from `integer_weights`.
    """
    return weighted_rate_planes(torch.from_numpy(np.ascontiguousarray(spikes)), weights).numpy()


def weighted_rate_planes(spikes: Tensor, weights: np.ndarray, begin: int = 0, longest: int | None = None) -> Tensor:
    """As `weighted_rates`, of a tensor and of some of its frames.

    Args:
        spikes: (T, h, w) uint8.
        weights: (S, L) from `integer_weights`, of the frames [begin, begin + L).
        longest: intervals of more frames have the rate 0, as have pixels without a spike; None: no limit.
    """
    rows = torch.from_numpy(weights).to(spikes.device, torch.float64)  # (S, L)
    asked, sums = slice(begin, begin + weights.shape[1]), []
    for part in spikes.flatten(1).split(PIXELS_AT_ONCE, dim=1):
        rates = interpolated_rates(part, longest=longest, asked=asked).mul_(RATE_UNITS).round_()  # (L, pixels)
        sums.append((rows @ rates.double()).div_(RATE_UNITS).float())  # (S, pixels)
    return torch.cat(sums, 1).view(len(weights), *spikes.shape[1:])


def rates_support(begin: int, end: int, longest: int, length: int) -> tuple[int, int]:
    """Frames, in a stream of `length`, on which the rates of its frames [begin, end) depend.

    Args:
        longest: as in `weighted_rate_planes`. An interval cut by an end of the stream takes the length of its
            neighbour, which ends within twice as many frames.
    """
    edge = 2 * longest + 1
    return max(0, min(begin - longest, length - edge)), min(length, max(end + longest, edge))
