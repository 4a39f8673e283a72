"""Weighted sums over time of the rates between spikes (`utils/charge.py`), independent of crops and of the machine."""

import numpy as np
import torch

from utils.charge import interpolated_rates

PIXELS_AT_ONCE = 16384  # whose rates of some hundred frames stay in the processor's cache
RATE_UNITS = 2**20  # per spike; rates are rounded to them, so that sums in float64 are exact in any order


def weighted_rates(spikes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum over t of weights[s, t] * rate[t], the rates between spikes of `utils/charge.py`, (S, h, w) float32.

    Args:
        spikes: (L, h, w) uint8.
        weights: (S, L) from `integer_weights`.
    """
    rows, flat = (
        torch.from_numpy(weights).double(),
        torch.from_numpy(np.ascontiguousarray(spikes)).flatten(1),
    )  # (S, L), (L, h*w)
    sums = []
    for part in flat.split(PIXELS_AT_ONCE, dim=1):
        rates = interpolated_rates(part).mul_(RATE_UNITS).round_()  # (L, pixels)
        sums.append((rows @ rates.double()).div_(RATE_UNITS).float())  # (S, pixels)
    return torch.cat(sums, 1).view(len(weights), *spikes.shape[1:]).numpy()
