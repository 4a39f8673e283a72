"""What the exposure blurred away, as the spikes saw it: the moment at its centre against the whole of it.

    sharp - blurred  is about  rate around the centre - rate over the exposure

The additive form of the spike-guided deblurring model (SDM; Chen et al., SpikeReveal, 2024), which takes the quotient.
As an input to a network it is nearly the residual to be learned, so short trainings profit most. Scale it to about one
with `"spike_normalize": {"mean": [0, 0], "std": [1, 0.1]}`.
"""

import numpy as np

from data.spike.representations import Count, Gaussian
from data.spike.sync import ExposureWindow
from utils.utils_registry import REPRESENTATIONS


@REPRESENTATIONS.register("contrast")
class Contrast:
    """Two channels: `gaussian`, and `gaussian` minus `count`; each rate x threshold.

    Args:
        sigma: of the Gaussian around the exposure's centre, in spike frames.
    """

    channels = 2
    brightness_true = True
    value_range = "[0, threshold]; difference [-threshold, threshold]"

    def __init__(self, *, sigma: float = 6.0) -> None:
        self.moment, self.whole = Gaussian(sigma=sigma), Count()

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        begin, end = self.moment.support(window, length)
        return min(begin, window.begin), max(end, window.end)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        sharp, blurred = (part(spikes, window, threshold) for part in (self.moment, self.whole))
        return np.concatenate([sharp, sharp - blurred])
