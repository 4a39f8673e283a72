"""Noise of real spike pixels: shot noise, dark current, spread of gain and threshold, faulty pixels.

    noise = PixelNoise(SensorNoise(photons=200, dark_current=0.01, hot_pixels=1e-4), (250, 400), rng)
    sensor = IntegrateAndFire((250, 400), threshold=2.0, noise=noise)

Light is measured in shares of white. In each pixel, a frame's light L becomes

    (Poisson(photons (L + dark)) / photons) * gain            without `photons`: (L + dark) * gain

and the pixel fires at its own threshold. Random numbers are drawn frame by frame, so that the result does not depend on
the pieces in which a stream is simulated; numpy draws them, also for sensors on GPUs.
"""

import math
from dataclasses import dataclass

import numpy as np

from utils.user_error import UserError

HOT_CURRENT = (0.5, 1.0)  # dark current of hot pixels, in shares of white: added to light, the rate is near its maximum


@dataclass(frozen=True)
class SensorNoise:
    """Amounts of noise; none by default.

    Attributes:
        photons: a white pixel's photons per spike frame; None: no shot noise.
        dark_current: signal without light, in shares of white.
        gain_spread, threshold_spread: standard deviation between pixels, in shares of the mean.
        hot_pixels, dead_pixels: share of pixels with a large dark current (HOT_CURRENT), and of those that never fire.
        spurious: probability of a spike in a frame in which the pixel does not fire.

    Raises:
        UserError: a value out of range.
    """

    photons: float | None = None
    dark_current: float = 0.0
    gain_spread: float = 0.0
    threshold_spread: float = 0.0
    hot_pixels: float = 0.0
    dead_pixels: float = 0.0
    spurious: float = 0.0

    def __post_init__(self) -> None:
        if self.photons is not None and not 0 < self.photons < math.inf:
            raise UserError(f"noise: photons is {self.photons}; a number above 0 is needed")
        for name in ("dark_current", "gain_spread", "threshold_spread", "hot_pixels", "dead_pixels", "spurious"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"noise: {name} is {getattr(self, name)}; a number in [0, 1] is needed")


class PixelNoise:
    """The noise of one sensor.

    Args:
        model: the amounts of noise.
        shape: (h, w).
        rng: draws the pixels' properties at once, and each frame's noise later.

    Attributes:
        gain, threshold: (h, w) factors of each pixel, mean 1, at least 0.05.
        dark: (h, w) dark current in shares of white.
        hot, dead: (h, w) bool.
    """

    def __init__(self, model: SensorNoise, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self.model, self._rng = model, rng
        self.gain, self.threshold = (
            np.maximum(1 + spread * rng.standard_normal(shape), 0.05)
            for spread in (model.gain_spread, model.threshold_spread)
        )
        kind = rng.random(shape)
        self.hot = kind < model.hot_pixels
        self.dead = kind >= 1 - model.dead_pixels
        self.dark = model.dark_current + self.hot * rng.uniform(*HOT_CURRENT, shape)

    def light(self, light: np.ndarray) -> np.ndarray:
        """Light (h, w) integrated by the pixels in a frame, from the scene's light; both in shares of white."""
        seen = light + self.dark
        if self.model.photons is not None:
            seen = self._rng.poisson(self.model.photons * seen) / self.model.photons
        return seen * self.gain

    def readout(self, fired: np.ndarray) -> np.ndarray:
        """A frame of spikes (h, w) bool with spurious spikes added and those of dead pixels removed."""
        if self.model.spurious:
            fired = fired | (self._rng.random(fired.shape) < self.model.spurious)
        return fired & ~self.dead
