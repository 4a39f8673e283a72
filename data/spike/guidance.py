"""Encodes the spikes around an instant t of an exposure as channels at the sensor's size: the input of `guided`.

    "spike": {"representation": "guided"}, "input_pack_mode": "dual"

    rates       firing rates by Gaussians of several widths around t: narrow ones are sharp, wide ones have little noise
    mean        firing rate over the exposure, which corresponds to the blurred frame
    intervals   rate from the time between spikes around t (`data/spike/frame_sums.py`), which adapts to brightness
    bins        the exposure in equidistant Gaussian bins, centred on t: the direction of motion
    one spike   threshold / exposure length: the intensity of a single spike, and the unit of all noise
    place       position of t in the exposure, 0 at its beginning and 1 at its end
    length      log2 of the exposure's spike frames, over 8

Gaussians, mean and bins are of the rates between spikes (`utils/charge.py`), which have less noise than the spikes.
All but the last two are rate x threshold. The last three are constant over the picture; as channels, they make crops,
tiles and exported networks independent of further inputs. `models/layers/spike/ratios.py` reads them.

Intervals and narrow rates from one side of t only are biased. Therefore, within `EDGE` frames of the stream's first or
last one, they are computed around the nearest frame with both sides; `place` is still that of t.
"""

import math
from collections.abc import Sequence

import numpy as np

from data.spike.frame_sums import gaussian_support, gaussian_weights, interval_rate, weighted_sums
from data.spike.sync import ExposureWindow
from data.spike.weighted_rates import weighted_rates
from utils.user_error import UserError
from utils.utils_registry import REPRESENTATIONS

EDGE = 2  # spike frames; with 1 the first interval of a stream is still biased


@REPRESENTATIONS.register("guided")
class Guided:
    """Rates, mean, intervals and bins of an exposure around its centre t, and three constants.

    Args:
        sigmas: widths of the Gaussians around t, in spike frames.
        orders: k of the intervals.
        bins: number of bins, odd, so that the middle one is at t.
        reach: largest number of spike frames of the intervals on either side of t.
        counted: Gaussians, mean and bins are of the spikes themselves, as in the published methods.
    """

    brightness_true = False  # as place and length are no intensities

    def __init__(
        self,
        *,
        sigmas: Sequence[float] = (1.5, 3.0, 6.0, 12.0, 24.0),
        orders: Sequence[int] = (1, 2, 3),
        bins: int = 11,
        reach: int = 64,
        counted: bool = False,
    ) -> None:
        if not sigmas or min(sigmas) <= 0:
            raise UserError(f"spike representation guided: sigmas are {list(sigmas)}; numbers above 0 are needed.")
        if any(order < 1 for order in orders) or reach < 1:
            raise UserError(
                f"spike representation guided: orders are {list(orders)} and reach is {reach}; each is at least 1."
            )
        if bins < 1 or bins % 2 == 0:
            raise UserError(f"spike representation guided: bins is {bins}; an odd number is needed.")
        self.sigmas, self.orders, self.bins, self.reach = list(sigmas), list(orders), bins, reach
        self.sums = weighted_sums if counted else weighted_rates
        self.channels = len(self.sigmas) + 1 + len(self.orders) + bins + 3

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        begin, end = gaussian_support(window.center, max(self.sigmas), length)
        reach = max(self.reach, len(window))
        return max(0, min(begin, window.center - reach)), min(length, max(end, window.center + reach))

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        exposure, last = len(window), len(spikes) - 1
        center = min(max(window.center, EDGE), last - EDGE) if last >= 2 * EDGE else window.center
        weights = np.stack(self._weights(window, center, len(spikes)))
        scale = (threshold / weights.sum(axis=1, dtype=np.float64)).astype(np.float32)
        rates = self.sums(spikes, weights) * scale[:, None, None]
        intervals = [interval_rate(spikes, center, order, self.reach) for order in self.orders]
        place = (window.center - window.begin + 0.5) / exposure
        constants = [threshold / exposure, place, math.log2(exposure) / 8]
        planes = [np.full(spikes.shape[1:], value, np.float32) for value in constants]
        gaussians = len(self.sigmas) + 1
        intensities = [interval * np.float32(threshold) for interval in intervals]
        return np.stack([*rates[:gaussians], *intensities, *rates[gaussians:], *planes])

    def _weights(self, window: ExposureWindow, center: int, length: int) -> list[np.ndarray]:
        """Integer weights (length,) of the Gaussians around `center`, the exposure's mean and the bins."""
        rows = [gaussian_weights(center, sigma, 0, length) for sigma in self.sigmas]
        exposed = np.zeros(length, np.float32)
        exposed[window.begin : window.end] = 1
        rows.append(exposed)
        # Neighbouring bins are two sigmas apart. A sigma below 1 would reduce a bin to a single frame.
        sigma = max(1.0, len(window) / (2 * self.bins))
        for number in range(self.bins):
            offset = (number - self.bins // 2) * len(window) / self.bins
            # Round away from 0, so that reversed time reverses the bins; clip to the stream, so that no bin is empty.
            shift = int(math.copysign(math.floor(abs(offset) + 0.5), offset))
            middle = min(max(center + shift, 0), length - 1)
            rows.append(gaussian_weights(middle, sigma, 0, length))
        return rows
