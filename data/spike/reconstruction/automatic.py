"""Brightness and averaging time estimated from a stream, for commands without options that state them.

Threshold: the rate of the brightest percent of the pixels is shown as WHITE, so that a dark recording is visible.

Averaging time: the mean squared error of a Gaussian of sigma frames, G = sum_t w_t s_t, against the true rate r is

    E (G - r)^2 = E G^2 - 2 E G r + E r^2

The last term does not depend on sigma. In the second, r is replaced by a rate interpolated from the neighbours: their
noise is independent of the pixel's, so the mean of the product stays the same. The sigma with the smallest
E G^2 - 2 E G r balances noise and motion blur, without a sharp picture (cross-validation over space).

    python -m scripts.spikes view lowlight.dat        # prints the values chosen
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from data.spike.frame_sums import gaussian_support, gaussian_weights, weighted_sums

Blocks = Callable[[int, int], np.ndarray]
"""From frames [begin, end) to their spikes, (end - begin, h, w) uint8."""

WHITE = 0.9
"""Intensity of the brightest percent; below 1, so that few brighter pixels are clipped."""

BRIGHT = 99.0  # percentile; the remaining percent may be lamps and reflections
STRETCHES, STRETCH = (
    8,
    64,
)  # frames measured: 8 x 64 over the stream cover slow changes of light
MEDIAN = 5  # side of the median: a single hot pixel has no effect on that of 5x5

SIGMAS = (1.5, 2.0, 3.0, 4.5, 6.0, 9.0, 12.0, 18.0, 24.0, 36.0, 48.0, 72.0)
"""Widths tried, in frames; factors of 1.3 to 1.5, since the error is flat around its minimum."""

BRIGHT_RATE, BRIGHT_SIGMA = 0.2, 8.0
"""In bright streams, texture too fine for the interpolation is taken for noise. So widths are at most
BRIGHT_SIGMA * (BRIGHT_RATE / rate)^2 frames below BRIGHT_RATE and BRIGHT_SIGMA * BRIGHT_RATE / rate above: 8 and less
for the GoPro and REDS streams, whose best widths are 5 to 7, and no limit at the rates of low light, below 0.07."""

CHARGE_SCALE, CHARGE_POWER = 1.1, 0.75
"""The rates between spikes have less noise, so that less averaging is best: 1.1 sigma^0.75 frames where sigma is best
for the spikes, 4.2 for 6 and 28 for 72. Fitted to the best widths of both on the GoPro and REDS streams and in the
scenes of low light of scripts/benchmark/threshold_table.py. Cross-validation of these rates themselves would choose
widths for the scene's fine texture, which is stronger than their noise."""

MOMENTS = 12  # instants at which the error is estimated and averaged
REFERENCE_SIGMA = 1.5  # of the interpolated rate: the smallest width, too short for motion blur
DEFECT = 2.0  # a pixel above twice or below half the median around it counts as defective; texture seldom does

# A pixel interpolated from its neighbours: 4/3 of the mean of those at distance 1 - 1/3 of the mean of those at
# distance 2, exact for polynomials of third order, so that smooth shading causes no error.
AROUND = np.zeros((5, 5), np.float32)
AROUND[[1, 3, 2, 2], [2, 2, 1, 3]] = 1 / 3
AROUND[[0, 4, 2, 2], [2, 2, 0, 4]] = -1 / 12


