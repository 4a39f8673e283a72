"""Confidence intervals of means over clips by the bootstrap, and errors by speed of motion.

    low, high = bootstrap_interval(psnr_of_clips, sources)

The bootstrap (Efron, 1979) draws sources with replacement, with all clips of a source: clips of one scene under
different conditions are not independent, and the interval would be too narrow if they were drawn separately.
"""

from collections.abc import Sequence

import numpy as np

from utils.evaluation.metrics import PEAK, optical_flow

DRAWS = 2000  # enough for two digits of a 95 % interval
LEVEL = 0.95  # the usual confidence level
PATCH = 16  # pixels: larger than the flow's errors at edges, smaller than most objects
SPEEDS = (0.5, 1.0, 2.0, 4.0, 8.0)  # upper bounds of the bins, in pixels per frame; one more bin is above the last


def bootstrap_interval(values: Sequence[float], sources: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of the mean of clips' values by the percentile bootstrap over sources.

    Args:
        values: one for each clip.
        sources: the source of each clip.
    """
    names = sorted(set(sources))
    place = np.array([names.index(source) for source in sources])
    sums = np.bincount(place, weights=np.asarray(values, np.float64))
    counts = np.bincount(place)
    # The same draws for all numbers, so that differences of methods are paired.
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    # Without interpolation, which is NaN between infinite PSNRs, those of equal pictures.
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return float(low), float(high)


class SpeedErrors:
    """Squared errors of patches by the scene's speed there.

    Attributes:
        squares: (bins,) sums of mean squared errors.
        patches: (bins,) numbers of patches.
    """

    def __init__(self) -> None:
        self.squares = np.zeros(len(SPEEDS) + 1)
        self.patches = np.zeros(len(SPEEDS) + 1, np.int64)

    def add(self, restored: np.ndarray, sharp: np.ndarray, sharp_before: np.ndarray) -> None:
        """Adds a frame: uint8 (H,W,3) RGB each; the speed is measured from the sharp frame before."""
        speed = np.linalg.norm(optical_flow(sharp_before, sharp), axis=2)  # (H,W)
        error = ((restored.astype(np.float64) - sharp) ** 2).mean(2)  # (H,W)
        bins = np.digitize(_patch_means(speed), SPEEDS).ravel()
        self.squares += np.bincount(bins, weights=_patch_means(error).ravel(), minlength=len(self.squares))
        self.patches += np.bincount(bins, minlength=len(self.patches))

    def psnr(self) -> list[float | None]:
        """PSNR in dB of the patches of each bin; None for a bin without patches or without error."""
        kept = (self.patches > 0) & (self.squares > 0)
        means = self.squares / np.maximum(self.patches, 1)
        return [
            float(20 * np.log10(PEAK / np.sqrt(mean))) if used else None for mean, used in zip(means, kept, strict=True)
        ]


def speed_names() -> list[str]:
    """Names of the bins."""
    lower = (0.0, *SPEEDS)
    return [*(f"{low:g} to {high:g}" for low, high in zip(lower, SPEEDS, strict=False)), f"above {SPEEDS[-1]:g}"]


def _patch_means(plane: np.ndarray) -> np.ndarray:
    """Means of whole patches: (H,W) to (H // 16, W // 16)."""
    rows, columns = (side // PATCH for side in plane.shape)
    cut = plane[: rows * PATCH, : columns * PATCH]
    result: np.ndarray = cut.reshape(rows, PATCH, columns, PATCH).mean((1, 3))
    return result
