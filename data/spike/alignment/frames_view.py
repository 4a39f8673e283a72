"""Frames as an alignment looks at them: gray, at a size to work with, saturated pixels marked.

view = View.of(frames, indices, size=(64, 80))       # (K,64,80) gray, and which pixels can be compared
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data.spike.simulation.exposures import LUMA
from data.spike.simulation.simulate import LINEAR_OF_BYTE, LUMINANCE

BLACK, WHITE = 2, 250  # stored values at and beyond which a channel may be cut off
WHOLE = 0.999  # of a pixel's area that is not cut off


@dataclass(frozen=True)
class View:
    """Some frames of a clip.

    Attributes:
        indices: (K,) their numbers in the clip.
        gray: (K,h,w) float32 in [0,1]: BT.601 of stored values, or luminance of linear light.
        valid: (K,h,w) bool, no part of the pixel is saturated.
        covered: rows and columns of the frames that are seen, from their upper left corner.
    """

    indices: np.ndarray
    gray: np.ndarray
    valid: np.ndarray
    covered: tuple[float, float]

    @classmethod
    def of(cls, frames: np.ndarray, indices: Sequence[int], size: tuple[int, int], linear: bool = False) -> "View":
        """
        Args:
            frames: (K,H,W,3) uint8 RGB.
            size: (h, w) to which they are averaged.
            linear: undo the sRGB curve.
        """
        planes, valid = [], []
        for frame in frames:
            gray = LINEAR_OF_BYTE[frame] @ LUMINANCE.astype(np.float32) if linear else frame @ LUMA / np.float32(255)
            cut = ((frame >= WHITE).any(-1) | (frame <= BLACK).all(-1)).astype(np.float32)
            planes.append(cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA))
            valid.append(cv2.resize(1 - cut, size[::-1], interpolation=cv2.INTER_AREA) > WHOLE)
        height, width = frames.shape[1:3]
        return cls(np.asarray(indices), np.stack(planes), np.stack(valid), (float(height), float(width)))

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.gray.shape[1], self.gray.shape[2]

    def chosen(self, numbers: Sequence[int]) -> "View":
        """Some of them, by their place in this view."""
        return View(self.indices[numbers], self.gray[numbers], self.valid[numbers], self.covered)

    def shrunk(self, factor: int) -> "View":
        """Means of `factor` x `factor` pixels."""
        if factor == 1:
            return self
        count, height, width = len(self.gray), self.size[0] // factor, self.size[1] // factor
        gray, valid = (
            part[:, : height * factor, : width * factor].reshape(count, height, factor, width, factor)
            for part in (self.gray, self.valid)
        )
        rows, columns = height * factor / self.size[0], width * factor / self.size[1]
        covered = self.covered[0] * rows, self.covered[1] * columns
        return View(self.indices, gray.mean((2, 4)), np.asarray(valid.all((2, 4))), covered)
