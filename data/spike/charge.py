"""Representations by the rates between spikes (`utils/charge.py`), which have a fraction of the noise of counting.

"spike": {"representation": "charge", "sigma": 4.0}
"""

import numpy as np
import torch

from data.spike.frame_sums import integer_weights
from data.spike.reconstruction.methods import ChargeRate
from data.spike.sync import ExposureWindow
from data.spike.weighted_rates import rates_support, weighted_rate_planes
from utils.user_error import UserError
from utils.utils_registry import REPRESENTATIONS


@REPRESENTATIONS.register("charge")
class Charge:
    """Firing rate x threshold around the exposure's centre: `ChargeRate` of data/spike/reconstruction/methods.py.

    Args:
        sigma: of the Gaussian, in spike frames, cut at 4 sigma.
        reach: longest interval, in spike frames; longer ones have the rate 0.
    """

    channels = 1
    brightness_true = True

    def __init__(self, *, sigma: float = 4.0, reach: int = 512) -> None:
        try:
            self.method = ChargeRate(sigma, reach)
        except UserError as fault:
            raise UserError(f"spike representation {fault}.") from fault

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        return self.method.support(window.center, length)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        begin, end = self.support(window, len(spikes))
        block = torch.from_numpy(np.ascontiguousarray(spikes[begin:end]))
        (rate,) = self.method.block_rates(block, [window.center - begin])
        result: np.ndarray = (rate * threshold)[None].numpy()  # (1,h,w)
        return result


@REPRESENTATIONS.register("charge_count")
class ChargeCount:
    """Firing rate x threshold over the exposure, the mean of the rates between spikes: `count` with less noise.

    Args:
        reach: longest interval, in spike frames; longer ones have the rate 0.
    """

    channels = 1
    brightness_true = True

    def __init__(self, *, reach: int = 512) -> None:
        Charge(reach=reach)  # which checks it
        self.reach = reach

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        return rates_support(window.begin, window.end, self.reach, length)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        begin, end = self.support(window, len(spikes))
        block = torch.from_numpy(np.ascontiguousarray(spikes[begin:end]))
        weights = integer_weights([1.0] * len(window))
        sums = weighted_rate_planes(block, weights[None], window.begin - begin, self.reach)
        result: np.ndarray = sums.numpy() * np.float32(threshold / weights.sum(dtype=np.float64))  # (1,h,w)
        return result
