"""Augmentation: one draw per sample, applied to blurred frames, sharp frames and (in space and time) spikes alike.

`Augmentation` changes the geometry, `Appearance` the light; `spike_augment.py` changes spikes alone.
The geometry only moves pixels, so it is exact, and it commutes with operations on single pixels, such as all spike
representations. Probabilities are KAIR's: horizontal flip 1/2 (`use_hflip`), vertical flip 1/2 and transposition 1/2
(`use_rot`), time reversal 1/2 (`random_reverse`).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

APPEARANCE, SPIKE_CHANGE, NOISE, RATIO, INSTANT = 1, 2, 3, 4, 5
"""Purposes with random generators separate from `sampler.sample_rng`, so that one purpose changes no other draw."""


def chance(entropy: tuple[int, ...], purpose: int, *further: int) -> np.random.Generator:
    """The random generator of one sample for one purpose; `entropy` is (seed, epoch, index)."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(purpose, *further)))


@dataclass(frozen=True)
class Appearance:
    """x becomes (x - 1/2) * contrast + 1/2 + brightness, cut to [0, 1]."""

    brightness: float = 0.0
    contrast: float = 1.0

    @classmethod
    def draw(cls, entropy: tuple[int, ...], *, brightness_jitter: float, contrast_jitter: float) -> "Appearance":
        """Draws brightness in [-jitter, jitter] and contrast in [1 - jitter, 1 + jitter]."""
        first, second = chance(entropy, APPEARANCE).uniform(-1, 1, 2)
        return cls(float(first) * brightness_jitter, 1 + float(second) * contrast_jitter)

    def apply(self, frames: Tensor) -> Tensor:
        """Changes frames in [0, 1], of any shape."""
        if self == Appearance():
            return frames
        return ((frames - 0.5) * self.contrast + (0.5 + self.brightness)).clamp_(0, 1)


@dataclass(frozen=True)
class Augmentation:
    """The geometry of one sample: flips, then transposition; and the direction of time."""

    hflip: bool = False
    vflip: bool = False
    transpose: bool = False
    reverse: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, *, use_hflip: bool, use_rot: bool, random_reverse: bool) -> "Augmentation":
        """Draws an augmentation. Disabled changes are drawn too, so that an option changes no other draw."""
        hflip, vflip, transpose, reverse = (bool(choice) for choice in rng.random(4) < 0.5)
        return cls(hflip and use_hflip, vflip and use_rot, transpose and use_rot, reverse and random_reverse)

    def space(self, array: np.ndarray, axes: tuple[int, int] = (-2, -1)) -> np.ndarray:
        """Flips and transposes the plane of `axes` (height, width).

        Args:
            array: (..., H, W) of any type; (..., H, W, C) with axes=(-3, -2).
            axes: the axes of height and width.

        Returns:
            A view of `array`; with `transpose`, height and width are swapped.
        """
        height, width = axes
        if self.hflip:
            array = np.flip(array, width)
        if self.vflip:
            array = np.flip(array, height)
        return np.swapaxes(array, height, width) if self.transpose else array

    def time(self, array: np.ndarray, axis: int = 0) -> np.ndarray:
        """Reverses the time axis if `reverse` is set; returns a view."""
        return np.flip(array, axis) if self.reverse else array
