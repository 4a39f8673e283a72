"""The light that a spike camera's pixels have gathered up to any time, at a size to work with.

    charge = Charge.read(stream, side=160)
    charge.mean(begin, end)          # firing rate over [begin, end), (h, w) float32
    charge.shrunk(2)                 # the same at half the size

A pixel's charge has risen by one threshold at every spike, and between two spikes it rises evenly: so a mean over an
exposure is known far better than to a whole spike. Spike frame t covers the time [t, t + 1), and its spike is taken for
the middle of it.
Test: `python -m pytest tests/data/spike/alignment`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

AT_ONCE = 1 << 23  # spikes decoded at a time, 8 MB


class Stream(Protocol):
    """What is read of a spike stream (`utils.spike_loader.SpikeStream`)."""

    spike_h: int
    spike_w: int

    def __len__(self) -> int: ...

    def crop(self, begin: int, length: int, top: int, left: int, h: int, w: int) -> np.ndarray:
        """(length, h, w) uint8."""
        ...


@dataclass(frozen=True)
class Charge:
    """Cumulated firing rates of a part of a stream.

    Attributes:
        begin: the part's first spike frame.
        total: (L + 1, h, w) float32, spikes per pixel from there to spike frame begin + step * index.
        step: spike frames from one entry to the next.
        shrink: stream pixels per pixel and axis; those that are left over on the right and below are not seen.
    """

    begin: int
    total: np.ndarray
    step: int
    shrink: int

    @classmethod
    def read(cls, stream: Stream, side: int, begin: int = 0, end: int | None = None, step: int = 1) -> "Charge":
        """Reads spike frames [begin, end) of a stream, as many as make whole steps.

        Args:
            side: pixels of the longer side, at most.
            step: spike frames between the times at which the charge is kept.
        """
        shrink = max(1, -(-max(stream.spike_h, stream.spike_w) // side))
        height, width = stream.spike_h // shrink, stream.spike_w // shrink
        steps = ((len(stream) if end is None else end) - begin) // step
        total = np.zeros((steps + 1, height, width), np.float32)
        rows = max(1, AT_ONCE // (steps * step * width * shrink * shrink))
        for top in range(0, height, rows):
            count = min(rows, height - top)
            spikes = stream.crop(begin, steps * step, top * shrink, 0, count * shrink, width * shrink)
            gathered = charges(spikes)[::step]
            total[:, top : top + count] = gathered.reshape(steps + 1, count, shrink, width, shrink).mean((2, 4))
        return cls(begin, total, step, shrink)

    @property
    def end(self) -> int:
        """Spike frame after the last."""
        return self.begin + (len(self.total) - 1) * self.step

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.total.shape[1], self.total.shape[2]

    @property
    def covered(self) -> tuple[int, int]:
        """Rows and columns of the stream that are seen."""
        return self.size[0] * self.shrink, self.size[1] * self.shrink

    def at(self, time: float) -> np.ndarray:
        """Charge at a time, (h, w); that of the beginning or end outside the part."""
        place = min(max((time - self.begin) / self.step, 0.0), len(self.total) - 1.0)
        index = min(int(place), len(self.total) - 2)
        share = np.float32(place - index)
        result: np.ndarray = self.total[index] + share * (self.total[index + 1] - self.total[index])
        return result

    def mean(self, begin: float, end: float) -> np.ndarray:
        """Firing rate over [begin, end), (h, w)."""
        result: np.ndarray = (self.at(end) - self.at(begin)) / np.float32(end - begin)
        return result

    def shrunk(self, factor: int) -> "Charge":
        """Means of `factor` x `factor` pixels."""
        if factor == 1:
            return self
        height, width = self.size[0] // factor, self.size[1] // factor
        cut = self.total[:, : height * factor, : width * factor]
        small = cut.reshape(len(cut), height, factor, width, factor).mean((2, 4))
        return Charge(self.begin, small, self.step, self.shrink * factor)


def charges(spikes: np.ndarray) -> np.ndarray:
    """Charge of each pixel at the beginning of each frame and at the end of the last, (T + 1, h, w) float32.

    A pixel that has fired n times by then, last at time a and next at time b, has the charge n + (t - a) / (b - a);
    before the first spike and after the last one it has n + 1/2.

    Args:
        spikes: (T, h, w) uint8 0/1.
    """
    length = len(spikes)
    clock = np.arange(length, dtype=np.float32)[:, None, None]
    fired = spikes.astype(bool)
    far = np.float32(4 * length)
    before = np.full((length + 1, *spikes.shape[1:]), -far, np.float32)
    np.maximum.accumulate(np.where(fired, clock, -far), axis=0, out=before[1:])
    after = np.full_like(before, far)
    np.minimum.accumulate(np.where(fired, clock, far)[::-1], axis=0, out=after[-2::-1])
    interval = after - before
    share = (np.arange(length + 1, dtype=np.float32)[:, None, None] - np.float32(0.5) - before) / interval
    total = np.zeros_like(before)
    np.cumsum(spikes, axis=0, dtype=np.float32, out=total[1:])
    total += np.where(interval < length, share, np.float32(0.5))
    return total