def automatic_threshold(blocks: Blocks, length: int) -> float:
    """Threshold (intensity = firing rate x threshold) at which the brightest percent of a stream has intensity WHITE.

    Args:
        blocks: reads the stream.
        length: its frames, at least 1.

    Returns:
        The threshold to three digits; 1 if 99 % of the pixels do not fire, so that no brightness can be measured.
    """
    stretches = min(STRETCHES, -(-length // STRETCH))
    begins = np.linspace(0, max(0, length - STRETCH), stretches).astype(int)
    rates = [blocks(begin, min(length, begin + STRETCH)).mean(axis=0, dtype=np.float32) for begin in begins]
    bright = float(np.percentile(_median(np.stack(rates).mean(axis=0, dtype=np.float32)), BRIGHT))
    return float(f"{WHITE / bright:.3g}") if bright > 0 else 1.0


def automatic_sigma(blocks: Blocks, length: int) -> float:
    """Width in frames of the Gaussian with the smallest expected squared error (see the module).

    Args:
        blocks: reads the stream.
        length: its frames, at least 1.
    """
    rate = float(
        np.mean([blocks(moment, moment + 1).mean() for moment in np.linspace(0, length - 1, STRETCH).astype(int)])
    )
    darkness = BRIGHT_RATE / max(rate, 1 / length)
    limit = min(length / 2, BRIGHT_SIGMA * max(darkness, darkness**2))
    sigmas = [sigma for sigma in SIGMAS if sigma < limit] + ([limit] if limit < SIGMAS[-1] else [])
    margin = min(length // 4, math.ceil(sigmas[-1]))  # Gaussians cut at the stream's ends would bias sigma downwards
    moments = np.unique(np.linspace(margin, length - 1 - margin, min(MOMENTS, length)).astype(int))
    errors = np.mean([_errors(blocks, length, int(moment), sigmas) for moment in moments], axis=0)
    best = int(np.argmin(errors))
    sigma = sigmas[best]
    if 0 < best < len(sigmas) - 1:
        sigma = _minimum(np.log(sigmas[best - 1 : best + 2]), errors[best - 1 : best + 2])
    return float(f"{sigma:.2g}")


def charge_sigma(sigma: float) -> float:
    """Width for the rates between spikes (`ChargeRate`), in frames, where that for spikes is `sigma`."""
    return float(f"{CHARGE_SCALE * sigma**CHARGE_POWER:.2g}")


def window_length(sigma: float) -> int:
    """Length (odd) of the box filter with the standard deviation of a Gaussian: length^2 / 12 = sigma^2."""
    return 2 * round(math.sqrt(12) * sigma / 2 - 0.5) + 1


def _errors(blocks: Blocks, length: int, moment: int, sigmas: list[float]) -> np.ndarray:
    """E G^2 - 2 E G r at one instant for each sigma, (len(sigmas),) float64."""
    begin, end = gaussian_support(moment, sigmas[-1], length)
    weights = np.zeros((len(sigmas) + 1, end - begin), np.float32)
    for row, sigma in zip(weights, [*sigmas, REFERENCE_SIGMA], strict=True):
        first, last = gaussian_support(moment, sigma, length)
        row[first - begin : last - begin] = gaussian_weights(moment, sigma, first, last)
    sums = weighted_sums(blocks(begin, end), weights)
    rates = sums / weights.sum(axis=1, dtype=np.float64).astype(np.float32)[:, None, None]  # (S+1, h, w)
    widest, around = rates[-2], _median(rates[-2])
    defective = ((widest > DEFECT * around) | (DEFECT * widest < around)).astype(np.uint8)
    intact = cv2.dilate(defective, np.ones(AROUND.shape, np.uint8)) == 0
    intact = intact if intact.any() else np.ones_like(intact)
    interpolated = cv2.filter2D(rates[-1], -1, AROUND, borderType=cv2.BORDER_REFLECT_101)
    return np.array([np.mean((rate * (rate - 2 * interpolated))[intact], dtype=np.float64) for rate in rates[:-1]])


def _median(rate: np.ndarray) -> np.ndarray:
    """Median of MEDIAN x MEDIAN pixels of (h, w) float32; a single row or column is returned unchanged."""
    return cv2.medianBlur(rate, MEDIAN) if min(rate.shape) > 1 else rate


def _minimum(x: np.ndarray, y: np.ndarray) -> float:
    """exp(x) at the minimum of the parabola through three points, the middle one of which is the lowest."""
    slopes = np.diff(y) / np.diff(x)
    curvature = (slopes[1] - slopes[0]) / (x[2] - x[0])
    place = x[1] if curvature <= 0 else (x[0] + x[1]) / 2 - slopes[0] / (2 * curvature)
    return float(np.exp(np.clip(place, x[0], x[2])))
