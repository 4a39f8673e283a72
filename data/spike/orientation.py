"""Does a stream lie on the picture it belongs to: which way up, which order of bits, which spike frame?

    rows = orientation_scores(stream, gray, range(20, 61, 4))   # best first
    scores = center_scores(stream, gray, range(88))             # highest at the picture's spike frame

What is compared is edges (Laplacians): the wrong order of bits only shuffles pixels within groups of 8, and still has a
correlation of 0.92 in brightness, but none in edges.

    python -m scripts.spikes check 000226.dat --picture 000226.png
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data.spike.reconstruction.methods import GaussianRate
from data.spike.reconstruction.reconstruct import reconstruct_frames
from data.spike.stream_report import reversed_bits
from utils.spike_loader import SpikeStream

METHOD = GaussianRate(6.0)


@dataclass(frozen=True)
class Orientation:
    """One way to read a file, and how well it agrees with a picture.

    Attributes:
        bit_order: "little" (least significant bit first, as in every known camera and data set) or "big".
        flip: "none" (rows stored top-down), "up-down" (bottom-up), "left-right" or "both".
        correlation: of brightness.
        edge_correlation: of edges.
    """

    bit_order: str
    flip: str
    correlation: float
    edge_correlation: float


def gray_at_size(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, (H,W,3) RGB or (H,W) uint8, as gray in [0,1] of (h, w), each pixel the mean of what it covers."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    return cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two pictures; 0 where one is constant."""
    first, second = (plane.astype(np.float64) - plane.mean(dtype=np.float64) for plane in (first, second))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def edge_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the Laplacians of two float32 pictures."""
    return correlation(cv2.Laplacian(first, cv2.CV_32F), cv2.Laplacian(second, cv2.CV_32F))


def orientation_scores(stream: SpikeStream, gray: np.ndarray, times: Sequence[int]) -> list[Orientation]:
    """All eight ways to read the file, compared with a picture; the best by edges first.

    Where frames are no whole bytes, bits cannot be reversed and only four are left.

    Args:
        gray: (h, w) float32, the scene at about one of the spike frames `times`; the best of them counts.
    """
    begin, end = METHOD.support(min(times), len(stream))[0], METHOD.support(max(times), len(stream))[1]
    stored = stream.get_block_spikes(begin, end - begin, flipud=False)
    best: dict[tuple[str, str], Orientation] = {}
    for bit_order in ("little",) if stored[0].size % 8 else ("little", "big"):
        spikes = stored if bit_order == "little" else reversed_bits(stored)
        for upright in reconstruct_frames(spikes, METHOD, [time - begin for time in times]):
            flipped = {"none": upright, "up-down": upright[::-1], "left-right": upright[:, ::-1]}
            for flip, picture in (flipped | {"both": upright[::-1, ::-1]}).items():
                picture = np.ascontiguousarray(picture)
                row = Orientation(bit_order, flip, correlation(picture, gray), edge_correlation(picture, gray))
                known = best.setdefault((bit_order, flip), row)
                if row.edge_correlation > known.edge_correlation:
                    best[bit_order, flip] = row
    return sorted(best.values(), key=lambda row: -row.edge_correlation)


def center_scores(stream: SpikeStream, gray: np.ndarray, times: Sequence[int]) -> np.ndarray:
    """Edge correlation of the scene at each of `times` with a picture (h, w) float32; float64."""
    pictures = reconstruct_frames(stream, METHOD, times)
    return np.array([edge_correlation(picture, gray) for picture in pictures])
