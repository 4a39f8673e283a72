"""Finds near-duplicate pictures: perceptual hashes of 64 bits, whose distance is the number of differing bits.

    distances(hashes_of(test_frames), hashes_of(training_frames)).min(1)

A bit of the hash is whether one of the 64 lowest frequencies of the picture's gray values at 32 x 32 exceeds their
median (pHash: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). Size, compression
and brightness hardly change the hash, a crop does. Hashes of unrelated pictures differ in about 32 bits.
"""

from collections.abc import Iterable

import cv2
import numpy as np

SIDE = 32  # of the gray picture that is transformed, as in pHash
KEPT = 8  # frequencies per axis, as in pHash
SAME = 6  # most differing bits of near-duplicates: far below the 32 of unrelated pictures


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """The hash of a uint8 picture (H,W,3) RGB: (8,) uint8, 64 bits."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    spectrum = cv2.dct(small)[:KEPT, :KEPT].flatten()
    # The first frequency is the mean brightness, which would shift the median.
    return np.packbits(spectrum > np.median(spectrum[1:]))


def hashes_of(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Hashes (N,8) uint8 of pictures."""
    found = [perceptual_hash(picture) for picture in pictures]
    return np.stack(found) if found else np.empty((0, KEPT), np.uint8)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,M) int: bits in which hashes (N,8) and (M,8) differ."""
    result: np.ndarray = np.stack([np.unpackbits(row ^ second, axis=1).sum(1, dtype=np.int64) for row in first])
    return result
