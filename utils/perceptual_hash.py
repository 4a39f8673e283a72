"""Finds pictures that show the same: perceptual hashes of 64 bits, whose distance is the number of bits that differ.

    distances(hashes_of(test_frames), hashes_of(training_frames)).min(1)

A hash holds the signs of the 64 lowest frequencies of the picture's gray values at 32 x 32, against their median
(pHash: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). It survives another size,
compression and brightness; not a crop. Two pictures that have nothing in common differ in about 32 bits.
"""

from collections.abc import Iterable

import cv2
import numpy as np

SIDE = 32  # of the gray picture whose spectrum is taken
KEPT = 8  # frequencies per axis
SAME = 6  # bits: pictures that differ in at most so many show the same


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """The hash of a uint8 picture (H,W,3) RGB: (8,) uint8, 64 bits."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    spectrum = cv2.dct(small)[:KEPT, :KEPT].flatten()
    # The first one is the mean brightness, which says nothing and would move the median.
    return np.packbits(spectrum > np.median(spectrum[1:]))


def hashes_of(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Hashes (N,8) uint8 of pictures."""
    found = [perceptual_hash(picture) for picture in pictures]
    return np.stack(found) if found else np.empty((0, KEPT), np.uint8)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,M) int: bits in which hashes (N,8) and (M,8) differ."""
    result: np.ndarray = np.stack([np.unpackbits(row ^ second, axis=1).sum(1, dtype=np.int64) for row in first])
    return result
