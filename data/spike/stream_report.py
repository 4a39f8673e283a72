"""Measures a recording: firing rates, hot and dead pixels, and whether its bits and width are read correctly.

report = stream_report(stream)
python -m scripts.spikes info 000226.dat
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from utils.user_error import UserError

NEIGHBOURS = 5  # side of the neighbourhood whose median tells whether a pixel is hot or dead
HOT_EXCESS = 0.15  # a hot pixel's rate above the median, at least; it also has to be twice the median
DEAD_SPIKES = 5  # spikes of the median pixel around a dead one, so that the pixel is not merely dark
DIFFERENCE = 0.02  # of the shares that `irregularity` lies between, below which they can't be told apart
GEOMETRY_DOUBT = 0.45  # irregularity: at most 0.28 of right sizes (3 photons a spike), at least 0.54 of wrong ones
WIDTH_DOUBT = 3.0  # how many times rougher down the columns than along the rows


@dataclass(frozen=True)
class StreamReport:
    """Attributes:
    frames: T.
    rate: (h, w) float32, spikes per frame.
    mean_rate, lowest_rate, highest_rate: over pixels.
    consecutive: share of spikes that another follows in the next frame; near 0 for integrating pixels.
    hot, dead: (N, 2) row and column of pixels that fire far more often than those around, or never.
    roughness: mean difference of the rate between neighbours (along rows; down columns; along rows if the most
        significant bit came first, NaN where frames are no whole bytes).
    """

    frames: int
    rate: np.ndarray
    mean_rate: float
    lowest_rate: float
    highest_rate: float
    consecutive: float
    hot: np.ndarray
    dead: np.ndarray
    roughness: tuple[float, float, float]

    @property
    def bit_order(self) -> str:
        """The order of bits in which the picture is smoother along its rows: "little", "big" or "unknown"."""
        along, _, reordered = self.roughness
        if not (along > 0 and reordered > 0):
            return "unknown"
        return "little" if along <= reordered else "big"

    @property
    def irregularity(self) -> float:
        """How far the spikes of a pixel are from regular: about 0 of pixels that integrate, 1 of independent spikes, as
        of frames that are cut at the wrong places; NaN where the rates are such that both look alike.

        An integrating pixel of rate r fires in consecutive frames only above r = 1/2, with a share of (2r - 1) / r of
        its spikes; an independent one with a share of r.
        """
        rate = self.rate.astype(np.float64)
        spikes = max(float(rate.sum()), 1e-9)
        regular = float(np.maximum(0, 2 * rate - 1).sum()) / spikes
        independent = float((rate * rate).sum()) / spikes
        if independent - regular < DIFFERENCE:
            return float("nan")
        return (self.consecutive - regular) / (independent - regular)

    @property
    def geometry_in_doubt(self) -> bool:
        """The spikes follow one another as those of unrelated pixels do: height or width is probably another."""
        return self.irregularity > GEOMETRY_DOUBT

    @property
    def width_in_doubt(self) -> bool:
        """The picture is so much rougher down its columns that its width is probably another."""
        along, down, _ = self.roughness
        return down > WIDTH_DOUBT * along


def stream_report(blocks: Iterable[np.ndarray]) -> StreamReport:
    """Reads a stream once, block by block.

    Args:
        blocks: (t, h, w) uint8 0/1 as stored, not flipped; of all frames or of those of interest.

    Returns:
        The report; rows count as stored.

    Raises:
        ValueError: no blocks.
    """
    frames = followed = 0
    counts: np.ndarray | None = None
    last: np.ndarray | None = None
    for block in blocks:
        counts = np.zeros(block.shape[1:], np.int64) if counts is None else counts
        counts += block.sum(axis=0, dtype=np.int64)
        followed += int(np.count_nonzero(block[1:] & block[:-1]))
        if last is not None:
            followed += int(np.count_nonzero(block[0] & last))
        last = block[-1]
        frames += len(block)
    if counts is None:
        raise ValueError("there is no spike frame to report on")
    rate = (counts / frames).astype(np.float32)
    around = cv2.medianBlur(rate, NEIGHBOURS) if min(rate.shape) > 1 else rate
    return StreamReport(
        frames=frames,
        rate=rate,
        mean_rate=float(counts.mean() / frames),
        lowest_rate=float(rate.min()),
        highest_rate=float(rate.max()),
        consecutive=followed / max(int(counts.sum()), 1),
        hot=np.argwhere(rate - around > np.maximum(HOT_EXCESS, around)),
        dead=np.argwhere((counts == 0) & (around * frames >= DEAD_SPIKES)),
        roughness=_roughness(rate),
    )


def _roughness(rate: np.ndarray) -> tuple[float, float, float]:
    along = float(np.abs(np.diff(rate, axis=1)).mean()) if rate.shape[1] > 1 else 0.0
    down = float(np.abs(np.diff(rate, axis=0)).mean()) if rate.shape[0] > 1 else 0.0
    if rate.size % 8 or rate.shape[1] < 2:
        return along, down, float("nan")
    return along, down, float(np.abs(np.diff(reversed_bits(rate[None])[0], axis=1)).mean())


def reversed_bits(stored: np.ndarray) -> np.ndarray:
    """Spikes (T, h, w) as stored, read with the most significant bit of each byte first.

    Raises:
        UserError: frames that are no whole number of bytes have bits that are not known.
    """
    if stored[0].size % 8:
        raise UserError(f"frames of {stored.shape[1]}x{stored.shape[2]} pixels are no whole bytes: read the file again")
    return stored.reshape(len(stored), -1, 8)[..., ::-1].reshape(stored.shape)
