"""Spike channels at another resolution, by whole factors: crops and flips of the result are exact.

Test: `python -m pytest tests/data/test_dataset_video_rgbspike.py`.
"""

import numpy as np


def enlarge(padded: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear enlargement by a whole factor, with pixel centres at half coordinates.

    Computed by products and sums of slices in a symmetric order, so that results of crops, flips and transpositions are
    equal bit for bit, which a library's vectorised loops do not guarantee.

    Args:
        padded: (..., h + 2, w + 2) float32, the image with a border of one pixel.
        factor: 1 or more.

    Returns:
        (..., h * factor, w * factor) float32.
    """
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    result = np.empty((*padded.shape[:-2], height * factor, width * factor), np.float32)

    def part(top: int, left: int) -> np.ndarray:
        return padded[..., top : top + height, left : left + width]

    # Frame pixel `phase` of a spike pixel lies between it (index 1 in the padded array) and the one before (0) or after
    # (2). Offsets are measured from the spike pixel's centre, in half frame pixels.
    offsets = [2 * phase + 1 - factor for phase in range(factor)]
    phases = [(2 if offset > 0 else 0, np.float32(abs(offset) / (2 * factor))) for offset in offsets]
    for row, (far_row, row_weight) in enumerate(phases):
        for column, (far_column, column_weight) in enumerate(phases):
            near = part(1, 1) * ((1 - row_weight) * (1 - column_weight))
            diagonal = part(far_row, far_column) * (row_weight * column_weight)
            vertical = part(far_row, 1) * (row_weight * (1 - column_weight))
            horizontal = part(1, far_column) * ((1 - row_weight) * column_weight)
            result[..., row::factor, column::factor] = (near + diagonal) + (vertical + horizontal)
    return result


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean over factor x factor pixels: (..., h * factor, w * factor) to (..., h, w) float32."""
    parts = [image[..., row::factor, column::factor] for row in range(factor) for column in range(factor)]
    total = np.zeros_like(parts[0])
    for part in parts:
        total += part
    return total / np.float32(factor**2)
