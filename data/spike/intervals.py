"""Firing rate from the time between spikes: the k-interval.

    rate = (2 k - 1) / (t of the k-th spike at or after c  -  t of the k-th spike before c)

k = 1 is TFI ("texture from interval"), k = 2 the second-order interval of Spike2Flow's and BSF's DSFT. The window
adapts to each pixel's brightness, so bright pixels stay sharp and dark ones quiet.
"""

import numpy as np


def interval_rate(spikes: np.ndarray, center: int, order: int, reach: int) -> np.ndarray:
    """The k-interval firing rate at the beginning of frame `center`, (h, w) float32 in [0, 1].

    A full side (k spikes within `reach` frames) counts k - 1/2 spikes over the time to the middle of its k-th spike's
    frame; a side with fewer counts all its spikes over all its frames. The rate is the spikes of both sides over the
    time of both: the formula above where both are full, 0 where no pixel fired.

    Args:
        spikes: (T, h, w) uint8.
        center: c; frames [c, c + reach) are the one side, [c - reach, c) the other, as far as they exist.
        order: k >= 1.
        reach: frames looked at on either side, >= 1.
    """
    after = spikes[center : center + reach]
    before = spikes[max(0, center - reach) : center][::-1]
    spikes_after, time_after = _half_spikes_and_time(after, order)
    spikes_before, time_before = _half_spikes_and_time(before, order)
    result: np.ndarray = (spikes_after + spikes_before) / (time_after + time_before)
    return result


def _half_spikes_and_time(walk: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Twice the spikes and twice the time of one side, (h, w) float32 integers; `walk` leads away from the centre."""
    integer = np.min_scalar_type(max(len(walk), order)).type
    seen = np.zeros(walk.shape[1:], integer)
    position = np.zeros(walk.shape[1:], integer)  # frames passed before the k-th spike's
    for frame in walk:
        seen += frame
        position += seen < order
    full = seen >= order
    spikes = np.where(full, np.float32(2 * order - 1), 2 * seen.astype(np.float32))
    time = np.where(full, 2 * position.astype(np.float32) + 1, np.float32(2 * len(walk)))
    return spikes, time
