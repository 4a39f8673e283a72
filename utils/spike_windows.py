"""Spike frames as light, the input of networks (`models/network_spikling.py`), also beyond a stream's ends."""

import numpy as np

from utils.spike_loader import SpikeStream

MISSING = -1.0
"""Light of a frame outside its stream; negative, as no light is."""


def light_window(
    seq: np.ndarray | SpikeStream, start: int, length: int, threshold: float, pooled: int = 1
) -> np.ndarray:
    """Frames [start, start + length) of a stream, (length,H,W) float32: spikes times the threshold, MISSING outside.

    Args:
        seq: (T,H,W) spikes, 0 or 1, or an open file, of which only the window is read.
        start: may be negative; the middle frame, start + length // 2, is in the stream.
        threshold: of the camera: intensity = rate x threshold.
        pooled: odd number of frames that are read as one, around the same middle: 1 where any of them has a spike.
    """
    middle = start + length // 2
    begin = middle - pooled * (length // 2) - pooled // 2
    # Frames of the window that lie in the stream as a whole; the middle one always counts.
    first = max(0, min(-(begin // pooled), length // 2))
    last = min(length, max((len(seq) - begin) // pooled, length // 2 + 1))
    low, high = max(0, begin + first * pooled), min(len(seq), begin + last * pooled)
    assert low <= middle < high, (start, length, len(seq))
    block = seq.get_block_spikes(low, high - low) if isinstance(seq, SpikeStream) else np.asarray(seq[low:high])
    window = np.full((length, *block.shape[1:]), MISSING, np.float32)
    if pooled > 1:
        offsets = np.maximum(np.arange(first, last) * pooled + begin, low) - low
        block = np.maximum.reduceat(block, offsets, axis=0)
    np.multiply(block, np.float32(threshold / pooled), out=window[first:last], dtype=np.float32)
    return window
