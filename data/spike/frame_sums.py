"""Weighted sums of spike frames, exact in integers and so independent of the order of additions; and the firing rate
from the time between spikes at one instant (`utils/spike_interval.py`).

Spikes are 0 or 1, so a representation that is a weighted sum over time can be computed in integers and scaled once at
the end. The result then does not depend on the crop, on flips of time or space, or on the machine, as
tests/data/spike/test_representations.py asserts bit for bit.
"""

import math
from typing import NamedTuple

import numpy as np

from utils.spike_interval import doubled_spikes_and_time

EXACT_FLOAT32 = 2**24  # float32 represents every integer up to this
GAUSSIAN_REACH = 4.0  # in sigmas; beyond it, weights are below 4e-4 of the centre's
FRAMES_AT_ONCE = 16  # bounds the float32 copy of the spikes in `weighted_sums`


class BinSums(NamedTuple):
    """Spikes per bin as integers.

    Attributes:
        sums: (S, h, w) unsigned integers.
        frame_units: weight of a frame that lies in one bin; sums / frame_units is a number of spikes.
        bin_units: sum of the frames' weights in a bin; sums / bin_units is a firing rate in [0, 1].
    """

    sums: np.ndarray
    frame_units: int
    bin_units: int


def equal_bin_sums(spikes: np.ndarray, bins: int) -> BinSums:
    """Spikes (L, h, w) uint8 in `bins` bins of equal duration.

    Bin i covers the time [i L / S, (i + 1) L / S). A frame on a border counts in both bins, by its share in each: frame
    t has integer weight overlap([t S, (t + 1) S), [i L, (i + 1) L)), divided by gcd(L, S). So the bins' sum is exactly
    the total, and reversing the frames reverses the bins.
    """
    length = len(spikes)
    divisor = math.gcd(length, bins)
    frame_units, bin_units = bins // divisor, length // divisor
    integer = np.min_scalar_type(bin_units).type
    sums = np.empty((bins, *spikes.shape[1:]), integer)
    for index in range(bins):
        begin, end = index * bin_units, (index + 1) * bin_units
        first, last = -(-begin // frame_units), end // frame_units  # whole frames [first, last)
        bin_sum = sums[index]
        if last < first:  # the bin lies inside one frame
            np.multiply(spikes[last], integer(bin_units), out=bin_sum, dtype=integer)
            continue
        bin_sum.fill(0)
        for frame in range(first, last):
            np.add(bin_sum, spikes[frame], out=bin_sum)
        np.multiply(bin_sum, integer(frame_units), out=bin_sum)
        if first * frame_units > begin:
            bin_sum += spikes[first - 1] * integer(first * frame_units - begin)
        if last * frame_units < end:
            bin_sum += spikes[last] * integer(end - last * frame_units)
    return BinSums(sums, frame_units, bin_units)


def integer_weights(weights: list[float]) -> np.ndarray:
    """Non-negative weights (L,) as float32 integers with a sum of at most 2^24, proportional within 2^-24 of the sum.

    The sum is the exact one of `math.fsum`, so that reversed weights give the reversed result.
    """
    scale = (EXACT_FLOAT32 - 1) / math.fsum(weights)
    return np.array([math.floor(weight * scale) for weight in weights], np.float32)


def gaussian_support(center: int, sigma: float, length: int) -> tuple[int, int]:
    """Frames [begin, end), in a stream of `length`, of a Gaussian of `sigma` frames around `center`."""
    reach = math.ceil(GAUSSIAN_REACH * sigma)
    return max(0, center - reach), min(length, center + reach + 1)


def gaussian_weights(center: int, sigma: float, begin: int, end: int) -> np.ndarray:
    """exp(-(frame - center)^2 / (2 sigma^2)) of frames [begin, end), as `integer_weights`."""
    return integer_weights([math.exp(-((frame - center) ** 2) / (2 * sigma**2)) for frame in range(begin, end)])


def weighted_sums(spikes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum over t of weights[s, t] * spikes[t], exact integers as (S, h, w) float32.

    Args:
        spikes: (L, h, w) uint8.
        weights: (S, L) from `integer_weights`; all partial sums are integers up to 2^24, so float32 matrix products are
            exact in any order.
    """
    length, height, width = spikes.shape
    sums = np.zeros((len(weights), height * width), np.float32)
    for begin in range(0, length, FRAMES_AT_ONCE):
        frames = spikes[begin : begin + FRAMES_AT_ONCE].astype(np.float32)
        sums += weights[:, begin : begin + FRAMES_AT_ONCE] @ frames.reshape(len(frames), -1)
    return sums.reshape(-1, height, width)


def interval_rate(spikes: np.ndarray, center: int, order: int, reach: int) -> np.ndarray:
    """The k-interval rate (`utils/spike_interval.py`) at the beginning of frame `center`, (h, w) float32 in [0, 1].

    Args:
        spikes: (T, h, w) uint8.
        center: c; frames [c, c + reach) are one side, [c - reach, c) the other, as far as they exist.
        order: k >= 1.
        reach: largest number of frames on either side, >= 1.
    """
    after = spikes[center : center + reach]
    before = spikes[max(0, center - reach) : center][::-1]
    spikes_after, time_after = _doubled_spikes_and_time(after, order)
    spikes_before, time_before = _doubled_spikes_and_time(before, order)
    result: np.ndarray = (spikes_after + spikes_before) / (time_after + time_before)
    return result


def _doubled_spikes_and_time(walk: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the frames (t, h, w) of a side, in order of distance from the centre: (h, w) float32 whole numbers."""
    integer = np.min_scalar_type(max(len(walk), order)).type  # small integers add many times faster than float32
    seen = np.zeros(walk.shape[1:], integer)
    passed = np.zeros(walk.shape[1:], integer)
    for frame in walk:
        seen += frame
        passed += seen < order
    full = (seen >= order).astype(np.float32)
    counted = np.minimum(seen, integer(order)).astype(np.float32)
    return doubled_spikes_and_time(counted, full, passed.astype(np.float32), len(walk))
