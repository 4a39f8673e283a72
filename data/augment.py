"""Geometric augmentation: one draw per sample, applied alike to blurred frames, sharp frames and spikes.

Every operation only moves pixels, so it is exact, and it commutes with whatever treats each pixel alone
(all spike representations). Drawn with the same chances as KAIR: horizontal flip 1/2 (`use_hflip`),
vertical flip 1/2 and transposition 1/2 (`use_rot`), time reversal 1/2 (`random_reverse`).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """The geometry of one sample: flips, then transposition; and the direction of time."""

    hflip: bool = False
    vflip: bool = False
    transpose: bool = False
    reverse: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, *, use_hflip: bool, use_rot: bool, random_reverse: bool) -> "Augmentation":
        """Draws one; what is switched off is still drawn, so that switches don't change the other choices."""
        hflip, vflip, transpose, reverse = (bool(choice) for choice in rng.random(4) < 0.5)
        return cls(hflip and use_hflip, vflip and use_rot, transpose and use_rot, reverse and random_reverse)

    def space(self, array: np.ndarray, axes: tuple[int, int] = (-2, -1)) -> np.ndarray:
        """Flips and transposes the plane of `axes` (height, width).

        Args:
            array: (..., H, W) of any type; (..., H, W, C) with axes=(-3, -2).
            axes: the axes of height and width.

        Returns:
            A view of `array`; height and width change places where `transpose` is set.
        """
        height, width = axes
        if self.hflip:
            array = np.flip(array, width)
        if self.vflip:
            array = np.flip(array, height)
        return np.swapaxes(array, height, width) if self.transpose else array

    def time(self, array: np.ndarray, axis: int = 0) -> np.ndarray:
        """Reverses the time axis where `reverse` is set; a view."""
        return np.flip(array, axis) if self.reverse else array
