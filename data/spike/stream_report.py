"""Measures a recording: firing rates, hot and dead pixels, and whether its bits and width are read correctly.

report = stream_report(stream)
python -m scripts.spikes info 000226.dat
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from utils.user_error import UserError

NEIGHBOURS = 5  # side of the neighbourhood whose median a hot or dead pixel is compared with: 25 pixels, mostly intact
HOT_EXCESS = 0.15  # least excess of a hot pixel's rate over the median, beyond noise; its rate is also twice the median
DEAD_SPIKES = 5  # least median spikes around a dead pixel: a dark pixel there would most likely have fired
DIFFERENCE = 0.02  # regular and independent pixels whose shares differ by less can't be distinguished
GEOMETRY_DOUBT = (
    0.45  # irregularity: at most 0.28 with the right size (3 photons a spike), at least 0.54 with a wrong one
)
WIDTH_DOUBT = 3.0  # roughness down the columns over that along the rows: about 1 in pictures of the right width


@dataclass(frozen=True)
class StreamReport:
    """Attributes:
    frames: T.
    rate: (h, w) float32, spikes per frame.
    mean_rate, lowest_rate, highest_rate: over pixels.
    consecutive: share of spikes followed by another in the next frame; near 0 for integrating pixels.
    hot, dead: (N, 2) row and column of pixels that fire far more often than their neighbours, or never.
    roughness: mean difference of the rate between neighbours: along rows; down columns; along rows with the most
        significant bit first (NaN if a frame isn't a whole number of bytes).
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
        """The bit order with which the picture is smoother along its rows: "little", "big" or "unknown"."""
        along, _, reordered = self.roughness
        if not (along > 0 and reordered > 0):
            return "unknown"
        return "little" if along <= reordered else "big"

    @property
    def irregularity(self) -> float:
        """How irregular the pixels' spikes are: about 0 for integrating pixels, 1 for independent spikes, as in frames
        cut at the wrong places; NaN if the rates don't distinguish the two.

        In an integrating pixel of rate r, the share of spikes followed by another in the next frame is (2r - 1) / r
        above r = 1/2, else 0; of independent spikes it is r.
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
        """Whether height or width is probably wrong: a pixel's spikes are as irregular as those of unrelated pixels."""
        return self.irregularity > GEOMETRY_DOUBT

    @property
    def width_in_doubt(self) -> bool:
        """Whether the width is probably wrong: the picture is far rougher down its columns than along its rows."""
        along, down, _ = self.roughness
        return down > WIDTH_DOUBT * along


def stream_report(blocks: Iterable[np.ndarray]) -> StreamReport:
    """Reads a stream once, block by block.

    Args:
        blocks: (t, h, w) uint8 0/1 as stored, not flipped; all frames or some.

    Returns:
        The report; rows are numbered as stored.

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
        UserError: a frame isn't a whole number of bytes: the padding bits, some of which would be pixels, are lost.
    """
    if stored[0].size % 8:
        raise UserError(
            f"frames of {stored.shape[1]}x{stored.shape[2]} pixels aren't a whole number of bytes: read the file again"
        )
    return stored.reshape(len(stored), -1, 8)[..., ::-1].reshape(stored.shape)
