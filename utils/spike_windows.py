"""Spike frames as light, the input of networks (`models/network_spikling.py`), also beyond a stream's ends.

windows = SpikeWindows(stream, length=241, threshold=2.0, partial=True)
windows.moments                 # spike frames that can be the middle of a window
windows.around(40)              # (241,H,W) float32, the input for the picture at spike frame 40
"""

from functools import cached_property

import numpy as np

from utils.spike_loader import SpikeStream
from utils.user_error import UserError

MISSING = -1.0
"""Light of a frame outside its stream; negative, as no light is."""

WELL_LIT = 0.06  # mean rate of the pooled frames; below, fine motion is lost to noise anyway
POOLED = (1, 3, 5, 7)  # frames read as one; the shipped weights gain up to 7 at a rate of 0.01
RATED = 64  # frames that the mean rate is taken from


class SpikeWindows:
    """The windows of a stream that a network takes.

    Args:
        seq: (T,H,W) spikes, 0 or 1, or an open file of them, of which only the windows are read.
        length: W, spike frames of a window.
        threshold: of the camera: intensity = rate x threshold.
        partial: windows may reach outside the stream, as long as their middle does not; in little light several frames
            are then read as one (`pooled`).
    """

    def __init__(self, seq: np.ndarray | SpikeStream, length: int, threshold: float, partial: bool) -> None:
        self.seq, self.length, self.threshold, self.partial = seq, length, threshold, partial

    @property
    def moments(self) -> range:
        """Spike frames that a window can have as its middle, frame W // 2; empty if the stream is too short."""
        first = 0 if self.partial else self.length // 2
        return range(first, len(self.seq) if self.partial else len(self.seq) - self.length + first + 1)

    @cached_property
    def pooled(self) -> int:
        """Odd number of spike frames that are read as one: more than 1 in little light.

        A window then covers more time and has the firing rates that the network is best at. Streams that are no longer
        than the window stay as they are.
        """
        if not self.partial or len(self.seq) <= self.length:
            return 1
        frames, seq = np.linspace(0, len(self.seq) - 1, RATED).astype(int), self.seq
        single = (seq.get_block_spikes(int(f), 1) if isinstance(seq, SpikeStream) else seq[f] for f in frames)
        rate = float(np.mean([frame.mean() for frame in single]))
        return next((odd for odd in POOLED if odd * rate >= WELL_LIT), POOLED[-1])

    def around(self, moment: int) -> np.ndarray:
        """The window with spike frame `moment` as its middle, (W,H,W') float32, see `light_window`.

        Raises:
            UserError: the window reaches outside the stream.
        """
        start, moments = moment - self.length // 2, self.moments
        if moment not in moments:
            allowed = f"moments {moments[0]} to {moments[-1]}" if moments else "no moment: it is too short"
            raise UserError(
                f"the window [{start}, {start + self.length}) of moment {moment} reaches outside the stream's "
                f"[0, {len(self.seq)}); with windows of {self.length} frames it has {allowed}"
            )
        return light_window(self.seq, start, self.length, self.threshold, self.pooled)


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
