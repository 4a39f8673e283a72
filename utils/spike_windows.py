"""Spike frames as light, the input of networks (`models/network_spikling.py`), also beyond a stream's ends."""

import numpy as np

from utils.spike_loader import SpikeStream

MISSING = -1.0
"""Light of a frame outside its stream; negative, as no light is."""


def light_window(seq: np.ndarray | SpikeStream, start: int, length: int, threshold: float) -> np.ndarray:
    """Frames [start, start + length) of a stream, (length,H,W) float32: spikes times threshold, MISSING outside.

    Args:
        seq: (T,H,W) spikes, 0 or 1, or an open file of them, of which only these frames are read.
        start: may be negative; at least one frame must be in the stream.
        threshold: the camera's; intensity = rate x threshold.
    """
    first, last = max(start, 0), min(start + length, len(seq))
    assert first < last, (start, length, len(seq))
    block = seq.get_block_spikes(first, last - first) if isinstance(seq, SpikeStream) else seq[first:last]
    window = np.full((length, *block.shape[1:]), MISSING, np.float32)
    np.multiply(block, np.float32(threshold), out=window[first - start : last - start], dtype=np.float32)
    return window
